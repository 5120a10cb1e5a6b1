from __future__ import annotations

import logging

import pytest
import torch

from kernels import dispatch


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(dispatch, "_said", set())
    monkeypatch.delenv("HARNESS_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def test_float32_on_cpu_takes_numba():
    assert dispatch.choose("op", "cpu", torch.float32) == "cpu"


def test_unsupported_dtype_falls_back_with_one_log_line_that_names_it(caplog):
    with caplog.at_level(logging.INFO, logger="kernels.dispatch"):
        assert dispatch.choose("op", "cpu", torch.float64) == "reference"
        assert dispatch.choose("op", "cpu", torch.float64) == "reference"
    assert len(caplog.records) == 1
    assert "op" in caplog.text
    assert "float64" in caplog.text


def test_missing_numba_falls_back_with_its_reason(monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "_installed", lambda module: module != "numba")
    with caplog.at_level(logging.INFO, logger="kernels.dispatch"):
        assert dispatch.choose("op", "cpu", torch.float32) == "reference"
    assert "numba is not installed" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_forced_gpu_without_one_takes_the_next_and_says_why(monkeypatch, caplog):
    monkeypatch.setenv("HARNESS_KERNELS", "gpu")
    with caplog.at_level(logging.INFO, logger="kernels.dispatch"):
        assert dispatch.choose("op", "cpu", torch.float32) == "cpu"
    assert "no GPU is available" in caplog.text


def test_forced_reference_is_silent(monkeypatch, caplog):
    monkeypatch.setenv("HARNESS_KERNELS", "reference")
    with caplog.at_level(logging.INFO, logger="kernels.dispatch"):
        assert dispatch.choose("op", "cpu", torch.float32) == "reference"
    assert not caplog.records


def test_unknown_implementation_is_refused_with_what_is_allowed(monkeypatch):
    monkeypatch.setenv("HARNESS_KERNELS", "fpga")
    with pytest.raises(ValueError, match=r"fpga.*reference, cpu, gpu"):
        dispatch.choose("op", "cpu", torch.float32)


def test_op_without_a_fast_implementation_runs_the_reference():
    assert dispatch.choose("op", "cpu", torch.float32, has=("gpu",)) == "reference"


def test_recording_sees_only_its_block_and_nests():
    dispatch.choose("before", "cpu", torch.float32)
    with dispatch.recording() as outer:
        dispatch.choose("first", "cpu", torch.float32)
        with dispatch.recording() as inner:
            dispatch.choose("second", "cpu", torch.float64)
    assert outer == {"first": "cpu", "second": "reference"}
    assert inner == {"second": "reference"}
