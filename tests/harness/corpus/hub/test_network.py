"""Against a Hub of our own on the loopback interface: what it says and how it fails is the Hub's, the rest is real.

A process for each test: where the Hub is and whether there is one is read when huggingface_hub is imported.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.slow
COMMIT, LATER = "a" * 40, "b" * 40


class Hub(ThreadingHTTPServer):
    """One dataset, `us/texts`, of the files in `files`. `failures`: answers 503 to so many requests for files;
    `cut`: then breaks off in the middle of so many."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.commit, self.failures, self.cut, self.gated = files, COMMIT, 0, 0, False
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if (found := re.fullmatch(r"/datasets/us/texts/resolve/[^/]+/(.+)", path)) is not None:
            return self.file(found[1])
        if (found := re.fullmatch(r"/api/datasets/us/texts/tree/[^/]+(/.+)?", path)) is not None:
            if found[1]:  # all files lie at the top
                return self.send({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            rows = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in self.server.files.items()]
            return self.send(rows)
        if re.match(r"/api/datasets/us/texts/refs", path):
            return self.send({"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}],
                              "tags": [], "converts": []})  # fmt: skip
        if (found := re.fullmatch(r"/api/datasets/us/texts(?:/revision/(.+))?", path)) is not None:
            if found[1] not in (None, "main", COMMIT, LATER):
                return self.send({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.send({"id": "us/texts", "sha": self.server.commit, "siblings": siblings, "private": False,
                              "tags": [], "downloads": 0, "gated": False})  # fmt: skip
        return self.send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self):
        self.server.asked.append(f"POST {self.path}")
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}").get("paths", [])
        self.send([{"type": "file", "path": n, "size": len(d), "oid": "0" * 40}
                   for n, d in self.server.files.items() if n in wanted])  # fmt: skip

    def file(self, name):
        if name not in self.server.files:
            return self.send({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        if self.server.gated:
            return self.send({"error": "restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        if self.command == "GET" and name.endswith(".jsonl") and self.server.failures:
            self.server.failures -= 1
            return self.send({"error": "busy"}, 503, {})
        data = self.server.files[name]
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        first, last = (int(span[1]), min(int(span[2] or len(data)), len(data) - 1)) if span else (0, len(data) - 1)
        part = data[first : last + 1]
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": self.server.commit, "Accept-Ranges": "bytes"}
        if span:
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self.send(part, 206 if span else 200, headers)

    def send(self, content, status=200, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            cuts = status == 206 and self.server.cut > 0
            self.wfile.write(data[: len(data) // 2] if cuts else data)
            if cuts:
                self.server.cut -= 1
                self.close_connection = True


@pytest.fixture
def hub(rows):
    lines = [json.dumps(row) + "\n" for row in rows(400)]
    halves = {"train-0.jsonl": lines[:200], "train-1.jsonl": lines[200:]}
    server = Hub({name: "".join(half).encode() for name, half in halves.items()})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def run(tmp_path):
    """What a process prints as JSON that sees the Hub at `address`."""

    def run(address, code, *arguments, **environment):
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
        done = subprocess.run(
            [sys.executable, "-c", code, *(json.dumps(each) for each in arguments)],
            env={**os.environ, **home, **environment},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


READ = """
import json, sys, time
from harness.base.errors import HarnessError
from harness.corpus.hub import HubCorpus
import datasets, huggingface_hub  # so that no answer's seconds are those of an import
usual = {"dataset": "us/texts", "domain_column": "kind", "shuffle_buffer": 40}
usual |= {"bytes_per_domain": 20_000, "max_document_bytes": 1024, "shares": (0.6, 0.2, 0.2)}
answers = []
for settings in json.loads(sys.argv[1]):
    start = time.monotonic()
    try:
        corpus = HubCorpus(**{**usual, **settings})
        contents, sources = corpus.contents(), corpus.sources()
        answer = {"contents": contents, "texts": {n: [d.text for s in f for d in s.read()] for n, f in sources.items()}}
    except HarnessError as error:
        answer = {"refused": str(error)}
    answers.append({**answer, "seconds": time.monotonic() - start})
print(json.dumps(answers))
"""


@pytest.fixture
def read(run):
    """For each settings what a corpus gives: its contents and texts, or the one line that refuses them; and seconds."""

    def read(address, *settings, **environment):
        answers, log = run(address, READ, settings or [{}], **environment)
        assert not any("\n" in each.get("refused", "") for each in answers)
        return answers, log

    return read


def nobody():
    """An address at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_dataset_is_read_at_its_commit_and_the_second_time_without_a_network(hub, read):
    (first,), _ = read(hub.address)
    assert first["contents"] == f"dataset us/texts@{COMMIT}"
    assert first["texts"].keys() == {"web", "law"}
    assert not any("/resolve/main/" in request for request in hub.asked)
    (again,), log = read(nobody())
    assert (again["contents"], again["texts"]) == (first["contents"], first["texts"])
    assert "is taken at the commit of the last time" in log


def test_a_branch_that_moved_is_another_corpus_and_a_commit_stays(hub, read):
    hub.commit = LATER
    (moved, pinned), _ = read(hub.address, {}, {"revision": COMMIT})
    assert moved["contents"] == f"dataset us/texts@{LATER}"
    assert pinned["contents"] == f"dataset us/texts@{COMMIT}"


def test_a_network_that_comes_and_goes_changes_no_text(hub, read, tmp_path):
    (whole,), _ = read(hub.address, HARNESS_STORE=str(tmp_path / "one"))
    hub.failures, hub.cut = 1, 1
    (shaken,), _ = read(hub.address, HARNESS_STORE=str(tmp_path / "two"))
    assert shaken["texts"] == whole["texts"]
    assert (hub.failures, hub.cut) == (0, 0)


def test_a_failure_of_the_network_is_tried_again_and_another_is_not(hub, run):
    code = """
import json, sys
from harness.base.errors import Interrupted
from harness.corpus.hub.network import patiently
def attempts(errors, dataset="us/texts"):
    tried = []
    def attempt():
        tried.append(0)
        if len(tried) <= len(errors):
            raise errors[len(tried) - 1]
        return "done"
    try:
        said = patiently(attempt, dataset, "a" * 40, lambda: "80 records are kept", (0.01, 0.01))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return [len(tried), said]
lost = ConnectionError("reset")
stop = Interrupted("stop")
stop.__context__ = lost
cases = [[lost, TimeoutError()], [lost] * 3, [ValueError("ours")], [stop]]
print(json.dumps([attempts(errors) for errors in cases] + [attempts([lost], dataset=None)]))
"""
    (twice, thrice, ours, stopped, local), _ = run(hub.address, code)
    assert twice == [3, "done"]
    message = "dataset us/texts: the network failed 3 times in a row (reset); 80 records are kept"
    assert thrice == [3, f"HarnessError: {message}"]
    assert ours == [1, "ValueError: ours"]
    assert stopped == [1, "Interrupted: stop"]
    assert local == [1, "ConnectionError: reset"]


def test_without_a_network_it_ends_in_seconds_and_says_what_to_do(read):
    address = nobody()
    for where in (address, "http://nowhere.invalid"):
        answers, _ = read(where, {}, {"revision": COMMIT})
        for said in answers:
            assert said["refused"].startswith(f"dataset us/texts: {where} cannot be reached (")
            assert said["refused"].endswith(
                "mend the network, set HF_ENDPOINT to a mirror, "
                "or read local parquet or jsonl: path in place of dataset"
            )
            assert said["seconds"] < 10


def test_offline_mode_asks_nobody(hub, read):
    (said,), _ = read(hub.address, HF_HUB_OFFLINE="1")
    assert said["refused"] == (
        "dataset us/texts: HF_HUB_OFFLINE is set, so nothing is read from the Hub; unset it, "
        "or read local parquet or jsonl: path in place of dataset"
    )
    assert hub.asked == []


MISSING = {
    "id": ({"dataset": "roneneldan/TinyStorys"}, "dataset roneneldan/TinyStorys: the Hub has none of this id, or it is "
           "private; did you mean roneneldan/TinyStories? Private ones need `hf auth login`"),
    "revision": ({"revision": "mein"}, "dataset us/texts has no revision 'mein'; did you mean main? (allowed: main)"),
    "config": ({"config": "defualt"}, "dataset us/texts has no config 'defualt'; "
               "did you mean default? (allowed: default)"),
    "split": ({"split": "tran"}, "dataset us/texts has no split 'tran'; did you mean train? (allowed: train)"),
    "column": ({"text_column": "texts"}, "dataset us/texts has no column 'texts' (text_column); did you mean text? "
               "the columns are: 'id', 'text', 'kind'"),
}  # fmt: skip


def test_what_a_dataset_does_not_have_is_named_with_the_nearest(hub, read):
    answers, _ = read(hub.address, *(settings for settings, _ in MISSING.values()))
    said = dict(zip(MISSING, (each["refused"] for each in answers), strict=True))
    assert said == {what: message for what, (_, message) in MISSING.items()}


def test_a_gated_dataset_says_where_to_ask(hub, read):
    hub.gated = True
    (said,), _ = read(hub.address)
    assert said["refused"].startswith(
        "dataset us/texts is gated: ask for access at https://huggingface.co/datasets/us/texts"
    )


def test_a_dataset_that_is_a_program_is_never_run(hub, read):
    hub.files["texts.py"] = b"raise SystemExit('ran')"
    (said,), _ = read(hub.address)
    assert "is made by a program of its own, which is never run here" in said["refused"]
