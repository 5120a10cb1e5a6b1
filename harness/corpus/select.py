"""Which documents a corpus holds, and on which side of the split each lies."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.base.errors import BadInput
from harness.corpus import SPLITS, Document, Progress, Sources, digest, missing_domain
from harness.corpus.config import CorpusConfig
from harness.corpus.duplicates import Seen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """What was taken: documents by split, in a fixed mixed order, and how many repeats were left out by domain."""

    domains: tuple[str, ...]
    documents: dict[str, list[Document]]
    repeats: dict[str, int] = field(default_factory=dict)


def split_of(source: str, shares: tuple[float, float, float]) -> str:
    """Train, dev or eval by the hash of the source's name alone: no other text and no seed can move it."""
    position = digest("split", source) / 2**64
    if position < shares[0]:
        return "train"
    return "dev" if position < shares[0] + shares[1] else "eval"


def select(config: CorpusConfig, sources: Mapping[str, Sources], progress: Progress) -> Selection:
    """Take documents until each domain has its share of `bytes_per_domain` in each split, or has no more.

    A document that mostly repeats earlier ones is left out. Train comes first, so dev and eval lose what train has,
    and not the other way round. Raises BadInput for a domain that is missing, empty, or empty on one side.
    """
    for domain in config.domains or ():
        if domain not in sources:
            raise BadInput(missing_domain(domain, sources))
    domains = config.domains or tuple(sources)
    if not domains:
        raise BadInput(f"the corpus is empty: no text in {config.where()}")

    seen, repeats = Seen(), dict.fromkeys(domains, 0)
    documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
    read, total = 0, config.bytes_per_domain * len(domains)
    for split, share in zip(SPLITS, config.shares, strict=True):
        for domain in domains:
            wanted, taken = config.bytes_per_domain * share, 0
            for document in _rounds(sources[domain], split, config.shares):
                if not seen.admit(document.text):
                    repeats[domain] += 1
                    continue
                documents[split].append(document)
                taken += len(document.text.encode())
                progress(min(read + taken, total), total, "bytes read")
                if taken >= wanted:
                    break
            read += taken
        documents[split].sort(key=lambda document: (digest(config.seed, document.id), document.id))
    _check(config, domains, documents)
    return Selection(domains, documents, repeats)


def _rounds(sources: Sources, split: str, shares: tuple[float, float, float]) -> Iterator[Document]:
    """One document from every source of the split, then a second from every source that has more, and so on."""
    more: list[list[Document]] = []
    for source in sources:
        if split_of(source.name, shares) != split:
            continue
        found = source.read()
        if len(found) > 1:
            more.append(found[1:])
        yield from found[:1]
    while more:
        for rest in more:
            yield rest.pop(0)
        more = [rest for rest in more if rest]


def _check(
    config: CorpusConfig,
    domains: tuple[str, ...],
    documents: dict[str, list[Document]],
) -> None:
    counts = {split: dict.fromkeys(domains, 0) for split in SPLITS}
    size = dict.fromkeys(domains, 0)
    for split in SPLITS:
        for document in documents[split]:
            counts[split][document.domain] += 1
            size[document.domain] += len(document.text.encode())
    if not any(size.values()):
        raise BadInput(f"the corpus is empty: no text in any of its domains ({', '.join(domains)})")
    for domain in domains:
        found = sum(counts[split][domain] for split in SPLITS)
        if found == 0:
            with_text = [other for other in domains if size[other]]
            raise BadInput(f"domain {domain!r} is empty; these have text: {', '.join(with_text)}")
        for split in SPLITS:
            if counts[split][domain] == 0:
                sources = {d.source for other in SPLITS for d in documents[other] if d.domain == domain}
                raise BadInput(
                    f"domain {domain!r} is too small to split: {found} documents ({size[domain]:,} bytes) of "
                    f"{len(sources)} files or records, each of which stays whole; none falls to {split}. Give it more "
                    f"of them, a larger share of {split} (shares), more bytes_per_domain ({config.bytes_per_domain:,}) "
                    f"or a lower max_document_bytes ({config.max_document_bytes:,})"
                )
        if size[domain] < 0.95 * config.bytes_per_domain:
            log.warning(
                "domain %s has %s of the %s bytes wanted: there is no more of it",
                domain,
                f"{size[domain]:,}",
                f"{config.bytes_per_domain:,}",
            )
