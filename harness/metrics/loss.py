"""Loss of the model as it is, as it runs through its units, and with the units, the rest or the whole site taken away.

All figures are on the same targets: every token but the first of each packed sequence. Intervals resample documents.
`spliced` replaces every site of the system at once and drops the dictionary's error: an expert model pays for its
sparsity in every layer, so this is the loss of a dense model that is fair to compare with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.systems.system import Site
from harness.tables.measurement import BY_CONSTRUCTION, Direction, Measurement, not_applicable
from harness.tables.statistics import document_bootstrap, resampled_sums
from kernels.codes import Codes

VERSION = 1


class Options(Strict):
    """No options."""


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """loss/cross_entropy (nats per token), loss/bits_per_byte = Σ nats / (ln 2 · Σ UTF-8 bytes), loss/perplexity =
    exp(cross entropy): of the subject running natively. Then, with every site of the system changed at once:

    - spliced: the units' own output, error dropped (the identity for a native system; measured all the same);
    - units_zeroed, rest_zeroed: only the rest, only the units;
    - zero_ablated, mean_ablated: the site's output replaced by zero, by its mean over the dev split;
    - carried = (CE_zero − CE_rest_zeroed) / (CE_zero − CE_native), carried_mean with CE_mean: the share of what the
      layers do that the units alone carry. Where it is small, whatever is said of the units is said of little. [U]
    - spliced_kl: mean KL(spliced ‖ native) over tokens, in nats;
    - recovered = (CE_zero − CE_spliced) / (CE_zero − CE_native) (SAEBench's "ce_loss_score", all sites at once);
      recovered_mean: the same with CE_mean. Zero ablation leaves a model worse than a unigram, which flatters.

    The last three are for grafted dictionaries alone: 0, 1 and 1 by construction where the units are the model.

    Where the corpus knows its own probabilities: above_floor, spliced_above_floor, the bits per token that the model
    and the spliced model lose beyond what no reader can do without. Model and floor are on the same targets: not those
    of a game that began before the sequence, whose board no reader of the sequence can know.
    """
    system, variants = evaluation.system, _variants(evaluation)
    nats = {name: evaluation.document_sums() for name in variants}
    kl, n_bytes, n_tokens = (evaluation.document_sums() for _ in range(3))
    above: dict[str, list[Tensor]] = {"native": [], "spliced": []}  # nats of every target, by batch
    for batch in evaluation.batches():
        document = batch.document[:, 1:].reshape(-1)
        targets = batch.input_ids[:, 1:].reshape(-1)
        native_log_p = torch.empty(0)
        for name, running in variants.items():
            with torch.no_grad(), running():
                logits = system.model(batch.input_ids, use_cache=False).logits[:, :-1]
            log_p = logits.float().log_softmax(-1).flatten(0, 1)  # [targets, vocabulary]
            lost = -log_p.gather(1, targets[:, None])[:, 0]
            evaluation.by_document(document, lost, nats[name])
            if name in above:
                above[name].append(lost.cpu())
            if name == "native":
                native_log_p = log_p
            elif name == "spliced":
                evaluation.by_document(document, (log_p.exp() * (log_p - native_log_p)).sum(1), kl)
        evaluation.by_document(document, batch.n_bytes[:, 1:].reshape(-1), n_bytes)
        evaluation.by_document(document, torch.ones_like(document), n_tokens)

    native = nats.pop("native")
    found = summaries(native, n_bytes, n_tokens, evaluation.resamples)
    per_byte = 1 / math.log(2)
    for name, sums in nats.items():
        direction: Direction = "lower" if name == "spliced" else "none"
        found.append(_ratio(f"loss/{name}_bits_per_byte", sums * per_byte, n_bytes, "bit/byte", direction, evaluation))
    shares = [("carried", "zero_ablated", "rest_zeroed"), ("carried_mean", "mean_ablated", "rest_zeroed")]
    if not system.native:
        shares += [("recovered", "zero_ablated", "spliced"), ("recovered_mean", "mean_ablated", "spliced")]
        found.append(_ratio("loss/spliced_kl", kl, n_tokens, "nat/token", "lower", evaluation))
    for name, without, with_ in shares:
        found.append(_share(name, nats[without], nats[with_], native, evaluation.resamples))
    saw = seen(int(n_tokens.sum()), int(n_tokens.sum()), evaluation.sequences_read())
    found = [replace(measured, saw=saw) for measured in found] + _above_floor(above, evaluation)
    if system.native:
        found += not_applicable(["loss/spliced_kl", "loss/recovered", "loss/recovered_mean"], VERSION, BY_CONSTRUCTION)
    return found


def _variants(evaluation: Evaluation) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """How the model is run, natively first."""
    system = evaluation.system
    everywhere = dict.fromkeys(system.sites, _identity)
    nothing = dict.fromkeys(system.sites, _drop_all)
    zero = dict.fromkeys(system.sites, torch.zeros_like)
    mean = {site: partial(_constant, value) for site, value in _dev_means(evaluation).items()}
    return {
        "native": nullcontext,
        "spliced": lambda: system.running(everywhere, error="drop"),
        "units_zeroed": lambda: system.running(nothing, error="drop"),
        "rest_zeroed": lambda: system.running(everywhere, error="drop", rest="drop"),
        "zero_ablated": lambda: system.replacing(zero),
        "mean_ablated": lambda: system.replacing(mean),
    }


def summaries(nats: Tensor, n_bytes: Tensor, n_tokens: Tensor, resamples: int) -> list[Measurement]:
    """Cross entropy, bits per byte and perplexity from sums by document `[documents]`; also what n-gram rows report."""
    cross_entropy = document_bootstrap(nats.numpy(), n_tokens.numpy(), resamples)
    bits = document_bootstrap((nats / math.log(2)).numpy(), n_bytes.numpy(), resamples)
    mean = float(nats.sum() / n_tokens.sum())

    def row(name: str, value: float, unit: str, replicates: np.ndarray) -> Measurement:
        return Measurement(f"loss/{name}", value, unit, "lower", VERSION, replicates, "documents")

    with np.errstate(over="ignore"):  # of a loss above 709 nats the perplexity is infinite, which is n/a
        perplexity = row("perplexity", float(np.exp(mean)), "", np.exp(cross_entropy))
    return [
        row("cross_entropy", mean, "nat/token", cross_entropy),
        row("bits_per_byte", float(nats.sum() / n_bytes.sum()) / math.log(2), "bit/byte", bits),
        perplexity,
    ]


def _ratio(
    name: str, numerator: Tensor, denominator: Tensor, unit: str, direction: Direction, evaluation: Evaluation
) -> Measurement:
    replicates = document_bootstrap(numerator.numpy(), denominator.numpy(), evaluation.resamples)
    value = float(numerator.sum() / denominator.sum())
    return Measurement(name, value, unit, direction, VERSION, replicates, "documents")


def seen(reached: int, targets: int, sequences: int) -> str:
    """What figures were measured on: of a floor, the targets at which it can be reached."""
    whole = f"{targets:,} targets in {sequences:,} sequences"
    return whole if reached == targets else f"{reached:,} of {whole}: those of documents that begin in their sequence"


def _above_floor(lost: dict[str, list[Tensor]], evaluation: Evaluation) -> list[Measurement]:
    """What is lost beyond the floor where it can be reached, from nats of every target by batch; nothing where the
    corpus has no floor."""
    known = None if evaluation.floor is None else evaluation.floor(evaluation.sequences_read())
    if known is None:
        return []
    least = torch.from_numpy(known)[:, 1:]
    reached = ~least.isnan()
    sums = {name: evaluation.document_sums() for name in ("floor", "targets", *lost)}
    start = 0
    for number, batch in enumerate(evaluation.batches()):
        rows = slice(start, start + len(batch.input_ids))
        here = reached[rows].reshape(-1)
        values = {"floor": -least[rows].reshape(-1), "targets": torch.ones(len(here))}
        values |= {name: batches[number] for name, batches in lost.items()}
        for name, of_targets in values.items():
            evaluation.by_document(batch.document[:, 1:].reshape(-1), of_targets.masked_fill(~here, 0), sums[name])
        start = rows.stop
    per_bit, saw = 1 / math.log(2), seen(int(reached.sum()), reached.numel(), len(reached))
    found = []
    for name, called in (("native", "above_floor"), ("spliced", "spliced_above_floor")):
        bits = (sums[name] - sums["floor"]) * per_bit
        found.append(_ratio(f"loss/{called}", bits, sums["targets"], "bit/token", "lower", evaluation))
    return [replace(one, saw=saw) for one in found]


def _share(name: str, without: Tensor, partly: Tensor, native: Tensor, resamples: int) -> Measurement:
    """(CE_without − CE_partly) / (CE_without − CE_native), each nats by document; the number of targets cancels."""
    columns = torch.stack([without, partly, native], 1).numpy()

    def of(sums: np.ndarray) -> np.ndarray:
        return (sums[:, 0] - sums[:, 1]) / (sums[:, 0] - sums[:, 2])

    value = float(of(columns.sum(0, keepdims=True))[0])
    return Measurement(
        f"loss/{name}", value, "", "higher", VERSION, of(resampled_sums(columns, resamples)), "documents"
    )


def _dev_means(evaluation: Evaluation) -> dict[Site, Tensor]:
    """Mean output of every site over the dev split `[d_model]`: so mean ablation knows nothing of eval."""
    sums: dict[Site, Tensor] = {}
    tokens = 0

    def add(site: Site, _x: Tensor, y: Tensor) -> None:
        total = y.double().sum((0, 1)) if y.device.type != "mps" else y.sum((0, 1))
        sums[site] = sums[site] + total if site in sums else total

    with torch.no_grad(), evaluation.system.watching(add):
        for batch in evaluation.batches(dev=True):
            evaluation.system.model(batch.input_ids, use_cache=False, logits_to_keep=1)
            tokens += batch.input_ids.numel()
    return {site: total / tokens for site, total in sums.items()}


def _identity(codes: Codes) -> Codes:
    return codes


def _drop_all(codes: Codes) -> Codes:
    return codes.keep(torch.zeros_like(codes.units, dtype=torch.bool))


def _constant(value: Tensor, output: Tensor) -> Tensor:
    return value.to(output.dtype).expand_as(output)


register("loss", measure, Options, VERSION)
