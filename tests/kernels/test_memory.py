from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kernels import memory
from kernels.rank1_experts import rank1_experts


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """Addresses of the tables for which huge pages were asked."""
    seen: list[int] = []
    monkeypatch.setattr(memory, "_advise", lambda *_: 0)
    monkeypatch.setattr(memory, "_calls", {})
    monkeypatch.setattr(memory, "_ask_for_huge_pages", lambda tensor: seen.append(tensor.data_ptr()))
    return seen


def test_a_table_put_on_huge_pages_is_the_same_memory_with_the_same_values() -> None:
    values = torch.randn(3 * memory.HUGE_PAGE // 4 + 7, generator=torch.Generator().manual_seed(0)).view(-1, 1)
    copy = values.clone()
    array = memory.table(values)
    assert array.ctypes.data == values.data_ptr()
    assert torch.equal(torch.from_numpy(array), copy)


def test_huge_pages_are_asked_for_once_and_again_after_many_calls(asked) -> None:
    one, other = torch.zeros(4, 4), torch.zeros(4, 4)
    for _ in range(memory.ASK_EVERY):
        memory.table(one)
    memory.table(other)
    assert asked == [one.data_ptr(), other.data_ptr()]
    memory.table(one)
    assert asked == [one.data_ptr(), other.data_ptr(), one.data_ptr()]


def test_more_tables_than_are_remembered_are_served(asked, monkeypatch) -> None:
    monkeypatch.setattr(memory, "MOST_TABLES", 2)
    tables = [torch.full((4, 4), float(i)) for i in range(5)]
    assert [memory.table(tensor)[3, 3] for tensor in tables] == [0, 1, 2, 3, 4]
    assert len(memory._calls) <= 2


def test_a_table_that_is_not_contiguous_is_copied_and_nothing_asked(asked) -> None:
    values = torch.arange(6.0).view(2, 3)
    assert memory.table(values.T).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert asked == []


ROWS = memory.HUGE_PAGE // 4 // 64  # of 64: one huge page


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    memory._free.clear()
    yield
    memory._free.clear()


def test_a_gradient_lies_in_the_memory_of_one_that_nobody_holds(nothing_kept) -> None:
    one = memory.empty_gradient(ROWS, 64)
    place = one.data_ptr()
    other = memory.empty_gradient(ROWS, 64)
    assert other.data_ptr() != place
    del one
    assert memory.empty_gradient(2 * ROWS, 64).data_ptr() != place  # of another size
    assert memory.empty_gradient(ROWS, 64).data_ptr() == place


@pytest.mark.parametrize("hold", [lambda t: t[5:], lambda t: t.numpy(), lambda t: t.view(-1).detach(), Tensor.t])
def test_what_lies_in_a_gradient_keeps_its_memory(nothing_kept, hold) -> None:
    one = memory.empty_gradient(ROWS, 64).fill_(1)
    held = hold(one)
    del one
    memory.empty_gradient(ROWS, 64).fill_(2)
    assert (torch.as_tensor(held) == 1).all()


def test_a_gradient_on_a_parameter_keeps_its_memory_until_the_next_step(nothing_kept) -> None:
    g = torch.Generator().manual_seed(0)
    u, v = (torch.randn(ROWS, 64, generator=g, requires_grad=True) for _ in range(2))
    x = torch.randn(4, 64, generator=g)
    indices, gates = torch.arange(8).view(4, 2), torch.ones(4, 2)
    for _ in range(3):
        rank1_experts(x, u, v, indices, gates, "gelu").sum().backward()  # added to what is there
    assert u.grad is not None
    thrice = u.grad.clone()
    u.grad = v.grad = None
    rank1_experts(x, u, v, indices, gates, "gelu").sum().backward()
    torch.testing.assert_close(thrice, 3 * u.grad)


def test_no_more_memory_is_kept_than_said(nothing_kept) -> None:
    for _ in range(2):
        held = [memory.empty_gradient(ROWS, 64) for _ in range(memory.MOST_KEPT + 3)]
        del held
        assert len(memory._free) == memory.MOST_KEPT
    large = memory.empty_gradient(memory.LARGEST_KEPT // 4 // 64 + 1, 64)
    del large
    assert len(memory._free) == memory.MOST_KEPT


def test_settled_weights_lie_where_torch_aligns_them_keep_their_values_and_stay_tied() -> None:
    whole = torch.arange(33.0, dtype=torch.float32)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    crooked = torch.nn.Parameter(whole[1:17].view(4, 4))  # 4 bytes off, as a file may place it
    model[0].weight = model[1].weight = crooked
    model[2].running_mean = whole[17:21]
    assert crooked.data_ptr() % 64
    memory.settle(model)
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.data_ptr() % 64 == 0
    assert model[0].weight is model[1].weight
    assert torch.equal(model[0].weight, whole[1:17].view(4, 4))
    assert torch.equal(model[2].running_mean, whole[17:21])
    assert model[0].weight.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()
