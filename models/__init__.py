"""Subjects: one decoder trunk with an interchangeable feed-forward layer, as Hugging Face models.

`import models` registers every architecture with `AutoConfig` and `AutoModelForCausalLM`; `ARCHITECTURES` lists them
by the names that rows of a table use, `build(name, **settings)` makes one. An architecture is one file that calls
`register`; those of this folder are found by walking it, those of other packages by entry point (`harness.systems`).
"""

from importlib import import_module

import transformers.utils
from transformers.utils import import_utils

from kernels.registry import registered


def _no_hub_kernels(*_: object, **__: object) -> bool:
    return False


# Hugging Face's package `kernels` shares its name with ours. Where its metadata is installed, transformers would import
# *our* package and look for its names in it: Llama could not be imported. So transformers is told that it is absent,
# at both places from which its modules import the question, before any of its models is imported.
import_utils.is_kernels_available = _no_hub_kernels
transformers.utils.is_kernels_available = _no_hub_kernels  # pyright: ignore[reportPrivateImportUsage]

from kernels.codes import Codes  # noqa: E402
from models.config import TrunkConfig  # noqa: E402
from models.feed_forward import FeedForward, FixedWrites, Role, Tap  # noqa: E402
from models.registry import ARCHITECTURES, Architecture, build, register  # noqa: E402
from models.trunk import TrunkForCausalLM  # noqa: E402

for _module in sorted(set(registered("models").values())):
    import_module(_module)

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Codes",
    "FeedForward",
    "FixedWrites",
    "Role",
    "Tap",
    "TrunkConfig",
    "TrunkForCausalLM",
    "build",
    "register",
]
