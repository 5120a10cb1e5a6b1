import pytest
import torch

from saes.activations import Activations, ActivationStream


def stream(planted, **more):
    settings = {"n_sequences": 20, "sequence_tokens": 32, "seed": 3, "batch_tokens": 50, "buffer_tokens": 160}
    return ActivationStream(planted, **{**settings, **more})


def take(batches, n):
    return [next(batches) for _ in range(n)]


def test_an_epoch_gives_every_token_once(planted):
    parts = [batch.rows for chunk, _, batch in take(stream(planted).batches(), 16) if chunk < 4]
    rows = torch.cat(parts)
    assert rows.shape == (640, 2)
    assert len({tuple(row) for row in rows.tolist()}) == 640


def test_a_batch_mixes_the_sequences_of_its_chunk(planted):
    _, _, batch = next(stream(planted).batches())
    assert batch.rows[:, 0].unique().numel() == 5
    assert (batch.rows[1:, 1] - batch.rows[:-1, 1] == 1).float().mean() < 0.2


def test_rows_follow_their_activations_through_the_shuffle(planted):
    _, _, batch = next(stream(planted).batches())
    for (sequence, position), x in zip(batch.rows[:5].tolist(), batch.sites["sae"][0][:5], strict=True):
        assert torch.equal(planted(torch.tensor([sequence])).sites["sae"][0][position], x)


def test_epochs_come_in_different_orders(planted):
    s = stream(planted)
    first, second = s.chunk(0).rows, s.chunk(4).rows
    assert set(first[:, 0].tolist()) != set(second[:, 0].tolist())


def test_batches_from_the_middle_are_those_of_a_run_from_the_start(planted):
    s = stream(planted)
    whole = take(s.batches(), 11)
    resumed = take(s.batches(chunk=1, batch=2), 5)
    for (_, _, a), (_, _, b) in zip(whole[6:], resumed, strict=True):
        assert torch.equal(a.rows, b.rows)
        assert torch.equal(a.sites["mlp"][1], b.sites["mlp"][1])


def test_batches_are_nearly_equal_and_none_is_longer_than_asked(planted):
    lengths = [batch.n_tokens for _, _, batch in take(stream(planted).batches(), 8)]
    assert max(lengths) <= 50
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_activation_that_is_not_finite_is_named_by_site_sequence_and_position(planted, bad):
    def collect(sequences):
        activations = planted(sequences)
        for i, (sequence, position) in enumerate(activations.rows.tolist()):
            if (sequence, position) == (11, 5):
                activations.sites["mlp"][1][i, 3] = bad
        return activations

    everything = stream(collect, buffer_tokens=640)
    with pytest.raises(ValueError, match=r"site mlp is not finite on token \(sequence 11, position 5\)"):
        everything.chunk(0)


def test_a_subject_that_gives_no_token_is_an_error():
    empty = stream(lambda sequences: Activations(torch.zeros(0, 2, dtype=torch.long), {}))
    with pytest.raises(ValueError, match="no activations"):
        empty.chunk(0)


def test_a_buffer_smaller_than_a_batch_is_an_error(planted):
    with pytest.raises(ValueError, match="buffer_tokens 10: must be at least batch_tokens 50"):
        stream(planted, buffer_tokens=10)
