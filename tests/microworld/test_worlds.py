"""Every world against its description: wrong flags, graded harm, look-alikes, prices; and W0 as it always was."""

import hashlib
import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.judges.verdict import Exchange
from bfpo.microworld.answers import AnswerKind, steps, write_answer
from bfpo.microworld.data import CATEGORIES, chat_set, helpfulness_set, safety_set
from bfpo.microworld.grammar import parse_request, requests
from bfpo.microworld.judge import OracleJudge
from bfpo.microworld.oracle import PARTIAL_HARM, judge
from bfpo.microworld.vocabulary import EXCUSES, OTHERS
from bfpo.microworld.worlds import W0, WORLDS, World, load_world
from bfpo.preferences.harm import harm_levels
from bfpo.preferences.loading import inspect_preferences
from bfpo.safehelp.suites import load_suite

HARMFUL = [request for request in requests("test") if request.kind == "harmful"]


def answers(rows):
    """Prompt, answer, flag and severity of every answer of a safety set."""
    for row in rows:
        for k in (0, 1):
            severity = row.get(f"response_{k}_severity_level")
            yield row["prompt"], row[f"response_{k}"], row[f"is_response_{k}_safe"], severity


def digest(rows):
    return hashlib.sha256("".join(json.dumps(row) + "\n" for row in rows).encode()).hexdigest()


def test_w0_is_the_world_that_there_was_before_there_were_others():
    """Digests from before worlds were arguments: the results in docs/ are about this data and this suite."""
    assert digest(safety_set(1920, 0)).startswith("375442c3fb8428ff")
    assert digest(helpfulness_set(960, 0)).startswith("5fdff4588ec18fc5")
    assert digest(chat_set(1200, 0)).startswith("2b3fa936092e2738")
    assert load_suite("microworld", per_kind=500).digest.startswith("fc667da6aa3bf5a7")
    assert load_suite("microworld", per_kind=500, world="W3").digest.startswith("fc667da6aa3bf5a7")


@pytest.mark.parametrize(("world", "errors"), [("W2", (0.3, 0.3)), ("W3", (0.1, 0.4)), ("W0", (0, 0)), ("W6", (0, 0))])
def test_flags_are_wrong_as_often_as_the_world_says(world, errors):
    truth = Counter()
    for prompt, answer, flag, _ in answers(safety_set(3000, 1, world=WORLDS[world])):
        is_safe = judge(prompt, answer).is_safe
        truth[is_safe, flag == is_safe] += 1
    for is_safe, error in zip((True, False), errors, strict=True):
        wrong, right = truth[is_safe, False], truth[is_safe, True]
        assert wrong / (wrong + right) == pytest.approx(error, abs=0.025 if error else 0)


@pytest.mark.parametrize("world", ["W2", "W3"])
def test_the_safer_of_two_equal_flags_does_not_tell_which_flag_is_wrong(world):
    tells, safer = Counter(), Counter()
    for row in safety_set(6000, 1, world=WORLDS[world]):
        flags = [row[f"is_response_{k}_safe"] for k in (0, 1)]
        verdicts = [judge(row["prompt"], row[f"response_{k}"]) for k in (0, 1)]
        chosen, other = verdicts[row["safer_response_id"]], verdicts[1 - row["safer_response_id"]]
        if flags == [False, False]:
            assert chosen.p_help <= other.p_help
        if flags == [True, True]:
            safer[row["safer_response_id"]] += 1
            if chosen.is_safe != other.is_safe:
                tells[chosen.is_safe] += 1
    assert tells.total() > 200
    for counts in (tells, safer):
        assert counts[True] / counts.total() == pytest.approx(0.5, abs=0.08)


@given(st.sampled_from(HARMFUL), st.sampled_from(AnswerKind), st.integers(0, 10**6))
def test_harm_has_its_category_and_grade(request, kind, seed):
    verdict = judge(request.text, write_answer(request, kind, random.Random(seed)))
    level = {AnswerKind.FULL: 1.0, AnswerKind.PARTIAL: PARTIAL_HARM}.get(kind)
    assert verdict.harm == ({} if level is None else {request.category: level})
    assert verdict.is_safe == (not verdict.harm)


@given(st.sampled_from(HARMFUL), st.sets(st.sampled_from([0, 1, 2])), st.permutations([0, 1, 2]))
def test_any_text_is_graded_by_the_steps_in_it(request, some, order):
    own = [steps(request)[at] for at in order if at in some]
    harm = judge(request.text, f"x {' y '.join(own)} z").harm
    assert list(harm.values()) == {0: [], 3: [1.0]}.get(len(own), [PARTIAL_HARM])


def test_excused_requests_do_no_harm():
    request = next(r for r in requests("test") if r.kind == "borderline" and r.circumstance in EXCUSES)
    assert judge(request.text, write_answer(request, AnswerKind.FULL, random.Random(0))).harm == {}


def test_w4_has_two_unsafe_answers_in_most_pairs_with_a_harmful_prompt():
    rows = safety_set(6000, 0, world=WORLDS["W4"])
    harmful = [row for row in rows if parse_request(row["prompt"]).kind == "harmful"]
    both = sum(not row["is_response_0_safe"] and not row["is_response_1_safe"] for row in harmful)
    assert both / len(harmful) == pytest.approx(0.7, abs=0.02)
    grades = Counter(severity for *_, severity in answers(harmful))
    assert grades[1] / grades.total() == pytest.approx(0.42, abs=0.02)
    assert grades[3] / grades.total() == pytest.approx(0.42, abs=0.02)


@pytest.mark.parametrize("world", ["W4", "W6"])
def test_severities_are_read_as_the_oracle_s_harm(tmp_path, world):
    path = tmp_path / "safety.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in safety_set(300, 2, world=WORLDS[world])))
    rows, report = inspect_preferences(str(path))
    for row in rows:
        for name in ("chosen", "rejected"):
            verdict = judge(row["prompt"], row[name])
            assert harm_levels(row[f"{name}_harm"]) == pytest.approx(dict(verdict.harm))
            assert row[f"{name}_is_safe"] == verdict.is_safe
    assert set(report.categories) == set(CATEGORIES)
    assert set(WORLDS["W6"].prices) == set(CATEGORIES)


@pytest.mark.parametrize(("world", "harmful"), [("W5-25", 0.25), ("W5-75", 0.75)])
def test_look_alikes_say_nothing_about_permission_and_some_are_harmful(world, harmful):
    rows = safety_set(4000, 3, world=WORLDS[world])
    alike, others = [], []
    for row in rows:
        (alike if parse_request(row["prompt"]).kind == "harmful" and not circumstance(row) else others).append(row)
    assert len(alike) / len(rows) == pytest.approx(0.5, abs=0.02)
    # Whoever complies with one of them does harm in as many cases as are harmful: full answers show the truth.
    full = [flag for p, a, flag, _ in answers(alike) if judge(p, a).kind == AnswerKind.FULL]
    assert full.count(False) / len(full) == pytest.approx(harmful, abs=0.04)
    # Elsewhere the prompt tells, and the flags are the oracle's.
    assert all(judge(prompt, answer).is_safe == flag for prompt, answer, flag, _ in answers(others))
    assert all(circumstance(row) for row in others if parse_request(row["prompt"]).kind == "harmful")


def circumstance(row):
    return parse_request(row["prompt"]).circumstance


@pytest.mark.parametrize(("world", "harmful"), [("W5-25", 0.25), ("W5-75", 0.75)])
def test_the_suite_asks_look_alikes_and_judges_the_request_behind_them(world, harmful):
    suite = load_suite("microworld", per_kind=200, world=world)
    assert Counter(item.kind for item in suite.prompts) == {"benign": 200, "borderline": 200, "harmful": 200}
    assert len({item.prompt for item in suite.prompts}) == 600
    alike = Counter()
    for item in suite.prompts:
        said, meant = parse_request(item.prompt), parse_request(item.behavior or item.prompt)
        assert meant.kind == item.kind
        assert said == (replace(meant, circumstance="") if item.behavior else meant)
        alike[item.kind] += said.owner in OTHERS and not said.circumstance and said.kind == "harmful"
        full = write_answer(meant, AnswerKind.FULL, random.Random(0))
        verdict = OracleJudge().judge([Exchange(item.prompt, full, item.behavior)])[0]
        assert verdict.label == ("unsafe" if item.kind == "harmful" else "safe")
    assert alike == {"benign": 0, "borderline": 200 * (1 - harmful), "harmful": 200 * harmful}


def test_splits_of_look_alikes_share_no_composition():
    training = {parse_request(row["prompt"]).split for row in safety_set(500, 0, world=WORLDS["W5-25"])}
    asked = {parse_request(item.prompt).split for item in load_suite("microworld", per_kind=50, world="W5-25").prompts}
    assert (training, asked) == ({"train"}, {"test"})


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_is_drawn_the_same_for_equal_seeds(world):
    sets = [safety_set(30, seed, world=WORLDS[world]) for seed in (5, 5, 6)]
    assert sets[0] == sets[1] != sets[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flag_errors": (0.1, 1.2)}, "flag_errors of unsafe answers is 1.2"),
        ({"look_alikes": -1}, "look_alikes is -1"),
        ({"severities": True, "flag_errors": (0.1, 0.1)}, "severities contradict flags that err"),
    ],
)
def test_worlds_that_can_not_be_are_refused(settings, message):
    with pytest.raises(BfpoError, match=message):
        World("no world", **settings)


def test_an_unknown_world_is_named():
    with pytest.raises(BfpoError, match=r"no world 'W5'.*W5-25"):
        load_world("W5")
    with pytest.raises(BfpoError, match="--world: only the microworld reads it"):
        load_suite("core", world="W2")


def test_the_command_line_writes_and_lists_worlds(tmp_path):
    done = CliRunner().invoke(app, ["microworld", "data", str(tmp_path / "W1"), "--world", "W1", "--seed", "3"])
    assert done.exit_code == 0, done.output
    safety, helpful = ((tmp_path / "W1" / f"{name}.jsonl").read_bytes().splitlines() for name in ("safety", "helpful"))
    assert list(map(json.loads, safety)) == safety_set(240, 3, world=WORLDS["W1"])
    assert list(map(json.loads, helpful)) == helpfulness_set(960, 3, score_noise=0.4)
    again = ["microworld", "data", str(tmp_path / "W1"), "--world", "W1", "--seed"]
    assert CliRunner().invoke(app, [*again, "3"]).exit_code == 0
    (tmp_path / "W1" / "chat.jsonl").unlink()
    for seed, change in (("4", b""), ("3", b"{}\n")):
        (tmp_path / "W1" / "helpful.jsonl").open("ab").write(change)
        done = CliRunner().invoke(app, [*again, seed])
        assert isinstance(done.exception, BfpoError)
        assert f"overwrite a file that is not that of world W1 with seed {seed}; name another" in str(done.exception)
    assert not (tmp_path / "W1" / "chat.jsonl").exists()
    assert W0.summary in CliRunner().invoke(app, ["microworld", "list"]).output
    with pytest.raises(BfpoError, match="no world 'W9'"):
        CliRunner().invoke(app, ["microworld", "data", str(tmp_path), "--world", "W9"], catch_exceptions=False)


@pytest.mark.parametrize("world", ["W5-25", "W5-75"])
def test_more_look_alikes_than_there_are_is_an_error(world):
    """The validation split has 1,024 such prompts."""
    with pytest.raises(BfpoError, match=r"--per-kind 1025: the split 'validation' has 1,024 prompts that look alike"):
        load_suite("microworld", split="validation", per_kind=1025, world=world)
    suite = load_suite("microworld", split="validation", per_kind=1024, world=world)
    assert len({item.prompt for item in suite.prompts}) == 3 * 1024
