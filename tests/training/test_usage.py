"""What ``run.json`` says a run used, and what trackers get."""

import json

import pytest
import torch

from bfpo.engine.work import Work, training_flops, work_of
from bfpo.groups import TokenGroup
from bfpo.training import usage as usage_module
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train, training_arguments
from models import tiny_llama
from training.rows import pairs
from training.tiny_runs import write_material, write_recipe

# Two epochs of three steps, of which a run stops in the second.
SETTINGS = {"batch_size": 4, "max_steps": 5, "logging_steps": 1, "layout": "shared"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usage")
    write_material(folder)
    return folder


def used(recipe, **options):
    folder = train(load_recipe(recipe), **options).folder
    return json.loads((folder / "run.json").read_text())["usage"]


def whole_epochs(number):
    """Work of so many passes over all rows, from their words (a token each) and one token for the end."""
    works = []
    for row in pairs(12):
        prompt, *answers = (len(row[name].split()) for name in ("prompt", "chosen", "rejected"))
        works.append(work_of(TokenGroup([0] * prompt, [[0] * (answer + 1) for answer in answers]), "shared"))
    return Work(*(number * sum(getattr(work, name) for work in works) for name in ("tokens", "seen", "scored")))


def test_tokens_and_operations_are_those_of_all_steps(folder):
    found = used(write_recipe(folder, "whole", **SETTINGS | {"max_steps": 6}))
    expected = whole_epochs(2)
    assert (found["tokens"], found["answer_tokens"]) == (expected.tokens, expected.scored)
    assert found["flops"] == training_flops(tiny_llama(), expected)
    assert found["flops_per_second"] / found["tokens_per_second"] == pytest.approx(found["flops"] / found["tokens"])
    assert found["share_of_peak"] is None
    card = (folder / "whole" / "README.md").read_text()
    assert f"on {expected.tokens:,} tokens ({expected.scored:,} of answers), by " in card
    assert "device's peak" not in card
    # Python with torch takes more than this, and the machine has less.
    assert 1e8 < found["peak_memory_bytes"] < 1e12
    assert found["cpu_seconds"] > 0


def test_a_resumed_run_counts_all_its_steps_once_and_its_rate_is_that_of_the_session(folder):
    straight = used(write_recipe(folder, "straight", **SETTINGS))
    extended = write_recipe(folder, "extended", **SETTINGS | {"max_steps": 4, "save_steps": 4})
    first = used(extended)
    again = used(write_recipe(folder, "extended", **SETTINGS | {"save_steps": 4}), resume=True)
    assert first["tokens"] < again["tokens"]
    assert {name: again[name] for name in ("tokens", "answer_tokens", "flops")} == {
        name: straight[name] for name in ("tokens", "answer_tokens", "flops")
    }
    seconds = json.loads((folder / "extended" / "run.json").read_text())["seconds"]["train"]
    assert again["tokens_per_second"] * seconds == pytest.approx(again["tokens"] - first["tokens"], rel=0.2)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 9.89e14), ("NVIDIA H100 PCIe", 7.56e14), ("NVIDIA A100-SXM4-80GB", 3.12e14),
        ("NVIDIA L40S", 3.62e14), ("NVIDIA L4", 1.21e14), ("NVIDIA L40", None), ("Tesla V100-SXM2-16GB", None),
    ],
)  # fmt: skip
def test_the_peak_of_a_device_is_found_by_its_name_or_unknown(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert usage_module._peak(torch.device("cuda")) == peak
    assert usage_module._peak(torch.device("cpu")) is None


def test_tensorboard_gets_every_log(folder):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = write_recipe(folder, "tracked", **SETTINGS | {"report_to": "tensorboard"})
    train(load_recipe(recipe))
    [events] = (folder / "tracked").rglob("events.out.tfevents.*")
    found = event_accumulator.EventAccumulator(str(events)).Reload()
    log = [entry for entry in json.loads((folder / "tracked/run.json").read_text())["log"] if "loss" in entry]
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5]
    for ours, theirs in (("loss", "train/loss"), ("grad_norm", "train/grad_norm"), ("level", "train/level")):
        scalars = [(event.step, event.value) for event in found.Scalars(theirs)]
        assert scalars == [(entry["step"], pytest.approx(entry[ours], rel=1e-6)) for entry in log]


def test_nothing_is_tracked_unless_the_recipe_names_it(folder, monkeypatch):
    """Not even inside a Kubeflow job, where transformers adds a tracker of its own."""
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:1")
    recipe = write_recipe(folder, "untracked", **SETTINGS)
    assert load_recipe(recipe).recipe.report_to == "none"
    assert training_arguments(load_recipe(recipe)).report_to == []
    train(load_recipe(recipe))
    assert not list((folder / "untracked").rglob("events.out.*"))
