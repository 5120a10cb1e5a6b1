import pytest

from harness.base.errors import BadInput
from harness.base.row_name import RowName, together


def test_a_name_is_a_subject_and_perhaps_a_dictionary_with_the_settings_behind_each() -> None:
    plain = RowName.of("dense")
    assert (plain.subject.name, plain.subject.settings, plain.dictionary) == ("dense", {}, None)
    row = RowName.of("dense[d_ff=1024]+topk[k=16,layers=[0,1],lr=1e-3]")
    assert (row.subject.name, row.subject.settings) == ("dense", {"d_ff": 1024})
    assert row.dictionary is not None
    assert (row.dictionary.name, row.dictionary.settings) == ("topk", {"k": 16, "layers": [0, 1], "lr": 1e-3})


@pytest.mark.parametrize(
    "name", ["dense", "dense[x=1+1]+topk", "dense[ d_ff = 4 ]+topk[k=1]", "dense+pretrained[path=a+b/{layer}]"]
)
def test_a_name_is_written_as_it_was_read(name: str) -> None:
    assert str(RowName.of(name)) == name


@pytest.mark.parametrize(
    ("name", "without", "left"),
    [
        ("dense+topk[k=8,n_latents=512]", ("k", "n_latents"), "dense+topk"),
        ("dense[d_ff=4,k=2]+topk[k=8,layers=[0,1]]", ("k",), "dense[d_ff=4]+topk[layers=[0,1]]"),
        ("pools[max_experts=4]", ("max_experts",), "pools"),
        ("pools[pools=4]", ("max_experts",), "pools[pools=4]"),
    ],
)
def test_what_a_sweep_varies_can_be_left_out(name: str, without: tuple[str, ...], left: str) -> None:
    assert str(RowName.of(name).without(*without)) == left


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dense[d_ff=4", "bracket is not closed"),
        ("dense[d_ff]", "'d_ff' in brackets is not key=value"),
        ("dense[d_ff=4,d_ff=5]", "d_ff stands twice"),
        ("dense+topk[layers=[0]", "bracket is not closed"),
        ("dense[d_ff={]", "bracket|YAML"),
    ],
)
def test_what_cannot_be_read_names_the_row(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        RowName.of(name)
    assert name in str(caught.value)


def test_a_setting_in_the_brackets_and_below_the_name_is_refused() -> None:
    part = RowName.of("topk[k=4]").subject
    assert together(part, {"lr": 1}, "topk[k=4]") == {"lr": 1, "k": 4}
    with pytest.raises(BadInput, match="k stands in the brackets and below the name"):
        together(part, {"k": 5}, "topk[k=4]")
