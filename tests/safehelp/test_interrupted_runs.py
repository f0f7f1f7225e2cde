"""Evaluations that are killed at any moment and resumed end in the records of undisturbed ones, byte for byte."""

import json
import random
import signal
from dataclasses import replace

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding
from bfpo.models import load_model, load_tokenizer
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import CORRECTED
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.records import GENERATIONS, Evaluation, LikelihoodRecord, read_generations
from bfpo.safehelp.suites import Suite, load_suite
from bfpo.safehelp.tasks import Task
from bfpo.statistics.judge_error import ErrorRates
from safehelp.killed_evaluation import go_on_and_die, model_run, stub_run
from support import warm

MOMENTS = ("before an answer", "before a verdict", "before a record", "after a record", "in a record")


def killed(run, folder, moments):
    """Sizes of the file of records after each kill, and whether it ended with a whole line."""
    states = []
    for moment, number in moments:
        done = warm.run(go_on_and_die, run, folder, moment, number)
        assert done.returncode == -signal.SIGKILL, done.stderr
        file = folder / GENERATIONS
        content = file.read_bytes() if file.exists() else b""
        states.append((len(content), content.endswith(b"\n")))
    return states


def test_killed_at_20_random_moments(tmp_path):
    # One run of 24 batches in real processes, twenty of which are killed one after another. A stub stands for the
    # model: what must survive is the journal and the plan, which are the real ones. That a real model gives the same
    # answers again is the next test's.
    undisturbed = tmp_path / "undisturbed"
    stub_run(undisturbed)
    expected = (undisturbed / "generations.jsonl").read_bytes()
    draw = random.Random(0)
    moments = [
        (moment, draw.randint(1, 3000) if moment == "in a record" else draw.randint(1, 3)) for moment in MOMENTS * 4
    ]
    draw.shuffle(moments)
    states = killed(stub_run, tmp_path / "killed", moments)
    assert sum(not whole for size, whole in states if size) >= 3  # died in the middle of a line
    assert 0 < states[-1][0] < len(expected)
    resumed = stub_run(tmp_path / "killed")
    assert (tmp_path / "killed" / "generations.jsonl").read_bytes() == expected
    assert resumed.generations == Evaluation.load(undisturbed).generations


def test_a_finished_run_that_is_scored_again_keeps_what_made_it(tmp_path, monkeypatch):
    """Its answers are those of the first command and versions; its rates stay corrected without the option."""
    suite, error = load_suite("microworld", per_kind=4), ErrorRates.from_counts(90, 100, 95, 100)
    model = LocalGenerator.load("microworld")
    first = evaluate(model, suite, folder=tmp_path, judge_error=error, command="the first")
    monkeypatch.setattr("bfpo.safehelp.evaluate.versions", lambda: {"bfpo": "a later one"})
    again = evaluate(model, suite, folder=tmp_path, command="the second")
    assert again.header.judge_error == first.header.judge_error == error
    assert Evaluation.load(tmp_path).header.judge_error == error
    assert again.scores == first.scores
    assert CORRECTED in again.scores
    assert (again.header.command, again.header.versions) == ("the first", first.header.versions)


def test_a_killed_models_run_goes_on(tmp_path):
    whole = model_run(tmp_path / "undisturbed")
    killed(model_run, tmp_path / "killed", [("before a verdict", 3), ("in a record", 900), ("after a record", 2)])
    with pytest.raises(BfpoError, match="unfinished"):
        Evaluation.load(tmp_path / "killed")
    resumed = model_run(tmp_path / "killed")
    for name in ("generations.jsonl", "likelihoods.jsonl", "scores.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert resumed.scores == whole.scores
    assert (resumed.header.counts["torn_lines"], whole.header.counts["torn_lines"]) == (1, 0)
    assert Evaluation.load(tmp_path / "killed") == resumed
    # A third time there is nothing left to do, and nothing changes.
    assert model_run(tmp_path / "killed").scores == whole.scores


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    generator = LocalGenerator.load("microworld")
    suite = load_suite("microworld", per_kind=2)
    evaluate(generator, suite, name="m", decoding=Decoding(max_new_tokens=4), folder=folder)
    return folder, generator, suite


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": "other"}, "another model"),
        ({"decoding": Decoding(max_new_tokens=4, temperature=0.1)}, "decoding .temperature 0.7, now 0.1"),
        ({"decoding": Decoding(max_new_tokens=4, batch_size=3)}, "decoding .batch_size 256, now 3"),
        (
            {"suite": load_suite("microworld", split="validation", per_kind=2)},
            "other prompts",
        ),
    ],
)
def test_a_folder_of_another_run_is_refused(finished, change, what):
    folder, generator, suite = finished
    settings = {"name": "m", "suite": suite, "decoding": Decoding(max_new_tokens=4), "folder": folder}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(BfpoError, match=what):
        evaluate(generator, **(settings | change))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_are_read_once(monkeypatch):
    from bfpo.generation import local_generator

    digest, read = local_generator.model_digest, []
    monkeypatch.setattr(local_generator, "model_digest", lambda *given: read.append(1) or digest(*given))
    settings = {"name": "m", "decoding": Decoding(max_new_tokens=4)}
    found = evaluate(LocalGenerator.load("microworld"), load_suite("microworld", per_kind=1), **settings)
    assert (len(read), len(found.header.model_digest)) == (1, 64)


def test_other_weights_another_template_and_another_system_prompt_are_refused(finished):
    folder, generator, suite = finished
    model, changed = load_model("microworld"), load_tokenizer("microworld")
    model.get_input_embeddings().weight.data[5] += 0.1
    changed.chat_template += " "
    for other, what in [
        (replace(generator, model=model), "another model_digest"),
        (replace(generator, tokenizer=changed), "another chat_template_sha256"),
        (replace(generator, system_prompt="Be brief."), "another system_prompt"),
    ]:
        with pytest.raises(BfpoError, match=what):
            evaluate(other, suite, name="m", decoding=Decoding(max_new_tokens=4), folder=folder)


def test_records_without_a_header_and_files_of_something_else_are_refused(finished, tmp_path):
    folder, generator, suite = finished
    settings = {"name": "m", "suite": suite, "decoding": Decoding(max_new_tokens=4), "folder": tmp_path}
    (tmp_path / "generations.jsonl").write_bytes((folder / "generations.jsonl").read_bytes())
    with pytest.raises(BfpoError, match="records without a header"):
        evaluate(generator, **settings)
    (tmp_path / "run.json").write_text(json.dumps({"config": {}, "finished": True}))
    with pytest.raises(BfpoError, match=r"can't be read as the header of an evaluation .the key 'model' is missing"):
        evaluate(generator, **settings)


def test_only_the_last_of_lm_evals_tasks_is_asked_again(tmp_path, monkeypatch):
    tasks = tuple(Task(task=name, factor="helpful", license="", metrics=("acc",), lm_eval=name) for name in "abc")
    skipped = []

    def stub(generator, suite, *, done, **_):
        skipped.append(list(done))
        for name in "abc":
            if name not in done:
                if name == "c" and len(skipped) == 1:
                    raise KeyboardInterrupt
                pairs = [("x", "y"), (-1.0, -2.0), (1, 1), (1.0, 0.0)]
                yield [LikelihoodRecord(name, f"{n}", "helpful", None, f"{n}", "q", *pairs) for n in "12"], []

    monkeypatch.setattr("bfpo.safehelp.lm_eval_tasks.run_lm_eval", stub)
    settings = {"name": "m", "suite": Suite("s", [], [], tasks), "folder": tmp_path}
    generator = LocalGenerator.load("microworld")
    with pytest.raises(KeyboardInterrupt):
        evaluate(generator, **settings)
    path = tmp_path / "likelihoods.jsonl"
    # A kill while b was written: half of its last line, after a whole one.
    path.write_bytes(path.read_bytes()[:-30])
    result = evaluate(generator, **settings)
    assert skipped == [[], ["a"]]
    assert [(record.task, record.item) for record in result.likelihoods] == [(t, n) for t in "abc" for n in "12"]
    assert result.header.counts["torn_lines"] == 1
    assert evaluate(generator, **settings).likelihoods == result.likelihoods
    assert skipped[2] == ["a", "b", "c"]
    with pytest.raises(BfpoError, match="other prompts"):
        evaluate(generator, **settings, limit=1)


@pytest.mark.parametrize("replaced", ["toxigen.jsonl", "toxigen.train.jsonl", None])
def test_other_rows_and_metrics_of_lm_evals_tasks_are_noticed(tmp_path, monkeypatch, replaced):
    record = LikelihoodRecord("toxigen", "1", "harmless", None, "1", "q", ("x", "y"), (-1.0, -2.0), (1, 1), (1.0, 0.0))
    monkeypatch.setattr("bfpo.safehelp.lm_eval_tasks.run_lm_eval", lambda *_, **__: iter([([record], [])]))
    for name in ("toxigen.jsonl", "toxigen.train.jsonl"):
        (tmp_path / name).write_text('{"text": "a red door"}\n')

    def run(**changes):
        suite = load_suite("paper", tasks=["toxigen"], data={"toxigen": tmp_path / "toxigen.jsonl"})
        suite = replace(suite, tasks=tuple(task.model_copy(update=changes) for task in suite.tasks))
        return evaluate(LocalGenerator.load("microworld"), suite, name="m", folder=tmp_path / "run")

    first = run()
    assert run().likelihoods == first.likelihoods == [record]
    if replaced:
        (tmp_path / replaced).write_text('{"text": "a blue door"}\n')
    with pytest.raises(BfpoError, match="contains a run with other prompts"):
        run(**({} if replaced else {"metrics": ("acc_norm",)}))


def test_a_journal_of_another_plan_is_refused(tmp_path):
    stub_run(tmp_path)
    journal = Journal(tmp_path / "generations.jsonl", read_generations)
    records = journal.records()
    with pytest.raises(BfpoError, match="planned differently"):
        journal.append([records[0], records[-1]])


def test_a_line_that_is_no_record_is_named(tmp_path):
    stub_run(tmp_path)
    path = tmp_path / "generations.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([lines[0], "{broken", *lines[1:]]), encoding="utf-8", newline="\n")
    with pytest.raises(BfpoError, match=r"generations.jsonl, line 2: can't be read as the record of an answer"):
        read_generations(path)
    row = json.loads(lines[0])
    path.write_text(json.dumps(row | {"color": 1}) + "\n")
    with pytest.raises(BfpoError, match=r"line 1: .* \(unknown key 'color'"):
        read_generations(path)
    record = replace(read_generations(_one(tmp_path, row))[0], answer="x")
    assert record.verdicts[0].categories == ("S1",)


def _one(folder, row):
    path = folder / "one.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path
