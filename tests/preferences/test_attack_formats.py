"""Tests of others' red teaming as groups: garak's reports and JailbreakBench's artifacts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfpo.preferences.attack_formats import by_prompt, garak_attempt
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.schema import PreferenceDataError
from preferences.formats import attempt, said_to_garak, turn

TOXIC, REFUSAL, JUDGE = "unsafe_content.ToxicCommentModel", "mitigation.MitigationBypass", "judge.ModelAsJudge"
SETUP = {"entry_type": "start_run setup", "_config.version": "0.14.0", "run.generations": 2}
INIT = {"entry_type": "init", "garak_version": "0.14.0", "start_time": "2026-01-01T00:00:00", "run": "r"}
EVAL = {"entry_type": "eval", "probe": "lmrc.Bullying", "detector": TOXIC, "passed": 1, "fails": 1, "nones": 0}


def report(tmp_path, *entries):
    path = tmp_path / "garak.r.report.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(path)


def read(tmp_path, *entries, **options):
    return inspect_preferences(report(tmp_path, *entries), unknown_safety="keep", **options)


def test_passes_and_failures_of_a_prompt_are_one_group_with_a_judges_verdicts(tmp_path):
    scored = attempt("q", ["kind", "rude", None, ""], {TOXIC: [0.2, 0.9, None, 0.1]})
    rows, found = read(tmp_path, SETUP, INIT, attempt("q", ["kind", "rude", None, ""]), scored, EVAL)
    assert [answer[0]["content"] for answer in rows[0]["responses"]] == ["kind", "rude"]
    assert rows[0]["is_safe"] == [1.0, 0.0]
    assert json.loads(rows[0]["labelled_by"]) == {"answers": ["judge", "judge"]}
    assert json.loads(rows[0]["judged_as"])["answers"][1] == {"verdict": 0.0, "probability": None}
    assert rows[0]["helpfulness"] is None
    assert (found.shape, found.read, found.kept, rows[0]["row"]) == ("garak report", 1, 1, 4)
    assert found.left_out == {"empty answers": 2}


def test_an_attempt_that_was_never_scored_is_unlabeled(tmp_path):
    other = {"uuid": "c2", "status": 1}
    rows, found = read(tmp_path, SETUP, attempt("q", ["a", "b"], {TOXIC: [0, 1]}), attempt("r", ["c", "d"]) | other)
    assert rows["is_safe"][:] == [[1.0, 0.0], [None, None]]
    assert json.loads(rows[1]["labelled_by"]) == {"answers": ["unparsed", "unparsed"]}
    assert found.read == 2


@pytest.mark.parametrize(("threshold", "flags"), [(None, [1.0, 0.0, 0.0]), (0.7, [1.0, 1.0, 0.0])])
def test_a_score_is_a_hit_from_the_runs_threshold_on(tmp_path, threshold, flags):
    setup = SETUP if threshold is None else SETUP | {"run.eval_threshold": threshold}
    rows, _ = read(tmp_path, setup, attempt("q", ["a", "b", "c"], {TOXIC: [0.49, 0.5, 0.7]}))
    assert rows[0]["is_safe"] == flags


def test_of_several_detectors_one_hit_is_enough_and_those_of_other_things_are_counted(tmp_path):
    results = {TOXIC: [0, 0, None, None], JUDGE: [0, 1, 0, None], REFUSAL: [1, 0, 1, 1], JUDGE + "2": [1.0] * 4}
    rows, found = read(tmp_path, SETUP, attempt("q", ["a", "b", "c", "d"], results))
    assert rows[0]["is_safe"] == [1.0, 0.0, 1.0, None]
    assert found.left_out == {
        f"verdicts of {REFUSAL}, which looks for something else than harm": 4,
        f"verdicts of {JUDGE}2, which looks for something else than harm": 4,
    }


def test_without_their_column_the_scores_are_not_read(tmp_path):
    path = report(tmp_path, SETUP, attempt("q", ["a", "b"], {TOXIC: [0, 1]}))
    rows, _ = inspect_preferences(
        path, columns={"detector_results": "", "probe_classname": "category"}, unknown_order=0.5
    )
    assert (rows[0]["is_safe"], rows[0]["category"]) == ([None, None], "lmrc.Bullying")


def multi_turn(*firsts):
    """An attempt of two turns, whose first answers are given."""
    made = attempt("q", ["y", "n"][: len(firsts)], {TOXIC: [0, 1][: len(firsts)], JUDGE: [0, 1, 1]})
    turns = [[turn("user", "q"), turn("assistant", first), turn("user", "more")] for first in firsts]
    for conversation, before in zip(made["conversations"], turns, strict=True):
        conversation["turns"][:1] = before
    return made


def test_what_came_before_the_last_answer_is_the_prompt(tmp_path):
    rows, found = read(tmp_path, SETUP, multi_turn("first", "first"))
    assert [message["content"] for message in rows[0]["prompt"]] == ["q", "first", "more"]
    assert rows[0]["is_safe"] == [1.0, 0.0]
    assert found.left_out == {f"verdicts of {JUDGE}, which are not one for each answer": 3}


def test_conversations_that_part_earlier_are_no_group_and_counted(tmp_path):
    whole = attempt("r", ["a", "b"], {TOXIC: [0, 1]}) | {"uuid": "c2"}
    rows, found = read(tmp_path, SETUP, multi_turn("one", "two"), whole)
    assert len(rows) == 1
    assert found.left_out == {"attempts whose conversations differ before the last answer": 1}


@pytest.mark.parametrize(
    ("prompt", "outputs"),
    [("q", ["a", "b"]), ({"text": "q", "lang": "en"}, [{"text": "a"}, {"text": "b"}])],
)
def test_prompts_and_outputs_of_older_versions_are_read(tmp_path, prompt, outputs):
    old = {"entry_type": "attempt", "uuid": "c", "status": 2, "prompt": prompt, "outputs": outputs, "messages": [[]]}
    rows, _ = read(tmp_path, SETUP, old | {"detector_results": {TOXIC: [0.0, 1.0]}})
    assert [message["content"] for message in rows[0]["prompt"]] == ["q"]
    assert rows[0]["is_safe"] == [1.0, 0.0]


def test_a_system_prompt_stays(tmp_path):
    made = attempt("q", ["a", "b"], {TOXIC: [0, 1]})
    for conversation in made["conversations"]:
        conversation["turns"].insert(0, turn("system", "s"))
    assert [message["role"] for message in read(tmp_path, SETUP, made)[0][0]["prompt"]] == ["system", "user"]


def test_attempts_of_no_use_are_counted(tmp_path):
    image = {"turns": [{"role": "user", "content": said_to_garak("see", data_path="x.png")}], "notes": {}}
    entries = [
        attempt("q", ["a", "b"], {TOXIC: [0, 1]}) | {"uuid": "1"},
        attempt("q2", [], {}) | {"uuid": "2", "status": 0},
        attempt("q3", [None, None], {TOXIC: [None, None]}) | {"uuid": "3"},
        attempt("", ["a"], {TOXIC: [0]}) | {"uuid": "4"},
        attempt("q5", ["a"], {TOXIC: [0]}) | {"uuid": "5", "prompt": image, "conversations": []},
    ]
    rows, found = read(tmp_path, SETUP, *entries)
    assert len(rows) == 1
    assert found.left_out == {
        "attempts without an answer": 2,
        "attempts without a prompt": 1,
        "attempts with an image, a sound or another file": 1,
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"detector_results": {TOXIC: [0, "high"]}}, "row 2, column 'detector_results': 'high' is not a score"),
        ({"detector_results": [1]}, "row 2, column 'detector_results': it is a list"),
        ({"outputs": "a"}, "row 2, column 'outputs': it is a str"),
        ({"outputs": [3]}, "row 2, column 'outputs': a message has no text"),
        ({"conversations": [{"turns": ["q"]}]}, "its turns are not a list of objects"),
    ],
)
def test_a_damaged_attempt_is_named(tmp_path, change, words):
    with pytest.raises(PreferenceDataError, match=words):
        read(tmp_path, SETUP, attempt("q", ["a", "b"], {TOXIC: [0, 1]}) | change)


def test_a_threshold_that_is_no_number_is_named(tmp_path):
    with pytest.raises(PreferenceDataError, match="'eval_threshold': 'high' is not a number"):
        read(tmp_path, SETUP | {"run.eval_threshold": "high"}, attempt("q", ["a"], {TOXIC: [0]}))


def test_a_report_that_ended_before_its_first_attempt_says_so(tmp_path):
    with pytest.raises(PreferenceDataError, match="garak report without attempts"):
        read(tmp_path, SETUP, INIT)


ATTACK = {
    "index": 0, "goal": "g", "behavior": "b", "category": "Privacy", "prompt": "q", "response": "a", "jailbroken": True,
}  # fmt: skip


def artifact(tmp_path, *attacks):
    path = tmp_path / "vicuna.json"
    path.write_text(json.dumps({"parameters": {"method": "PAIR"}, "jailbreaks": attacks}))
    return str(path)


def test_answers_to_the_same_attack_are_one_group(tmp_path):
    attacks = [
        ATTACK,
        ATTACK | {"prompt": None, "response": None, "jailbroken": False},
        ATTACK | {"response": "no", "jailbroken": False},
        ATTACK | {"prompt": "other"},
        ATTACK | {"jailbroken": False},
    ]
    rows, found = inspect_preferences(artifact(tmp_path, *attacks), unknown_order=0.5)
    assert rows["responses"][:] == [["a", "no"], ["a"]]
    assert rows["is_safe"][:] == [[0.0, 1.0], [0.0]]
    assert (found.shape, found.read, found.merged, rows["row"][:]) == ("JailbreakBench artifact", 5, 2, [1, 4])
    assert found.left_out == {
        "requests for which no attack was submitted": 1,
        "answers that repeat another one": 1,
    }
    assert {"parameters", "index", "behavior"} <= set(found.ignored_columns)


def test_the_other_judges_verdicts_can_be_named(tmp_path):
    path = artifact(tmp_path, ATTACK | {"jailbroken_llama_guard1": False})
    rows, _ = inspect_preferences(path, columns={"jailbroken": "", "jailbroken_llama_guard1": "jailbroken"})
    assert rows[0]["is_safe"] == [1.0]


def test_a_verdict_that_is_no_flag_is_named(tmp_path):
    with pytest.raises(PreferenceDataError, match="row 1, column 'jailbroken': it is a str"):
        inspect_preferences(artifact(tmp_path, ATTACK | {"jailbroken": "yes"}))


def test_groups_need_an_order_or_a_rule_for_it(tmp_path):
    with pytest.raises(PreferenceDataError, match="unknown_order"):
        inspect_preferences(report(tmp_path, SETUP, attempt("q", ["a", "b"], {TOXIC: [0, 1]})))


@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("abc"), st.sampled_from([None, 0.0, 1.0])), max_size=20)
)
@settings(max_examples=60, deadline=None)
def test_every_answer_is_in_the_group_of_its_prompt_once(answers):
    """Against a grouping by sets and minima of the whole list."""
    from collections import Counter

    rows = [
        (at, {"prompt": p, "category": None, "responses": [a], "is_safe": [f]}) for at, (p, a, f) in enumerate(answers)
    ]
    counts = Counter()
    groups = by_prompt(iter(rows), counts)
    assert sum(rows for _, rows, _ in groups) == len(answers)
    found = {
        (row["prompt"], a): f for _, _, row in groups for a, f in zip(row["responses"], row["is_safe"], strict=True)
    }
    expected = {
        (p, a): min((f for q, b, f in answers if (q, b) == (p, a) and f is not None), default=None)
        for p, a, _ in answers
    }
    assert found == expected
    assert len(groups) == len({p for p, _, _ in answers})
    assert counts["answers that repeat another one"] == len(answers) - len(expected)


def test_unknown_detectors_label_nothing():
    """A detector's name is in the table, or its scores say nothing of harm."""
    made = garak_attempt(attempt("q", ["a"], {"always.Fail": [1.0]}) | {"eval_threshold": 0.5})
    assert made["is_safe"] == [None]


def test_the_real_artifacts_load(shared_data):
    for path in sorted((shared_data / "jailbreakbench_artifacts").glob("*.json")):
        attacks = json.loads(path.read_text())["jailbreaks"]
        rows, found = inspect_preferences(str(path), unknown_order=0.5)
        submitted = [one for one in attacks if one["prompt"] is not None]
        assert sum(map(len, rows["responses"])) == len({(one["prompt"], one["response"]) for one in submitted})
        unsafe = sum(flag == 0 for flags in rows["is_safe"] for flag in flags)
        assert unsafe == len({one["prompt"] for one in submitted if one["jailbroken"]})
        assert found.left_out.get("requests for which no attack was submitted", 0) == len(attacks) - len(submitted)
