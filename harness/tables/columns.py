"""Which figures of a family table.md shows; details.md has all of them.

At most ten of each: those that carry verdicts, those named here, then as they come.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.tables.table import Figure, Table

MOST = 10
TIMED = "measured time and memory"

_MAIN = {
    "loss": (
        "bits_per_byte spliced_bits_per_byte splice_cost spliced_kl carried carried_mean recovered recovered_mean "
        "units_zeroed_bits_per_byte rest_zeroed_bits_per_byte"
    ),
    "kept": (
        "l0 l0_of_units bits_per_byte_k1 bits_per_byte_k2 bits_per_byte_k4 bits_per_byte_k8 bits_per_byte_k16 "
        "bits_per_byte_k32 bits_per_byte_k64 bits_per_byte_all"
    ),
    "kept_controls": (
        "rotated_l0 rotated_bits_per_byte_k1 rotated_bits_per_byte_k4 rotated_bits_per_byte_k16 "
        "rotated_bits_per_byte_k64 components_l0 components_bits_per_byte_k1 components_bits_per_byte_k4 "
        "components_bits_per_byte_k16 components_bits_per_byte_k64"
    ),
    "sparsity": "l0 strength_l0 strength_l0_total rest_neurons gini hoyer tokens",
    "usage": "units dead dead_chao1 rare always_on unevenness tokens",
    "joint": (
        "together_over_strangers pairs_above_strangers pairs_with_strangers pairs_code conjunction_over_strangers "
        "pairs_conjoined meaning_kept meaning_kept_strangers excess_over_floor testable"
    ),
    "autointerp": (
        "rule_balanced_accuracy rule_balanced_accuracy_same_token rule_random_as_merged simulation_pearson "
        "simulation_random_as_merged ablation_over_random scored_share units"
    ),
    "concepts": (
        "coverage coverage_all conjunction_own conjunction_hidden pure pure_random probe_f1 found reconstruction bag_f1"
    ),
    "planted_pairs": (
        "excess_auroc conjunction_auroc excess_recall excess_precision excess_precision_chance "
        "excess_over_strangers_of_conjunctions excess_over_strangers_of_additive excess_flagged_of_unplanted "
        "tested_of_conjunctions tested_of_additive"
    ),
    "faithfulness": (
        "correlation correlation_random legible_token legible_rule legible_other units_90 sufficiency necessity "
        "random_50_lost against_75_lost steered steered_random through_rest"
    ),
    "specialisation": (
        "information information_random information_tokens specialised specialised_shuffled knockout_own "
        "knockout_elsewhere knockout_selectivity_random knockout_told erased_selectivity_above_random erased_known_own "
        "erased_known_others erased_known_random erased"
    ),
    "dictionary": (
        "as_trained_explained_variance inference_explained_variance target_l0 inference_l0 inference_dead "
        "inference_under_used width held_out_tokens"
    ),
}


def any_figure(table: Table, metric: str) -> Figure | None:
    return next((row.metrics[metric] for row in table.rows if metric in row.metrics), None)


def families(table: Table) -> list[tuple[str, list[str]]]:
    """Metrics by family, what is timed last and apart: only that differs between two equal runs. Those that no row has
    a figure for are left out."""
    found: dict[str, list[str]] = {}
    timed: list[str] = []
    for metric in table.metric_names():
        figure = any_figure(table, metric)
        if figure is not None:
            (timed if figure.timing else found.setdefault(metric.split("/")[0], [])).append(metric)
    named = list(found.items())
    return [*named, (TIMED, timed)] if timed else named


def main(family: str, metrics: Sequence[str], headline: Sequence[str]) -> list[str]:
    """Those of a family's metrics that table.md shows."""
    wanted = [*headline, *(f"{family}/{name}" for name in _MAIN.get(family, "").split()), *metrics]
    return [name for name in dict.fromkeys(wanted) if name in metrics][:MOST]
