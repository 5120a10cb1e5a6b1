import pytest
import torch

from kernels import threads


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """Addresses of the tables for which huge pages were asked."""
    seen: list[int] = []
    monkeypatch.setattr(threads, "_advise", lambda *_: 0)
    monkeypatch.setattr(threads, "_calls", {})
    monkeypatch.setattr(threads, "_ask_for_huge_pages", lambda tensor, _: seen.append(tensor.data_ptr()))
    return seen


def test_a_table_put_on_huge_pages_is_the_same_memory_with_the_same_values() -> None:
    values = torch.randn(3 * threads.HUGE_PAGE // 4 + 7, generator=torch.Generator().manual_seed(0)).view(-1, 1)
    copy = values.clone()
    array = threads.table(values)
    assert array.ctypes.data == values.data_ptr()
    assert torch.equal(torch.from_numpy(array), copy)


def test_huge_pages_are_asked_for_once_and_again_after_many_calls(asked) -> None:
    one, other = torch.zeros(4, 4), torch.zeros(4, 4)
    for _ in range(threads.ASK_EVERY):
        threads.table(one)
    threads.table(other)
    assert asked == [one.data_ptr(), other.data_ptr()]
    threads.table(one)
    assert asked == [one.data_ptr(), other.data_ptr(), one.data_ptr()]


def test_more_tables_than_are_remembered_are_served(asked, monkeypatch) -> None:
    monkeypatch.setattr(threads, "MOST_TABLES", 2)
    tables = [torch.full((4, 4), float(i)) for i in range(5)]
    assert [threads.table(tensor)[3, 3] for tensor in tables] == [0, 1, 2, 3, 4]
    assert len(threads._calls) <= 2


def test_a_table_that_is_not_contiguous_is_copied_and_nothing_asked(asked) -> None:
    values = torch.arange(6.0).view(2, 3)
    assert threads.table(values.T).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert asked == []
