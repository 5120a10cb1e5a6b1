"""The side-by-side harness: trains, reads, measures and tabulates.

The checkout goes first on `sys.path`: Hugging Face's package `kernels` shares the name of ours, and must not be found
in its place.
"""

import sys
from pathlib import Path

_CHECKOUT = str(Path(__file__).resolve().parent.parent)
if sys.path[0] != _CHECKOUT:
    sys.path.insert(0, _CHECKOUT)
