"""What can go wrong between here and the Hub: which commit a dataset is at, what is worth another try, what is not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from harness.base.errors import BadInput, HarnessError
from harness.base.files import store_root, write_atomically
from harness.corpus.hub.recipes import RECIPES
from kernels.registry import nearest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo

log = logging.getLogger(__name__)

T = TypeVar("T")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 5.0  # for one question to the Hub: whoever has no network hears of it at once
_WAITS = (1, 2, 4, 8, 16)  # seconds, before one try after another: half a minute in all
_TRANSPORT = {"aiohttp", "anyio", "fsspec", "httpcore", "httpcore2", "httpx", "httpx2", "requests", "urllib3"}
_INSTEAD = "or read local parquet or jsonl: path in place of dataset"


@cache
def commit_of(dataset: str, revision: str) -> str:
    """The commit that a branch or tag is at now: asked once a process, so that one run reads one commit.

    It is remembered in the store, and where the Hub cannot be asked the commit of the last time is taken, with a
    warning: what was read before needs no network. A commit needs none either. Raises BadInput.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    pins = store_root() / "hub" / "revisions.json"
    name = f"{dataset}@{revision}"
    known: dict[str, str] = {}
    if pins.is_file():
        try:
            known = json.loads(pins.read_text())
        except ValueError:
            log.warning("%s cannot be read, and is written anew", pins)
    try:
        found = ask(dataset, revision).sha or ""
    except Unreachable as error:
        if name not in known:
            raise
        log.warning("%s; %s is taken at the commit of the last time, %s", error, name, known[name])
        return known[name]
    if known.get(name) != found:
        write_atomically(pins, json.dumps({**known, name: found}, indent=1, sort_keys=True).encode())
    return found


class Unreachable(BadInput):
    """The Hub, and not the dataset, is what fails."""


def ask(dataset: str, revision: str) -> DatasetInfo:
    """What the Hub says of a dataset: one question, no second try where there is no network. Raises BadInput, which is
    Unreachable where it is the network."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    if constants.is_offline_mode():
        raise Unreachable(
            f"dataset {dataset}: HF_HUB_OFFLINE is set, so nothing is read from the Hub; unset it, {_INSTEAD}"
        )
    api = HfApi()
    for wait in (*_WAITS[:2], None):
        try:
            return api.dataset_info(dataset, revision=revision, timeout=_SECONDS)
        except RevisionNotFoundError:
            known = _revisions(dataset)
            raise BadInput(f"dataset {dataset} has no revision {revision!r}; {nearest(revision, known)}") from None
        except RepositoryNotFoundError as error:
            raise BadInput(_missing(dataset, error)) from None
        except Exception as error:
            if not is_network(error):
                raise
            if wait is None or not _answered(error):
                raise Unreachable(
                    f"dataset {dataset}: {api.endpoint} cannot be reached ({reason(error)}); mend the network, "
                    f"set HF_ENDPOINT to a mirror, {_INSTEAD}"
                ) from None
            time.sleep(wait)  # a server that is there and busy is worth two more questions
    raise AssertionError("unreachable")


def patiently(
    attempt: Callable[[], T],
    dataset: str | None,
    commit: str,
    kept: Callable[[], str],
    waits: tuple[float, ...] = _WAITS,
) -> T:
    """`attempt()`, again after a wait where the network failed, each time longer, until a network that stays away is
    given up: HarnessError then, with what is `kept`. `dataset` None: local files, of which nothing is tried again."""
    for number, wait in enumerate((*waits, None), start=1):
        try:
            if number > 1 and dataset is not None:
                ask(
                    dataset, commit
                )  # costs seconds where there is no network, and huggingface_hub's own tries a minute
            return attempt()
        except Exception as error:
            if dataset is None or not (isinstance(error, Unreachable) or is_network(error)):
                raise
            if wait is None:
                message = f"dataset {dataset}: the network failed {number} times in a row ({reason(error)}); {kept()}"
                raise HarnessError(message) from None
            log.warning("dataset %s: %s; again in %g s (%d of %d)", dataset, reason(error), wait, number, len(waits))
            time.sleep(wait)
    raise AssertionError("unreachable")


def is_network(error: BaseException) -> bool:
    """Whether the same question may get an answer a little later."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HarnessError):
        return False  # the wish to stop, which may come while the network fails, is no failure of the network
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OfflineModeIsEnabled):
            return False
        if isinstance(seen, HfHubHTTPError):
            status: int = seen.response.status_code
            return status in (408, 429) or status >= 500
        if isinstance(seen, ConnectionError | TimeoutError | asyncio.TimeoutError):
            return True
        if type(seen).__module__.split(".")[0] in _TRANSPORT:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def reason(error: BaseException) -> str:
    """One line of an error that may have many or none."""
    text = " ".join(str(error).split())
    return (text if len(text) < 200 else text[:197] + "...") or type(error).__name__


def _answered(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, HfHubHTTPError)


def _revisions(dataset: str) -> list[str]:
    """Branches and tags; only `main` where they cannot be asked."""
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(dataset, repo_type="dataset")
    except Exception as error:
        log.debug("no revisions of %s: %s", dataset, error)
        return ["main"]
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def _missing(dataset: str, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError):
        return gated(dataset)
    datasets = {origin.dataset for each in RECIPES.values() if (origin := each.origin) and origin.dataset}
    datasets |= {name for each in RECIPES.values() for name in each.parts.values()}
    hint = nearest(dataset, datasets).split("?")
    near = f"{hint[0]}? " if len(hint) > 1 else ""
    return f"dataset {dataset}: the Hub has none of this id, or it is private; {near}Private ones need `hf auth login`"


def gated(dataset: str) -> str:
    return (
        f"dataset {dataset} is gated: ask for access at https://huggingface.co/datasets/{dataset}, "
        f"then `hf auth login` (or HF_TOKEN)"
    )
