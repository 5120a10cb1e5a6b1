"""What a person can choose about a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.corpus import missing_domain

INSTALLED_DOMAINS = ("prose", "code", "documentation", "citations", "legal", "biomedical", "chess")


class CorpusConfig(BaseModel):
    """A corpus, its tokenizer and how both are packed. Sizes are bytes of UTF-8 text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["installed", "chess", "files"] = "installed"
    path: Path | None = Field(
        default=None, description="files: the folder to read; chess: a PGN file or a folder of them"
    )
    domains: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="which domains; all of them when left out"
    )
    bytes_per_domain: int = Field(default=600_000, gt=0, description="text wanted of each domain, all splits together")
    max_document_bytes: int = Field(
        default=4096, ge=64, description="longer texts are cut into excerpts of at most this"
    )
    shares: tuple[float, float, float] = Field(default=(0.86, 0.04, 0.10), description="train, dev, eval")
    vocab_size: int = Field(default=2048, ge=257, description="256 bytes, the end-of-text token, and merges")
    sequence_length: int = Field(default=256, ge=2)
    seed: int = Field(default=0, ge=0, description="which files are visited first, and which games are played")
    chess_play: Literal["random", "stockfish"] = "random"
    chess_plies: int = Field(default=120, ge=20, le=1000, description="generated games stop after so many half-moves")

    @model_validator(mode="after")
    def _consistent(self) -> CorpusConfig:
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares {self.shares}: three positive numbers that sum to 1, such as (0.86, 0.04, 0.10)")
        if self.kind == "files" and self.path is None:
            raise ValueError("kind 'files' reads the folder named by path, and there is no path")
        if self.kind == "installed" and self.path is not None:
            raise ValueError(f"path {str(self.path)!r}: kind 'installed' reads no path; kinds 'files' and 'chess' do")
        known = {"installed": INSTALLED_DOMAINS, "chess": ("chess",)}.get(self.kind)
        for domain in self.domains or ():
            if known is not None and domain not in known:
                raise ValueError(missing_domain(domain, known))
        if self.domains and len(set(self.domains)) < len(self.domains):
            raise ValueError(f"domains {list(self.domains)}: one of them is named twice")
        return self

    def wants(self, domain: str) -> bool:
        return self.domains is None or domain in self.domains
