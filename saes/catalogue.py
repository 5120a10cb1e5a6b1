"""SAELens' list of published dictionaries, read without importing SAELens (which takes 9 s) and without network."""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CROSS_LAYER = "mntss_clt_layer_transcoder"  # SAELens' name of how it reads layers of cross-layer transcoders
# Where the list does not say it: SAELens' way of reading a release, and part of its name → the hook.
_HOOKS = (
    ("gemma_2_transcoder", "", "ln2.hook_normalized → hook_mlp_out"),
    ("mwhanna_transcoder", "", "mlp.hook_in → hook_mlp_out"),
    (CROSS_LAYER, "", "cross-layer → hook_mlp_out"),
    ("gemma_3", "transcoders", "hook_mlp_in → hook_mlp_out"),
    ("gemma", "-att", "attn.hook_z"),
    ("gemma", "-mlp", "hook_mlp_out"),
    ("gemma", "-res", "hook_resid_post"),
    ("llama_scope_r1_distill", "", "hook_resid_post"),
    ("llama_scope", "lxa", "hook_attn_out"),
    ("llama_scope", "lxm", "hook_mlp_out"),
    ("", "", "hook_resid_post"),
)


@dataclass(frozen=True)
class Release:
    """model: that its dictionaries were trained on. ids: of them, each with its place in `repo`. conversion: how
    SAELens reads it, empty for its own format."""

    name: str
    model: str
    repo: str
    conversion: str
    ids: dict[str, str]

    @property
    def hook(self) -> str:
        """What its dictionaries read, as far as the list tells."""
        first = next(iter(self.ids))
        if first.startswith("blocks."):
            return first.split(".", 2)[2].partition("__")[0].rstrip("0123456789").removesuffix("_")
        found = (hook for how, part, hook in _HOOKS if self.conversion.startswith(how) and part in self.name)
        return next(found)

    def check_id(self, sae_id: str) -> None:
        """Raises ValueError, with the nearest, where there is no such dictionary in it."""
        if sae_id not in self.ids:
            raise ValueError(f"no dictionary {sae_id!r} in {self.name}; {_near(sae_id, list(self.ids))}")


@cache
def releases() -> dict[str, Release]:
    """By name. Raises ValueError where SAELens is not installed."""
    import yaml

    found = importlib.util.find_spec("sae_lens")
    if found is None or found.origin is None:
        raise ValueError("the list of published dictionaries is a part of SAELens, which is not installed")
    text = (Path(found.origin).parent / "pretrained_saes.yaml").read_bytes()
    listed: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        name: Release(
            name,
            said["model"],
            said["repo_id"],
            said.get("conversion_func") or "",
            {entry["id"]: str(entry["path"]) for entry in said["saes"]},
        )
        for name, said in listed.items()
    }


def release(name: str) -> Release | None:
    """None for a repository of the Hub that is not in the list. Raises ValueError, with the nearest names, for a name
    that is neither."""
    if name in releases():
        return releases()[name]
    if "/" in name:
        return None
    raise ValueError(f"no release {name!r} in SAELens' list; {_near(name, list(releases()))}")


def near(text: str) -> str:
    """What somebody may have meant who looked for `text`: releases, models, and the words that these are made of."""
    names = [*releases(), *{each.model for each in releases().values()}]
    words = {word for name in names for word in re.split("[-_/]", name) if len(word) > 3}
    return _near(text, [*names, *sorted(words)])


def _near(text: str, known: list[str]) -> str:
    """`did you mean ...?`, three at most: there are hundreds."""
    by_small = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(text.casefold(), by_small, n=3, cutoff=0.5)
    there = f"it has {known[0]} and others (harness list saes)"
    return f"did you mean {', '.join(by_small[name] for name in close)}?" if close else there
