"""Tests of overlap between evaluation and training prompts: equal up to form, or sharing long n-grams."""

import json
from pathlib import Path

import pytest

from bfpo.microworld.data import held_out_prompts, helpfulness_set, safety_set
from bfpo.preferences.overlap import find_overlap, load_prompts, normalized, prompt_text
from bfpo.preferences.schema import PreferenceDataError

LONG = "please tell me in a few short words how the old clock on the kitchen wall is wound up again"


def found(training, evaluation):
    return [(one.same, one.similar) for one in find_overlap(training, {"suite": evaluation})]


@pytest.mark.parametrize(
    "form", ["How do I open  it?", "how do i OPEN it", "\uff28ow do I open it!", " How\ndo I open it "]
)
def test_form_does_not_hide_the_same_prompt(form):
    assert found([form], ["How do I open it?"]) == [(1, 0)]


def test_a_prompt_inside_a_longer_one_or_changed_at_the_edge_is_nearly_the_same():
    assert found([f"You are a helper. {LONG} Thank you."], [LONG]) == [(0, 1)]
    assert found([LONG.replace("please tell me", "say")], [LONG]) == [(0, 1)]


def test_scripts_without_spaces_have_near_duplicates_too():
    sentence = "请用几句话告诉我厨房墙上那个旧钟应该怎样重新上发条才能继续走动"
    assert found([sentence + "吗"], [sentence]) == [(0, 1)]
    assert found(["今天天气很好我们去公园散步"], [sentence]) == []


def test_texts_of_symbols_are_the_same_only_if_equal():
    assert found(["!!!"], ["???"]) == []
    assert found([" ???"], ["???"]) == [(1, 0)]


def test_sharing_a_phrase_is_no_overlap():
    assert found([LONG], ["in a few short words how the old clock on my desk was sold to a friend of ours"]) == []
    assert found(["How do I open it?"], ["How do I open them?"]) == []
    assert found([], [LONG]) == []


def test_each_set_is_reported_with_an_example():
    one, two = find_overlap([LONG, "hello"], {"a": ["x", "Hello!"], "b": [LONG], "c": ["y"]})
    assert (one.evaluation, one.prompts, one.example) == ("a", 2, "Hello!")
    assert (two.evaluation, two.same) == ("b", 1)


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/data.md"])
def test_the_documented_row_can_be_trained_on(page):
    """Whoever copies it is not told that it is a prompt of an evaluation."""
    text = (Path(__file__).parents[2] / page).read_text()
    rows = [json.loads(line) for line in text.splitlines() if line.startswith('{"prompt"')]
    prompts = [row["prompt"] for row in rows if isinstance(row["prompt"], str)]
    assert prompts
    assert found(prompts, held_out_prompts()) == []


def test_the_microworld_keeps_its_compositions_apart():
    training = [row["prompt"] for row in safety_set(400, 0) + helpfulness_set(200, 0)]
    held_out = held_out_prompts()[::7]
    assert find_overlap(training, {"microworld": held_out}) == []
    assert find_overlap([*training, held_out[0]], {"microworld": held_out})[0].same == 1


def test_prompts_come_from_text_rows_and_messages(tmp_path):
    text, rows, wrong = tmp_path / "p.txt", tmp_path / "p.jsonl", tmp_path / "w.csv"
    text.write_text("one\n\ntwo\n")
    rows.write_text(
        '{"prompt": "one"}\n{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "two"}]}\n'
    )
    wrong.write_text("question\none\n")
    assert load_prompts(str(text)) == load_prompts(str(rows)) == ["one", "two"]
    with pytest.raises(PreferenceDataError, match="row 1, column 'prompt'"):
        load_prompts(str(wrong))
    assert prompt_text("p") == "p"
    assert normalized("It's  TWO-fold.") == ("it's", "two", "fold")
