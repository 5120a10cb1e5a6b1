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
import time
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
        if re.match(r"/api/datasets/us/texts/tree/", path):
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
        if self.command == "GET" and name.startswith("data/") and self.server.failures:
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
    server = Hub(
        {"data/train-0.jsonl": "".join(lines[:200]).encode(), "data/train-1.jsonl": "".join(lines[200:]).encode()}
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def ask(tmp_path):
    """What a process that reads a corpus says: its contents and texts, or the one line that refuses; and seconds."""

    def run(address, environment=(), **settings):
        code = (
            "import json, sys; from harness.base.errors import HarnessError; from harness.corpus.hub import HubCorpus\n"
            "sizes = {'bytes_per_domain': 20_000, 'max_document_bytes': 1024, 'shares': (0.6, 0.2, 0.2)}\n"
            "try:\n"
            "    corpus = HubCorpus(**{**sizes, 'shuffle_buffer': 40, **json.loads(sys.argv[1])})\n"
            "    contents = corpus.contents()\n"
            "    texts = {name: [d.text for s in found for d in s.read()] for name, found in corpus.sources().items()}\n"
            "    print(json.dumps({'contents': contents, 'texts': texts}))\n"
            "except HarnessError as error:\n"
            "    print(json.dumps({'refused': str(error), 'type': type(error).__name__}))\n"
        )
        fresh = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps({"dataset": "us/texts", **settings})],
            env={**os.environ, **fresh, **dict(environment)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert "\n" not in said.get("refused", "")
        return {**said, "seconds": time.monotonic() - start, "log": done.stderr}

    return run


def nobody():
    """An address at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_dataset_is_read_at_its_commit_and_the_second_time_without_a_network(hub, ask):
    first = ask(hub.address, domain_column="kind")
    assert first["contents"] == f"dataset us/texts@{COMMIT}"
    assert first["texts"].keys() == {"web", "law"}
    assert all("/resolve/main/" not in request for request in hub.asked)
    again = ask(nobody(), domain_column="kind")
    assert (again["contents"], again["texts"]) == (first["contents"], first["texts"])
    assert "is taken at the commit of the last time" in again["log"]


def test_a_branch_that_moved_is_another_corpus(hub, ask):
    first = ask(hub.address, domain_column="kind")
    hub.commit = LATER
    assert ask(hub.address, domain_column="kind")["contents"] != first["contents"]
    assert ask(hub.address, domain_column="kind", revision=COMMIT)["contents"] == first["contents"]


def test_a_network_that_comes_and_goes_changes_no_text(hub, ask, tmp_path):
    whole = ask(hub.address, {"HARNESS_STORE": str(tmp_path / "one")}, domain_column="kind")
    hub.failures, hub.cut = 1, 2
    assert ask(hub.address, {"HARNESS_STORE": str(tmp_path / "two")}, domain_column="kind")["texts"] == whole["texts"]
    assert (hub.failures, hub.cut) == (0, 0)


def test_without_a_network_it_ends_in_seconds_and_says_what_to_do(ask):
    address = nobody()
    for revision in ("main", COMMIT):
        said = ask(address, revision=revision)
        assert said["refused"].startswith(f"dataset us/texts: {address} cannot be reached (")
        assert said["refused"].endswith(
            "mend the network, set HF_ENDPOINT to a mirror, or read local parquet or jsonl: path in place of dataset"
        )
    said = ask("https://nowhere.invalid")
    assert "https://nowhere.invalid cannot be reached" in said["refused"]


def test_offline_mode_asks_nobody(hub, ask):
    said = ask(hub.address, {"HF_HUB_OFFLINE": "1"})
    assert said["refused"] == (
        "dataset us/texts: HF_HUB_OFFLINE is set, so nothing is read from the Hub; unset it, "
        "or read local parquet or jsonl: path in place of dataset"
    )
    assert hub.asked == []


def test_what_the_dataset_does_not_have_is_named(hub, ask):
    assert ask(hub.address, dataset="roneneldan/TinyStorys")["refused"] == (
        "dataset roneneldan/TinyStorys: the Hub has none of this id, or it is private; "
        "did you mean roneneldan/TinyStories? Private ones need `hf auth login`"
    )
    said = ask(hub.address, revision="mein")["refused"]
    assert said == "dataset us/texts has no revision 'mein'; did you mean main? (allowed: main)"
    said = ask(hub.address, config="defualt")["refused"]
    assert said == "dataset us/texts has no config 'defualt'; did you mean default? (allowed: default)"
    said = ask(hub.address, split="tran")["refused"]
    assert said == "dataset us/texts has no split 'tran'; did you mean train? (allowed: train)"
    said = ask(hub.address, text_column="texts")["refused"]
    assert said.startswith("dataset us/texts has no column 'texts' (text_column); did you mean text? the columns are: ")


def test_a_gated_dataset_says_where_to_ask(hub, ask):
    hub.gated = True
    assert ask(hub.address)["refused"].startswith(
        "dataset us/texts is gated: ask for access at https://huggingface.co/"
    )


def test_a_dataset_that_is_a_program_is_never_run(hub, ask):
    hub.files["texts.py"] = b"raise SystemExit('ran')"
    assert "is made by a program of its own, which is never run here" in ask(hub.address)["refused"]
