"""The wish to stop, from the signal handler to whatever is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class StopSignal:
    """SIGTERM while something trains: the handler sets `requested`; training writes a checkpoint at the next point of
    its curve and stops. Elsewhere there is nothing to save, and the handler stops at once."""

    training = False
    requested = False


STOP = StopSignal()
