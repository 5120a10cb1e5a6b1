"""SynthSAEBench (Chanin and Garriga-Alonso 2026, arXiv 2602.14687): a world with many more features than latents.

16,384 features in 768 dimensions fire by Zipf's law. Most stand in trees: a child fires only with its parent, as
strongly as that does, and never beside a sibling. Firings are correlated, magnitudes differ. A dictionary of 4,096
latents can have the frequent features at best, and is tempted to merge a child with its parent. The world is SAELens'
code with the published settings; here it is scaled down to what two cores train in a quarter of an hour.
"""

from __future__ import annotations

import json
import logging
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import saes
from harness.base import files
from harness.base.progress import stage_progress
from harness.bench.known_features import Split, config_of, train_all
from saes.activations import Activations
from saes.synthetic import Benchmark, Benchmarked
from saes.trainer import Assignment, TrainSettings

if TYPE_CHECKING:
    from saes.saelens import SyntheticModel

log = logging.getLogger(__name__)

# Rows besides one for every kind: variants, and the controls whose one half stays random.
VARIANTS = (
    "relu[tied=true]",
    "topk[frozen=decoder]",
    "topk[frozen=encoder]",
    "batchtopk[frozen=decoder]",
    "batchtopk[frozen=encoder]",
)


@dataclass(frozen=True)
class World:
    """Size of the world and of what is trained on it.

    k: the target L0, which is the number of features in a token among the `n_latents` most frequent. lr None: each
    kind's own. tested, calibrated: tokens that nothing was trained on. sequence_tokens: drawn at a time.
    """

    n_features: int
    d: int
    roots: int
    n_latents: int
    k: int
    lr: float | None
    train_tokens: int
    tested: int
    calibrated: int
    batch_tokens: int = 1024
    sequence_tokens: int = 1024
    orthogonal_steps: int = 100
    seed: int = 42


# An eighth of the features, of the trees and of the latents. A third of the dimensions, so that the features of a token
# disturb one another as they do at full size: 11 in 256 dimensions, 35 in 768.
SCALED = World(2048, 256, 16, 512, 8, None, 1_000_000, 65_536, 32_768)
FULL = World(16_384, 768, 128, 4096, 25, 3e-4, 200_000_000, 500_000, 131_072)

# A row whose L0 is further than this from the target is marked: with fewer latents F1 rises by itself.
FAR = 0.1
# Sequences in which the features of a token are counted.
COUNTED = 16

# F1, MCC, explained variance and uniqueness at L0 25, full size, mean of five seeds: SAELens' docs/synth_sae_bench.
PUBLISHED: dict[str, tuple[float, float, float, float]] = {
    "BatchTopK": (0.7316, 0.7574, 0.7923, 0.9837),
    "Matryoshka": (0.8793, 0.7927, 0.7792, 0.9987),
    "matching pursuit": (0.4464, 0.6930, 0.8351, 0.8281),
    "L1": (0.5562, 0.6039, 0.7654, 0.8976),
    "JumpReLU": (0.7317, 0.7527, 0.7951, 0.9885),
}


def published_config(world: World) -> dict[str, Any]:
    """Settings of version 2 of the world, in the form of SAELens' `synthetic_model_config.json`, at this size."""
    return {
        "num_features": world.n_features,
        "hidden_dim": world.d,
        "firing_probability": {"generator_name": "zipfian", "exponent": 0.5, "max_prob": 0.4, "min_prob": 5e-4},
        "hierarchy": {
            "total_root_nodes": world.roots,
            "branching_factor": 4,
            "max_depth": 3,
            "mutually_exclusive_portion": 1.0,
            "mutually_exclusive_min_depth": 0,
            "compensate_probabilities": True,
            "scale_children_by_parent": True,  # what version 1 lacks
        },
        "orthogonalization": {"num_steps": world.orthogonal_steps, "lr": 3e-4},
        "correlation": {"rank": 25, "correlation_scale": 0.1},
        "mean_firing_magnitudes": {"generator_name": "linear", "start": 5.0, "end": 4.0},
        "std_firing_magnitudes": {"generator_name": "folded_normal", "mean": 0.5, "std": 0.5},
        "bias": 0.5,
        "seed": world.seed,
    }


class Tokens:
    """Tokens of the world. A sequence is drawn from its number and the seed, so any part can be made again."""

    site = "synth_sae_bench"

    def __init__(self, world: World) -> None:
        from saes.saelens import FeatureDictionary, SyntheticModel, SyntheticModelConfig, orthogonal_initializer

        self.world, self.seed = world, 0
        config = SyntheticModelConfig.from_dict(published_config(world))
        # What SyntheticModel would make of the same settings, without drawing a bar of its own meanwhile.
        features = FeatureDictionary(
            world.n_features,
            world.d,
            bias=config.bias,
            initializer=orthogonal_initializer(num_steps=world.orthogonal_steps, lr=3e-4),
            seed=world.seed,
        )
        self.model: SyntheticModel = SyntheticModel(config, feature_dict=features.requires_grad_(False))

    @property
    def features(self) -> Tensor:
        """`[n_features, d]`."""
        return self.model.feature_dict.feature_vectors

    def sequence(self, number: int) -> tuple[Tensor, Tensor]:
        """x `[sequence_tokens, d]` and how strongly each feature is in it `[sequence_tokens, n_features]`."""
        with torch.random.fork_rng():
            torch.manual_seed((self.seed + 1) * 1_000_000_007 + number)
            return self.model.sample_with_features(self.world.sequence_tokens)

    def __call__(self, sequences: Tensor) -> Activations:
        """What `ActivationStream` collects."""
        x = torch.cat([self.sequence(number)[0] for number in sequences.tolist()])
        positions = torch.arange(self.world.sequence_tokens).repeat(len(sequences))
        rows = torch.stack([sequences.repeat_interleave(self.world.sequence_tokens), positions], 1)
        return Activations(rows, {self.site: (x, x)})

    def features_in_a_token(self, sequences: Tensor) -> tuple[float, float]:
        """On average: of all, and of the first `n_latents`, which are about the most frequent."""
        there = torch.stack([(self.sequence(number)[1] > 0).double().mean(0) for number in sequences.tolist()]).mean(0)
        return float(there.sum()), float(there[: self.world.n_latents].sum())


@dataclass(frozen=True)
class KindResult:
    """One kind: its scores with each seed, and the seconds that its own steps took, over all seeds."""

    name: str
    scores: list[Benchmarked]
    seconds: float

    def shown(self, metric: str, digits: int = 4, scale: float = 1.0) -> str:
        """Mean, and with several seeds their standard deviation."""
        values = [scale * getattr(score, metric) for score in self.scores]
        mean = f"{statistics.mean(values):.{digits}f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


@dataclass(frozen=True)
class WorldReport:
    world: World
    features_per_token: float
    frequent_per_token: float
    seconds: float
    kinds: list[KindResult]


def kinds() -> list[str]:
    """Every autoencoder that is registered (the benchmark gives transcoders nothing to predict), and VARIANTS."""
    return [*(name for name in saes.DICTIONARIES if not saes.DICTIONARIES[name]().transcodes), *VARIANTS]


def measure(out: Path, world: World = SCALED, names: Sequence[str] | None = None, seeds: int = 1) -> WorldReport:
    """Trains and scores the kinds `names` (`kinds()`) with each seed; writes table.md and table.json into `out`.

    A call that was stopped, run again, goes on from the checkpoints in `out/work`, which is removed at the end. Raises
    HarnessError when `out` cannot be written, holds the checkpoints of other settings, or a loss is not finite.
    """
    files.check_writable(out)
    started = time.perf_counter()
    rows = {name: config_of(name, **_shared(world)) for name in names or kinds()}
    tokens = Tokens(world)
    split = Split.of(world.train_tokens, world.calibrated, world.tested, world.sequence_tokens)
    per_token = tokens.features_in_a_token(split.fresh[:COUNTED])
    log.info("%d features, %.1f in a token; target L0 %d", world.n_features, per_token[0], world.k)
    scores: dict[str, list[Benchmarked]] = {name: [] for name in rows}
    seconds = dict.fromkeys(rows, 0.0)
    for seed in range(seeds):
        tokens.seed = seed
        trained = train_all(
            {name: Assignment(tokens.site, config) for name, config in rows.items()},
            TrainSettings(
                train_tokens=world.train_tokens,
                batch_tokens=world.batch_tokens,
                buffer_tokens=16 * world.batch_tokens,
                seed=seed,
            ),
            tokens,
            split,
            world.sequence_tokens,
            out / "work" / f"seed-{seed}",
            f"SynthSAEBench, seed {seed}",
            "stopped; run the same command to continue",
        )
        marks = {name: Benchmark(result.dictionary, tokens.features) for name, result in trained.items()}
        with stage_progress("scores") as progress:
            for done, number in enumerate(split.fresh.tolist()):
                x, strengths = tokens.sequence(number)
                for mark in marks.values():
                    mark.add(x, strengths)
                progress(done + 1, len(split.fresh), "sequences")
        for name, mark in marks.items():
            scores[name].append(mark.scores())
            seconds[name] += trained[name].seconds
            log.info("%s, seed %d: F1 %.4f, MCC %.4f", name, seed, scores[name][-1].f1, scores[name][-1].mcc)
    report = WorldReport(
        world,
        *per_token,
        time.perf_counter() - started,
        [KindResult(name, scores[name], seconds[name]) for name in rows],
    )
    files.write_atomically(out / "table.md", ("\n".join(_markdown(report)) + "\n").encode())
    files.write_atomically(out / "table.json", (json.dumps(asdict(report), indent=1) + "\n").encode())
    shutil.rmtree(out / "work")
    return report


def _shared(world: World) -> dict[str, Any]:
    shared = {"n_latents": world.n_latents, "k": world.k, "dead_after_tokens": max(1, world.train_tokens // 10)}
    return shared if world.lr is None else {**shared, "lr": world.lr}


def _markdown(report: WorldReport) -> Iterator[str]:
    world, seeds = report.world, len(report.kinds[0].scores)
    size = "full size" if world == FULL else "scaled down"
    yield "# SynthSAEBench\n"
    rate = f"learning rate {world.lr}, the same for all kinds" if world.lr else "the learning rate of each kind"
    yield (
        f"{world.n_features:,} features in {world.d} dimensions, {report.features_per_token:.1f} in a token on "
        f"average, {report.frequent_per_token:.1f} of the first {world.n_latents:,}; {world.n_latents:,} latents, "
        f"target L0 {world.k}, {world.train_tokens:,} tokens of training, {rate}; scores on {world.tested:,} fresh "
        f"tokens at inference. The world is version 2 of arXiv 2602.14687, {size}, drawn here from its settings by "
        "SAELens' code.\n"
    )
    one = "One seed: the order of rows is no verdict." if seeds == 1 else f"{seeds} seeds, ± their standard deviation."
    yield (
        f"{one} F1: of latents as detectors of the feature nearest to their decoder row. MCC: mean absolute cosine "
        "over the best one-to-one matching. Unique: nearest features, counted once each, for every latent. Rows with "
        "`frozen` are controls, half of them random. (!): more than a tenth off the target L0, not to be compared.\n"
    )
    yield (
        "Rows marked *published* are of the full size (16,384 features in 768 dimensions, 4,096 latents, 200 million "
        "tokens, L0 25, five seeds), from SAELens' documentation: they stand here to be compared in order, and where "
        "this table is not of that size, not in value. Their JumpReLU has a tanh penalty, their Matryoshka an "
        "auxiliary loss per level. Nobody has published Feature Choice or Mutual Choice there.\n"
    )
    yield "| dictionary | F1 | MCC | explained variance | unique | L0 | dead | seconds of training |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for kind in report.kinds:
        cells = [kind.shown(metric) for metric in ("f1", "mcc", "explained_variance", "uniqueness")]
        l0 = statistics.mean(score.l0 for score in kind.scores)
        missed = "" if abs(l0 / world.k - 1) <= FAR else " (!)"
        cells += [kind.shown("l0", 2) + missed, f"{kind.shown('dead_share', 1, 100)}%", f"{kind.seconds:.1f}"]
        yield f"| `{kind.name}` | {' | '.join(cells)} |"
    for name, figures in PUBLISHED.items():
        yield f"| {name} (*published*) | {' | '.join(f'{figure:.4f}' for figure in figures)} | 25 | | |"
