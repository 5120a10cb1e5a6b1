"""Everything a system or a metric computes stays on the system's device: no GPU is needed to see that it does.

`elsewhere` stands for a second device. Its tensors hold their values on the CPU and call themselves `meta`; an op that
takes tensors of both devices raises, as it does with a GPU. What torch lets meet there may meet here: copies, indices
on the CPU, single numbers on the CPU.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

import models
import saes
from harness.base.progress import silent
from harness.corpus import Corpus
from harness.corpus.build import build, load
from harness.corpus.chess import ChessCorpus
from harness.corpus.labels import Concept, Labels, label
from harness.corpus.text_labels import TextLabeller
from harness.experiment.schema import EvaluationConfig
from harness.metrics.ioi.patching import attribution, native, patched
from harness.metrics.ioi.prompts import Prompts
from harness.metrics.metric import METRICS
from harness.run.stages.codes import evaluation_of, produce
from harness.systems.cost import Cost
from harness.systems.system import Site, System
from harness.training.dictionaries import Job, load_dictionaries, train_dictionaries
from saes.trainer import TrainSettings

from ..conftest import SMALL_POOL

LENGTH = 64
ELSEWHERE = torch.device("meta")
COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)


class OnOtherDevice(Tensor):
    """A tensor whose values lie on the CPU and whose device is `ELSEWHERE`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnOtherDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=ELSEWHERE,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def tolist(self) -> Any:  # torch has none for subclasses
        return self.held.tolist()

    def new_tensor(self, data: Any, **_: Any) -> Tensor:  # torch makes one of the CPU for subclasses
        return OnOtherDevice(self.held.new_tensor(data))

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # return_and_correct_aliasing wants it
        return ["held"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Runs `func` on the values, and puts what comes out where it belongs. Raises RuntimeError when devices meet."""
    given = tree_leaves((args, kwargs))
    there = [leaf for leaf in given if isinstance(leaf, OnOtherDevice)]
    here = [leaf for leaf in given if isinstance(leaf, Tensor) and not isinstance(leaf, OnOtherDevice) and leaf.ndim]
    asked = kwargs.get("device")
    packet = func._overloadpacket
    if there and packet in INDEXED:
        values = [leaf for leaf in (args[0], *args[2:]) if isinstance(leaf, Tensor) and leaf.ndim]
        here = [leaf for leaf in values if not isinstance(leaf, OnOtherDevice)]
    if there and here and packet not in COPIES:
        raise RuntimeError(f"two devices meet in {func}: {[tuple(leaf.shape) for leaf in here]} on the CPU")
    moved = torch.device(asked) == ELSEWHERE if asked is not None else bool(there)
    if packet is torch.ops.aten.copy_:
        moved = isinstance(args[0], OnOtherDevice)
    generator = kwargs.get("generator")
    if moved and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"{func}: a generator on the CPU draws for another device")

    def unwrap(leaf: Any) -> Any:
        return leaf.held if isinstance(leaf, OnOtherDevice) else leaf

    inner = {name: value for name, value in kwargs.items() if name != "device"}
    if asked is not None:
        inner["device"] = torch.device("cpu")
    out = func(*tree_map(unwrap, args), **tree_map(unwrap, inner))

    def wrap(leaf: Any) -> Any:
        return OnOtherDevice(leaf) if moved and isinstance(leaf, Tensor) else leaf

    if not moved:
        return out
    return return_and_correct_aliasing(func, args, kwargs, tree_map(wrap, out))


class Elsewhere(TorchDispatchMode):
    """While it runs, tensors made on `ELSEWHERE`, or moved there, hold values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # torch keeps a list of the names of devices that have fused optimisers.
    there = [*_get_fused_kernels_supported_devices(), ELSEWHERE.type]
    module = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: there)
    for name in ("tensor", "as_tensor"):  # torch makes these without asking the mode
        plain = getattr(torch, name)

        def moved(data: Any, *, device: Any = None, plain: Any = plain, **options: Any) -> Tensor:
            found = plain(data, **options)
            return found if device is None else found.to(device)

        monkeypatch.setattr(torch, name, moved)
    autocast = torch.autocast  # which lm-eval enters
    monkeypatch.setattr(torch, "autocast", lambda device_type, **options: autocast("cpu", **options))
    with Elsewhere():
        yield


def test_the_second_device_computes_and_lets_no_tensor_of_the_first_in(elsewhere: None) -> None:
    here = torch.arange(6.0).view(2, 3)
    there = here.to(ELSEWHERE)
    assert there.device == ELSEWHERE
    assert torch.ones(2, device=ELSEWHERE).device == ELSEWHERE
    torch.testing.assert_close((there * 2 + 1).sum(1).cpu(), (here * 2 + 1).sum(1))
    assert there[torch.tensor([1])].cpu().tolist() == [[3.0, 4.0, 5.0]]  # an index on the CPU
    assert (there * torch.tensor(2.0)).device == ELSEWHERE  # one number on the CPU
    for wrong in (lambda: there + here, lambda: here[there.long()[0]], lambda: torch.cat([there, here])):
        with pytest.raises(RuntimeError, match="two devices meet"):
            wrong()
    weight = there.clone().requires_grad_()
    (weight * there).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.cpu(), here)


def test_a_system_trains_and_reads_on_its_own_device(
    make_system: Callable[[torch.dtype], System], tokens: Tensor, elsewhere: None
) -> None:
    at_home = make_system(torch.float32)
    expected = at_home.model(tokens, use_cache=False).logits.detach()
    codes = at_home.encode(tokens)
    system = System(at_home.name, at_home.model.to(ELSEWHERE), None if at_home.native else at_home.decomposition)
    for dictionary in () if at_home.native else at_home.decomposition.values():
        dictionary.to(ELSEWHERE)
    there = tokens.to(ELSEWHERE)
    assert system.device == ELSEWHERE
    torch.testing.assert_close(system.model(there, use_cache=False).logits.detach().cpu(), expected)
    for site, encoded in system.encode(there).items():
        assert encoded.codes.units.device == encoded.strengths.device == ELSEWHERE
        # Other kernels run there: what is nearly nothing may be nothing, and at a threshold rounding decides.
        near = torch.isclose(encoded.codes.cpu().dense(), codes[site].codes.dense(), rtol=1e-5, atol=1e-5)
        assert float(near.float().mean()) > 0.998
    with system.running({site: lambda c: c.keep(c.values.abs() > 0.1) for site in system.sites}, error="drop"):
        system.model(there, use_cache=False)
    system.model.train()
    loss = system.model(there, labels=there, use_cache=False).loss
    loss.backward()
    assert loss.device == ELSEWHERE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    config = ChessCorpus(bytes_per_domain=60_000, vocab_size=300, sequence_length=LENGTH)
    build(config, folder, lambda *_, **__: None)
    return load(folder)


def made(architecture: str, corpus: Corpus) -> models.TrunkForCausalLM:
    torch.manual_seed(0)
    end = corpus.info.end_of_text
    size = {"d_model": 16, "n_layers": 2, "n_heads": 1, "max_position_embeddings": LENGTH, "bos_token_id": end}
    pool = SMALL_POOL.get(architecture, {})
    return models.build(architecture, **size, **pool, vocab_size=corpus.info.vocab_size, eos_token_id=end).eval()


@pytest.mark.parametrize("kind", [kind for kind in saes.DICTIONARIES if ":" not in kind])
def test_a_dictionary_trains_on_its_subjects_device(kind: str, corpus: Corpus, tmp_path: Path, elsewhere: None) -> None:
    config = saes.DICTIONARIES[kind](n_latents=48, k=4)
    site = Site(0, "mlp" if config.transcodes else "mlp_out")
    (tmp_path / "row").mkdir()
    for objective in ("reconstruction", "end_to_end"):
        settings = TrainSettings(
            train_tokens=2048, batch_tokens=256, buffer_tokens=1024, objective=cast(Any, objective)
        )
        jobs = {"row": Job(config, (site,), tmp_path / "row")}
        model = made("dense", corpus).to(ELSEWHERE)
        train_dictionaries(jobs, model, corpus.train, corpus.dev, settings, scratch=tmp_path / objective, report=silent)
        assert load_dictionaries(tmp_path / "row", (site,), "meta")[site].n_units == 48


OPTIONS: dict[str, dict[str, Any]] = {
    "joint": {"pairs": 12, "contexts": 8, "active": 4, "shuffled_contexts": 4, "least_pairs": 2},
    "autointerp": {"units": 6, "scorers": ["rule", "simulation"], "density_edges": [0.005, 0.5]},
    "tasks": {"limit": 10},
    "concepts": {"units": 12, "least": 2, "documents": 1},
    "planted_pairs": {"contexts": 2, "active": 8, "least_f1": 0.0, "least": 2, "documents": 1, "least_pairs": 2},
}


def paired(labels: Labels) -> Labels:
    """Any two of them as a conjunction and as a pair that adds up: for a metric that asks for pairs."""
    names = [concept.name for concept in labels.concepts]
    pairs = [
        Concept(f"{kind} of {' and '.join(parts)}", kind, parts)
        for kind in ("conjunction", "additive")
        for parts in combinations(names, 2)
    ]
    return replace(labels, concepts=(*labels.concepts, *pairs))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("system", ["pools", "dense+topk"])
def test_a_metric_computes_on_its_systems_device(
    system: str, metric: str, corpus: Corpus, tmp_path: Path, elsewhere: None
) -> None:
    architecture, _, kind = system.partition("+")
    model, grafts = made(architecture, corpus).to(ELSEWHERE), None
    if kind:
        job = Job(saes.DICTIONARIES[kind](n_latents=48, k=4), (Site(1, "mlp_out"),), tmp_path / "row")
        job.folder.mkdir()
        settings = TrainSettings(train_tokens=2048, batch_tokens=256, buffer_tokens=1024)
        train_dictionaries(
            {"row": job}, model, corpus.train, corpus.dev, settings, scratch=tmp_path / "scratch", report=silent
        )
        grafts = load_dictionaries(job.folder, job.sites, "meta")
    config = EvaluationConfig(sequences=24, codes_sequences=24, resamples=100)
    cost = Cost(1, 1, 1.0, 1.0, 1, 1.0, 1.0, 1)
    (tmp_path / "codes").mkdir()
    (tmp_path / "metric").mkdir()

    def labels(split: str) -> Labels:
        found = TextLabeller(corpus.info.domains)
        made = label(found, corpus.dev if split == "dev" else corpus.eval, corpus.documents.__getitem__, 24)
        return paired(made) if metric == "planted_pairs" else made

    evaluation = evaluation_of(system, model, grafts, corpus, config, cost, tmp_path / "codes", labels=labels)
    produce(evaluation, "codes", tmp_path / "codes")
    evaluation.artifacts = tmp_path / "metric"
    chosen = METRICS[metric]
    found = chosen.measure(evaluation, chosen.options(**OPTIONS.get(metric, {})))
    if metric != "reconstruction" or kind:  # units of a model's own reconstruct nothing
        # A text of one domain has nothing to be special in, a tokenizer without names nobody to identify: they say so.
        said = metric in ("specialisation", "ioi") and all(measured.reason for measured in found)
        assert said or any(math.isfinite(measured.value) for measured in found)


def test_units_are_patched_on_their_systems_device(corpus: Corpus, elsewhere: None) -> None:
    of = System("pools", made("pools", corpus).to(ELSEWHERE), None)
    ids = torch.randint(0, corpus.info.vocab_size, (2, 3, 9))
    asked = Prompts(ids[0], ids[1], torch.tensor([3, 4, 5]), torch.tensor([6, 7, 8]))
    before = native(of, asked)
    chosen = {site: score > 0 for site, score in attribution(of, asked, before).items()}
    moved, divergence = patched(of, asked, before, chosen)
    assert {moved.device, divergence.device} == {ELSEWHERE}
