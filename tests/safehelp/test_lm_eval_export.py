"""A run in lm-eval's files, read back by lm-eval's own functions where it is installed."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.safehelp.lm_eval_export import export_lm_eval, place_of
from reports.worlds import evaluation


def exported(tmp_path, run):
    results, *samples = export_lm_eval(run, tmp_path)
    assert {path.parent for path in [results, *samples]} == {results.parent}
    tasks = {path.name.removeprefix("samples_").rpartition("_")[0]: path for path in samples}
    return json.loads(results.read_text()), {
        task: [json.loads(line) for line in path.read_text().splitlines()] for task, path in tasks.items()
    }


def test_results_and_samples_say_what_the_run_says(tmp_path):
    run = evaluation("org/BFPO", per_task=20)
    results, samples = exported(tmp_path, run)
    assert (tmp_path / "org__BFPO").is_dir()
    for score in run.tasks:
        assert results["results"][score.task][f"{score.metric},none"] == score.estimate.value
        assert results["bfpo"]["intervals"][score.task][score.metric] == [score.estimate.low, score.estimate.high]
        assert results["higher_is_better"][score.task][score.metric] is score.higher_is_better
        values = [sample[score.metric] for sample in samples[score.task]]
        assert sum(values) / len(values) == pytest.approx(score.estimate.value)
    records = [record for record in run.generations if record.task == "XSTest"]
    assert [sample["filtered_resps"] for sample in samples["XSTest"]] == [[record.answer] for record in records]
    assert [sample["arguments"]["gen_args_0"]["arg_0"] for sample in samples["XSTest"]] == [r.rendered for r in records]
    first = samples["bbq"][0]
    assert first["resps"] == [[[str(logp)]] for logp in run.likelihoods[817].logps]
    assert (first["target"], first["arguments"]["gen_args_1"]) == ("[0]", {"arg_0": "Placeholder 0", "arg_1": "two"})


@pytest.mark.parametrize("name", ["..", ".", "a/../../b"])
def test_no_name_of_a_model_leaves_the_folder(tmp_path, name):
    run = evaluation("A", per_task=4)
    place, _ = place_of(replace(run, header=replace(run.header, model=name)), tmp_path / "out")
    assert place.resolve().parent == tmp_path / "out"


def test_lm_eval_reads_the_files(tmp_path):
    utils = pytest.importorskip("lm_eval.utils", reason="the lm-eval extra is not installed")
    results, *samples = export_lm_eval(evaluation("BFPO", per_task=8), tmp_path)
    names = list(map(str, [results, *samples]))
    assert utils.get_results_filenames(names) == names[:1]
    assert utils.get_sample_results_filenames(names) == names[1:]
    table = utils.make_table(json.loads(results.read_text()))
    assert all(task in table for task in ("HarmBench", "XSTest", "AlpacaEval", "bbq", "over_refusal"))


def test_samples_of_a_prompt_share_its_number(tmp_path):
    run = evaluation("BFPO", per_task=4)
    again = [replace(record, sample=1, answer="another") for record in run.generations]
    results, samples = exported(tmp_path, replace(run, generations=[*run.generations, *again]))
    assert [sample["doc_id"] for sample in samples["XSTest"]] == [0, 1, 2, 3] * 2
    assert results["n-samples"]["XSTest"] == {"original": 4, "effective": 4}


def test_the_command(tmp_path):
    evaluation("BFPO", per_task=4).save(tmp_path / "run")
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "6 files of samples beside it" in done.output
    (tmp_path / "file").write_text("")
    wrong = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "-o", str(tmp_path / "file")])
    assert isinstance(wrong.exception, BfpoError)
    assert "this is a file; name a folder" in str(wrong.exception)
