import torch

from kernels import threads


def test_a_table_put_on_huge_pages_is_the_same_memory_with_the_same_values() -> None:
    values = torch.randn(3 * threads.HUGE_PAGE // 4 + 7, generator=torch.Generator().manual_seed(0)).view(-1, 1)
    copy = values.clone()
    for _ in range(2):  # the second time nothing is asked of the system
        array = threads.table(values)
        assert array.ctypes.data == values.data_ptr()
        assert torch.equal(torch.from_numpy(array), copy)


def test_more_tables_than_are_remembered_are_served(monkeypatch) -> None:
    monkeypatch.setattr(threads, "MOST_COLLAPSED", 2)
    tables = [torch.full((4, 4), float(i)) for i in range(5)]
    assert [threads.table(tensor)[3, 3] for tensor in tables] == [0, 1, 2, 3, 4]
    assert len(threads._collapsed) <= 2


def test_a_table_that_is_not_contiguous_is_copied() -> None:
    values = torch.arange(6.0).view(2, 3)
    assert threads.table(values.T).tolist() == [[0, 3], [1, 4], [2, 5]]
