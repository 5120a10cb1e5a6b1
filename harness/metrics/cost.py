"""What a system costs: parameters, compute, time and memory, with everything counted that made it."""

from __future__ import annotations

import math

from harness.base.settings import Strict
from harness.metrics.metric import register
from harness.systems.evaluation import Evaluation
from harness.tables.measurement import Measurement

VERSION = 3


class Options(Strict):
    """No options."""


def measure(evaluation: Evaluation, options: Options) -> list[Measurement]:
    """Parameters of subject and dictionaries; FLOPs (a multiply-add is two) of the forward pass per token and of the
    whole training: 3 × forward × tokens and Muon's products for a subject, and for a dictionary also the forward passes
    of its subject that collected activations, for a student all that its teacher took. What choosing shapes and rates
    took is not in it (search/training_flops, beside it). Tokens and FLOPs are of what went through. Active parameters
    are those that a token touches, the embedding's row not again where the output head is tied to it.

    Seconds are this machine's, as measured when the stages ran; CPU seconds are those of all threads of the process, so
    that waiting and other programs do not count. The bytes are those that training the subject held on a GPU at most
    (in a process on the CPU, which also holds what other rows left, a row's own cannot be told: there is no figure)."""
    cost = evaluation.cost
    unknown = "its subject was trained elsewhere" if math.isnan(cost.training_flops) else None
    found = [
        Measurement("cost/parameters", cost.parameters, "parameters", "lower", VERSION),
        Measurement("cost/active_parameters", cost.active_parameters, "parameters/token", "lower", VERSION),
        Measurement("cost/forward_flops", cost.forward_flops_per_token, "FLOP/token", "lower", VERSION),
        Measurement("cost/training_flops", cost.training_flops, "FLOP", "lower", VERSION, reason=unknown),
        Measurement("cost/training_tokens", cost.training_tokens, "tokens", "none", VERSION),
        Measurement("cost/training_seconds", cost.training_seconds, "s", "lower", VERSION, timing=True),
        Measurement("cost/training_cpu_seconds", cost.training_cpu_seconds, "s", "lower", VERSION, timing=True),
    ]
    if cost.peak_memory_bytes is not None:
        mebibytes = cost.peak_memory_bytes / 2**20
        found.append(Measurement("cost/peak_memory", mebibytes, "MiB", "lower", VERSION, timing=True))
    if cost.training_seconds > 0:  # not so for an untrained control
        speed = cost.training_tokens / cost.training_seconds
        found.append(Measurement("cost/tokens_per_second", speed, "tokens/s", "higher", VERSION, timing=True))
    return found


register("cost", measure, Options, VERSION)
