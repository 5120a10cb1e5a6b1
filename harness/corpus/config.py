"""What a person can choose about a corpus: what every kind has. A kind is one file beside this one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, SerializeAsAny, model_validator

from harness.base.settings import Strict, by_kind
from harness.corpus import Sources, missing_domain
from kernels.registry import Registry

if TYPE_CHECKING:
    from harness.corpus.labels import Labeller


class TokenizerFrom(Strict):
    """The tokenizer of a model from elsewhere: a folder with its files, or one GGUF file of it. begin: the token that
    begins a document, where it is not its beginning of text."""

    folder: Path
    gguf_file: str | None = None
    begin: str | None = None


class CorpusConfig(Strict):
    """A corpus, its tokenizer and how both are packed. Sizes are bytes of UTF-8 text."""

    # What a kind always offers; None: that depends on what it reads.
    offers: ClassVar[tuple[str, ...] | None] = None

    kind: Any  # its name: a Literal in every kind
    domains: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="which domains; all of them when left out"
    )
    bytes_per_domain: int = Field(default=600_000, gt=0, description="text wanted of each domain, all splits together")
    max_document_bytes: int = Field(
        default=4096, ge=64, description="longer texts are cut into excerpts of at most this"
    )
    shares: tuple[float, float, float] = Field(default=(0.86, 0.04, 0.10), description="train, dev, eval")
    vocab_size: int = Field(default=2048, ge=257, description="256 bytes, the end-of-text token, and merges")
    tokenizer: TokenizerFrom | None = Field(default=None, description="another model's, in place of one trained here")
    sequence_length: int = Field(default=256, ge=2)
    seed: int = Field(default=0, ge=0, description="which files are visited first, and which games are played")

    @model_validator(mode="after")
    def _consistent(self) -> CorpusConfig:
        if min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares {self.shares}: three positive numbers that sum to 1, such as (0.86, 0.04, 0.10)")
        for domain in self.domains or ():
            if self.offers is not None and domain not in self.offers:
                raise ValueError(missing_domain(domain, self.offers))
        if self.domains and len(set(self.domains)) < len(self.domains):
            raise ValueError(f"domains {list(self.domains)}: one of them is named twice")
        return self

    def wants(self, domain: str) -> bool:
        return self.domains is None or domain in self.domains

    @abstractmethod
    def sources(self) -> dict[str, Sources]:
        """Every domain the corpus offers, or only the wanted ones where finding out costs. Raises BadInput."""

    def log_probabilities(self, text: str) -> list[float] | None:
        """ln P(byte | what precedes it) of every byte of a document; None where nobody knows it. See `floor.py`."""
        return None

    def packages(self) -> tuple[str, ...]:
        """Distributions whose version decides the text."""
        return ()

    def contents(self) -> str | None:
        """Digest of the files that it reads; None where versions of packages pin the text."""
        return None

    def where(self) -> Path | None:
        """The folder or file that a person named, if any; for messages."""
        return None

    def labeller(self, domains: tuple[str, ...]) -> Labeller:
        """Who says what the tokens of these domains mean: what is registered for the kind, else the labels of any text.

        A registry, and no method of each kind: the key of a corpus covers what its reader imports, and a new label must
        not have every corpus made anew. What the labels are is covered by the labeller's own module.
        """
        if self.kind in LABELLERS:
            return LABELLERS[self.kind](self, domains)
        from harness.corpus.text_labels import TextLabeller

        return TextLabeller(domains)


CORPORA: Registry[type[CorpusConfig]] = Registry("corpus", "harness.corpus", "harness.corpora")
# Kind of corpus -> its labeller, from the configuration and the domains.
MakeLabeller = Callable[[Any, tuple[str, ...]], "Labeller"]
LABELLERS: Registry[MakeLabeller] = Registry(
    "labels of the corpus", "harness.corpus", "harness.labels", "register_labeller"
)
# In a model: a mapping becomes the configuration of its kind.
AnyCorpus = Annotated[SerializeAsAny[CorpusConfig], by_kind(CORPORA, "installed")]


def register(name: str, config: type[CorpusConfig]) -> None:
    """Add a kind of corpus under `name`. ValueError: `name` is taken."""
    CORPORA.register(name, config)


def register_labeller(kind: str, labeller: MakeLabeller) -> None:
    """What the tokens of a kind of corpus mean. ValueError: the kind has a labeller."""
    LABELLERS.register(kind, labeller)


def packages_of(config: CorpusConfig) -> tuple[str, ...]:
    """Distributions whose version decides the text or its tokens, in order of name."""
    return tuple(sorted({"tokenizers", *config.packages()}))
