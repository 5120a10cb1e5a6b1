"""A corpus from the Hugging Face Hub, or from local parquet and jsonl read in the same way.

`recipes.py` says where text is, `network.py` speaks to the Hub, `stream.py` opens a dataset as a stream of records,
`gathering.py` decides what of it is wanted, and `spool.py` keeps that on disk with the position, so that a killed read
goes on where it was. Splitting and the exact search for near-duplicates are those of every corpus (`select.py`).

The commit of every dataset is in the corpus's key. A record's name, on whose hash its split depends, is the hash of its
text: no seed, no order and no second copy moves a text to another side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from harness.base.errors import BadInput
from harness.corpus import Sources, in_hash_order, missing_domain
from harness.corpus.config import CorpusConfig, register
from harness.corpus.folder import contents_digest
from harness.corpus.hub.gathering import Demand
from harness.corpus.hub.network import commit_of
from harness.corpus.hub.recipes import RECIPES, Origin
from harness.corpus.hub.spool import read


class HubCorpus(Origin, CorpusConfig):
    """One dataset with a column of domains, or one domain; or `parts`: one domain a dataset."""

    kind: Literal["hub"] = "hub"
    parts: dict[str, Origin] = Field(
        default_factory=dict, description="domain -> its dataset, in place of a single one"
    )
    shuffle_buffer: int = Field(default=1000, ge=1, description="records that are held and mixed, by the seed")
    excerpts_per_record: int = Field(default=8, ge=1, description="more of a long record are left: others count more")
    max_records: int = Field(default=200_000, ge=1, description="records read of a dataset at most, wanted or not")

    @model_validator(mode="after")
    def _one_way(self) -> HubCorpus:
        single = [name for name in Origin.model_fields if getattr(self, name) is not None]
        if self.parts and single:
            raise ValueError(f"parts and {single[0]}: parts say for each domain where it is; leave {single[0]} out")
        if not self.parts and not (self.recipe or self.dataset or self.path):
            raise ValueError(f"a recipe ({', '.join(RECIPES)}), a dataset, a path or parts are needed")
        if self.recipe and RECIPES[self.recipe].parts and len(single) > 1:
            other = next(name for name in single if name != "recipe")
            raise ValueError(f"recipe {self.recipe!r} is several datasets: {other} cannot be said of all of them")
        for domain, part in self.parts.items():
            if part.domain_column is not None:
                raise ValueError(f"parts.{domain}.domain_column: a part is one domain; name one dataset instead")
            if not (part.recipe or part.dataset or part.path) or (part.recipe and RECIPES[part.recipe].parts):
                raise ValueError(f"parts.{domain}: must name one dataset, by dataset, path or a recipe of one")
        return self

    def sources(self) -> dict[str, Sources]:
        """The wanted domains, read to the end of what is wanted of each: nothing is left to be read later."""
        return {domain: in_hash_order(found, self.seed) for domain, found in self._read().items()}

    def packages(self) -> tuple[str, ...]:
        return ("datasets",)

    def contents(self) -> str | None:
        """Each dataset's commit, and the digest of local files."""
        return "; ".join(f"{origin.place()}@{_pin(origin)}" for origin in self._origins().values())

    def where(self) -> Path | None:
        return self.path

    def _origins(self) -> dict[str | None, Origin]:
        """Domain -> dataset; None where a column says the domain."""
        parts = self.parts
        if self.recipe and (datasets := RECIPES[self.recipe].parts):
            parts = {domain: Origin(dataset=dataset) for domain, dataset in datasets.items()}
        if parts:
            for domain in self.domains or ():
                if domain not in parts:
                    raise BadInput(missing_domain(domain, parts))
            return {domain: part.whole() for domain, part in parts.items() if self.wants(domain)}
        origin = Origin.model_validate(self.model_dump(include=set(Origin.model_fields))).whole()
        return {None if origin.domain_column else origin.named(): origin}

    def _read(self) -> dict[str, Sources]:
        found: dict[str, Sources] = {}
        for domain, origin in self._origins().items():
            wanted = (domain,) if domain is not None else self.domains
            if domain is None and wanted is None and self.recipe:
                wanted = RECIPES[self.recipe].domains or None
            if domain is not None and not self.wants(domain):
                raise BadInput(missing_domain((self.domains or ("",))[0], [domain]))
            demand = Demand(
                domains=wanted,
                bytes_per_domain=self.bytes_per_domain,
                max_document_bytes=self.max_document_bytes,
                shares=self.shares,
                seed=self.seed,
                shuffle_buffer=self.shuffle_buffer,
                excerpts_per_record=self.excerpts_per_record,
                max_records=self.max_records,
            )
            found |= read(origin, _pin(origin), demand)
        return found


def _pin(origin: Origin) -> str:
    """What decides the text: the commit, or the bytes of local files."""
    if origin.path is not None:
        return contents_digest(origin.path)
    assert origin.dataset is not None
    return commit_of(origin.dataset, origin.revision or "main")


register("hub", HubCorpus)
