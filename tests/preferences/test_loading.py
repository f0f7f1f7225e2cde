"""Tests that every shape in every format becomes the documented columns, and of policies and counts."""

import csv
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from bfpo import load_preferences
from bfpo.errors import BfpoError
from bfpo.judges.labels import load_labels
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.encoding import labels_of
from bfpo.preferences.loading import inspect_preferences
from bfpo.preferences.ordering import order_by, preferred_answers
from bfpo.preferences.reading import text_lines
from bfpo.preferences.schema import GROUP_COLUMNS, PAIR_COLUMNS, PreferenceDataError
from bfpo.preferences.subset import subset

ROWS = [
    {"prompt": "p1", "chosen": "a1", "rejected": "b1", "chosen_is_safe": True, "rejected_is_safe": False},
    {"prompt": "p2", "chosen": "a2", "rejected": "b2", "chosen_is_safe": 0.25, "rejected_is_safe": 1},
]


def written(tmp_path, name, rows):
    path = tmp_path / name
    if name.endswith((".jsonl", ".jsonl.gz")):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif name.endswith((".json", ".json.gz")):
        data = json.dumps(rows).encode()
    elif ".csv" in name:
        header = ",".join(rows[0])
        cells = [",".join(str(value) for value in row.values()) for row in rows]
        data = "\n".join([header, *cells]).encode()
    else:
        columns = {
            name: [float(v) if name.endswith("safe") else v for v in (r[name] for r in rows)] for name in rows[0]
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return str(path)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.json", "x.json.gz", "x.csv", "x.csv.gz", "x.parquet"])
def test_formats_give_the_same_rows(tmp_path, name):
    rows = load_preferences(written(tmp_path, name, ROWS))
    assert tuple(rows.column_names) == PAIR_COLUMNS
    assert rows["chosen"][:] == ["a1", "a2"]
    assert rows["chosen_is_safe"][:] == [1.0, 0.25]
    assert rows["rejected_is_safe"][:] == [0.0, 1.0]
    assert rows["chosen_is_better"][:] == [1.0, 1.0]
    assert rows["row"][:] == [1, 2]


def test_csv_flags_are_words_numbers_or_nothing(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('prompt,chosen,rejected,chosen_is_safe,rejected_is_safe\n"p, q","a\nb",b,TRUE,0\np,a,b,false,0.5\n')
    rows = load_preferences(str(path))
    assert rows["prompt"][:] == ["p, q", "p"]
    assert rows["chosen"][0] == "a\nb"
    assert rows["chosen_is_safe"][:] == [1.0, 0.0]
    assert rows["rejected_is_safe"][:] == [0.0, 0.5]


def test_csv_has_weights_and_rewards_and_texts_that_look_like_lists(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('prompt,chosen,rejected,weight,chosen_reward,rejected_reward\np,"[1, 2, 3]","[""a""]",2.0,1.5,-1\n')
    rows = load_preferences(str(path))
    assert (rows["chosen"][0], rows["rejected"][0]) == ("[1, 2, 3]", '["a"]')
    assert (rows["weight"][0], rows["chosen_reward"][0], rows["rejected_reward"][0]) == (2.0, 1.5, -1.0)


def test_lines_of_text_end_at_line_breaks_alone(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("First half\u2028second half\r\nlast\x0cone\n", encoding="utf-8", newline="")
    assert [text for _, text in text_lines(path)] == ["First half\u2028second half", "last\x0cone"]
    # Windows editors begin a file with a mark that is no part of its first line.
    path.write_bytes(b"\xef\xbb\xbfHello there\r\nsecond\r\n")
    assert [text.strip() for _, text in text_lines(path)] == ["Hello there", "second"]


def test_categories_that_an_object_marks_are_their_names(tmp_path):
    path = tmp_path / "x.jsonl"
    marks = {"animal_abuse": True, "theft": True, "privacy": False}
    rows = [{"prompt": "p", "response": "r", "category": marks, "is_safe": False},
            {"prompt": "q", "response": "r", "category": dict.fromkeys(marks, False), "is_safe": True}]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_preferences(str(path))
    assert [row["category"] for row in found] == [["animal_abuse", "theft"], None]
    labeled = load_labels(str(path))
    assert labeled[0].category == "animal_abuse, theft"


PKU = {
    "prompt": "p", "response_0": "zero", "response_1": "one", "is_response_0_safe": False,
    "is_response_1_safe": True, "better_response_id": 0, "safer_response_id": 1,
}  # fmt: skip
# The columns of the set's current generation, after its data card.
PKU_CURRENT = PKU | {
    f"{name}{number}{suffix}": value
    for number in (0, 1)
    for name, suffix, value in [
        ("response_", "_source", "Alpaca-7B"), ("response_", "_harm_category", {"Drugs": number == 0}),
        ("response_", "_severity_level", 1 - number), ("response_", "_sha256", "00"),
    ]
} | {"prompt_source": "BeaverTails"}  # fmt: skip


@pytest.mark.parametrize("row", [PKU, PKU_CURRENT], ids=["old", "current"])
@pytest.mark.parametrize("better", [0, 1])
def test_pku_saferlhf(tmp_path, row, better):
    rows, report = inspect_preferences(written(tmp_path, "x.jsonl", [row | {"better_response_id": better}]))
    first = rows[0]
    assert (first["chosen"], first["rejected"]) == (("zero", "one"), ("one", "zero"))[better]
    assert (first["chosen_is_safe"], first["rejected_is_safe"]) == ((0.0, 1.0), (1.0, 0.0))[better]
    assert first["chosen_is_safer"] == float(better == 1)
    assert report.cells == {("US", "SU")[better]: 1}


def test_ultrafeedback_binarized(tmp_path):
    question, good, bad = (
        {"role": r, "content": c} for r, c in [("user", "q"), ("assistant", "y"), ("assistant", "n")]
    )
    row = {
        "prompt": "q", "prompt_id": "id", "chosen": [question, good], "rejected": [question, bad],
        "messages": [question, good], "score_chosen": 8.5, "score_rejected": 4.0,
    }  # fmt: skip
    first = load_preferences(written(tmp_path, "x.jsonl", [row]))[0]
    assert (first["prompt"], first["chosen"], first["rejected"]) == ([question], [good], [bad])
    assert first["chosen_is_safe"] is None


def test_trl_conversations_with_explicit_or_implicit_prompt(tmp_path):
    question, good, bad = (
        {"role": r, "content": c} for r, c in [("user", "q"), ("assistant", "y"), ("assistant", "n")]
    )
    explicit = {"prompt": [question], "chosen": [good], "rejected": [bad]}
    implicit = {"chosen": [question, good], "rejected": [question, bad]}
    assert load_preferences(written(tmp_path, "e.jsonl", [explicit]))[0]["prompt"] == [question]
    first = load_preferences(written(tmp_path, "i.jsonl", [implicit]))[0]
    assert (first["prompt"], first["chosen"]) == ([question], [good])


def test_groups_and_sft_shapes(tmp_path):
    turns = [
        {"role": r, "content": c} for r, c in [("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    ]
    group = {"prompt": "p", "responses": ["a", "b", "c"], "helpfulness": [3, 1, 2.5], "is_safe": [True, None, 0.5]}
    rows = load_preferences(written(tmp_path, "g.jsonl", [group | {"is_safe": [True, False, 0.5]}]))
    assert tuple(rows.column_names) == GROUP_COLUMNS
    assert rows[0]["is_safe"] == [1.0, 0.0, 0.5]
    chat = load_preferences(written(tmp_path, "m.jsonl", [{"messages": turns}]))[0]
    assert (chat["prompt"], chat["responses"]) == (turns[:-1], [turns[-1:]])
    completion = load_preferences(written(tmp_path, "c.jsonl", [{"prompt": "p", "completion": "c"}]))[0]
    assert (completion["responses"], completion["helpfulness"]) == (["c"], None)
    assert load_preferences(written(tmp_path, "u.jsonl", [group]), unknown_safety=0.75)[0]["is_safe"] == [
        1.0,
        0.75,
        0.5,
    ]


def test_unknown_safety_policies(tmp_path):
    some = written(tmp_path, "some.jsonl", [ROWS[0], ROWS[1] | {"chosen_is_safe": None}])
    everywhere = written(tmp_path, "all.jsonl", [{k: v for k, v in row.items() if "safe" not in k} for row in ROWS])
    assert load_preferences(everywhere)["chosen_is_safe"][:] == [None, None]
    rows, report = inspect_preferences(everywhere, unknown_safety=1.0)
    assert rows["rejected_is_safe"][:] == [1.0, 1.0]
    assert report.filled_unknown == 2
    rows, report = inspect_preferences(some, unknown_safety="drop")
    assert (rows["row"][:], report.dropped_unknown) == ([1], 1)
    with pytest.raises(PreferenceDataError, match="row 2: the safety of an answer is unknown"):
        load_preferences(some, unknown_safety="error")
    with pytest.raises(PreferenceDataError, match="no row has a known safety"):
        load_preferences(everywhere, unknown_safety="drop")


UNORDERED = {"prompt": "q", "responses": ["a", "b", "c"], "is_safe": [True, False, True]}


@pytest.mark.parametrize(
    ("row", "order"),
    [(UNORDERED, {"helpfulness": [1, 2, 3]}), (PKU, {"better_response_id": 0}), (ROWS[0], {"chosen_is_better": 1})],
    ids=["K answers", "PKU", "pairs"],
)
def test_unknown_order_policies(tmp_path, row, order):
    row = row | dict.fromkeys(order)
    path = written(tmp_path, "x.jsonl", [row | order, row])
    for policy in (None, "error"):
        with pytest.raises(PreferenceDataError, match=r"row 2.*set unknown_order to 'drop' or 0.5"):
            load_preferences(path, unknown_order=policy)
    rows, report = inspect_preferences(path, unknown_order="drop")
    assert (rows["row"][:], report.dropped_unordered, report.filled_unordered) == ([1], 1, 0)
    rows, report = inspect_preferences(path, unknown_order=0.5)
    assert (rows["row"][:], report.dropped_unordered, report.filled_unordered) == ([1, 2], 0, 1)
    labels = labels_of(rows[1])[1]
    assert set(labels["first_is_better"]) == {0.5}
    with pytest.raises(PreferenceDataError, match="no row has a known order"):
        load_preferences(written(tmp_path, "y.jsonl", [row]), unknown_order="drop")


def test_the_label_of_a_mixed_pair_without_an_order_is_exact_at_alpha_one_half():
    preference = GlobalPreference(b1=3.0, alpha=0.5)
    if_safe_is_better, if_unsafe_is_better = preference.target(1.0, 0.0), -preference.target(0.0, 1.0)
    assert preference.target(1.0, 0.0, 0.5) == if_safe_is_better == if_unsafe_is_better


@pytest.mark.parametrize("policies", [{"unknown_safety": "dorp"}, {"unknown_safety": 2}, {"unknown_order": 0.7}])
def test_unknown_policies_are_refused(tmp_path, policies):
    with pytest.raises(BfpoError, match=r"unknown_.* is .*: write error, drop"):
        load_preferences(written(tmp_path, "x.jsonl", ROWS), **policies)


def test_categories_may_be_lists(tmp_path):
    rows = [ROWS[0] | {"category": ["a", "b"]}, ROWS[1] | {"category": "c"}, ROWS[1] | {"category": None}]
    assert load_preferences(written(tmp_path, "x.jsonl", rows))["category"][:] == [["a", "b"], ["c"], None]
    assert load_preferences(written(tmp_path, "y.jsonl", rows[1:]))["category"][:] == ["c", None]


def test_weights_are_stored_where_the_source_has_them(tmp_path):
    rows = load_preferences(written(tmp_path, "x.jsonl", [ROWS[0] | {"weight": 2}, ROWS[1]]))
    assert rows["weight"][:] == [2.0, 1.0]
    assert load_preferences(written(tmp_path, "y.jsonl", [ROWS[0] | {"weight": 10**30}]))["weight"][:] == [1e30]
    assert preferred_answers(rows, "helpful")["weight"][:] == [2.0, 1.0]
    assert order_by(rows, "safer")[0]["weight"][:] == [2.0, 0.75]


def test_report_counts_duplicates_ignored_columns_and_digest(tmp_path):
    path = written(tmp_path, "x.jsonl", [row | {"note": "n"} for row in (ROWS[0], ROWS[0], ROWS[1])])
    report = inspect_preferences(path)[1]
    assert (report.duplicates, report.ignored_columns, report.cells) == (1, ("note",), {"SU": 2, "US": 1})
    other = inspect_preferences(written(tmp_path, "y.jsonl", [ROWS[0], ROWS[1]]))[1]
    assert len({report.digest, other.digest}) == 2


def test_order_by_safety(tmp_path):
    rows = load_preferences(written(tmp_path, "x.jsonl", [*ROWS, ROWS[0] | {"rejected_is_safe": True}]))
    safer, counts = order_by(rows, "safer")
    assert (counts.kept, counts.turned, counts.skipped_equal) == (1, 1, 1)
    assert (safer["chosen"][:], safer["rejected"][:]) == (["a1", "b2"], ["b1", "a2"])
    assert (safer["chosen_is_safe"][:], safer["rejected_is_safe"][:]) == ([1.0, 1.0], [0.0, 0.25])
    # Row 2: s .25 and s' 1, p .8.
    assert safer["chosen_is_better"][:] == [1.0, 1.0]
    assert safer["weight"][:] == [1.0, 0.75]
    assert counts.weighted == 1
    both, counts = order_by(rows, "safe_first")
    assert both["chosen"][:] == ["a1", "b2", "a1"]
    assert (counts.kept, counts.turned) == (2, 1)
    assert order_by(rows, "helpful")[0]["chosen"][:] == ["a1", "a2", "a1"]


def test_preferred_answers_for_sft(tmp_path):
    equal = PKU | {"is_response_0_safe": True, "safer_response_id": 1}
    rows = load_preferences(written(tmp_path, "x.jsonl", [PKU, equal]))
    assert preferred_answers(rows, "safer")["responses"][:] == [["one"], ["one"]]
    assert preferred_answers(rows, "helpful")["responses"][:] == [["zero"], ["zero"]]
    assert preferred_answers(rows, "safe_first")["responses"][:] == [["one"], ["zero"]]
    assert preferred_answers(rows, "safer")["is_safe"][:] == [[1.0], [1.0]]


def test_the_best_of_k_answers_for_sft(tmp_path):
    groups = [
        {"prompt": "p", "responses": ["a", "b", "c"], "helpfulness": [1, 3, 2], "is_safe": [1, 0, 1], "weight": 2.0},
        {"prompt": "q", "responses": ["d"], "helpfulness": None, "is_safe": [None], "weight": None},
        {"prompt": "r", "responses": ["e", "f"], "helpfulness": None, "is_safe": [0, 1], "weight": None},
    ]  # fmt: skip
    rows = load_preferences(written(tmp_path, "x.jsonl", groups[:2]), unknown_safety=1.0)
    assert preferred_answers(rows, "helpful")["responses"][:] == [["b"], ["d"]]
    for order in ("safer", "safe_first"):
        assert preferred_answers(rows, order)["responses"][:] == [["c"], ["d"]]
    assert preferred_answers(rows, "safer")["is_safe"][:] == [[1.0], [1.0]]
    assert preferred_answers(rows, "safer")["weight"][:] == [2.0, 1.0]
    unscored = load_preferences(written(tmp_path, "y.jsonl", groups[2:]), unknown_order=0.5)
    assert preferred_answers(unscored, "safe_first")["responses"][:] == [["f"]]
    assert preferred_answers(unscored, "helpful")["responses"][:] == [["e"]]
    unflagged = load_preferences(
        written(tmp_path, "z.jsonl", groups[:1]), columns={"is_safe": ""}, unknown_safety="keep"
    )
    with pytest.raises(BfpoError, match=r"row 1 can't be ordered by safety: the safety of an answer is unknown"):
        preferred_answers(unflagged, "safer")


def test_subset_is_seeded_and_keeps_row_numbers(tmp_path):
    rows = load_preferences(written(tmp_path, "x.jsonl", [ROWS[0] | {"prompt": f"p{i}"} for i in range(40)]))
    first, again, other = (subset(rows, fraction=0.25, seed=seed)["row"][:] for seed in (1, 1, 2))
    assert len(first) == 10
    assert first == again == sorted(first)
    assert first != other
    assert len(subset(rows, fraction=0.5, limit=3)) == 3


def test_real_samples_load_with_the_right_labels(shared_data):
    """Compare with a plain reading of the same files."""
    for name in ("pku_saferlhf_sample/preference_train.json", "derived/xstest_pairs_safety_helpfulness_dev.jsonl"):
        text = (shared_data / name).read_text()
        plain = json.loads(text) if text[0] == "[" else [json.loads(line) for line in text.splitlines()]
        rows = load_preferences(str(shared_data / name))
        assert len(rows) == len(plain) in (32, 671)
        for row, source in zip(rows, plain, strict=True):
            better = source["better_response_id"]
            assert row["chosen"] == source[f"response_{better}"]
            assert row["rejected"] == source[f"response_{1 - better}"]
            assert row["chosen_is_safe"] == source[f"is_response_{better}_safe"]
            assert row["rejected_is_safe"] == source[f"is_response_{1 - better}_safe"]
    renamed = {"chosen_safe": "chosen_is_safe", "rejected_safe": "rejected_is_safe"}
    rows = load_preferences(str(shared_data / "derived/pku_safety_pairs_dev.jsonl"), columns=renamed)
    assert len(rows) == 2106
    assert set(rows["chosen_is_safe"]) == {1.0}
    assert set(rows["rejected_is_safe"]) == {0.0}


def test_rows_that_teach_nothing_are_left_out_and_counted(tmp_path):
    """As in UltraFeedback-binarized, where nobody can remove them."""
    said = [{"role": "user", "content": "q"}]
    answers = {"chosen": [*said, {"role": "assistant", "content": "yes"}]}
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "q", **answers, "rejected": [*said, {"role": "assistant", "content": text}]}
        for text in ("no", "yes", "", " ", None)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, report = inspect_preferences(str(path))
    assert (len(found), report.read) == (1, 5)
    assert report.left_out == {"pairs with an empty answer": 3, "pairs of two identical answers": 1}
    completions = [{"response": text, "overall_score": score} for text, score in (("a", 3.0), ("", 9.0), ("b", 1.0))]
    openbmb = [{"instruction": "q", "completions": each} for each in (completions, completions[1:2])]
    path.write_text("".join(json.dumps(row) + "\n" for row in openbmb))
    found, report = inspect_preferences(str(path), unknown_safety=1.0)
    assert [row["responses"] for row in found] == [["a", "b"]]
    assert report.left_out == {"empty answers": 1, "prompts without an answer": 1}


def test_cells_of_csv_are_read_by_our_names(tmp_path):
    """A renamed column of flags, lists in columns of texts, and a set of PKU's saved as CSV."""
    path = tmp_path / "rows.csv"
    path.write_text('prompt,chosen,rejected,safe_a,safe_b\nq,"[1, 2]",[],True,0\n')
    columns = {"safe_a": "chosen_is_safe", "safe_b": "rejected_is_safe"}
    (row,), _ = inspect_preferences(str(path), columns=columns)
    assert (row["chosen"], row["rejected"]) == ("[1, 2]", "[]")
    assert (row["chosen_is_safe"], row["rejected_is_safe"]) == (1.0, 0.0)
    path.write_text('instruction,input,output\nCount the elements,"[1, 3, 4]",Three\nCount the elements,[],None\n')
    rows, _ = inspect_preferences(str(path), unknown_safety=1.0)
    assert [row["prompt"] for row in rows] == ["Count the elements\n[1, 3, 4]", "Count the elements\n[]"]
    header = ["prompt", *(f"response_{n}{name}" for name in ("", "_severity_level", "_harm_category") for n in (0, 1))]
    header += ["is_response_0_safe", "is_response_1_safe", "better_response_id", "safer_response_id"]
    cells = ["q", "a", "b", "3", "0", '{"theft": true}', '{"theft": false}', "False", "True", "1", "1"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, cells])
    (row,), _ = inspect_preferences(str(path))
    assert (row["chosen_harm"], json.loads(row["rejected_harm"])) == ("{}", {"theft": 1.0})
    assert row["category"] == "theft"
