"""A run as inspect-ai's logs, read back by inspect-ai; skipped where inspect-ai is not installed."""

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.safehelp.inspect_log_export import export_inspect
from reports.worlds import evaluation


def test_without_inspect_ai_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai.log", None)
    with pytest.raises(BfpoError, match=r"pip install 'bfpo\[inspect\]'"):
        export_inspect(evaluation("BFPO", per_task=4), tmp_path)


def test_logs_say_what_the_run_says(tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="the inspect extra is not installed")
    run = evaluation("org/BFPO", per_task=20)
    paths = export_inspect(run, tmp_path)
    assert {path.parent.name for path in paths} == {"org__BFPO"}
    read = {found.eval.dataset.name: found for found in map(log.read_eval_log, map(str, paths))}
    assert {found.status for found in read.values()} == {"success"}
    for score in run.tasks:
        metric = read[score.task].results.scores[0].metrics[score.metric]
        assert metric.value == score.estimate.value
        assert (metric.metadata["low"], metric.metadata["high"]) == (score.estimate.low, score.estimate.high)
        values = [sample.scores[score.metric].value for sample in read[score.task].samples]
        assert sum(values) / len(values) == pytest.approx(score.estimate.value)
    records = [record for record in run.generations if record.task == "XSTest"]
    assert [sample.output.completion for sample in read["XSTest"].samples] == [record.answer for record in records]
    assert [sample.id for sample in read["XSTest"].samples] == [record.item for record in records]
    first = read["bbq"].samples[0]
    assert (first.choices, first.target) == (list(run.likelihoods[817].choices), ["0"])


def test_the_command(tmp_path):
    pytest.importorskip("inspect_ai.log", reason="the inspect extra is not installed")
    run = evaluation("BFPO", per_task=4)
    run.save(tmp_path / "run")
    result = CliRunner().invoke(
        app, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "logs"), "--to", "inspect"], catch_exceptions=False
    )
    assert "logs in" in result.output
    assert list((tmp_path / "logs" / "BFPO").glob("*.eval"))


def test_another_format_is_refused(tmp_path):
    with pytest.raises(BfpoError, match="--to wandb: write lm-eval or inspect"):
        CliRunner().invoke(
            app, ["export", str(tmp_path), "-o", str(tmp_path / "logs"), "--to", "wandb"], catch_exceptions=False
        )
