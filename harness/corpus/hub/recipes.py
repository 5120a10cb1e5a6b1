"""Where text is: a dataset of the Hub or local files of the same shape, and a table of datasets that people ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, model_validator

from harness.base.settings import Strict
from kernels.registry import nearest


class Origin(Strict):
    """One dataset, and which of its columns are read. What is left out is the recipe's, else what is usual."""

    recipe: str | None = Field(default=None, description="a name of the table in harness/corpus/hub/recipes.py")
    dataset: str | None = Field(default=None, description="id on the Hub: OWNER/NAME")
    path: Path | None = Field(
        default=None, description="local parquet or jsonl in place of the Hub: a file or a folder"
    )
    config: str | None = Field(default=None, description="the dataset's configuration (subset), where it has several")
    split: str | None = Field(default=None, description="the dataset's split (default: train); it is split again here")
    revision: str | None = Field(default=None, description="branch, tag or commit; its commit is what counts")
    text_column: str | None = Field(default=None, description="default: text")
    domain_column: str | None = Field(default=None, description="dots lead inside: meta.pile_set_name")
    begins: str | None = Field(
        default=None, description="where rows are lines: a pattern of the row with which a document begins"
    )

    @model_validator(mode="after")
    def _possible(self) -> Origin:
        if self.recipe is not None and self.recipe not in RECIPES:
            raise ValueError(f"no recipe {self.recipe!r}; {nearest(self.recipe, RECIPES)}")
        if self.path is not None:
            for name in ("dataset", "config", "revision"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for datasets of the Hub, path for local files: give one of them")
        if self.dataset is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.dataset):
            raise ValueError(
                f"dataset {self.dataset!r} is no id of the Hub (OWNER/NAME); local files are given by path"
            )
        if self.begins is not None:
            try:
                re.compile(self.begins)
            except re.error as error:
                raise ValueError(f"begins {self.begins!r} is no pattern: {error}") from None
        return self

    def whole(self) -> Origin:
        """With the recipe's values and the usual ones where nothing is said."""
        values = {"split": "train", "text_column": "text"}
        if self.recipe is not None and (origin := RECIPES[self.recipe].origin) is not None:
            values |= origin.model_dump(exclude_none=True)
        values |= self.model_dump(exclude_none=True, exclude={"recipe"})
        if self.path is not None:  # a copy of what the recipe names
            values = {name: value for name, value in values.items() if name not in ("dataset", "config", "revision")}
        elif "dataset" in values:
            values.setdefault("revision", "main")
        return Origin.model_validate(values)

    def named(self) -> str:
        """For messages, and the domain where the dataset is one."""
        if self.path is not None:
            return self.path.resolve().stem if self.path.is_file() else self.path.resolve().name
        return (self.dataset or self.recipe or "").split("/")[-1]

    def place(self) -> str:
        """For messages: what a person wrote."""
        if self.path is not None:
            return str(self.path)
        return f"dataset {self.dataset}" + (f", config {self.config}" if self.config else "")


@dataclass(frozen=True)
class Recipe:
    """`origin`: one dataset, of which `domains` are read unless others are named (none: all that it has); or `parts`:
    one domain a dataset."""

    origin: Origin | None = None
    domains: tuple[str, ...] = ()
    parts: dict[str, str] = field(default_factory=dict)


# Nobody here has a network: ids and columns are as the datasets' cards and other people's code have them, and the tests
# read local files of these shapes.
RECIPES: dict[str, Recipe] = {
    # The sets of which a reader of some 100,000 records meets enough. The files are .jsonl.zst: needs zstandard.
    "pile": Recipe(
        Origin(dataset="monology/pile-uncopyrighted", domain_column="meta.pile_set_name"),
        domains=("Pile-CC", "PubMed Abstracts", "StackExchange", "Github", "Wikipedia (en)", "FreeLaw", "ArXiv"),
    ),
    "fineweb_edu": Recipe(Origin(dataset="HuggingFaceFW/fineweb-edu", config="sample-10BT")),
    "tinystories": Recipe(Origin(dataset="roneneldan/TinyStories")),
    # Rows are lines, and the lines of an article must lie on one side of the split: ` = Title = ` begins one, and
    # ` = = Section = = ` does not.
    "wikitext": Recipe(
        Origin(dataset="Salesforce/wikitext", config="wikitext-103-raw-v1", begins=r"^ = [^=](.*[^=])? = $")
    ),
    # Games as movetext, with clocks and evaluations in braces where there are any.
    "lichess": Recipe(Origin(dataset="Lichess/standard-chess-games", text_column="movetext")),
    "common_pile": Recipe(
        parts={
            "encyclopedia": "common-pile/wikimedia_filtered",
            "questions": "common-pile/stackexchange_filtered",
            "papers": "common-pile/arxiv_papers_filtered",
            "medicine": "common-pile/pubmed_filtered",
            "law": "common-pile/caselaw_access_project_filtered",
            "code": "common-pile/stackv2_edu_filtered",
            "books": "common-pile/project_gutenberg_filtered",
        }
    ),
}
