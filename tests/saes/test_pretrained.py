import pytest
import torch

from saes.dictionary import Weights
from saes.pretrained import Pretrained
from saes.topk import TopK


def made(folder, seed=0, d=6):
    g = torch.Generator().manual_seed(seed)
    weights = Weights(torch.randn(d, 9, generator=g), torch.zeros(9), torch.randn(9, d, generator=g), torch.zeros(d))
    dictionary = TopK(weights, 2)
    dictionary.save(folder)
    return dictionary


def test_the_layer_stands_in_the_path(tmp_path):
    for layer in (0, 1):
        made(tmp_path / f"at.{layer}", seed=layer)
    source = Pretrained(path=str(tmp_path / "at.{layer}"))
    source.check_layers([0, 1])
    assert not torch.equal(source.load(0, 6).W_dec, source.load(1, 6).W_dec)


def test_the_next_layer_stands_in_the_name_of_a_hook_before_it():
    source = Pretrained(path="theirs/blocks.{layer+1}.hook_resid_pre")
    assert str(source.folder(7)) == "theirs/blocks.8.hook_resid_pre"
    source.check_layers([6, 7])


def test_a_release_is_loaded_by_its_name_and_id(monkeypatch, tmp_path):
    saelens = pytest.importorskip("saes.saelens")
    asked = []
    dictionary = made(tmp_path)
    monkeypatch.setattr(
        saelens, "load_pretrained", lambda release, sae_id: asked.append((release, sae_id)) or dictionary
    )
    source = Pretrained(release="someone/small-model", id="blocks.{layer}.mlp_out")
    assert source.load(3, 6) is dictionary
    assert asked == [("someone/small-model", "blocks.3.mlp_out")]
    with pytest.raises(
        ValueError, match=r"someone/small-model/blocks.3.*reads width 6 and writes 6, the subject has width 8"
    ):
        source.load(3, 8)


def test_what_the_folders_hold_is_part_of_it(tmp_path):
    made(tmp_path)
    source = Pretrained(path=str(tmp_path))
    before = source.with_contents([0])
    assert before == source.with_contents([0])
    made(tmp_path, seed=1)
    assert source.with_contents([0]) != before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "name a folder"),
        ({"path": "a", "release": "b"}, "one of the two"),
        ({"path": "a", "id": "b"}, "needs none"),
    ],
)
def test_where_it_comes_from_is_said_once(options, says):
    with pytest.raises(ValueError, match=says):
        Pretrained(**options)
