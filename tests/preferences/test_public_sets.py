"""Tests of a fixture in the true schema of every public set that has a short name."""

import json

import datasets
import pytest

from bfpo import load_preferences
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.public_sets import PUBLIC_SETS
from bfpo.preferences.schema import PreferenceDataError

USER, GOOD, BAD = (
    {"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}, {"role": "assistant", "content": "n"}
)  # fmt: skip
FIRST_GENERATION = {
    "prompt": "q", "response_0": "n", "response_1": "y", "is_response_0_safe": False, "is_response_1_safe": True,
    "better_response_id": 1, "safer_response_id": 1,
}  # fmt: skip
RATING = {"Rating": "4", "Rationale": "r"}
COMPLETION = {
    "annotations": dict.fromkeys(("honesty", "instruction_following", "truthfulness"), RATING)
    | {"helpfulness": RATING | {"Type": ["1"], "Rationale For Rating": "r"}},
    "custom_system_prompt": "s", "principle": "helpfulness", "critique": "c",
}  # fmt: skip
# One row of each, with text of our own. Columns as in: PKU's data card (harm categories and severities came with the
# second generation) and their sample in align-anything (assets/text_to_text/preference/train.json); the data cards of
# ultrafeedback_binarized and ultrachat_200k; openbmb/UltraFeedback's viewer and its readers (completions[].response,
# .overall_score, .fine-grained_score, .annotations.<aspect>.Rating); anthropics/hh-rlhf, harmless-base/test.jsonl.gz.
ROWS = {
    "pku-saferlhf-2023": FIRST_GENERATION,
    "pku-saferlhf": FIRST_GENERATION
    | {"prompt_source": "p"}
    | {f"response_{n}_source": "Alpaca-7B" for n in (0, 1)}
    | {f"response_{n}_harm_category": {"Endangering Public Health": n == 0} for n in (0, 1)}
    | {f"response_{n}_severity_level": 1 - n for n in (0, 1)}
    | {f"response_{n}_sha256": "00" for n in (0, 1)},
    "ultrafeedback-binarized": {
        "prompt": "q", "prompt_id": "id", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD],
        "score_chosen": 8.0, "score_rejected": 5.0,
    },
    "ultrafeedback": {
        "source": "evol_instruct", "instruction": "q", "models": ["a", "b", "c", "d"], "correct_answers": ["None"],
        "incorrect_answers": ["None"],
        "completions": [
            COMPLETION | {"model": model, "response": text, "overall_score": score, "fine-grained_score": 4.25}
            for model, text, score in zip("abcd", ("y", "n", "m", "l"), (8.0, 2.0, 8.0, 7.5), strict=True)
        ],
    },
    "hh-rlhf": {
        "chosen": "\n\nHuman: hello\n\nAssistant: hi\n\nHuman: q\n\nAssistant: y",
        "rejected": "\n\nHuman: hello\n\nAssistant: hi\n\nHuman: q\n\nAssistant: n",
    },
    "ultrachat": {"prompt": "q", "prompt_id": "id", "messages": [USER, GOOD, USER, BAD]},
}  # fmt: skip
SHAPES = {
    "pku-saferlhf-2023": "PKU-SafeRLHF", "pku-saferlhf": "PKU-SafeRLHF", "ultrafeedback": "UltraFeedback",
    "ultrachat": "conversation (SFT)",
}  # fmt: skip


def loaded(tmp_path, row, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return inspect_preferences(str(path), **options)


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_every_set_has_a_fixture_that_its_shape_reads_without_a_complaint(tmp_path, name):
    rows, report = loaded(tmp_path, ROWS[name])
    assert report.shape == SHAPES.get(name, "pairs (ours, TRL's, UltraFeedback-binarized, HH-RLHF)")
    assert (report.kept, report.left_out) == (1, {})
    row = rows[0]
    if name.startswith("pku"):
        assert (row["prompt"], row["chosen"], row["rejected"]) == ("q", "y", "n")
        assert (row["chosen_is_safe"], row["rejected_is_safe"], row["chosen_is_safer"]) == (1.0, 0.0, 1.0)
        assert row["category"] == (None if name.endswith("2023") else "Endangering Public Health")
    elif name == "ultrafeedback":
        assert (row["responses"], row["helpfulness"]) == (["y", "n", "m", "l"], [8.0, 2.0, 8.0, 7.5])
        assert row["is_safe"] == [None] * 4
    elif name == "ultrachat":
        assert (row["prompt"], row["responses"]) == ([USER, GOOD, USER], [[BAD]])
    else:
        assert (row["chosen"], row["rejected"]) == ([GOOD], [BAD])
        assert row["prompt"][-1] == USER
        assert row["chosen_is_safe"] is None


def test_hub_sets_load_by_name_split_and_revision(monkeypatch):
    asked = []

    def load_dataset(name, *, split, revision):
        asked.append((name, split, revision))
        return datasets.Dataset.from_list([ROWS["pku-saferlhf"]])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_preferences("pku-saferlhf-2023")
    load_preferences("ultrafeedback-binarized")
    load_preferences("ultrafeedback-binarized", split="test_prefs", revision="abc")
    assert asked == [
        ("PKU-Alignment/PKU-SafeRLHF", "train", "ff7ba91063016c78a225b0f74e1c0860bb18230f"),
        ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs", None),
        ("HuggingFaceH4/ultrafeedback_binarized", "test_prefs", "abc"),
    ]


def test_a_mistyped_name_gets_a_suggestion(monkeypatch):
    def offline(name, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(PreferenceDataError, match="did you mean 'ultrachat'"):
        load_preferences("ultrchat")


def test_dialogues_that_part_before_their_last_turn_keep_the_rest_as_the_answer(tmp_path):
    row = {
        "chosen": "\n\nHuman: q\n\nAssistant: y\n\nHuman: more\n\nAssistant: z",
        "rejected": "\n\nHuman: q\n\nAssistant: n",
    }
    first = loaded(tmp_path, row)[0][0]
    assert first["prompt"] == [USER]
    assert [turn["content"] for turn in first["chosen"]] == ["y", "more", "z"]
    assert first["rejected"] == [BAD]


def test_useless_dialogues_are_dropped_and_counted(tmp_path):
    path = tmp_path / "hh.jsonl"
    empty = {"chosen": "\n\nHuman: q\n\nAssistant:", "rejected": "\n\nHuman: q\n\nAssistant: n"}
    same = {"chosen": empty["rejected"], "rejected": empty["rejected"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROWS["hh-rlhf"], empty, same)))
    rows, report = inspect_preferences(str(path))
    assert (len(rows), report.read, sum(report.left_out.values())) == (1, 3, 2)


@pytest.mark.parametrize(
    ("completions", "says"),
    [
        ([], "not a list of answers"),
        ([{"response": "y"}], "no 'overall_score'"),
        ([{"response": "y", "overall_score": 1}, {"overall_score": 2}], "no 'response'"),
    ],
)
def test_damaged_completions_are_named(tmp_path, completions, says):
    with pytest.raises(PreferenceDataError, match=says):
        loaded(tmp_path, ROWS["ultrafeedback"] | {"completions": completions})


def test_the_real_hh_sample_loads(shared_data):
    rows, report = inspect_preferences(str(shared_data / "hh_rlhf" / "test.jsonl.gz"))
    assert (report.read, report.kept, sum(report.left_out.values())) == (2312, 2308, 4)
    assert all(prompt[-1]["role"] == "user" for prompt in rows["prompt"])
    assert all(answer[0]["role"] == "assistant" for answer in rows["chosen"])
