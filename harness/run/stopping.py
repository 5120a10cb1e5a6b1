"""What SIGTERM does to a command that trains."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType

log = logging.getLogger(__name__)


def stop_at_once() -> None:
    """From here on: while libraries are imported, which may swallow an exception, and nothing is written yet."""
    signal.signal(signal.SIGTERM, _on_early_sigterm)


def stop_after_a_checkpoint() -> None:
    """From here on. First: train to the next point of the curve, write a checkpoint, exit 75. Again, or when nothing
    trains: at once. Where a library swallows the exception, the end of the stage is where the run stops."""
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_early_sigterm(_signal: int, _frame: FrameType | None) -> None:
    log.error("error: stopped before anything ran; run the same command to start")
    os._exit(75)


def _on_sigterm(_signal: int, _frame: FrameType | None) -> None:
    from harness.base.errors import Interrupted
    from harness.base.stop import STOP

    now = STOP.requested or not STOP.training
    STOP.requested = True
    if now:
        raise Interrupted("stopped; run the same command to continue")
