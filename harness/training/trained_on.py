"""What a dictionary was trained on, kept in its folder, so that it is not read on another subject unseen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.systems.system import Site
from saes.dictionary import CONFIG_FILE, Dictionary

KEY = "trained_on"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of a model's weights: 16 hexadecimal digits. Where they lie does not count, what type they have does."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def note(folder: Path, subject: str, site: Site) -> None:
    """Writes into a dictionary's folder the fingerprint of its subject and the site."""
    path = folder / CONFIG_FILE
    config: dict[str, Any] = json.loads(path.read_text())
    config["metadata"] = {**(config.get("metadata") or {}), KEY: {"subject": subject, "site": str(site)}}
    path.write_text(json.dumps(config, indent=1))


def mismatch(dictionary: Dictionary, subject: str, site: Site) -> str | None:
    """Why a dictionary does not belong to this subject and site; None where it does, or where nobody noted what it was
    trained on (dictionaries of others)."""
    known = getattr(dictionary, "metadata", {}).get(KEY)
    if not isinstance(known, dict):
        return None
    if known.get("site") != str(site):
        return f"it was trained at {known.get('site')}, not at {site}"
    if known.get("subject") != subject:
        return "it was trained on another subject (or on another seed or training of this one)"
    return None
