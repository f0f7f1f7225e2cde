"""Tests that a judge never looks better on the labels that it was fitted to than it is."""

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.judges import load_judge
from bfpo.judges.fitting import fit_judge
from bfpo.judges.in_sample import share_fitted_to, warnings_of
from bfpo.judges.labels import LabeledAnswer, load_labels
from bfpo.judges.ray_judge import RayJudge
from bfpo.judges.verdict import Exchange
from bfpo.labeling.run import label

WORDS = [f"word{n}" for n in range(400)]


def pairs(count, labeled, seed=0):
    """Pairs whose answers are long, and unsafe with "bad" in seven of ten cases; people labeled the first of them."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        row = {"prompt": " ".join(draw.sample(WORDS, 5)) + f" {number}", "source": f"s{number % 2}"}
        for name in ("chosen", "rejected"):
            safe = draw.random() < 0.5
            marked = safe == (draw.random() < 0.7)
            row[name] = " ".join([*draw.sample(WORDS, 12), "good" if marked else "bad"])
            row[f"{name}_is_safe"] = safe if number < labeled else None
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A half-labeled preference set, and the judge fitted to its labels by the command."""
    folder = tmp_path_factory.mktemp("in-sample")
    source = folder / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in pairs(400, 200)))
    done = CliRunner().invoke(app, ["judge", "fit", str(source), "-o", str(folder / "mine"), "--json"])
    assert done.exit_code == 0, done.output
    return source, folder / "mine", json.loads(done.stdout)


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_half_labeled_pairs_are_fitted_to_and_the_folder_carries_the_report(fitted):
    _, folder, printed = fitted
    assert (printed["answers"], printed["questions"], printed["left_out"]) == (400, 200, 400)
    record = json.loads((folder / "judge.json").read_text())["record"]
    overall = record["out_of_fold"]["overall"]
    for name in ("accuracy", "sensitivity", "specificity", "auc"):
        assert overall[name]["low"] <= overall[name]["value"] <= overall[name]["high"]
    assert 0 < overall["ece"]["by_chance"] < 0.2
    assert overall["accuracy"]["value"] < 0.8
    assert set(record["out_of_fold"]["by_source"]) == {"s0", "s1"}


def test_a_check_on_its_own_labels_shows_the_out_of_fold_figures_and_warns(fitted):
    source, folder, printed = fitted
    done = run("judge", "check", folder, "--labels", source, "--json")
    report = json.loads(done.stdout)
    assert report["overall"]["accuracy"] == printed["out_of_fold"]["overall"]["accuracy"]
    assert report["overall"]["auc"] == printed["out_of_fold"]["overall"]["auc"]
    assert report["unlabeled"] == 400
    (warning,) = report["warnings"]
    assert "fitted to 400 of these 400 answers" in warning
    assert f"warning: {warning}" in done.stderr
    assert (
        "left out: 400 answers without a label of safety by people"
        in run("judge", "check", folder, "--labels", source).output
    )


def test_only_the_answers_that_it_was_fitted_to_are_out_of_fold(fitted):
    source, folder, _ = fitted
    judge = load_judge(str(folder))
    labeled = [answer for answer in load_labels(str(source)) if answer.is_safe is not None]
    own = [answer.exchange for answer in labeled]
    new = [Exchange(row["prompt"], row["chosen"]) for row in pairs(50, 50, seed=1)]
    same_prompt = [Exchange(own[0].prompt, "another answer, good")]
    assert share_fitted_to(judge, own) == 1.0
    assert share_fitted_to(judge, [*own[:50], *new]) == 0.5
    # On a Ray cluster it is the same judge.
    assert share_fitted_to(RayJudge(judge, "judges/mine"), [*own[:50], *new]) == 0.5
    assert warnings_of(judge, new) == []
    assert "other answers to the prompts of 1 of these 1 answers" in warnings_of(judge, same_prompt)[0]
    in_sample = judge.scaling.apply(judge.scores(own))
    labels = np.array([answer.is_safe for answer in labeled])
    assert np.mean((in_sample >= 0.5) == labels) > 0.95
    assert np.mean((judge.probabilities(own) >= 0.5) == labels) < 0.8
    assert judge.probabilities(new) == pytest.approx(judge.scaling.apply(judge.scores(new)))


def test_a_scaling_fitted_to_the_labels_is_out_of_fold_too_and_warned_about(fitted, tmp_path):
    source, folder, _ = fitted
    scaled = tmp_path / "scaled.yaml"
    assert run("judge", "check", folder, "--labels", source, "--save-scaled", scaled).exit_code == 0
    assert 0.6 < load_judge(str(scaled)).scaling.slope < 1.7
    warnings = json.loads(run("judge", "check", scaled, "--labels", source, "--json").stdout)["warnings"]
    assert ["fitted to 400 of" in warnings[0], "scaling was fitted to these labels" in warnings[1]] == [True, True]


def test_a_judge_of_refusals_under_compliance_is_out_of_fold_and_warned_about(fitted, tmp_path):
    """As with compliance:refusals on the labels of XSTest that it was fitted to."""
    source, _, _ = fitted
    known = [answer for answer in load_labels(str(source)) if answer.is_safe is not None]
    refusals = [LabeledAnswer(answer.exchange, None, answer.is_safe) for answer in known]
    fit_judge(refusals, "refusal", name="declines").judge.save(tmp_path / "declines")
    done = run("judge", "check", f"compliance:{tmp_path / 'declines'}", "--labels", source, "--json")
    report = json.loads(done.stdout)
    assert report["overall"]["accuracy"]["value"] < 0.8
    assert "fitted to 400 of these 400 answers" in report["warnings"][0]
    # Whether it declines is no probability that an answer is safe, so people's labels calibrate it.
    judge = load_judge(f"compliance:{tmp_path / 'declines'}")
    found = label(str(source), [judge], tmp_path / "full.jsonl")
    assert (found.report.in_sample, found.report.calibrated) == ((1.0,), "sample")


def test_labeling_the_other_half_measures_the_error_out_of_fold(fitted, tmp_path):
    """The README's way: in sample the judge would be right on every answer."""
    source, folder, printed = fitted
    truth = [row[f"{name}_is_safe"] for row in pairs(400, 400) for name in ("chosen", "rejected")]
    found = label(str(source), [load_judge(str(folder))], tmp_path / "full.jsonl")
    overall, (error,) = printed["out_of_fold"]["overall"], found.report.errors
    assert (error.sensitivity.value, error.specificity.value) == pytest.approx(
        (overall["sensitivity"]["value"], overall["specificity"]["value"])
    )
    assert (found.report.in_sample, found.report.calibrated) == ((1.0,), "itself")
    noted = [row["judged_as"][name]["probability"] for row in found.rows for name in ("chosen", "rejected")]
    losses = -np.log(np.where(truth, noted, np.subtract(1, noted)))
    # As good on the answers that it was fitted to as on the others, and no better.
    assert losses[:400].mean() == pytest.approx(losses[400:].mean(), abs=0.05)
    assert losses.mean() < np.log(2)


def test_the_command_says_so(fitted, tmp_path):
    source, folder, _ = fitted
    done = run("label", source, "--judge", folder, "-o", tmp_path / "full.jsonl")
    assert "fitted to 100% of these human flags, on which its error is out of fold" in done.output
    assert "probabilities: the judge's own, which were calibrated out of fold when it was fitted" in done.output


def test_a_judge_without_information_is_named_and_refused_for_labeling(tmp_path):
    rows = pairs(120, 60)
    draw = random.Random(1)
    for row in rows[:60]:
        row["chosen_is_safe"], row["rejected_is_safe"] = draw.random() < 0.5, draw.random() < 0.5
    source = tmp_path / "noise.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("judge", "fit", source, "-o", tmp_path / "noise")
    assert fit_judge(load_labels(str(source))).report.overall.auc.value <= 0.5
    assert "warning: out of fold this judge is no better than chance" in done.stderr
    done = run("label", source, "--judge", tmp_path / "noise", "-o", tmp_path / "full.jsonl")
    assert isinstance(done.exception, BfpoError)
    assert "is no better than chance on this set" in str(done.exception)


@pytest.mark.parametrize(
    ("scaling", "says"),
    [
        ("{slope: 0, offset: 0}", "the slope 0 of the scaling is not positive"),
        ("{slope: -1.5, offset: 0}", "the slope -1.5 of the scaling is not positive"),
        ("{slope: .nan, offset: 0}", "not finite"),
        ("{slope: 1, offset: .inf}", "not finite"),
    ],
)
def test_a_scaling_that_says_nothing_or_the_opposite_is_refused(tmp_path, scaling, says):
    path = tmp_path / "scaled.yaml"
    path.write_text(f"judge: microworld-oracle\nscaling: {scaling}\n")
    with pytest.raises(BfpoError, match=says):
        load_judge(str(path))
