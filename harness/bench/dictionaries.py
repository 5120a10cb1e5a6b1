"""Ground truth: every kind of dictionary on data whose features are known (SAELens' `synthetic` module).

More features than dimensions, fired by Zipf's law, with magnitudes that vary. All kinds see the same tokens, have as
many latents as there are features, and as target L0 the number of features in a token. A dictionary that is right
recovers the features: cosine, precision and recall 1. Transcoders read the same tokens and write the same features in
other directions.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import saes
from harness.base import files
from harness.bench.known_features import Split, config_of, train_all
from saes.synthetic import Recovery, recovery
from saes.trainer import Assignment, TrainSettings

if TYPE_CHECKING:
    from saes.planted import Planted

log = logging.getLogger(__name__)

# Variants of a kind, which are rows of their own.
VARIANTS = (
    "relu[tied=true]",
    "relu[decoder_norms=true]",
    # The data's own exponent is the default, 0.5: what the budgets are worth when they do not know it.
    "feature_choice[zipf_exponent=1]",
    "transcoder[selection=mutual_choice]",
)


@dataclass(frozen=True)
class Bed:
    """The planted data and how long is trained on it. tested: tokens that nothing was trained or calibrated on."""

    n_features: int = 128
    d: int = 48
    per_token: int = 4
    sequence_tokens: int = 128
    train_tokens: int = 240_000
    batch_tokens: int = 256
    tested: int = 20_480
    seed: int = 0


@dataclass(frozen=True)
class KindResult:
    """One kind: what it recovered, and on the same fresh tokens at inference its L0 and explained variance."""

    name: str
    recovery: Recovery
    l0: float
    explained_variance: float
    seconds: float


@dataclass(frozen=True)
class RecoveryReport:
    bed: Bed
    seconds: float
    kinds: list[KindResult]


def measure(out: Path, bed: Bed | None = None, names: Sequence[str] | None = None) -> RecoveryReport:
    """Trains and scores the kinds `names` (all that are registered, and VARIANTS); writes table.md and table.json.

    Raises HarnessError when `out` cannot be written or a loss is not finite.
    """
    from saes.planted import Planted
    from saes.quality import at_inference

    files.check_writable(out)
    bed = bed or Bed()
    started = time.perf_counter()
    planted = Planted(bed.n_features, bed.d, bed.per_token, bed.sequence_tokens, bed.seed)
    assignments = {name: _assignment(name, bed, planted) for name in names or [*saes.DICTIONARIES, *VARIANTS]}
    settings = TrainSettings(
        train_tokens=bed.train_tokens, batch_tokens=bed.batch_tokens, buffer_tokens=16 * bed.batch_tokens, seed=bed.seed
    )
    split = Split.of(bed.train_tokens, bed.tested, bed.tested, bed.sequence_tokens)
    with tempfile.TemporaryDirectory(prefix="harness-dictionaries-") as work:
        trained = train_all(
            assignments,
            settings,
            planted,
            split,
            bed.sequence_tokens,
            Path(work),
            "dictionaries",
            "stopped; run the same command to start again",
        )
        tokens, firings = planted(split.fresh), planted.activations(split.fresh) > 0
        scored = []
        for name, result in trained.items():
            site = assignments[name].site
            x, target = tokens.sites[site]
            quality = at_inference(result.dictionary, x, target, bed.batch_tokens)
            found = recovery(result.dictionary, planted.directions(site), x, firings)
            scored.append(KindResult(name, found, quality.l0, quality.explained_variance, result.seconds))
            log.info("%s: mean max cosine %.3f", name, found.mean_max_cosine)
    done = RecoveryReport(bed, time.perf_counter() - started, scored)
    files.write_atomically(out / "table.md", ("\n".join(_markdown(done)) + "\n").encode())
    files.write_atomically(out / "table.json", (json.dumps(asdict(done), indent=1) + "\n").encode())
    return done


def _assignment(name: str, bed: Bed, planted: Planted) -> Assignment:
    config = config_of(name, n_latents=bed.n_features, k=bed.per_token, dead_after_tokens=bed.train_tokens // 10)
    return Assignment(planted.mapped if config.transcodes else planted.site, config)


def _markdown(report: RecoveryReport) -> Iterator[str]:
    bed = report.bed
    yield "# Known features\n"
    yield (
        f"{bed.n_features} features in {bed.d} dimensions, {bed.per_token} in a token on average, firing by Zipf's law "
        f"(SAELens' `synthetic` module); {bed.n_features} latents, target L0 {bed.per_token}, {bed.train_tokens:,} "
        f"tokens of training, the same for all kinds; scores on {bed.tested:,} fresh tokens at inference. One seed.\n"
    )
    yield (
        "Mean max cosine: of decoder rows and features over the best one-to-one matching (Hungarian method). Precision "
        "and recall: whether the matched latent fires where its feature does. The features fire with Zipf exponent "
        "0.5, which is what Feature Choice's budgets assume by default: the row with exponent 1 assumes it wrongly.\n"
    )
    yield "| dictionary | mean max cosine | precision | recall | dead | L0 | explained variance | seconds of training |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for kind in report.kinds:
        found = kind.recovery
        yield (
            f"| `{kind.name}` | {found.mean_max_cosine:.3f} | {found.precision:.3f} | {found.recall:.3f} "
            f"| {100 * found.dead_share:.1f}% | {kind.l0:.2f} | {kind.explained_variance:.3f} | {kind.seconds:.1f} |"
        )
