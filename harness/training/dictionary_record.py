"""What the dictionaries of a row took and how good they came out, as it lies in the stage's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from harness.systems.cost import Cost
from harness.tables.measurement import Direction, Measurement
from saes.quality import Quality
from saes.trained import Trained

RECORD = "dictionaries.json"
L0_OFF = 1.25  # a factor between the L0 that was asked for and the one that came out, above which a row says so
VERSION = 2  # of the figures in the family `dictionary`


@dataclass(frozen=True)
class SiteOutcome:
    """How good one dictionary is on held-out tokens of dev: selecting as in training, at half and at full budget (None:
    it was not trained here), and as it is used."""

    half: Quality | None
    as_trained: Quality | None
    at_inference: Quality

    @staticmethod
    def of(trained: Trained) -> SiteOutcome:
        assert trained.at_inference is not None, "the harness always holds tokens out"
        return SiteOutcome(trained.as_trained_half, trained.as_trained, trained.at_inference)


@dataclass(frozen=True)
class DictionaryRecord:
    """What the dictionaries of a row took, summed over its sites, and what came out; one pass of the subject is charged
    to the row. `sites`: by the site's name. `target_l0`: None where nobody set one. `of_source`: what a
    reader must know of dictionaries that came from elsewhere."""

    objective: str
    target_l0: float | None
    sites: dict[str, SiteOutcome]
    tokens: int
    parameters: int
    active_parameters: int
    forward_flops_per_token: float
    training_flops: float
    collecting_flops: float
    seconds: float
    cpu_seconds: float
    kernels: dict[str, str]
    of_source: tuple[str, ...] = ()

    @staticmethod
    def load(folder: Path) -> DictionaryRecord:
        saved = json.loads((folder / RECORD).read_text())
        sites = {
            site: SiteOutcome(**{key: cast(Any, found and Quality(**found)) for key, found in outcome.items()})
            for site, outcome in saved["sites"].items()
        }
        return DictionaryRecord(**{**saved, "sites": sites, "of_source": tuple(saved.get("of_source", ()))})

    def save(self, folder: Path) -> None:
        (folder / RECORD).write_text(json.dumps(asdict(self), indent=1))

    def added_to(self, subject: Cost) -> Cost:
        """The whole system: a subject and the dictionaries grafted onto it."""
        return Cost(
            parameters=subject.parameters + self.parameters,
            active_parameters=subject.active_parameters + self.active_parameters,
            forward_flops_per_token=subject.forward_flops_per_token + self.forward_flops_per_token,
            training_flops=subject.training_flops + self.training_flops + self.collecting_flops,
            training_tokens=subject.training_tokens + self.tokens,
            training_seconds=subject.training_seconds + self.seconds,
            training_cpu_seconds=subject.training_cpu_seconds + self.cpu_seconds,
            peak_memory_bytes=subject.peak_memory_bytes,
        )

    def measurements(self) -> list[Measurement]:
        """The family `dictionary`: means over the row's sites, on held-out text of dev (intervals, and the same at
        inference on eval, are in `reconstruction`, `sparsity` and `usage`).

        as_trained_*: with the selection of training, over batches; inference_*: each token by itself, with the
        thresholds set on these same tokens. half_budget_explained_variance: as trained, when half of the tokens were
        seen. inference_under_used: see `saes.quality.Quality`. width: latents of a site.
        """
        found: list[Measurement] = []

        def add(name: str, values: list[float | None], unit: str, direction: Direction) -> None:
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                mean = sum(known) / len(known)
                found.append(Measurement(f"dictionary/{name}", mean, unit, direction, VERSION))

        outcomes = list(self.sites.values())
        stages = {
            "half_budget": [outcome.half for outcome in outcomes],
            "as_trained": [outcome.as_trained for outcome in outcomes],
            "inference": [outcome.at_inference for outcome in outcomes],
        }
        for stage, qualities in stages.items():
            add(f"{stage}_explained_variance", [q and q.explained_variance for q in qualities], "", "higher")
        add("target_l0", [self.target_l0], "units/token", "none")
        for stage in ("as_trained", "inference"):
            add(f"{stage}_l0", [q and q.l0 for q in stages[stage]], "units/token", "none")
        for share in ("dead", "under_used"):
            shares = [getattr(outcome.at_inference, f"{share}_share") for outcome in outcomes]
            add(f"inference_{share}", shares, "share of units", "lower")
        add("width", [float(outcome.at_inference.width) for outcome in outcomes], "units", "none")
        add("held_out_tokens", [float(outcomes[0].at_inference.tokens)], "tokens", "none")
        return found

    def curves(self) -> list[str]:
        """Sites whose training left a curve."""
        return [site for site, outcome in self.sites.items() if outcome.as_trained is not None]

    def notes(self) -> list[str]:
        """What a reader of the row must know."""
        found = []
        rising = {
            site: outcome.as_trained.explained_variance - outcome.half.explained_variance
            for site, outcome in self.sites.items()
            if outcome.as_trained is not None
            and outcome.half is not None
            and outcome.as_trained.still_rising(outcome.half)
        }
        if rising:
            most = max(rising, key=lambda site: rising[site])
            where = (
                f" at {most}" if len(self.sites) == 1 else f" at {len(rising)} of {len(self.sites)} sites, most {most}"
            )
            found.append(f"not converged: explained variance +{rising[most]:.3f} in the second half{where}")
        if self.target_l0 is not None:
            reached = {site: outcome.at_inference.l0 for site, outcome in self.sites.items()}
            missed = {site: l0 for site, l0 in reached.items() if _off(l0, self.target_l0) > L0_OFF}
            if missed:
                where = f"at {len(missed)} of {len(reached)} sites, furthest " if len(reached) > 1 else "at "
                furthest = max(missed, key=lambda site: _off(missed[site], cast(float, self.target_l0)))
                found.append(
                    f"target L0 {self.target_l0:g} not reached: {missed[furthest]:.3g} at inference {where}{furthest}"
                )
        worse = {site: o.at_inference.explained_variance for site, o in self.sites.items()}
        if worse and (least := min(worse.values())) < 0:
            sites = [site for site, explained in worse.items() if explained < 0]
            found.append(
                f"worse than writing the mean: explained variance {least:.3f} at inference at {', '.join(sites)}"
            )
        if any(outcome.as_trained is None for outcome in self.sites.values()):
            found.append("pretrained: what training the dictionary took is not counted")
        return [*found, *self.of_source]


def _off(l0: float, target: float) -> float:
    """The factor between them, above 1 either way."""
    return max(l0 / target, target / l0) if l0 > 0 else float("inf")
