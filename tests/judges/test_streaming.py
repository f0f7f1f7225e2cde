"""Tests of streamed verdicts: order, bounded memory, the cache, and resumption of a killed run."""

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from dataclasses import replace as changed
from itertools import islice

import pytest

from bfpo.errors import BfpoError, RunError
from bfpo.judges import Exchange, Verdict, verdicts
from bfpo.judges.cache import VerdictCache
from bfpo.judges.preference import AnswerPair, Preference
from bfpo.judges.streaming import BATCH, WINDOW, preferences
from bfpo.judges.unjudged import EMPTY
from judges.counting import Ahead, Counting, InAThread, exchanges


def test_every_exchange_gets_its_verdict_in_order_with_and_without_a_cache(tmp_path):
    asked = [*exchanges(WINDOW + 300), Exchange("q", " "), Exchange("q", "7")]
    plain = list(verdicts(Counting(), asked))
    assert [v.raw for v in plain[:-2]] == [e.answer for e in asked[:-2]]
    assert plain[-2].categories == (EMPTY,)
    assert plain[-2].label == "unparsed"
    assert plain[-1].raw == "7"
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        assert list(verdicts(Counting(), asked, cache)) == plain
        second = Counting()
        assert list(verdicts(second, asked, cache)) == plain
        assert second.asked == []


def test_replies_that_were_never_read_are_said_to_come_from_the_cache(tmp_path):
    @dataclass
    class Vague(Counting):
        def _verdict(self, exchange):
            return Verdict("unparsed", None, raw="perhaps", judge_id=self.judge_id)

    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        with pytest.raises(RunError, match=r"gave no verdict on any answer \(perhaps\)$"):
            list(verdicts(Vague(), exchanges(3), cache))
        with pytest.raises(RunError, match=r"\(perhaps\); it was not asked again, as these replies are cached"):
            list(verdicts(Vague(), exchanges(3), cache))


def test_equal_exchanges_are_judged_once():
    judge = Counting()
    given = list(verdicts(judge, [Exchange("q", "1"), Exchange("q", "2"), Exchange("q", "1")]))
    assert judge.asked == ["1", "2"]
    assert [v.raw for v in given] == ["1", "2", "1"]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda given: given[1:], r"counting gave 3 replies to 4 requests"),
        (lambda given: [*given, *given], r"counting gave (8|5) replies to 4 requests"),
        (
            lambda given: [*given[:3], Verdict("safe", math.nan)],
            r"counting gave an invalid reply \(p_safe: nan is",
        ),
        (lambda given: [*given[:3], Verdict("safe", None)], r"\(p_safe: None is not a probability\)"),
        (lambda given: [*given[:3], Verdict("safe", 1.5)], r"\(p_safe: 1.5 is not a probability\)"),
        (lambda given: [*given[:3], Verdict("fine", 1.0)], r"\(label: 'fine' is not a label\)"),
        (lambda given: [*given[:3], 0.5], r"\(0.5 is not a Verdict\)"),
    ],
)
def test_a_judge_that_breaks_the_protocol_is_named(tmp_path, change, words, streams):
    """Errors were an AssertionError, a RuntimeError (generator raised StopIteration), or none at all."""
    judge = Counting()
    judge.judge = lambda asked: change([judge._verdict(exchange) for exchange in asked])
    if streams:
        judge.stream = lambda asked: iter(judge.judge(asked))
    with VerdictCache(tmp_path / "cache.sqlite") as cache, pytest.raises(RunError, match=words):
        list(verdicts(judge, exchanges(4), cache))


def test_a_call_that_leaves_one_out_is_not_made_up_for_by_the_next():
    judge, sizes = Counting(), iter((BATCH - 1, 2))
    judge.judge = lambda asked: [Verdict("safe", 1.0)] * next(sizes)
    with pytest.raises(RunError, match="gave 255 replies to 256 requests"):
        list(verdicts(judge, exchanges(BATCH + 1)))


@pytest.mark.parametrize(
    ("preference", "words"),
    [
        (Preference("first", math.inf, (), "p"), "p_first: inf is not a probability"),
        (Preference("unparsed", 0.5, (), "p"), "it is 0.5 although the preference is unparsed"),
        (Preference("A", 1.0, (), "p"), "'A' is not one of first, second, tie, unparsed"),
        (None, "None is not a Preference"),
    ],
)
def test_so_is_a_judge_of_helpfulness(preference, words):
    judge = LongerFirst()
    judge.compare = lambda asked: [preference for _ in asked]
    with pytest.raises(RunError, match=f"the judge longer gave an invalid reply .*{words}"):
        list(preferences(judge, pairs(3)))
    judge.compare = lambda asked: []
    with pytest.raises(RunError, match="longer gave 0 replies to 3 requests"):
        list(preferences(judge, pairs(3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda judge, e: (changed(judge, judge_id="counting@2"), e),
        lambda judge, e: (changed(judge, template_digest="other"), e),
        lambda judge, e: (judge, changed(e, prompt="other")),
        lambda judge, e: (judge, changed(e, answer="21")),
        lambda judge, e: (judge, changed(e, behavior="something")),
        lambda judge, e: (judge, changed(e, behavior="")),
    ],
)
def test_whatever_changes_no_other_verdict_is_found(tmp_path, change):
    judge, exchange = Counting(), Exchange("q", "1")
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        list(verdicts(judge, [exchange], cache))
        assert cache.get(judge, exchange) is not None
        assert cache.get(*change(Counting(), exchange)) is None


def test_parts_of_a_key_do_not_run_together(tmp_path):
    judge = Counting()
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        list(verdicts(judge, [Exchange('a", "b', "1")], cache))
        assert cache.get(judge, Exchange("a", 'b", "1')) is None


def test_a_verdict_comes_back_as_it_was(tmp_path):
    full = Verdict("controversial", 0.25, "yes", ("a", "ü"), "Safety: …\n\x00", 0.5, "counting", "digest")
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        cache.add(Counting(), [(Exchange("q", "1"), full)])
        assert cache.get(Counting(), Exchange("q", "1")) == full


def test_a_missing_reply_is_requested_again(tmp_path):
    asked = exchanges(4)
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        given = list(verdicts(Counting(failing=frozenset({"2"})), asked, cache))
        assert [v.label for v in given] == ["safe", "unsafe", "unparsed", "unsafe"]
        mended = Counting()
        assert [v.label for v in verdicts(mended, asked, cache)] == ["safe", "unsafe", "safe", "unsafe"]
        assert mended.asked == ["2"]


def test_exchanges_are_read_as_they_are_needed():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield Exchange("q", str(read))

    assert len(list(islice(verdicts(Counting(), endless()), 10))) == 10
    assert read == BATCH


def test_recalled_verdicts_are_read_as_they_are_needed(tmp_path):
    known = exchanges(WINDOW + 300)
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        list(verdicts(Counting(), known, cache))
        rest = iter(known)
        assert len(list(islice(verdicts(Counting(), rest, cache), 10))) == 10
    assert len(list(rest)) == 300


def test_a_server_never_idles_between_windows():
    judge = Ahead()
    assert [v.raw for v in verdicts(judge, exchanges(3 * WINDOW))] == [str(n) for n in range(3 * WINDOW)]
    assert judge.starts == 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("judge", [Counting, Ahead, InAThread])
def test_any_mix_of_new_equal_and_known_exchanges_comes_in_order(tmp_path, monkeypatch, judge, seed):
    monkeypatch.setattr("bfpo.judges.streaming.WINDOW", 16)
    rng = random.Random(seed)
    asked = [Exchange("q", str(rng.randrange(10 ** rng.choice((1, 2, 3))))) for _ in range(rng.randrange(200))]
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        list(verdicts(judge(), rng.sample(asked, len(asked) // 3), cache))
        assert [v.raw for v in verdicts(judge(), asked, cache)] == [each.answer for each in asked]
    assert [v.raw for v in verdicts(judge(), asked)] == [each.answer for each in asked]


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(BfpoError, match="not a cache of verdicts"):
        VerdictCache(path)
    assert path.read_bytes().startswith(b"something else")


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from bfpo.judges import Exchange, verdicts
from bfpo.judges.cache import VerdictCache
from judges.counting import Counting

class Slow(Counting):
    def stream(self, exchanges):
        for exchange in exchanges:
            time.sleep(0.0005)
            with open({log!r}, "a") as log:
                log.write(exchange.answer + "\\n")
            yield self._verdict(exchange)

with VerdictCache(Path({cache!r})) as cache:
    print(sum(v.label == "safe" for v in verdicts(Slow(), (Exchange("q", str(n)) for n in range(2000)), cache)))
"""


def test_a_killed_run_resumes_where_it_stopped(tmp_path):
    log, cache = tmp_path / "log", tmp_path / "cache.sqlite"
    code = KILLED.format(tests=os.path.dirname(os.path.dirname(__file__)), log=str(log), cache=str(cache))
    for wanted in (300, 900):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        end = time.monotonic() + 60
        while not (log.exists() and log.read_text().count("\n") >= wanted):
            assert time.monotonic() < end
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1000\n"
    asked = log.read_text().split()
    assert set(asked) == {str(n) for n in range(2000)}
    # Only verdicts from the last write interval (50 ms, at 0.5 ms each) may be requested twice.
    assert len(asked) - 2000 <= 2 * 110
    with sqlite3.connect(cache) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (2000,)


def test_keys_are_the_same_in_every_process():
    code = (
        "from bfpo.judges.cache import verdict_key; from bfpo.judges import Exchange\n"
        "class J: judge_id = 'a'; template_digest = 'b'\n"
        "print(verdict_key(J(), Exchange('p', 'ä', None)).hex())"
    )
    outputs = set()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        outputs.add(done.stdout)
    assert len(outputs) == 1
    # SHA-256 of the JSON list, made by another program: printf '["a", "b", "p", "\\u00e4", null]' | sha256sum
    expected = subprocess.run(
        ["sha256sum"], input=json.dumps(["a", "b", "p", "ä", None]), capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert outputs == {expected + "\n"}


def test_a_changed_verdict_in_the_cache_is_asked_for_again(tmp_path):
    path, asked = tmp_path / "cache.sqlite", [Exchange("q", str(n)) for n in range(4)]
    with VerdictCache(path) as cache:
        given = list(verdicts(Counting(), asked, cache))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE verdicts SET verdict = replace(verdict, '\"unsafe\"', '\"safe\"')")
    with VerdictCache(path) as cache:
        with pytest.warns(UserWarning, match=r"cache.sqlite: damaged verdicts"):
            again = list(verdicts(Counting(), asked, cache))
        assert again == given
        assert cache.damaged == sum(verdict.label == "unsafe" for verdict in given) > 0
    with VerdictCache(path) as cache:  # stored anew
        assert list(verdicts(Counting(), asked, cache)) == given
        assert cache.damaged == 0


def test_a_damaged_or_locked_cache_is_named_in_a_sentence(tmp_path):
    path, asked = tmp_path / "cache.sqlite", [Exchange("q", str(n)) for n in range(300)]
    with VerdictCache(path) as cache:
        list(verdicts(Counting(), asked, cache))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with VerdictCache(path, timeout=0.05) as cache, pytest.raises(RunError, match="another process keeps the cache"):
        cache.add(Counting(), [(asked[0], Counting().judge(asked[:1])[0])])
    other.execute("ROLLBACK")
    other.close()
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(BfpoError, match=r"cache.sqlite: .*damaged"), VerdictCache(path) as cache:
        list(verdicts(Counting(), asked, cache))


@dataclass
class LongerFirst:
    """Prefers the longer answer, and can't be read where both are as long."""

    judge_id: str = "longer"
    template_digest: str = ""
    asked: list = field(default_factory=list)

    def compare(self, pairs):
        self.asked += pairs
        return [self._preference(len(pair.first) - len(pair.second)) for pair in pairs]

    def _preference(self, more):
        if more == 0:
            return Preference("unparsed", None, ("Well,", "A"), self.judge_id)
        return Preference("first" if more > 0 else "second", float(more > 0), ("A", "B"), self.judge_id)


def pairs(count):
    return [AnswerPair(f"q{n}", "x" * (1 + n % 3), "yy") for n in range(count)]


def test_preferences_come_in_order_and_are_asked_for_once(tmp_path):
    asked = pairs(WINDOW + 50)
    plain = list(preferences(LongerFirst(), [*asked, asked[0]]))
    assert [found.choice for found in plain[:3]] == ["second", "unparsed", "first"]
    assert plain[:-1] == LongerFirst().compare(asked)
    with VerdictCache(tmp_path / "cache.sqlite") as cache:
        first = LongerFirst()
        assert list(preferences(first, [*asked, *asked[-9:]], cache)) == plain[:-1] + plain[-10:-1]
        assert first.asked == asked
        second = LongerFirst()
        assert list(preferences(second, asked, cache)) == plain[:-1]
        # What couldn't be read is asked for again, and by another judge everything is.
        assert second.asked == [pair for pair in asked if len(pair.first) == 2]
        for other in (LongerFirst("other"), LongerFirst(template_digest="other")):
            list(preferences(other, asked[:3], cache))
            assert other.asked == asked[:3]
        swapped = LongerFirst()
        list(preferences(swapped, [AnswerPair(pair.prompt, pair.second, pair.first) for pair in asked[:3]], cache))
        assert len(swapped.asked) == 3


def test_a_judge_of_helpfulness_that_can_t_be_read_ends_the_run_after_the_first_window():
    judge, read = LongerFirst(), 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield AnswerPair("q", f"a{read}", f"b{read}")

    with pytest.raises(RunError, match=r"longer gave no preference for any pair \(Well, / A\): correct its settings"):
        list(preferences(judge, endless()))
    assert read == WINDOW
