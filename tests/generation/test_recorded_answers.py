"""Answers made elsewhere: rows that are read, prompts that lack an answer, and the errors of malformed files."""

import csv
import json

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Completion, Decoding, sample_requests
from bfpo.generation.recorded_answers import RecordedAnswers

ROWS = [
    {"prompt": "a", "response": " one \n", "model": "x"},
    {"prompt": "b", "response": "two", "truncated": True, "tokens": 3, "thinking": "hm"},
    {"prompt": "a", "response": "three"},
    {"prompt": "c", "response": ""},
]


def written(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def answers(recorded, prompts):
    requests = sample_requests({prompt: prompt for prompt in prompts}, Decoding(samples=recorded.samples))
    return recorded.generate(requests, Decoding())


def test_answers_are_replayed_by_prompt_and_those_left_over_are_counted(tmp_path):
    recorded = RecordedAnswers.load(written(tmp_path / "own.jsonl"), ["b", "a", "b"])
    assert (recorded.samples, recorded.unused) == (1, 2)
    assert answers(recorded, ["b", "a"]) == [Completion("two", True, 3, "hm"), Completion("one", False)]
    several = RecordedAnswers.load(tmp_path / "own.jsonl", ["a"])
    assert (several.samples, several.unused) == (2, 2)
    assert [each.text for each in answers(several, ["a"])] == ["one", "three"]
    stated = RecordedAnswers.load(tmp_path / "own.jsonl", ["a"], samples=1, stated={"temperature": 0.7})
    assert several.defaults(Decoding(temperature=0)) == Decoding(temperature=1, samples=2)
    assert stated.settings(Decoding(samples=1)) == {"temperature": 0.7, "samples": 1}
    assert (
        stated.identity.digest != RecordedAnswers.load(written(tmp_path / "b.jsonl", ROWS[:1]), ["a"]).identity.digest
    )


def test_a_table_is_read_too(tmp_path):
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "answer"], ["a", "one, two"]])
    assert answers(RecordedAnswers.load(tmp_path / "own.csv", ["a"]), ["a"])[0].text == "one, two"
    (tmp_path / "more.csv").write_text("prompt,answer,truncated,tokens\na,one,true,3\nb,,false,0\n")
    found = answers(RecordedAnswers.load(tmp_path / "more.csv", ["a", "b"]), ["a", "b"])
    assert [(each.text, each.truncated, each.tokens) for each in found] == [("one", True, 3), ("", False, 0)]


@pytest.mark.parametrize(
    ("prompts", "samples", "message"),
    [
        (["a", "z", "y"], None, "has no answer to 2 of the suite's 3 prompts, the first of which begins with 'z'"),
        (["a", "b"], 2, "has fewer than 2 answers to 1 of the suite's 2 prompts, the first of which begins with 'b'"),
    ],
)
def test_prompts_without_answers_are_an_error(tmp_path, prompts, samples, message):
    with pytest.raises(BfpoError) as caught:
        RecordedAnswers.load(written(tmp_path / "own.jsonl"), prompts, samples=samples)
    assert message in str(caught.value)
    assert "choose tasks with --task" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "x"}, "row 1, column 'prompt': it is missing, or neither a string nor a list of messages"),
        ({"prompt": [], "answer": "x"}, "row 1, column 'prompt': it is missing, or neither a string nor a list of"),
        ({"prompt": [{"role": "user", "content": None}], "answer": "x"}, "column 'prompt': it is missing, or neither"),
        ({"prompt": [{"content": "a"}], "answer": "x"}, "row 1, column 'prompt': a message has no role"),
        ({"prompt": "a"}, "row 1, column 'answer': it is missing; name the column answer, response or completion"),
        ({"prompt": "a", "answer": None}, "row 1, column 'answer': it is not a string"),
        ({"prompt": "a", "answer": "x", "tokens": "3"}, "row 1, column 'tokens': '3' is not of type int"),
        ({"prompt": "a", "answer": "x", "tokens": True}, "row 1, column 'tokens': True is not of type int"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, message):
    with pytest.raises(BfpoError) as caught:
        RecordedAnswers.load(written(tmp_path / "own.jsonl", [row]), ["a"])
    assert message in str(caught.value)
