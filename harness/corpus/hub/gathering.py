"""Which of the texts that come by are wanted: so many bytes of each domain and split, and nothing twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from harness.base.errors import BadInput
from harness.corpus import SPLITS, Document, missing_domain
from harness.corpus.duplicates import Seen
from harness.corpus.excerpts import documents_of
from harness.corpus.select import split_of

# More than is wanted: text of dev and eval that train repeats falls out later, in the search over all that was kept.
_SPARE = 1.1
_LOOK = 10_000  # records in which a domain must occur, where none are named
_MOST_DOMAINS = 32
_MOST_NAMED = 64  # in a message that says which there are


@dataclass(frozen=True)
class Demand:
    """What is wanted of one dataset. `domains` None: all that occur among the first `_LOOK` records."""

    domains: tuple[str, ...] | None
    bytes_per_domain: int
    max_document_bytes: int
    shares: tuple[float, float, float]
    seed: int
    shuffle_buffer: int
    excerpts_per_record: int
    max_records: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Gathering:
    """What was taken so far. `take` says what of a record is to be kept, and drops the rest at once.

    Repeats are left out in the order in which records come. That is only to fetch enough: `select` searches all
    that was kept once more, train first, and is exact about what dev and eval share with train.
    """

    def __init__(self, demand: Demand, where: str, column: str | None) -> None:
        self._demand, self._where, self._column = demand, where, column
        self.domains = list(demand.domains or ())
        self.seen_domains: Counter[str] = Counter()
        self.size: Counter[tuple[str, str]] = Counter()
        self.sources: Counter[str] = Counter()
        self.records = self.empty = self.repeats = 0
        self._seen = Seen()

    def take(self, text: str, domain: str | None) -> list[Document]:
        """The excerpts of a record that are new and wanted."""
        demand = self._demand
        self.records += 1
        if not text.strip():
            self.empty += 1
            return []
        domain = domain if self._column else self.domains[0]
        if domain is None:
            return []
        if domain in self.domains or len(self.seen_domains) < _MOST_NAMED:
            self.seen_domains[domain] += 1
        if domain not in self.domains and not self._discovered(domain):
            return []
        name = hashlib.sha256(text.encode()).hexdigest()[:24]
        split = split_of(name, demand.shares)
        if self._full(domain, split):
            return []
        documents = documents_of(name, domain, [text], demand.max_document_bytes)[: demand.excerpts_per_record]
        new = [document for document in documents if self._seen.admit(document.text)]
        self.repeats += len(documents) - len(new)
        self._count(new, split)
        return new

    def recall(self, documents: list[Document]) -> None:
        """What an earlier read has taken."""
        for document in documents:
            self._seen.admit(document.text)
        self._count(documents, split_of(documents[0].source, self._demand.shares))

    def enough(self) -> bool:
        if self._demand.domains is None and self.records < _LOOK and self._column:
            return False
        return bool(self.domains) and all(self._full(domain, split) for domain in self.domains for split in SPLITS)

    def check(self) -> None:
        """Raises BadInput where there is less than was asked for."""
        where, read = self._where, f"{self.records:,} records were read"
        if self.records == 0:
            raise BadInput(f"{where} is empty: it has no record")
        if self.empty == self.records:
            raise BadInput(f"{where}: all {self.records:,} records that were read are empty texts")
        if not self.domains:
            raise BadInput(f"{where}: no record has a value in domain_column {self._column!r} ({read})")
        for domain in self.domains:
            if not self.seen_domains[domain]:
                raise BadInput(f"{where}: {missing_domain(domain, self.seen_domains)}; {read} (max_records)")
            self._check_size(domain)

    def _check_size(self, domain: str) -> None:
        demand = self._demand
        size = sum(self.size[domain, split] for split in SPLITS)
        which = f"domain {domain!r} of {self._where}" if self._column else self._where
        if self.seen_domains[domain] == 1:
            raise BadInput(
                f"{which} is a single document: it stays whole, so train, dev and eval cannot each have text; "
                f"give it several records"
            )
        if size < 0.95 * demand.bytes_per_domain:
            at_end = self.records < demand.max_records
            more = "there is no more" if at_end else f"raise max_records ({demand.max_records:,})"
            long = f", raise excerpts_per_record ({demand.excerpts_per_record})" if at_end else ""
            raise BadInput(
                f"{which} has {size:,} bytes of new text in {self.records:,} records, fewer than the "
                f"{demand.bytes_per_domain:,} asked for: {more}{long}, or ask for at most {size:,} "
                f"(bytes_per_domain)"
            )

    def lacking(self) -> str:
        """For the log: what is still wanted."""
        wanted = self._demand.bytes_per_domain
        sizes = {domain: sum(self.size[domain, split] for split in SPLITS) for domain in self.domains}
        short = sorted((size / wanted, domain) for domain, size in sizes.items() if size < wanted)
        return ", ".join(f"{domain} {part:.0%}" for part, domain in short[:5]) or "no domain, but some splits"

    def _discovered(self, domain: str) -> bool:
        if self._demand.domains is not None or self.records > _LOOK:
            return False
        self.domains.append(domain)
        if len(self.domains) > _MOST_DOMAINS:
            some = ", ".join(repr(each) for each in self.domains[:4])
            raise BadInput(
                f"{self._where}: domain_column {self._column!r} has more than {_MOST_DOMAINS} values ({some}, ...); "
                f"name those wanted in domains, or another column"
            )
        return True

    def _full(self, domain: str, split: str) -> bool:
        share = self._demand.shares[SPLITS.index(split)]
        return self.size[domain, split] >= self._demand.bytes_per_domain * share * _SPARE

    def _count(self, documents: list[Document], split: str) -> None:
        for document in documents:
            self.size[document.domain, split] += len(document.text.encode())
        if documents:
            self.sources[documents[0].domain] += 1
