"""Tests that every format that people have is read as it is meant, or refused with the reason."""

import json
from pathlib import Path

import datasets
import pytest

from bfpo.preferences.loading import checked, inspect_preferences
from bfpo.preferences.messages import for_template
from bfpo.preferences.schema import PreferenceDataError
from bfpo.preferences.shapes import SHAPES
from preferences.formats import FORMATS, REFUSED, TALK, assistant, user


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def as_given(value):
    """A stored value with messages and tools as objects."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return for_template(value)
    return [as_given(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("shape", "row", "expected"), [one[1:] for one in FORMATS], ids=[one[0] for one in FORMATS])
def test_a_format_is_read_as_it_is_meant(tmp_path, shape, row, expected):
    # Red teaming measures no help.
    options = {"unknown_order": 0.5} if shape == "garak report" else {}
    rows, report = inspect_preferences(written(tmp_path, row), **options)
    assert report.shape == shape
    found = {name: as_given(rows[0][name]) for name in expected}
    found |= {"tools": json.loads(found["tools"])} if "tools" in expected else {}
    assert found == expected


@pytest.mark.parametrize(("row", "words"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_would_be_read_otherwise_than_meant_is_refused(tmp_path, row, words):
    with pytest.raises(PreferenceDataError) as error:
        inspect_preferences(written(tmp_path, row))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_format_is_read_from_arrow_without_the_nulls_that_it_adds():
    calls = [{"function": {"name": name, "arguments": {argument: 1}}} for name, argument in (("f", "a"), ("g", "b"))]
    rows = [{"messages": [user("q"), assistant("", tool_calls=[call]), user("r"), assistant("y")]} for call in calls]
    found = checked("x", datasets.Dataset.from_list(rows))
    arguments = [for_template(row["prompt"])[1]["tool_calls"][0]["function"]["arguments"] for row in found]
    assert arguments == [{"a": 1}, {"b": 1}]


def test_pairs_that_differ_only_in_a_call_are_two_answers(tmp_path):
    row = {"prompt": [user("q")]} | {
        name: [assistant("", tool_calls=[{"name": call, "arguments": {}}])]
        for name, call in (("chosen", "f"), ("rejected", "g"))
    }
    first = inspect_preferences(written(tmp_path, row))[0][0]
    assert '"f"' in first["chosen"][0]["tool_calls"]
    assert '"g"' in first["rejected"][0]["tool_calls"]


def test_rows_without_a_system_prompt_are_messages_like_those_with_one(tmp_path):
    rows = [
        {"prompt": "q", "chosen": "y", "rejected": "n"},
        {"prompt": "r", "chosen": "y", "rejected": "n", "system": "s"},
    ]
    prompts = inspect_preferences(written(tmp_path, *rows))[0]["prompt"]
    assert [[message["role"] for message in prompt] for prompt in prompts] == [["user"], ["system", "user"]]
    empty = inspect_preferences(written(tmp_path, rows[0] | {"system": ""}))[0]
    assert empty["prompt"][:] == ["q"]


def test_ignored_columns_and_fields_of_messages_are_shown(tmp_path):
    row = {"messages": [user("q") | {"id": 7}, assistant("y")], "note": "n"}
    assert inspect_preferences(written(tmp_path, row))[1].ignored_columns == ("note", "messages.id")


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
def test_the_category_of_a_conversation_is_a_column_to_ignore(tmp_path, name):
    """OpenHermes has one, which says what the conversation is about."""
    report = inspect_preferences(written(tmp_path, {name: [user("q"), assistant("y")], "category": "coding"}))[1]
    assert (report.shape, report.ignored_columns) == ("conversation (SFT)", ("category",))


def test_split_prompts_are_counted(tmp_path):
    report = inspect_preferences(written(tmp_path, {"chosen": "It is so.", "rejected": "It is not."}))[1]
    assert report.split_prompts == 1


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"gone": "prompt"}, "'gone': no row has the column"),
        ({"question": "chosen"}, "another column is called 'chosen'"),
    ],
)
def test_columns_that_cannot_be_renamed_are_refused(tmp_path, columns, words):
    path = written(tmp_path, {"question": "q", "chosen": "y", "rejected": "n"})
    with pytest.raises(PreferenceDataError, match=words):
        inspect_preferences(path, columns=columns)


def test_columns_can_be_left_out(tmp_path):
    path = written(tmp_path, {"prompt": "q", "input": "i", "chosen": "y", "rejected": "n"})
    rows, report = inspect_preferences(path, columns={"input": ""})
    assert (rows["prompt"][:], report.ignored_columns) == (["q"], ())


def test_the_page_about_data_names_every_shape():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "data.md").read_text()
    assert [shape.name for shape in SHAPES if f"`{shape.name}`" not in page] == []


def test_conversations_keep_all_their_turns_whatever_comes_before(tmp_path):
    row = {"prompt": TALK[:2], "chosen": [user("r"), assistant("y")], "rejected": [user("s"), assistant("n")]}
    first = inspect_preferences(written(tmp_path, row))[0][0]
    assert first["prompt"] == TALK[:2]
    assert [[message["role"] for message in first[name]] for name in ("chosen", "rejected")] == [
        ["user", "assistant"]
    ] * 2
