import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.base.files import ROOT
from harness.bench.chat_server import ChatServer, Script
from harness.metrics.autointerp import openai_judge
from harness.metrics.autointerp.judge import Judge, JudgeError, Message, Request
from harness.metrics.autointerp.openai_judge import OpenAIOptions


def question(text: str, **more) -> Request:
    return Request((Message("system", "repeat"), Message("user", text)), **more)


def repeat(messages) -> str:
    return messages[-1]["content"]


def judge(server: ChatServer, tmp_path: Path, **options) -> Judge:
    defaults = {"backoff": 0.01, "timeout": 5, "cache": str(tmp_path / "cache")}
    return OpenAIOptions(base_url=server.base_url, **{**defaults, **options}).open()


def texts(judge: Judge, questions: list[str]) -> list[str]:
    try:
        return [reply.text for reply in judge.ask([question(text) for text in questions])]
    finally:
        judge.close()


MANY = [f"question {n}" for n in range(40)]


def test_replies_come_in_the_order_of_the_questions_from_a_server_that_answers_slowly_and_out_of_order(tmp_path):
    rng = random.Random(0)
    with ChatServer(Script(reply=repeat, delay=lambda n: rng.uniform(0, 0.05))) as server:
        assert texts(judge(server, tmp_path, concurrency=7), MANY) == MANY
    assert 1 < server.script.most_under_way <= 7


def test_429_500_cut_and_senseless_replies_are_asked_again_until_all_is_answered(tmp_path):
    faults = ["429", "", "500", "cut", "", "junk", "", '{"choices": []}', "503", '{"choices": [{"message": 3}]}']
    with ChatServer(Script(reply=repeat, fault=lambda n: faults[n % len(faults)] if n < 60 else "")) as server:
        assert texts(judge(server, tmp_path), MANY) == MANY
    assert max(Counter(server.script.answered).values()) == 1
    assert len(server.script.answered) == len(MANY)


def test_retry_after_holds_every_request_back(tmp_path):
    script = Script(
        reply=repeat, fault=lambda n: "429" if n == 0 else "", retry_after="0.8", delay=lambda n: [0, 0.3, 0, 0, 0][n]
    )
    with ChatServer(script) as server:
        assert texts(judge(server, tmp_path, concurrency=2), MANY[:4]) == MANY[:4]
    # The second was sent at once; its thread, free after 0.3 s, waits as well.
    assert script.at[2] - script.at[0] >= 0.8


def test_a_retry_after_of_a_day_is_an_error_and_not_a_day_of_waiting(tmp_path):
    with (
        ChatServer(Script(fault=lambda n: "429", retry_after="86400")) as server,
        pytest.raises(JudgeError, match="asks to wait 86400 s"),
    ):
        texts(judge(server, tmp_path), ["a"])


def test_retry_after_is_read_as_seconds_or_date_and_nothing_else():
    assert openai_judge._seconds("3") == 3
    assert openai_judge._seconds("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    assert [openai_judge._seconds(text) for text in ("soon", "nan", "", None)] == [None] * 4


def test_a_server_that_always_fails_ends_the_run_with_what_it_said_and_keeps_the_other_replies(tmp_path):
    with ChatServer(Script(reply=repeat, fault=lambda n: "" if n == 0 else "500")) as server:
        with pytest.raises(JudgeError, match=r"HTTP 500 .*3 times; 1 replies are kept"):
            texts(judge(server, tmp_path, retries=2, concurrency=1), MANY)
        asked = len(server.script.asked)
        assert asked == 4  # the rest was not even tried
        assert texts(judge(server, tmp_path), MANY[:1]) == MANY[:1]
        assert len(server.script.asked) == asked


def test_a_server_that_is_not_there_is_named(tmp_path):
    with ChatServer(Script()) as server:
        pass
    with pytest.raises(JudgeError, match=r"127\.0\.0\.1.*ConnectError"):
        texts(judge(server, tmp_path, retries=1), ["a"])


@pytest.mark.parametrize("fault", ["drip", "large"])
def test_a_reply_without_end_in_time_or_size_is_given_up(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(openai_judge, "LARGEST_REPLY", 2000)
    reply = repeat if fault == "drip" else lambda messages: "x" * 5000
    started = time.monotonic()
    with ChatServer(Script(reply=reply, fault=lambda n: fault)) as server, pytest.raises(JudgeError, match="a reply"):
        texts(judge(server, tmp_path, timeout=0.3, retries=1), ["a"])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ('{"choices": [{"message": {"content": null, "refusal": "no"}}]}', ""),
        ('{"choices": [{"message": {"content": "\\ud800 \\u0000"}}], "usage": {"prompt_tokens": -5}}', "? \0"),
        ('{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 1e400}}', "a"),
        ('{"choices": [{"message": {"content": "a"}}], "usage": [[]]}', "a"),
    ],
)
def test_a_hostile_reply_is_text_that_any_file_can_hold(tmp_path, sent, text):
    with ChatServer(Script(fault=lambda n: sent)) as server:
        asked = judge(server, tmp_path)
        (reply,) = asked.ask([question("a")])
        asked.close()
    assert reply.text == text
    assert 0 <= reply.prompt_tokens < 100


@pytest.mark.parametrize(
    "sent", ['{"a":' * 20000, '{"choices": ' + "9" * 5000 + "}", '{"choices": [{"message": {}}]}x']
)
def test_a_reply_that_is_no_completion_ends_in_one_clear_line(tmp_path, sent):
    with (
        ChatServer(Script(fault=lambda n: sent)) as server,
        pytest.raises(JudgeError, match="not a chat completion, 2 times"),
    ):
        texts(judge(server, tmp_path, retries=1), ["a"])


def test_a_redirect_is_not_followed(tmp_path):
    with ChatServer(Script(fault=lambda n: "307")) as server, pytest.raises(JudgeError, match="redirects"):
        texts(judge(server, tmp_path), ["a"])
    assert len(server.script.asked) == 1


def test_the_key_reaches_the_server_and_no_file_log_or_error(tmp_path, monkeypatch, caplog):
    key = "sk-very-secret-0123"
    monkeypatch.setenv("MY_JUDGE_KEY", key)
    caplog.set_level(logging.DEBUG)
    script = Script(reply=lambda messages: f"your key is {key}", fault=lambda n: ["500", "", "401"][n])
    with ChatServer(script) as server:
        options = {"key_variable": "MY_JUDGE_KEY", "concurrency": 1}
        assert texts(judge(server, tmp_path, **options), ["a"]) == ["your key is [key]"]
        with pytest.raises(JudgeError) as raised:
            texts(judge(server, tmp_path, **options), ["b"])
    assert script.headers[0]["Authorization"] == f"Bearer {key}"
    assert "MY_JUDGE_KEY" in str(raised.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for text in [str(raised.value), caplog.text, *(path.read_text() for path in files)]:
        assert key not in text


def test_a_key_variable_that_is_not_set_is_an_error_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
    with ChatServer(Script()) as server, pytest.raises(JudgeError, match="MY_JUDGE_KEY, which is not set"):
        judge(server, tmp_path, key_variable="MY_JUDGE_KEY")


def test_without_key_variable_no_key_of_the_environment_is_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with ChatServer(Script(reply=repeat)) as server:
        texts(judge(server, tmp_path), ["a"])
    assert "Authorization" not in server.script.headers[0]


def test_the_same_question_is_asked_once_in_a_run_and_never_again_by_the_next(tmp_path):
    with ChatServer(Script(reply=repeat, delay=lambda n: 0.02)) as server:
        assert texts(judge(server, tmp_path), MANY[:4] * 3) == MANY[:4] * 3
        assert texts(judge(server, tmp_path), MANY[:4]) == MANY[:4]
        assert len(server.script.asked) == 4
        texts(judge(server, tmp_path, model="another"), MANY[:1])
        assert len(server.script.asked) == 5


def test_body_fields_reach_the_server_and_null_takes_one_out(tmp_path):
    with ChatServer(Script(reply=repeat)) as server:
        texts(judge(server, tmp_path, model="m", body={"max_tokens": None, "max_completion_tokens": 9}), ["a"])
    sent = json.loads(server.script.asked[0])
    assert (sent["model"], sent["max_completion_tokens"], sent["temperature"]) == ("m", 9, 0)
    assert "max_tokens" not in sent


def test_requests_per_minute_keeps_requests_apart(tmp_path):
    with ChatServer(Script(reply=repeat)) as server:
        texts(judge(server, tmp_path, requests_per_minute=600, concurrency=8), MANY[:5])
    at = sorted(server.script.at)
    assert at[4] - at[0] >= 0.35  # four gaps of 0.1 s, less what the wire does


def test_a_token_budget_stops_before_it_is_overstepped_and_holds_over_runs(tmp_path):
    with ChatServer(Script(reply=repeat)) as server:
        for _ in range(2):
            with pytest.raises(JudgeError, match=r"budget is spent: .* of 1500 tokens.* replies are kept"):
                texts(judge(server, tmp_path, max_tokens_total=1500), MANY)
        answered = len(server.script.answered)
        spent = sum(len(body) // 4 + 4 for body in server.script.answered)
        assert 2 < answered < len(MANY)
        assert spent <= 1500
        assert texts(judge(server, tmp_path, max_tokens_total=100_000), MANY) == MANY
    assert len(server.script.answered) == len(MANY)


def test_a_cost_budget_counts_replies_that_could_not_be_used(tmp_path):
    options = {"max_cost": 0.002, "prompt_price": 1.0, "reply_price": 4.0, "retries": 100, "backoff": 0}
    with (
        ChatServer(Script(fault=lambda n: "junk")) as server,
        pytest.raises(JudgeError, match=r"budget is spent: .* of 0\.002 in cost"),
    ):
        texts(judge(server, tmp_path, **options), ["a"])


ASKING = """
import sys
from harness.metrics.autointerp.judge import Message, Request
from harness.metrics.autointerp.openai_judge import OpenAIOptions
judge = OpenAIOptions(base_url=sys.argv[1], cache=sys.argv[2], concurrency=4).open()
print("ready", flush=True)
requests = [Request((Message("system", "repeat"), Message("user", f"question {n}"))) for n in range(40)]
assert [reply.text for reply in judge.ask(requests)] == [f"question {n}" for n in range(40)]
judge.close()
"""


def test_after_kill_9_the_next_run_asks_only_what_was_not_answered(tmp_path):
    with ChatServer(Script(reply=repeat, delay=lambda n: 0.05)) as server:
        command = [sys.executable, "-c", ASKING, server.base_url, str(tmp_path / "cache")]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60
        while len(server.script.answered) < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (kept,) = (tmp_path / "cache").iterdir()
        known = {json.loads(line)["text"] for line in kept.read_text().split("\n") if line.strip()}
        before = len(server.script.asked)
        assert 8 <= len(known) < 40
        assert texts(judge(server, tmp_path), MANY) == MANY
    whole = [body for body in server.script.asked[before:] if body]  # of one that the kill cut off, nothing may arrive
    again = {json.loads(body)["messages"][-1]["content"] for body in whole}
    assert again == set(MANY) - known
    assert len(server.script.asked) <= 40 + 4  # what was under way when it died


def test_an_empty_reply_is_unparsable_now_and_asked_for_again_by_the_next_run(tmp_path):
    empty = ["  \n"]
    with ChatServer(Script(reply=lambda messages: empty.pop() if empty else repeat(messages))) as server:
        said = [texts(judge(server, tmp_path), ["a"]) for _ in range(3)]
    assert said == [["  \n"], ["a"], ["a"]]
    assert len(server.script.answered) == 2


def test_an_account_without_credit_is_an_error_at_once_and_no_score(tmp_path):
    with (
        ChatServer(Script(fault=lambda n: "402")) as server,
        pytest.raises(JudgeError, match=r"402.*no credit left"),
    ):
        texts(judge(server, tmp_path), ["a"])
    assert len(server.script.asked) == 1
