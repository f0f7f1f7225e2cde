"""Output folders that contain a run: what may change on resuming, what may not, and what counts as a run."""

import json

import pytest
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

from bfpo import GlobalPreference
from bfpo.errors import BfpoError
from bfpo.labeling.fitted import FittedLabeling
from bfpo.training.checkpoints import mark_complete
from bfpo.training.earlier_run import earlier_run
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from models import tiny_llama
from training.rows import pairs, word_tokenizer


@pytest.fixture
def folder(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    pairs(24).to_json(tmp_path / "pairs.jsonl")
    return tmp_path


def recipe(folder, overrides=(), **changes):
    values = {
        "stage": "preference", "model": str(folder / "model"), "data": [{"path": str(folder / "pairs.jsonl")}],
        "output_dir": str(folder / "run"), "beta": 0.3, "learning_rate": 0.003, "lr_scheduler_type": "constant",
        "batch_size": 4, "max_steps": 4, "save_steps": 2, "warmup_steps": 0, "reference_cache": None,
    } | changes  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return load_recipe(path, overrides)


class Stop(TrainerCallback):
    """Ends a run with an error at the start of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            raise KeyboardInterrupt


def stopped(folder, step, **changes):
    with pytest.raises(KeyboardInterrupt):
        train(recipe(folder, **changes), callbacks=[Stop(step)])


def weights(folder):
    return load_file(folder / "run" / "model.safetensors")


def same(first, second):
    return all(value.equal(second[name]) for name, value in first.items())


def test_a_run_that_fails_before_its_first_step_can_be_started_again(folder):
    stopped(folder, 1)
    train(recipe(folder, learning_rate=0.002))
    with pytest.raises(BfpoError, match="contains another run; continue it with --resume"):
        train(recipe(folder))


def test_what_changes_no_result_may_change_on_resuming(folder):
    straight = folder / "straight"
    train(recipe(folder, output_dir=str(straight)))
    stopped(folder, 4)
    free = {"micro_batch_tokens": 60, "logging_steps": 1, "save_steps": 1, "save_total_limit": 1}
    lines = []
    train(recipe(folder, **free), resume=True, say=lines.append)
    assert "resumed from checkpoint-2" in lines
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["resumed"] == [
        {
            "checkpoint": "checkpoint-2",
            "changed": {
                "micro_batch_tokens": [None, 60], "logging_steps": [10, 1], "save_steps": [2, 1],
                "save_total_limit": [2, 1],
            },
        }
    ]  # fmt: skip
    # Other micro-batches sum in another order, so the weights agree to rounding; another order of steps would show.
    expected, found = load_file(straight / "model.safetensors"), weights(folder)
    assert all(value.allclose(found[name], atol=1e-5) for name, value in expected.items())
    first = [json.loads((place / "run.json").read_text())["mix"]["first_steps"] for place in (straight, folder / "run")]
    assert first[0] == first[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.1}, "learning_rate was 0.003"),
        ({"seed": 1, "beta": 0.5}, "beta was 0.3, now 0.5, seed was 0"),
    ],
)
def test_what_changes_the_result_may_not(folder, changes, named):
    stopped(folder, 4)
    with pytest.raises(BfpoError, match=named):
        train(recipe(folder, **changes), resume=True)


def test_a_value_counts_and_not_where_it_came_from(folder):
    values = {"max_steps": 6}
    with pytest.raises(KeyboardInterrupt):
        train(recipe(folder, ["max_steps=6"]), callbacks=[Stop(4)])
    assert train(recipe(folder, **values), resume=True).folder == folder / "run"


def test_settings_that_an_older_version_did_not_know_had_their_defaults(folder):
    stopped(folder, 3, adam_beta2=0.95)
    path = folder / "run" / "run.json"
    record = json.loads(path.read_text())
    for key in ("adam_beta2", "weight_decay"):
        del record["config"][key]
    path.write_text(json.dumps(record))
    with pytest.raises(BfpoError, match=r"other settings: adam_beta2 was None, now 0.95; set"):
        train(recipe(folder, adam_beta2=0.95), resume=True)
    record["config"]["adam_beta2"] = {"value": 0.95, "origin": "recipe"}
    path.write_text(json.dumps(record))
    train(recipe(folder, adam_beta2=0.95), resume=True)
    assert json.loads(path.read_text())["finished"]


def test_parts_of_settings_that_an_older_version_did_not_know_had_their_defaults(folder):
    stopped(folder, 3, lora={"r": 2})
    path = folder / "run" / "run.json"
    record = json.loads(path.read_text())
    del record["config"]["data"]["value"][0]["flags"], record["config"]["lora"]["value"]["lora_alpha"]
    path.write_text(json.dumps(record))
    with pytest.raises(BfpoError, match="lora was"):
        train(recipe(folder, lora={"r": 2, "lora_alpha": 8}), resume=True)
    train(recipe(folder, lora={"r": 2}), resume=True)
    assert json.loads(path.read_text())["finished"]


def test_a_resumed_run_saves_and_logs_as_often_as_it_now_says(folder):
    """The Trainer restores the intervals of the checkpoint, and only warns."""
    stopped(folder, 4, save_steps=2, logging_steps=4, max_steps=8, save_total_limit=None)
    train(recipe(folder, save_steps=1, logging_steps=1, max_steps=8, save_total_limit=None), resume=True)
    saved = {int(path.name.split("-")[1]) for path in (folder / "run").glob("checkpoint-*")}
    assert saved == {2, 3, 4, 5, 6, 7, 8}
    log = json.loads((folder / "run" / "run.json").read_text())["log"]
    assert [entry["step"] for entry in log if "loss" in entry][-3:] == [6, 7, 8]


def test_resuming_a_finished_run_does_nothing(folder):
    changes = {"save_steps": None}
    done = train(recipe(folder, **changes))
    before, lines = (folder / "run" / "model.safetensors").stat().st_mtime_ns, []
    again = train(recipe(folder, **changes), resume=True, say=lines.append)
    assert lines == [f"{folder / 'run'}: the run is finished, so there is nothing to resume"]
    assert (again.folder, again.metrics) == (done.folder, done.metrics)
    assert (folder / "run" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(BfpoError, match="has no checkpoint to extend"):
        train(recipe(folder, **changes, max_steps=8), resume=True)


def test_a_finished_run_is_extended_to_the_weights_of_a_longer_one(folder):
    train(recipe(folder))
    train(recipe(folder, max_steps=6), resume=True)
    extended = weights(folder)
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["steps"] == 6
    assert record["resumed"][0]["changed"] == {"max_steps": [4, 6]}
    train(recipe(folder, max_steps=6, output_dir=str(folder / "longer")))
    assert same(load_file(folder / "longer" / "model.safetensors"), extended)


def test_a_run_can_be_extended_but_not_shortened(folder):
    train(recipe(folder, max_steps=4))
    before = weights(folder)
    for length in ({"max_steps": 3}, {"max_steps": -1, "num_train_epochs": 0.5}):
        with pytest.raises(BfpoError, match=r"has 4 steps, which can be extended but not shortened to 3"):
            train(recipe(folder, **length), resume=True)
    assert same(before, weights(folder))
    assert json.loads((folder / "run" / "run.json").read_text())["steps"] == 4


@pytest.mark.parametrize("changed", ["template", "labeling"])
def test_another_template_or_labeling_under_the_same_name_is_refused(folder, changed):
    template, fitted = folder / "template.jinja", folder / "labeling.json"
    template.write_text("{% for message in messages %}{{ message['content'] }} {% endfor %}")
    FittedLabeling(GlobalPreference(b1=3.0), {}).save(fitted)
    settings = {"chat_template": str(template)} if changed == "template" else {"labeling": str(fitted)}
    stopped(folder, 4, **settings)
    if changed == "template":
        template.write_text("{% for message in messages %}w1 {{ message['content'] }} {% endfor %}")
    else:
        FittedLabeling(GlobalPreference(b1=2.0), {}).save(fitted)
    named = "chat template has changed" if changed == "template" else r"labeling.json: the labeling has changed"
    with pytest.raises(BfpoError, match=named):
        train(recipe(folder, **settings), resume=True)


def test_other_rows_are_refused(folder):
    stopped(folder, 4)
    pairs(24, seed=9).to_json(folder / "pairs.jsonl")
    with pytest.raises(BfpoError, match=r"pairs.jsonl: its rows have changed"):
        train(recipe(folder), resume=True)


def test_another_model_under_the_same_name_is_refused(folder):
    stopped(folder, 4)
    tiny_llama(seed=3).save_pretrained(folder / "model")
    with pytest.raises(BfpoError, match="model: the model has changed"):
        train(recipe(folder), resume=True)


def test_a_file_and_a_strange_record_are_named(folder):
    (folder / "file").write_text("")
    with pytest.raises(BfpoError, match="file is a file; choose a folder"):
        train(recipe(folder, output_dir=str(folder / "file")))
    (folder / "run").mkdir()
    for text in ("{", "[]", "{}", '{"config": 1}'):
        (folder / "run" / "run.json").write_text(text)
        with pytest.raises(BfpoError, match=r"run.json: can't be read as the record of a run"):
            train(recipe(folder))


def test_checkpoints_without_the_record_of_their_run_are_not_resumed(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    mark_complete(tmp_path / "checkpoint-2")
    with pytest.raises(BfpoError, match=r"has checkpoint-2 and no run\.json"):
        earlier_run(tmp_path, {}, {"number": 1, "sharding": "none"}, resume=True)


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_a_folder_with_a_model_or_readme_of_somebody_is_not_written_over(folder, name):
    (folder / "run").mkdir()
    (folder / "run" / name).write_text("mine")
    for resume in (False, True):
        with pytest.raises(BfpoError, match=f"has {name}, which training would write over, and no run.json"):
            train(recipe(folder), resume=resume)
    assert (folder / "run" / name).read_text() == "mine"
    with pytest.raises(BfpoError, match=r"has config\.json, which training would write over"):
        train(recipe(folder, output_dir=str(folder / "model")))
