"""A chat server on loopback that speaks the OpenAI API as badly as one pleases: `python -m harness.bench.chat_server`.

It stands in for a large model where there is no network: it tests the judge's manners, and shows a whole run of
`autointerp` over HTTP. Its answers come from a few lines that know our prompts: a unit is explained by the token that
is marked most often, and predicted by that token. Nothing else can be learned from its scores.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

log = logging.getLogger(__name__)

Messages = Sequence[dict[str, str]]


def answer(messages: Messages) -> str:
    """What a reader who only counts marked tokens answers to our prompts."""
    system, question = messages[0]["content"], messages[-1]["content"]
    if question.startswith("Fires in:"):
        marked = collections.Counter(re.findall(r"<<(.*?)>>", question))
        most = marked.most_common(1)[0][0] if marked else ""
        return f"Explanation: fires on the token {json.dumps(most, ensure_ascii=False)}"
    first, *lines = question.split("\n")
    quoted = re.search(r'token (".*")$', first)
    token = json.loads(quoted[1]) if quoted else "\0"
    if "JSON object" in system:
        fires = [line.split(" ", 1)[0] for line in lines if line.split(" ", 1)[1] == token]
        return json.dumps(dict.fromkeys(fires, 10))
    sought = f"<<{token}>>" if "double brackets" in system else token
    windows = [line.split(". ", 1)[1] for line in lines[:-1]]
    return json.dumps([int(sought in window) for window in windows])


@dataclass
class Script:
    """What happens to the n-th request (from 0), and what was seen. fault(n) is one of:

    "" answered; "429", "500" refused, "429" with Retry-After; "cut" a body that ends too soon; "junk" no JSON;
    "drip" one byte after another for ever; or any text that begins with "{": sent as it is.
    """

    fault: Callable[[int], str] = lambda n: ""
    delay: Callable[[int], float] = lambda n: 0.0
    reply: Callable[[Messages], str] = answer
    retry_after: str = "0.05"
    asked: list[str] = field(default_factory=list)  # bodies, in the order in which they came
    at: list[float] = field(default_factory=list)  # when
    answered: list[str] = field(default_factory=list)  # bodies that got a full answer
    headers: list[dict[str, str]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ChatServer:
    """Serves `script` on 127.0.0.1 from threads, as a context manager."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"script": script}))
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    script: Script
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        script = self.script
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with script.lock:
            number = len(script.asked)
            script.asked.append(body)
            script.at.append(time.monotonic())
            script.headers.append(dict(self.headers))
            script.under_way += 1
            script.most_under_way = max(script.most_under_way, script.under_way)
        try:
            time.sleep(script.delay(number))
            # Until here it is under way for a client; what follows may reach it before we count down.
            with script.lock:
                script.under_way -= 1
            self._answer(body, script.fault(number))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, body: str, fault: str) -> None:
        if fault.isdigit():
            echo = self.headers.get("Authorization", "")
            self._send(int(fault), json.dumps({"error": {"message": f"no ({echo})"}}).encode())
        elif fault.startswith("{"):
            self._send(200, fault.encode())
        elif fault == "junk":
            self._send(200, b"<html>502 Bad Gateway</html>")
        else:
            full = completion(self.script.reply(json.loads(body)["messages"]), body)
            if fault == "cut":
                self._send(200, full, sent=len(full) // 2)
            elif fault == "drip":
                self._drip(full)
            else:
                with self.script.lock:
                    self.script.answered.append(body)
                self._send(200, full)

    def _send(self, status: int, data: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", self.script.retry_after)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(data[:sent])
        self.close_connection = sent is not None

    def _drip(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def completion(text: str, body: str) -> bytes:
    """A chat completion that counts four characters as a token."""
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": len(text) // 4 + 1}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--faults", type=float, default=0.1, help="share of requests that fail in some way")
    parser.add_argument("--delay", type=float, default=0.05, help="longest delay of an answer, seconds")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    kinds = ("429", "500", "cut", "junk")
    script = Script(
        fault=lambda n: random.choice(kinds) if random.random() < options.faults else "",
        delay=lambda n: random.uniform(0, options.delay),
    )
    with ChatServer(script, options.port) as server:
        log.info("chat server on %s (stop with Ctrl-C)", server.base_url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            log.info("%d requests, %d answered", len(script.asked), len(script.answered))


if __name__ == "__main__":
    main()
