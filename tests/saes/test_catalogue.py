"""SAELens' list of releases, read from its package without importing it."""

from __future__ import annotations

import pytest

from saes import catalogue

pytest.importorskip("yaml")


def test_a_release_says_its_model_its_hook_and_its_dictionaries() -> None:
    listed = catalogue.releases()
    assert len(listed) > 100
    jb = listed["gpt2-small-res-jb"]
    assert (jb.model, jb.hook, len(jb.ids)) == ("gpt2-small", "hook_resid_pre", 13)
    assert listed["gpt2-small-hook-z-kk"].hook == "hook_z"
    assert listed["gemma-scope-2b-pt-mlp"].hook == "hook_mlp_out"
    assert listed["gemma-scope-2b-pt-transcoders"].hook == "ln2.hook_normalized → hook_mlp_out"
    assert listed["gpt2-small-res-jb-feature-splitting"].hook == "hook_resid_pre"


def test_a_name_that_is_none_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no release 'gpt2-smal-res-jb' .* did you mean gpt2-small-res-jb"):
        catalogue.release("gpt2-smal-res-jb")
    with pytest.raises(ValueError, match=r"no dictionary 'blocks.13.hook_resid_pre' in .* did you mean blocks\."):
        catalogue.releases()["gpt2-small-res-jb"].check_id("blocks.13.hook_resid_pre")
    assert "pythia" in catalogue.near("pyhtia")


def test_a_repository_that_is_not_in_the_list_may_be_on_the_hub() -> None:
    assert catalogue.release("someone/their-saes") is None
