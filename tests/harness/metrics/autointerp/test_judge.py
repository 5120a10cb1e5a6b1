from typing import Any

import pytest

from harness.base.errors import BadInput
from harness.base.settings import validated
from harness.metrics.autointerp import Options
from harness.metrics.autointerp.judge import Message, Request
from harness.metrics.autointerp.local_judge import LocalOptions
from harness.metrics.autointerp.openai_judge import OpenAIOptions
from harness.metrics.autointerp.replies import Replies, Reply


def judge_of(**options: Any) -> Any:
    return validated(Options, {"judge": options}, where="metrics.autointerp").judge


def test_an_address_alone_means_a_server_and_nothing_at_all_means_no_model():
    assert Options().judge.kind == "rule"
    assert judge_of().kind == "rule"
    assert judge_of(base_url="http://127.0.0.1:1/v1/").kind == "openai"
    assert judge_of(base_url="http://127.0.0.1:1/v1/").base_url == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "http://me:secret@host/v1"}, r"judge\.base_url = .*no user, password"),
        ({"base_url": "http://host/v1?key=secret"}, "no user, password"),
        ({"base_url": "host/v1"}, "write an address"),
        ({"base_url": "file:///etc/passwd"}, "write an address"),
        ({"kind": "openai"}, r"judge\.base_url: field required"),
        ({"kind": "local", "base_url": "http://host/v1"}, r"judge\.base_url: unknown key"),
        ({"kind": "chat"}, r"judge\.kind = 'chat': \(allowed: local, openai, rule\)"),
        ({"model": "m"}, r"judge\.model: unknown key"),
        ({"base_url": "http://host/v1", "max_cost": 1}, "needs prompt_price"),
        ({"base_url": "http://host/v1", "key_variable": "sk-abc-1"}, "key_variable"),
        ({"kind": "rule", "adress": 1}, "adress"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        judge_of(**options)


def test_replies_are_kept_in_the_store_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path))
    assert LocalOptions().folder() == tmp_path / "judge"
    assert LocalOptions(cache="elsewhere").folder().name == "elsewhere"


def test_a_judge_is_told_apart_by_its_address_its_model_and_what_is_laid_over_requests(tmp_path):
    options: dict[str, Any] = {"base_url": "http://host/v1", "model": "m", "cache": str(tmp_path)}
    asked = [options, options | {"model": "n"}, options | {"base_url": "http://host/v2"}, options | {"body": {"a": 1}}]
    judges = [OpenAIOptions(**each).open() for each in [*asked, options | {"retries": 1}]]
    for judge in judges:
        judge.close()
    assert len({judge.replies.path for judge in judges}) == 4


def test_requests_differ_by_all_that_changes_a_reply():
    hello = Message("user", "hello")
    requests = [Request((hello,)), Request((hello, hello)), Request((hello,), 5), Request((hello,), options=("a", "b"))]
    assert len({request.key() for request in requests}) == 4
    assert Request((Message("user", "hello"),)).key() == requests[0].key()


def test_replies_survive_reopening_with_their_tokens(tmp_path):
    text = 'line\nbreaks " and \u2028 ⏎'
    replies = Replies(tmp_path / "new" / "r.jsonl")
    replies.add("a", Reply(text, (), 3, 4))
    replies.add("b", Reply(logprobs=(-0.5, -1.5)))
    replies.lost(10, 20)
    replies.close()
    again = Replies(tmp_path / "new" / "r.jsonl")
    assert (again.get("a"), again.get("b")) == (Reply(text, (), 3, 4), Reply(logprobs=(-0.5, -1.5)))
    assert (again.prompt_tokens, again.completion_tokens) == (13, 24)
    again.close()


@pytest.mark.parametrize("left", range(1, 45, 6))
def test_a_line_that_a_kill_cut_short_spoils_no_other(tmp_path, left):
    path = tmp_path / "r.jsonl"
    first = Replies(path)
    first.add("a", Reply("one", (), 1, 1))
    end = path.stat().st_size
    first.add("b", Reply("two", (), 1, 1))
    first.close()
    path.write_bytes(path.read_bytes()[: end + left])
    second = Replies(path)
    assert second.get("b") is None
    second.add("c", Reply("three", (), 1, 1))
    second.close()
    third = Replies(path)
    assert [third.get(key) for key in "ac"] == [Reply("one", (), 1, 1), Reply("three", (), 1, 1)]
    third.close()
