"""Long texts become several documents, so that an evaluation has many of them to resample."""

from __future__ import annotations

from collections.abc import Iterable

from harness.corpus import Document, digest


def excerpts(text: str, max_bytes: int) -> list[str]:
    """`text` as consecutive pieces of at most `max_bytes` UTF-8 bytes, nothing lost but line breaks at their ends.

    A piece ends at the last blank line of its second half, else the last line break there, else the last space,
    else between two characters.
    """
    data = text.encode()
    pieces, start = [], 0
    while len(data) - start > max_bytes:
        end = _cut(data, start, start + max_bytes)
        pieces.append(data[start:end])
        start = end
    pieces.append(data[start:])
    stripped = (piece.decode().strip("\r\n") for piece in pieces)
    return [piece for piece in stripped if piece.strip()]


def _cut(data: bytes, start: int, limit: int) -> int:
    for separator in (b"\n\n", b"\n", b" "):
        at = data.rfind(separator, (start + limit) // 2, limit)
        if at >= 0:
            return at + len(separator)
    while data[limit] & 0xC0 == 0x80:  # the middle of a character
        limit -= 1
    return limit


def documents_of(source: str, domain: str, texts: Iterable[str], max_bytes: int, min_bytes: int = 1) -> list[Document]:
    """Every excerpt of every text of one source, beginning at a hash-chosen one.

    Selection takes one document per source and round, so the first of this list is the one that most sources give.
    """
    pieces = [piece for text in texts for piece in excerpts(text, max_bytes) if len(piece.encode()) >= min_bytes]
    documents = [
        Document(id=f"{domain}:{source}#{number}", domain=domain, text=piece, source=source)
        for number, piece in enumerate(pieces)
    ]
    if not documents:
        return []
    first = digest(domain, source) % len(documents)
    return documents[first:] + documents[:first]
