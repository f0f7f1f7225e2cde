"""Answers that were cut when they were sampled: they have no end to train on, wherever they go."""

import json

import pytest

from bfpo import load_preferences
from bfpo.preferences.encoding import encode
from bfpo.preferences.grouping import group_by_prompt
from bfpo.preferences.ordering import order_by, preferred_answers
from bfpo.preferences.rendering import Renderer
from bfpo.preferences.schema import PreferenceDataError
from preferences.test_encoding import CONVENTIONS
from training.rows import word_tokenizer

PAIR = {"prompt": "w1 ", "chosen": "w2", "rejected": "w3", "chosen_is_safe": False, "rejected_is_safe": True}
CUT = PAIR | {"chosen_truncated": True, "rejected_truncated": False}
GROUP = {"prompt": "w1 ", "responses": ["w2", "w3", "w4"], "helpfulness": [3, 1, 2], "is_safe": [1, 1, 1]}


def loaded(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_preferences(str(path))


def ended(rows):
    """Of every row, whether each of its answers has an end, and the number that have none."""
    tokenizer = word_tokenizer()
    found = encode(rows, tokenizer, 64)
    ends = [[ids[-1] == tokenizer.eos_token_id for ids in row["answer_ids"]] for row in found.dataset]
    return ends, found.counts.unended_answers


@pytest.mark.parametrize("name", CONVENTIONS)
def test_only_the_end_is_missing(name):
    whole = Renderer(CONVENTIONS[name]).group("ab", ["cd", "efg", "h"])
    cut = Renderer(CONVENTIONS[name]).group("ab", ["cd", "efg", "h"], unended=[1])
    assert cut.answers == [whole.answers[0], whole.answers[1][:-1], whole.answers[2]]
    assert (cut.prompt, cut.context) == (whole.prompt, whole.context)
    # An end that the template lacks isn't added where none belongs.
    assert cut.added_ends == whole.added_ends - bool(whole.added_ends)


def test_pairs_and_groups_say_which_answers_were_cut(tmp_path):
    assert ended(loaded(tmp_path, CUT, PAIR)) == ([[False, True], [True, True]], 1)
    assert ended(loaded(tmp_path, CUT | {"chosen_truncated": None})) == ([[True, True]], 0)
    rows = loaded(tmp_path, GROUP | {"truncated": [True, False, True]}, GROUP)
    assert ended(rows) == ([[False, True, False], [True, True, True]], 2)


def test_cells_of_csv_say_it_too(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,chosen,rejected,chosen_truncated,rejected_truncated\nw1 ,w2,w3,no,yes\nw1 ,w2,w4,,true\n")
    assert ended(load_preferences(str(path), unknown_safety=1.0)) == ([[True, False], [True, False]], 2)


def test_it_stays_with_its_answer(tmp_path):
    pairs = loaded(tmp_path, CUT, PAIR)
    turned, _ = order_by(pairs, "safe_first")
    assert turned["chosen"][:] == ["w3", "w3"]
    assert ended(turned)[0] == [[True, False], [True, True]]
    assert ended(preferred_answers(pairs, "helpful")) == ([[False], [True]], 1)
    assert ended(preferred_answers(pairs, "safe_first")) == ([[True], [True]], 0)
    groups = loaded(tmp_path, GROUP, GROUP | {"truncated": [True, False, False]})
    assert ended(preferred_answers(groups, "helpful")) == ([[True], [False]], 1)
    grouped, _ = group_by_prompt(loaded(tmp_path, CUT, CUT | {"rejected": "w4"}))
    assert ended(grouped) == ([[False, True, True]], 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR | {"chosen_truncated": "half"}, "column 'chosen_truncated': 'half' does not say"),
        (PAIR | {"rejected_truncated": [True, False]}, r"column 'rejected_truncated': \[True, False\] does not say"),
        (GROUP | {"truncated": [True]}, r"column 'truncated': \[True\] does not say of each answer whether it was cut"),
        (GROUP | {"truncated": True}, "column 'truncated': True does not say"),
        (PAIR | {"truncated": [True, False]}, "'truncated': .*would be ignored"),
    ],
)
def test_anything_else_is_a_problem_of_its_row(tmp_path, row, message):
    with pytest.raises(PreferenceDataError, match=message):
        loaded(tmp_path, row)
