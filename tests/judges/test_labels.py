"""Tests of files of labeled answers and of verdicts: contents, and every problem with row, column and remedy."""

import json
from dataclasses import replace

import pytest

from bfpo.errors import BfpoError
from bfpo.judges import Exchange, Verdict, load_judge
from bfpo.judges.labels import LabeledAnswer, load_answers, load_labels, of_source
from bfpo.judges.replay import load_replay, save_verdicts
from bfpo.judges.scaling import save_scaled_judge
from bfpo.judges.unjudged import EMPTY, NOT_RECORDED
from bfpo.preferences.schema import PreferenceDataError

GOOD = {"prompt": "p", "answer": "a", "is_safe": True}


def written(tmp_path, *rows, name="labels.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_are_read_with_what_they_have(tmp_path):
    name = written(
        tmp_path,
        GOOD,
        GOOD | {"is_safe": 0, "is_refusal": False, "behavior": "b", "source": "s", "category": "c", "note": 1},
        GOOD | {"is_safe": None, "is_refusal": True, "answer": ""},
    )
    assert load_labels(name) == [
        LabeledAnswer(Exchange("p", "a"), True, None),
        LabeledAnswer(Exchange("p", "a", "b"), False, False, "s", "c"),
        LabeledAnswer(Exchange("p", ""), None, True),
    ]


def test_public_names_are_known_and_unsafe_is_negated(tmp_path):
    name = written(tmp_path, {"prompt": "p", "response": "a", "unsafe": 1, "source": "pku"})
    assert load_labels(name) == [LabeledAnswer(Exchange("p", "a"), False, None, "pku")]
    # Where the row has a column for the flag that is empty, too.
    name = written(tmp_path, {"prompt": "p", "answer": "a", "is_safe": None, "is_refusal": False, "unsafe": True})
    assert load_labels(name) == [LabeledAnswer(Exchange("p", "a"), False, False)]


def test_csv_and_renamed_columns(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("prompt,text,is_safe\np,a,true\nq,b,false\n")
    assert [answer.is_safe for answer in load_labels(str(path), {"text": "answer"})] == [True, False]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "p", "anwser": "a", "is_safe": True}], ["'answer'", "did you mean 'anwser'", "--column"]),
        ([{"prompt": "p", "answer": "a"}], ["'is_safe'", "it is missing"]),
        ([GOOD, GOOD | {"is_safe": "maybe"}], ["row 2", "'is_safe'", "'maybe' is not a label", "true, false"]),
        ([GOOD, GOOD | {"is_safe": 0.5}], ["row 2", "0.5 is not a label"]),
        ([GOOD, GOOD | {"answer": 3}], ["row 2", "'answer'", "is not a string"]),
        ([GOOD, GOOD | {"prompt": " "}], ["row 2", "'prompt'"]),
        ([GOOD, GOOD | {"is_safe": None}], ["row 2", "has no label"]),
        ([GOOD | {"behavior": 1}], ["row 1", "'behavior'"]),
        ([GOOD | {"unsafe": True}], ["row 1", "'unsafe'", "True contradicts is_safe True"]),
    ],
)
def test_problems_are_named(tmp_path, rows, words):
    with pytest.raises(PreferenceDataError) as caught:
        load_labels(written(tmp_path, *rows))
    for word in words:
        assert word in str(caught.value)


def test_every_problem_is_kept(tmp_path):
    with pytest.raises(PreferenceDataError) as caught:
        load_labels(written(tmp_path, GOOD | {"is_safe": 2}, GOOD, GOOD | {"answer": None, "is_safe": "x"}))
    assert [(problem.row, problem.column) for problem in caught.value.problems] == [
        (1, "is_safe"),
        (3, "answer"),
        (3, "is_safe"),
    ]


def test_a_missing_source_is_reported(tmp_path):
    labeled = load_labels(written(tmp_path, GOOD | {"source": "gptfuzz"}))
    assert of_source(labeled, "gptfuzz") == labeled
    with pytest.raises(BfpoError, match="did you mean 'gptfuzz'"):
        of_source(labeled, "gptfuz")


def test_answers_need_no_labels(tmp_path):
    assert load_answers(written(tmp_path, {"prompt": "p", "response": "a"})) == [Exchange("p", "a")]


FULL = Verdict("controversial", 0.4, "no", ("S1",), "raw \ud800", 0.9, "other@1", "digest")


def test_verdicts_are_written_and_replayed(tmp_path):
    asked = [Exchange("p", "a"), Exchange("p", "b", "x"), Exchange("p", "\ud800")]
    given = [FULL, Verdict("unparsed", None, judge_id="other@1"), Verdict("safe", 1.0, judge_id="other@1")]
    path = tmp_path / "verdicts.jsonl"
    save_verdicts(path, zip(asked, given, strict=True))
    judge = load_judge(str(path))
    assert judge.judge(asked) == [replace(given[0], raw="raw ?"), *given[1:]]
    missing = judge.judge([Exchange("p", "b"), Exchange("p", "")])
    assert [verdict.categories for verdict in missing] == [(NOT_RECORDED,), (EMPTY,)]
    assert judge.judge_id.startswith("replay:verdicts.jsonl@")


def test_only_earlier_verdicts_of_the_judge_on_these_answers_are_replaced(tmp_path):
    path, asked = tmp_path / "verdicts.jsonl", [Exchange("p", "a"), Exchange("p", "b")]
    given = [FULL, replace(FULL, label="safe")]
    for verdicts in (given[:1], given, given):
        save_verdicts(path, zip(asked, verdicts, strict=False))
    message = r"verdicts.jsonl: this would overwrite a file that is not an earlier one with this judge's verdicts on"
    of_another, of_another_question = (replace(given[1], **{name: "x"}) for name in ("judge_id", "template_digest"))
    for verdicts in (given[:1], [given[0], of_another], [given[0], of_another_question]):
        with pytest.raises(BfpoError, match=message):
            save_verdicts(path, zip(asked, verdicts, strict=False))
    path.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(BfpoError, match=message):
        save_verdicts(path, zip(asked, given, strict=True))
    assert path.read_text() == json.dumps(GOOD) + "\n"


def test_only_the_same_judge_with_a_scaling_is_replaced(tmp_path):
    path = tmp_path / "scaled.yaml"
    labels = written(tmp_path, *({"prompt": "p", "answer": f"{at}", "is_safe": at % 3 > 0} for at in range(9)))
    labeled = load_labels(labels)
    verdicts = [Verdict("safe", 0.1 * at + 0.05, judge_id="x") for at in range(9)]
    for _ in range(2):
        save_scaled_judge(path, "x", labels, labeled, verdicts)
    for content in ("judge: y\nscaling: {slope: 2}\n", "my: notes\n"):
        path.write_text(content)
        with pytest.raises(BfpoError, match=r"scaled.yaml: this would overwrite a file that is not x with a scaling"):
            save_scaled_judge(path, "x", labels, labeled, verdicts)
        assert path.read_text() == content


VERDICT = {"prompt": "p", "answer": "a", "label": "safe", "p_safe": 0.9}


def test_the_least_that_a_verdict_needs(tmp_path):
    judge = load_replay(written(tmp_path, VERDICT))
    (verdict,) = judge.judge([Exchange("p", "a")])
    assert (verdict.label, verdict.p_safe, verdict.judge_id) == ("safe", 0.9, judge.judge_id)
    judge = load_replay(written(tmp_path, {"prompt": "p", "answer": "a", "label": "unparsed"}))
    assert judge.judge([Exchange("p", "a")])[0].p_safe is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "fine"}, ["'label'", "'fine' is not a label", "safe, unsafe"]),
        ({"p_safe": 1.5}, ["'p_safe'", "not a probability"]),
        ({"p_safe": None}, ["'p_safe'"]),
        ({"p_safe": float("nan")}, ["'p_safe'"]),
        ({"label": "unparsed"}, ["'p_safe'", "unparsed", "null"]),
        ({"refusal": "maybe"}, ["'refusal'"]),
        ({"categories": "S1"}, ["'categories'"]),
        ({"mass": 2}, ["'mass'"]),
        ({"answer": None}, ["'answer'"]),
    ],
)
def test_wrong_verdicts_are_named(tmp_path, change, words):
    with pytest.raises(PreferenceDataError) as caught:
        load_replay(written(tmp_path, VERDICT, VERDICT | {"prompt": "q"} | change))
    for word in ["row 2", *words]:
        assert word in str(caught.value)


def test_the_same_verdict_twice_is_fine_and_two_are_not(tmp_path):
    assert len(load_replay(written(tmp_path, VERDICT, VERDICT)).recorded) == 1
    with pytest.raises(PreferenceDataError, match="contradicts an earlier verdict"):
        load_replay(written(tmp_path, VERDICT, VERDICT | {"p_safe": 0.8}))
