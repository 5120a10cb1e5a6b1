"""For all tests: threads that do not spin, and what a marker means."""

import os

# Before anything imports torch: its threads must not spin on cores that other threads and processes want.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
