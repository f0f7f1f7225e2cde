"""Harm by category: every form that a source has it in, contradictions with flags, costs, and counts by cell."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.preferences.harm import SEVERITY_LEVELS, HarmPrices, harm_levels, harm_text, with_costs
from bfpo.preferences.loading import inspect_preferences, load_preferences
from bfpo.preferences.ordering import order_by
from bfpo.preferences.schema import PreferenceDataError, RowError

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": False, "rejected_is_safe": True}
levels = st.dictionaries(st.text(min_size=1, max_size=5).filter(str.strip), st.none() | st.floats(0, 1), max_size=4)


def written(tmp_path, rows, name="x.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@given(levels)
def test_a_mapping_and_its_text_are_read_the_same_and_levels_of_0_are_left_out(harm):
    text = harm_text(harm, "harm")
    assert harm_text(json.dumps(harm), "harm") == harm_text(text, "harm") == text
    assert harm_levels(text) == {name: level for name, level in harm.items() if level}


@pytest.mark.parametrize(
    "value", [{"a": 1.1}, {"a": -0.1}, {"a": float("nan")}, {"a": "x"}, {" ": 1}, [1], 3, "{", "7"]
)
def test_other_harm_is_refused(value):
    with pytest.raises(RowError):
        harm_text(value, "chosen_harm")


def test_pairs_hold_the_harm_of_each_answer_and_the_flag_that_follows(tmp_path):
    rows = [
        PAIR | {"chosen_harm": {"theft": 0.5, "lies": None}, "rejected_harm": {}},
        PAIR
        | {"chosen_harm": {"lies": 1}, "chosen_is_safe": None, "rejected_is_safe": None, "rejected_harm": {"a": 0}},
        PAIR | {"chosen_is_safe": 0.25, "chosen_harm": {"lies": 1}},
    ]
    read, report = inspect_preferences(written(tmp_path, rows))
    assert read["chosen_harm"][:] == ['{"theft": 0.5}', '{"lies": 1.0}', '{"lies": 1.0}']
    assert read["rejected_harm"][:] == ["{}", "{}", None]
    assert read["chosen_is_safe"][:] == [0.0, 0.0, 0.25]
    assert read["rejected_is_safe"][:] == [1.0, 1.0, 1.0]
    assert report.categories == {"lies": {"US": 2}, "theft": {"US": 1}}
    # What is written from canonical rows is read back.
    again = load_preferences(written(tmp_path, [dict(row) for row in read], "again.jsonl"))
    assert again["chosen_harm"][:] == read["chosen_harm"][:]
    turned, _ = order_by(read, "safer")
    assert (turned["chosen_harm"][:], turned["rejected_harm"][0]) == (["{}", "{}", None], '{"theft": 0.5}')
    assert "chosen_harm" not in load_preferences(written(tmp_path, [PAIR], "plain.jsonl")).column_names


def test_csv_has_harm_as_json(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('prompt,chosen,rejected,chosen_harm,rejected_harm\np,a,b,"{""theft"": 1}",{}\n')
    row = load_preferences(str(path))[0]
    assert (row["chosen_harm"], row["chosen_is_safe"], row["rejected_is_safe"]) == ('{"theft": 1.0}', 0.0, 1.0)


def test_groups_have_a_list(tmp_path):
    group = {"prompt": "p", "responses": ["a", "b", "c"], "helpfulness": [3, 1, 2], "is_safe": [True, None, None]}
    rows, report = inspect_preferences(written(tmp_path, [group | {"harm": [{}, {"x": 1}, {}]}]))
    assert (rows[0]["harm"], rows[0]["is_safe"]) == (["{}", '{"x": 1.0}', "{}"], [1.0, 0.0, 1.0])
    assert report.categories == {"x": {"rows": 1}}
    assert with_costs(rows, HarmPrices(0.5, {"x": 2.0}))[0]["cost"][:] == [[0, 2.0, 0]]
    with pytest.raises(PreferenceDataError, match=r"harm.*not a list of 3 values"):
        load_preferences(written(tmp_path, [group | {"harm": [{}]}], "short.jsonl"))


PKU = {
    "prompt": "p", "response_0": "zero", "response_1": "one", "is_response_0_safe": False, "is_response_1_safe": True,
    "response_0_harm_category": {"Theft": True, "Lies": True, "Noise": False}, "response_0_severity_level": 2,
    "response_1_harm_category": {"Theft": False, "Lies": False, "Noise": False}, "response_1_severity_level": 0,
    "better_response_id": 1,
}  # fmt: skip


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_pku_s_severity_is_the_level_of_every_marked_category(tmp_path, severity):
    row = load_preferences(written(tmp_path, [PKU | {"response_0_severity_level": severity}]))[0]
    assert (row["chosen"], row["chosen_harm"]) == ("one", "{}")
    assert harm_levels(row["rejected_harm"]) == {"Theft": severity / 3, "Lies": severity / 3}
    assert SEVERITY_LEVELS == (0, 1 / 3, 2 / 3, 1)


def test_pku_without_severities_or_categories(tmp_path):
    harsh = load_preferences(written(tmp_path, [PKU | {f"response_{n}_severity_level": None for n in (0, 1)}]))[0]
    assert harm_levels(harsh["rejected_harm"]) == {"Theft": 1, "Lies": 1}
    plain = {name: value for name, value in PKU.items() if "harm" not in name and "severity" not in name}
    assert "chosen_harm" not in load_preferences(written(tmp_path, [plain], "plain.jsonl")).column_names


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (PAIR | {"chosen_harm": {}}, "'chosen_is_safe': the answer is called unsafe, and its harm is {}"),
        (PAIR | {"rejected_harm": {"x": 1}}, "or leave out 'rejected_harm' (--column rejected_harm=)"),
        (PAIR | {"rejected_harm": {"x": 0.1}}, "'rejected_is_safe': the answer is called safe, and its harm is {\"x\""),
        (PKU | {"response_0_severity_level": 0}, "'rejected_is_safe': the answer is called unsafe"),
        (PKU | {"response_1_severity_level": 4}, "'response_1_severity_level': 4 is not a severity"),
        (PAIR | {"chosen_harm": {"x": 2}}, "'chosen_harm': the level of 'x' is 2; write a mapping"),
    ],
)  # fmt: skip
def test_contradictions_and_wrong_levels_are_problems_of_their_row(tmp_path, row, says):
    with pytest.raises(PreferenceDataError) as error:
        load_preferences(written(tmp_path, [row]))
    assert [problem.row for problem in error.value.problems] == [1]
    assert says in str(error.value)


# Unbiased flags leave [0, 1].
flags = st.floats(-1, 2)


@given(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)), st.floats(0, 5), flags, st.floats(0, 5))
def test_costs_are_sums_of_price_times_level(harm, default, is_safe, price):
    prices = HarmPrices(default, {"a": price})
    assert prices.cost(harm, is_safe) == pytest.approx(
        price * harm.get("a", 0) + default * (harm.get("b", 0) + harm.get("c", 0))
    )
    assert prices.cost(None, is_safe, "a") == price * (1 - is_safe)
    assert prices.cost(None, is_safe) == default * (1 - is_safe)
    assert prices.cost(None, None) is None


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf")])
def test_prices_must_be_finite_and_at_least_0(price):
    with pytest.raises(BfpoError, match="price of 'a'"):
        HarmPrices(0.5, {"a": price})


def test_data_check_prints_cells_by_category(tmp_path):
    path = written(tmp_path, [PAIR | {"chosen_harm": {"theft": 1}, "category": "lies"}, PAIR | {"prompt": "q"}])
    done = CliRunner().invoke(app, ["data", "check", path])
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.output.splitlines()][-4:-1] == [
        ["harm", "category", "US"], ["lies", "1"], ["theft", "1"],
    ]  # fmt: skip
    report = json.loads(CliRunner().invoke(app, ["data", "check", path, "--json"]).output)
    assert report["categories"] == {"lies": {"US": 1}, "theft": {"US": 1}}
