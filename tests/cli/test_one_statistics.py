"""Tests of the commands against each other: equal answers have equal rates and intervals everywhere."""

import json
import random
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.reports.breakdowns import rates_by
from bfpo.reports.formats import format_estimate, format_p, value_and_interval
from bfpo.reports.report import prepare_report
from bfpo.reports.result_panels import differences, refusal
from bfpo.safehelp.figures import ANSWER_FIGURES, label_of
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.scores import judge_agreement

SUITE = ("--suite", "microworld", "--per-kind", 40, "--max-new-tokens", 16)


def bfpo(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Answers of two runs, labels of the first one's to harmful prompts, and two judges that replay verdicts."""
    folder = tmp_path_factory.mktemp("world")
    runs = []
    for seed in (0, 1):
        bfpo("evaluate", "microworld", *SUITE, "--seed", seed, "-o", folder / f"sampled{seed}")
        runs.append(Evaluation.load(folder / f"sampled{seed}").generations)
    safe = {(r.prompt, r.answer): r.verdicts[0].label == "safe" for records in runs for r in records}
    refusals = {(r.prompt, r.answer): r.verdicts[0].refusal for records in runs for r in records}
    generator, judges = random.Random(0), {}
    for name, error in (("first", 0.1), ("second", 0.25)):
        said = {key: is_safe if generator.random() > error else not is_safe for key, is_safe in safe.items()}
        judges[name] = write(
            folder / f"{name}.jsonl",
            [{"prompt": prompt, "answer": answer, "label": "safe" if word else "unsafe", "p_safe": float(word),
              "refusal": refusals[prompt, answer]}
             for (prompt, answer), word in said.items()],
        )  # fmt: skip
    harmful = [{"prompt": r.prompt, "answer": r.answer} for r in runs[0] if r.kind == "harmful"]
    labels = [row | {"is_safe": safe[row["prompt"], row["answer"]]} for row in harmful]
    return SimpleNamespace(
        folder=folder,
        **judges,
        answers=write(folder / "answers.jsonl", harmful),
        labels=write(folder / "labels.jsonl", labels),
    )


@pytest.fixture(scope="module")
def judged(world):
    """`bfpo judge check` and `bfpo judge rate` of the first judge, and both runs evaluated with both judges."""
    common = ("--labels", world.labels, "--cache", world.folder / "cache.sqlite", "--json")
    checked = json.loads(bfpo("judge", "check", world.first, "--second", world.second, *common))
    rated = json.loads(bfpo("judge", "rate", world.first, "--answers", world.answers, *common))
    found = [rated["error"][name] for name in ("sensitivity", "specificity")]
    counts = ",".join(f"{round(each['value'] * each['n'])}/{each['n']}" for each in found)
    runs = []
    for seed in (0, 1):
        runs.append(world.folder / f"run{seed}")
        bfpo(
            "evaluate", "microworld", *SUITE, "--seed", seed, "--judge", world.first, "--second-judge", world.second,
            "--judge-errors", counts, "--name", f"run{seed}", "-o", runs[-1],
        )  # fmt: skip
    return SimpleNamespace(checked=checked, rated=rated, runs=runs, evaluations=[Evaluation.load(run) for run in runs])


def test_a_judges_error_is_one(judged):
    for name in ("sensitivity", "specificity"):
        assert judged.rated["error"][name] == judged.checked["overall"][name]


def test_a_rate_and_its_correction_are_one(judged, tmp_path):
    run = judged.evaluations[0]
    (attack,) = (row.estimate for row in run.tasks if row.metric == "attack_success")
    corrected = run.scores["attack_success/corrected"]
    assert asdict(attack) == judged.rated["observed"]
    assert asdict(corrected) == judged.rated["corrected"]
    assert corrected.value != attack.value
    report = prepare_report(judged.evaluations, tmp_path, title="t")
    assert rates_by(report.models, ANSWER_FIGURES["attack_success"])["all"][0] == attack
    panel = refusal(report)
    assert panel.tables[0].rows[0][1].text == format_estimate(attack)
    assert format_estimate(corrected) in panel.notes[-1]


def test_the_agreement_of_two_judges_is_one(judged):
    run = judged.evaluations[0]
    # The labels are those of the harmful prompts; in a run a prompt and its harmless twin are one cluster.
    harmful = replace(run, generations=[record for record in run.generations if record.kind == "harmful"])
    found = judge_agreement(harmful)
    assert asdict(found.kappa) == judged.checked["agreement"]["kappa"]
    assert asdict(found.observed) == judged.checked["agreement"]["observed"]


def test_a_difference_its_test_and_its_counts_are_one(judged, tmp_path):
    (compared,) = json.loads(bfpo("compare", *judged.runs, "--json"))
    report = prepare_report(judged.evaluations, tmp_path, title="t")
    (comparison,) = report.comparisons.values()
    assert [json.loads(json.dumps(asdict(row))) for row in comparison.rows] == compared["rows"]
    shown = {row[0].text: row for row in differences(report).tables[0].rows}
    printed = bfpo("compare", *judged.runs).splitlines()
    for row in comparison.rows:
        if row.task == "all" and row.group is None:
            name = label_of(row.endpoint)
            cells = shown[name]
            value, interval = value_and_interval(row.difference, signed=True)
            assert (cells[1].text, cells[1].note) == (value, interval)
            assert any(name in line and f"{value} {interval}" in line for line in printed)
            assert cells[2].text == format_p(row.adjusted_p)
            assert (row.difference.low > 0 or row.difference.high < 0) == (row.p < 0.05)
            if row.discordant:
                counts = f"{row.discordant[0]} / {row.discordant[1]}"
                assert cells[4].text == counts
                assert any(name in line and f" {counts} " in line for line in printed)
                assert row.discordant[0] - row.discordant[1] == round(row.difference.value * row.n)
