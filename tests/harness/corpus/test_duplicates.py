import subprocess
import sys

import pytest

from harness.corpus.duplicates import OVERLAP, Seen

TEXT = " ".join(f"w{n}" for n in range(200))


def test_the_same_text_is_not_new():
    seen = Seen()
    assert seen.admit(TEXT)
    assert not seen.admit(TEXT.upper().replace(" ", ",\n"))


def test_a_text_with_few_words_changed_is_not_new():
    seen = Seen()
    seen.admit(TEXT)
    words = TEXT.split()
    for at in range(0, 200, 20):
        words[at] = "changed"
    assert not seen.admit(" ".join(words))


def test_a_short_excerpt_of_a_long_text_and_a_patchwork_of_two_are_not_new():
    seen = Seen()
    other = " ".join(f"v{n}" for n in range(200))
    assert seen.admit(TEXT)
    assert seen.admit(other)
    assert not seen.admit(" ".join(TEXT.split()[50:80]))
    assert not seen.admit(" ".join([*TEXT.split()[:40], *other.split()[:40], *(f"u{n}" for n in range(20))]))


def test_a_text_that_shares_less_than_the_limit_is_new():
    seen = Seen()
    seen.admit(TEXT)
    mostly_new = " ".join([*TEXT.split()[:40], *(f"u{n}" for n in range(60))])
    assert 0 < seen.share(seen.runs(mostly_new)) < OVERLAP
    assert seen.admit(mostly_new)


def test_texts_shorter_than_a_run_are_compared_whole():
    seen = Seen()
    assert seen.admit("two words")
    assert seen.admit("two other words")
    assert not seen.admit("Two words")
    assert seen.admit("!?")
    assert not seen.admit("!?")


def test_word_order_matters():
    seen = Seen()
    assert not seen.runs("a b c d e f g h") & seen.runs("h g f e d c b a")


def test_runs_are_the_same_in_every_process():
    code = "from harness.corpus.duplicates import Seen; print(sorted(Seen().runs('one two three')))"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({"PYTHONHASHSEED": "1", "PYTHONPATH": "."}, {"PYTHONHASHSEED": "2", "PYTHONPATH": "."})
    }
    assert len(found) == 1


@pytest.mark.parametrize("text", ["春眠不覺曉處處聞啼鳥夜來風雨聲花落知多少" * 4, "ภาษาไทยไม่มีช่องว่างระหว่างคำ" * 3])
def test_a_copy_with_one_character_changed_is_known_in_a_script_without_spaces(text: str) -> None:
    seen = Seen()
    assert seen.admit(text)
    changed = text[:40] + "あ" + text[41:]
    assert seen.share(seen.runs(changed)) > 0.5
    assert not seen.admit(changed)
