"""Tests of fitted labelings on the command line: fitting, writing, loading, and errors."""

import json
import random

import pytest
from typer.testing import CliRunner

from bfpo import GlobalPreference
from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.labeling.fitted import COLUMNS, fit_file, load_labeling
from bfpo.objectives.preference_fit import fit_preference
from bfpo.preferences.schema import PreferenceDataError


def judgments(tmp_path, categories=None, count=600):
    """Judgments by the paper's constants at temperature .8."""
    generator = random.Random(0)
    path = tmp_path / "overall.jsonl"
    with path.open("w") as file:
        for at in range(count):
            flags = generator.choices([(1, 1), (1, 0), (0, 1), (0, 0)], weights=[4, 2, 2, 2])[0]
            chance = float((GlobalPreference().target(*map(float, flags)) / 0.8).sigmoid())
            row = {"better_is_safe": bool(flags[0]), "worse_is_safe": flags[1]}
            row |= {"overall_prefers_better": generator.random() < chance}
            file.write(json.dumps(row | ({"category": categories[at % len(categories)]} if categories else {})) + "\n")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


def test_the_shell_prints_the_fit_and_writes_what_recipes_take(tmp_path):
    source, output = judgments(tmp_path), tmp_path / "fitted.json"
    done = run("--fit-preference", source, "-o", output)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    fit = fit_preference(*([float(row[name]) for row in rows] for name in rows[0]))
    low, high = fit.b1_interval
    assert f"b1 {fit.preference.b1:.3f} (95 % profile interval {low:.3f} to {high:.3f})" in done.output
    assert f"likelihood ratio {fit.likelihood_ratio:.2f}, p = {fit.p_value:.3g}" in done.output
    for words in ("temperature", "covariance", "SS ", "labeling: ", "refusal threshold", "lack of fit: "):
        assert words in done.output
    low, high = fit.b3_interval
    assert f"b3 {fit.preference.b3:.3f} ({low:.3f} to {high:.3f};" in done.output
    assert "warning: 600 judged pairs are few: about 1,000" in done.output
    assert load_labeling(output).preference == fit.preference
    report = json.loads(run("--fit-preference", source, "--json").output)
    assert (report["pairs"], report["b1"]) == (600, fit.preference.b1)
    assert report["lack_of_fit_p"] == pytest.approx(fit.lack_of_fit_p)
    wrong = json.loads(run("--fit-preference", source, "--order-error", 0.2, "--json").output)
    columns = [[float(row[name]) for row in rows] for name in rows[0]]
    assert wrong["b1"] == fit_preference(*columns, order_error=0.2).preference.b1
    assert wrong["order_error"] == 0.2


def test_unanswered_rows_are_left_out_and_counted(tmp_path):
    source = judgments(tmp_path, ["theft", "fraud", ""], 1200)
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    for row in rows[:30]:
        row["overall_prefers_better"] = None
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fitted, _ = fit_file(str(source))
    assert set(fitted.prices) == {"theft", "fraud"}
    assert (fitted.record["pairs"], fitted.record["unanswered"]) == (1170, 30)
    assert "left out: 30 rows that people haven't answered" in run("--fit-preference", source).output


def test_a_category_column_gives_each_category_its_own(tmp_path):
    fitted, _ = fit_file(str(judgments(tmp_path, ["theft", "fraud"], 1200)))
    assert set(fitted.prices) == {"theft", "fraud"}
    (tmp_path / "f.json").write_text('{"b1": 3}')
    with pytest.raises(BfpoError, match=r"f.json: this would overwrite a file that is not a labeling; name another"):
        fitted.save(tmp_path / "f.json")
    (tmp_path / "f.json").unlink()
    for _ in range(2):
        fitted.save(tmp_path / "f.json")
    assert load_labeling(tmp_path / "f.json").prices == fitted.prices
    printed = run("--fit-preference", tmp_path / "overall.jsonl").output
    assert f"price of theft: {fitted.prices['theft']:.3f} (95 % interval" in printed
    assert f"other categories {fitted.preference.b3:.3f}" in printed
    rows = [json.loads(line) for line in (tmp_path / "overall.jsonl").read_text().splitlines()]
    assert "warning: 2 categories say little about how much prices differ" in printed
    # The constants with prices, and apart from them those of one price with the intervals that are theirs.
    report = json.loads(run("--fit-preference", tmp_path / "overall.jsonl", "--json").output)
    one = fit_preference(*([row[name] for row in rows] for name in COLUMNS))
    assert (report["b1"], report["alpha"]) == (fitted.preference.b1, fitted.preference.alpha)
    assert (report["one_price"]["b1"], report["one_price"]["alpha"]) == (one.preference.b1, one.preference.alpha)
    assert report["one_price"]["b1_interval"] == list(one.b1_interval)
    assert "b1_interval" not in report


def test_prices_are_fitted_from_the_fit_with_one_price_which_is_made_once(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("fitted twice")

    monkeypatch.setattr("bfpo.objectives.price_fit.fit_preference", refuse)
    assert fit_file(str(judgments(tmp_path, ["theft", "fraud"], 1200)))[0].prices


def test_pairs_without_a_category_are_counted_and_make_none(tmp_path):
    source = judgments(tmp_path, ["theft", "fraud", "lies", "noise", "spam", ""], 1200)
    fitted, _ = fit_file(str(source))
    assert set(fitted.prices) == {"theft", "fraud", "lies", "noise", "spam"}
    assert fitted.record["without_category"] == 200
    printed = run("--fit-preference", source).output
    assert "pairs without a category, whose harm has the price of other categories: 200" in printed
    assert "categories say little" not in printed


@pytest.mark.parametrize(
    ("kinds", "says"), [(["theft"], "all harm is of the category 'theft'"), ([""], "no harm has a")]
)
def test_harm_of_one_category_has_one_price_and_a_warning(tmp_path, kinds, says):
    """It ended in the error of a fit by category, "leave the categories out"."""
    source = judgments(tmp_path, [*kinds, ""], 1200)
    fitted, fit = fit_file(str(source))
    assert (fitted.prices, fitted.preference) == ({}, fit.preference)
    assert fitted.record["b1_interval"] == list(fit.b1_interval)
    assert f"warning: {says}" in run("--fit-preference", source, "-o", tmp_path / "f.json").output
    assert load_labeling(tmp_path / "f.json").preference == fit.preference


def test_harm_by_answer_takes_precedence_over_the_category(tmp_path):
    path = judgments(tmp_path, ["theft", "fraud"], 800)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row |= {
            f"{name}_harm": {} if row[f"{name}_is_safe"] else {row["category"]: 0.5} for name in ("better", "worse")
        }
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    halves, _ = fit_file(str(path))
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if "harm" not in k}) + "\n" for row in rows))
    wholes, _ = fit_file(str(path))
    # Half the level has twice the price, but for the prior of the spread, which is on a log scale.
    assert halves.prices == pytest.approx({name: 2 * price for name, price in wholes.prices.items()}, rel=0.05)
    rows[1]["worse_harm"] = {"theft": 3}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(PreferenceDataError, match="row 2, column 'worse_harm': the level of 'theft' is 3"):
        fit_file(str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "can't be read as a labeling"),
        ('{"format": 2}', "format: input should be 1, not 2"),
        ('{"format": 1, "b1": 3, "alpha": 0.5, "price": {}}', "did you mean 'prices'"),
        ('{"format": 1, "b1": 3, "alpha": 0.5, "prices": {"a": -1}}', "the price of 'a' is -1"),
        ('{"format": 1, "b1": 3}', "the key 'alpha' is missing"),
        ('{"format": 1, "b1": 1, "alpha": 0.5}', "b1 must be greater than 1"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, says):
    path = tmp_path / "fitted.json"
    path.write_text(text)
    with pytest.raises(BfpoError, match=says):
        load_labeling(path)
    with pytest.raises(BfpoError, match="No such file"):
        load_labeling(tmp_path / "nothing.json")


def test_every_wrong_judgment_is_named(tmp_path):
    path = tmp_path / "overall.csv"
    path.write_text("better_is_safe,worse_is_safe,overall_prefers_better\ntrue,false,maybe\n2,0,1\n2,0,\n")
    with pytest.raises(PreferenceDataError) as error:
        fit_file(str(path))
    assert [problem.column for problem in error.value.problems] == ["overall_prefers_better", "better_is_safe"]
    path.write_text("better_is_saf,worse_is_safe,overall_prefers_better\ntrue,false,1\n")
    with pytest.raises(PreferenceDataError, match="did you mean 'better_is_saf'"):
        fit_file(str(path))


def test_nothing_else_is_done_while_fitting(tmp_path):
    done = run("pairs.jsonl", "--fit-preference", judgments(tmp_path))
    assert isinstance(done.exception, BfpoError)
    assert "leave out the preferences" in str(done.exception)
    done = run()
    assert isinstance(done.exception, BfpoError)
    assert "bfpo label pairs.jsonl --judge J -o out.jsonl" in str(done.exception)


def test_a_list_of_one_category_is_that_category(tmp_path):
    names, _ = fit_file(str(judgments(tmp_path, ["theft", "fraud"], 1200)))
    lists, _ = fit_file(str(judgments(tmp_path, [["theft"], ["fraud"]], 1200)))
    assert names.as_json() == lists.as_json() | {"record": names.as_json()["record"]}
