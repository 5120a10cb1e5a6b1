"""Subjects: one decoder trunk with an interchangeable feed-forward layer, as Hugging Face models.

`import models` registers every architecture with `AutoConfig` and `AutoModelForCausalLM`; `ARCHITECTURES` lists them
by the names that rows of a table use, `build(name, **settings)` makes one.
"""

import transformers.utils
from transformers.utils import import_utils


def _no_hub_kernels(*_: object, **__: object) -> bool:
    return False


# Hugging Face's package `kernels` shares its name with ours. Where its metadata is installed, transformers would import
# *our* package and look for its names in it: Llama could not be imported. So transformers is told that it is absent,
# at both places from which its modules import the question, before any of its models is imported.
import_utils.is_kernels_available = _no_hub_kernels
transformers.utils.is_kernels_available = _no_hub_kernels  # pyright: ignore[reportPrivateImportUsage]

from models import dense, moex, monet, peer, pools  # noqa: E402, F401 (importing an architecture registers it)
from models.registry import ARCHITECTURES, Architecture, architecture, build, register  # noqa: E402
from models.trunk import FeedForward, Tap, TrunkForCausalLM  # noqa: E402

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "FeedForward",
    "Tap",
    "TrunkForCausalLM",
    "architecture",
    "build",
    "register",
]
