"""Tests of ``bfpo judge``: its output, its files, and its answers to wrong usage."""

import json
import re

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.judges import Exchange, load_judge
from bfpo.microworld.data import safety_set


def run(*arguments):
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def write_labels(path, seed):
    """The answers to 150 questions, labeled by the oracle."""
    from bfpo.microworld.oracle import judge

    rows = [
        {"prompt": row["prompt"], "answer": row[f"response_{n}"], "source": f"s{n}"}
        for row in safety_set(150, seed)
        for n in (0, 1)
    ]
    for row in rows:
        row["is_safe"] = judge(row["prompt"], row["answer"]).is_safe
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.jsonl", 0)


@pytest.fixture(scope="module")
def fitted(labels, tmp_path_factory):
    """A judge fitted to the labels, and the command's output."""
    folder = tmp_path_factory.mktemp("fitted") / "mine"
    done = run("fit", labels, "-o", folder)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_the_list_names_every_kind():
    listed = run("list").output
    for name in ("qwen3guard-gen", "harmbench", "wildguard", "llama-guard-3", "microworld-oracle", "fitted", "replay"):
        assert name in listed
    assert {"keywords", "configured"} <= {kind["name"] for kind in json.loads(run("list", "--json").output)}


def test_a_judge_is_fitted_and_checked(fitted, tmp_path):
    """On held-out questions it is right far more often than the majority label."""
    folder, printed = fitted
    assert "out of fold" in printed
    held_out = write_labels(tmp_path / "held-out.jsonl", 1)
    report = json.loads(run("check", folder, "--labels", held_out, "--json").output)
    overall = report["overall"]
    assert overall["answers"] == 300
    commonest = 221 / 300
    assert sum(json.loads(line)["is_safe"] for line in held_out.read_text().splitlines()) == 221
    assert overall["accuracy"]["value"] > commonest + 0.08
    assert overall["auc"]["value"] > 0.85
    assert overall["kappa"]["value"] > 0.5
    assert set(report["by_source"]) == {"s0", "s1"}
    assert sum(part["observed"]["n"] for part in report["reliability"]) == 300
    error = overall["ece"]
    table = run("check", folder, "--labels", held_out).output
    assert "ECE (by chance)" in table
    assert f"{error['value']:.3f} ({error['by_chance']:.3f})" in table


def queued(tmp_path):
    """Pairs of which people labeled some at random, and others because the queue asked: there the oracle errs more."""
    rows = safety_set(60, 0)
    path = tmp_path / "queued.jsonl"
    with path.open("w") as file:
        for at, row in enumerate(rows):
            name, wrong = ("random", False) if at < 40 else ("queue", True)
            flags = {f"{answer}_is_safe": row[f"is_response_{n}_safe"] != wrong
                     for n, answer in enumerate(("chosen", "rejected"))}  # fmt: skip
            answers = {"chosen": row["response_0"], "rejected": row["response_1"]}
            by = {"chosen": name, "rejected": name, "order": "people"}
            file.write(json.dumps({"prompt": row["prompt"], **answers, **flags, "labelled_by": by}) + "\n")
    return path


def test_what_the_queue_asked_for_doesn_t_show_a_judge_s_error(tmp_path):
    path = queued(tmp_path)
    done = run("check", "microworld-oracle", "--labels", path)
    assert "left out: 40 answers that the queue asked people about" in done.stderr
    report = json.loads(run("check", "microworld-oracle", "--labels", path, "--json").stdout)
    assert (report["overall"]["answers"], report["overall"]["accuracy"]["value"]) == (80, 1.0)
    assert (report["from_queue"], report["unlabeled"]) == (40, 0)
    rate = json.loads(run("rate", "microworld-oracle", "--answers", path, "--labels", path, "--json").stdout)
    assert (rate["error"]["sensitivity"]["value"], rate["from_queue"]) == (1.0, 40)
    fit = run("fit", path, "-o", tmp_path / "judge")
    assert "warning: 40 of these labels answer the queue" in fit.stderr


def test_an_oracles_errors_are_measured(labels):
    report = json.loads(run("check", "microworld-oracle:0.1,0.3,1", "--labels", labels, "--json").output)
    overall = report["overall"]
    for figure, truth in (("specificity", 0.9), ("sensitivity", 0.7)):
        assert overall[figure]["low"] <= truth <= overall[figure]["high"]
    clean = json.loads(run("check", "microworld-oracle", "--labels", labels, "--json").output)
    assert clean["overall"]["accuracy"]["value"] == clean["overall"]["kappa"]["value"] == 1


def test_verdicts_scaling_diagram_and_agreement(labels, fitted, tmp_path):
    verdicts, scaled, plot = tmp_path / "verdicts.jsonl", tmp_path / "scaled.yaml", tmp_path / "diagram.png"
    folder, _ = fitted
    done = run(
        "check", folder, "--labels", labels, "--second", "microworld-oracle:0.2", "--plot", plot,
        "--save-verdicts", verdicts, "--save-scaled", scaled,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "agreement with microworld-oracle:0.2 on 300 answers" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    row = json.loads(labels.read_text().splitlines()[0])
    exchange = Exchange(row["prompt"], row["answer"])
    (plain,) = load_judge(str(folder)).judge([exchange])
    assert load_judge(str(verdicts)).judge([exchange]) == [plain]
    (after,) = load_judge(str(scaled)).judge([exchange])
    assert after.label == plain.label
    assert after.p_safe != plain.p_safe
    assert after.judge_id != plain.judge_id


def test_a_rate_is_corrected(labels, tmp_path):
    answers = tmp_path / "answers.jsonl"
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    answers.write_text("".join(json.dumps({"prompt": r["prompt"], "answer": r["answer"]}) + "\n" for r in rows))
    done = run("rate", "microworld-oracle:0.1,0.2", "--answers", answers, "--labels", labels, "--json")
    share = json.loads(done.output)
    truth = sum(not row["is_safe"] for row in rows) / len(rows)
    # The error is estimated on the judged answers themselves, so the correction is exact.
    assert share["corrected"]["value"] == pytest.approx(truth, abs=1e-9)
    assert share["corrected"]["low"] < truth < share["corrected"]["high"]
    assert share["observed"]["value"] != pytest.approx(truth, abs=1e-3)
    assert (
        "unsafe, corrected" in run("rate", "microworld-oracle:0.1,0.2", "--answers", answers, "--labels", labels).output
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["check", "qwen3guard", "--labels", "LABELS"], BfpoError, "did you mean 'qwen3guard-gen'"),
        (
            ["check", "qwen3guard-gen", "--labels", "LABELS"],
            BfpoError,
            "Qwen3Guard-Gen-0.6B' can't be loaded",
        ),
        (["check", "microworld-oracle:lots", "--labels", "LABELS"], BfpoError, "one error rate, or two and a seed"),
        (["check", "microworld-oracle:1.5", "--labels", "LABELS"], BfpoError, "must lie in"),
        (["check", "keywords", "--labels", "LABELS"], RunError, "no verdict on safety"),
        (["check", "keywords", "--labels", "LABELS", "--target", "refusals"], BfpoError, "did you mean 'refusal'"),
        (["check", "keywords", "--labels", "LABELS", "--target", "refusal"], BfpoError, "no answer has a label"),
        (["check", "microworld-oracle", "--labels", "LABELS", "--save-scaled", "x.yaml"], BfpoError, "labels without"),
        (["check", "microworld-oracle", "--labels", "LABELS", "--save-scaled", "x.json"], BfpoError, "ends in .yaml"),
        (["check", "microworld-oracle", "--labels", "LABELS", "--save-verdicts", "x.csv"], BfpoError, "ends in .jsonl"),
        (["check", "microworld-oracle", "--labels", "LABELS", "--plot", "x.svg"], BfpoError, "ends in .png"),
        (["check", "microworld-oracle", "--labels", "nothing.jsonl"], BfpoError, "there is no such file"),
        (["check", ".", "--labels", "LABELS"], BfpoError, "it has no judge.json"),
        (["check", "nothing.yaml", "--labels", "LABELS"], BfpoError, "can't be read"),
        (["check", "microworld-oracle", "--labels", "LABELS", "--column", "x"], BfpoError, "theirs=ours"),
        (["fit", "LABELS", "-o", "x", "--target", "refusal"], BfpoError, "0 answers"),
        (["fit", "LABELS", "-o", "x", "--source", "s2"], BfpoError, "the sources are s0, s1"),
    ],
)
def test_wrong_usage_is_reported(labels, tmp_path, monkeypatch, arguments, error, words):
    monkeypatch.chdir(tmp_path)
    done = run(*[str(labels) if argument == "LABELS" else argument for argument in arguments])
    assert isinstance(done.exception, error)
    assert words in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_ours_does_not_cost_the_report(labels, tmp_path):
    """The answers were judged, and neither the report nor what it cost was shown."""
    mine = tmp_path / "mine.jsonl"
    mine.write_text("my notes\n")
    done = run("check", "microworld-oracle:0.1", "--labels", labels, "--save-verdicts", mine)
    assert "would overwrite a file that is not" in str(done.exception)
    assert "sensitivity" in done.output
    assert mine.read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model: m\ntemplate: harmbench\nserver: {url: 'localhost:1'}", "not an address"),
        ("model: m\ntemplat: harmbench", "did you mean 'template'"),
        ("model: m\ntemplate: harmbenc\nrevision: main", "did you mean 'harmbench'"),
        ("model: m", "a template, a question or a rubric"),
        ("model: m\ntemplate: harmbench\nmax_new_tokens: 0", "max_new_tokens"),
        ("model: m\nquestion: {text: 'no place'}\nrevision: main", "no {answer}"),
        ("judge: keywords\nscaling: {slop: 1}", "unknown key 'scaling.slop' (did you mean 'slope'?)"),
        ("judge: keywordz\nscaling: {slope: 1}", "did you mean 'keywords'"),
        ("- a\n- b", "is a mapping of keys"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_files_are_reported(tmp_path, content, words):
    path = tmp_path / "judge.yaml"
    path.write_text(content)
    with pytest.raises(BfpoError, match=re.escape(words)):
        load_judge(str(path))
