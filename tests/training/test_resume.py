"""Bit-identical results of runs that are killed (real SIGKILL) at any moment and resumed."""

import json
import signal

import pytest
import yaml
from safetensors.torch import load_file
from transformers import TrainerState

from bfpo.errors import BfpoError
from bfpo.training.checkpoints import (
    CheckpointingTrainer,
    check_intact,
    mark_begun,
    mark_complete,
    newest_complete_checkpoint,
    remove_incomplete_checkpoints,
)
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from models import tiny_llama
from support import warm
from training.killed_run import resume_and_die
from training.rows import pairs, word_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, two files of pairs to train on, and one to evaluate on."""
    folder = tmp_path_factory.mktemp("resume")
    tiny_llama().save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    pairs(22).to_json(folder / "safety.jsonl")
    pairs(9, seed=1, safety=False).to_json(folder / "helpful.jsonl")
    pairs(12, seed=5).to_json(folder / "held-out.jsonl")
    return folder


def recipe_file(folder, name, **changes):
    recipe = {
        "stage": "preference",
        "model": str(folder / "model"),
        "data": [
            {"path": str(folder / "safety.jsonl")},
            {"path": str(folder / "helpful.jsonl"), "role": "buffer", "unknown_safety": 1.0},
        ],
        "output_dir": str(folder / name),
        "beta": 0.3,
        "learning_rate": 0.002,
        "batch_size": 8,
        "num_train_epochs": 2,
        "micro_batch_tokens": 100,
        "save_steps": 2,
        "save_total_limit": 1,
        "logging_steps": 1,
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def run(straight, killed, *moments):
    """Run one recipe to the end, and another that is killed at each moment in turn; what each kill left to resume."""
    left = []
    for recipe, moment in [(straight, None), *((killed, moment) for moment in moments), (killed, None)]:
        done = warm.run(resume_and_die, recipe, moment)
        assert done.returncode == (-signal.SIGKILL if moment else 0), done.stderr
        if moment:
            checkpoint = newest_complete_checkpoint(killed.with_suffix(""))
            left.append(checkpoint and checkpoint.name)
    return left


def assert_same_end(folder, straight, killed, weights="model.safetensors"):
    """The same bits of every weight, and the same losses of every step."""
    expected, found = (load_file(folder / name / weights) for name in (straight, killed))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.equal(found[name]), name
    logs = [json.loads((folder / name / "run.json").read_text())["log"] for name in (straight, killed)]
    for figure in ("loss", "eval_loss"):
        losses = [[(entry["step"], entry[figure]) for entry in log if figure in entry] for log in logs]
        assert losses[0] == losses[1]


def test_killed_run_ends_in_the_same_bits(folder):
    straight, killed = recipe_file(folder, "straight"), recipe_file(folder, "killed")
    left = run(
        straight,
        killed,
        ("before the weights are saved", 1),
        ("before a step", 4),
        ("before the optimizer is saved", 1),
        ("before the random state is saved", 1),
        ("before the marker", 2),
        ("before old checkpoints go", 1),
        ("before a step", 2),
    )
    assert left == [None, *(f"checkpoint-{step}" for step in (2, 2, 2, 4, 6, 6))]
    assert_same_end(folder, "straight", "killed")


def test_a_killed_run_of_lora_ends_in_the_same_bits(folder):
    """A kill before the first checkpoint included: the adapter starts from the same random weights again."""
    adapter = {"lora": {"r": 2, "target_modules": "all-linear"}, "num_train_epochs": 1}
    straight, killed = (recipe_file(folder, name, **adapter) for name in ("straight-lora", "killed-lora"))
    left = run(straight, killed, ("before a step", 2), ("before a step", 4), ("before the optimizer is saved", 1))
    assert left == [None, "checkpoint-2", "checkpoint-2"]
    assert_same_end(folder, "straight-lora", "killed-lora", "adapter_model.safetensors")
    trained = load_file(folder / "killed-lora" / "adapter_model.safetensors")
    assert all(value.any() for value in trained.values())


def test_a_killed_run_remembers_the_best_checkpoint_from_before_it_was_killed(folder):
    best = {"eval_data": {"path": str(folder / "held-out.jsonl")}, "eval_steps": 2, "keep_best": True}
    straight, killed = (recipe_file(folder, name, **best) for name in ("straight-best", "killed-best"))
    # The first checkpoint is the best one and is kept, but the run resumes from the newest.
    left = run(straight, killed, ("before a step", 6), ("before the marker", 1), ("before a step", 3))
    assert left == ["checkpoint-4", "checkpoint-4", "checkpoint-6"]
    assert_same_end(folder, "straight-best", "killed-best")
    log = json.loads((folder / "killed-best" / "run.json").read_text())["log"]
    losses = {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}
    assert min(losses, key=losses.get) == 2 < max(losses) == 12
    kept, checkpoint = (
        load_file(folder / "killed-best" / name / "model.safetensors") for name in (".", "checkpoint-2")
    )
    assert all(tensor.equal(checkpoint[name]) for name, tensor in kept.items())


def test_a_finished_run_is_not_overwritten_and_a_changed_one_not_resumed(folder):
    recipe = recipe_file(folder, "once", max_steps=1, save_steps=1)
    train(load_recipe(recipe))
    with pytest.raises(BfpoError, match="contains another run"):
        train(load_recipe(recipe))
    with pytest.raises(BfpoError, match="learning_rate was"):
        train(load_recipe(recipe, ["learning_rate=0.1"]), resume=True)


def test_only_marked_checkpoints_count(tmp_path):
    for step in (2, 10, 4):
        mark_begun(tmp_path / f"checkpoint-{step}")
    assert newest_complete_checkpoint(tmp_path) is None
    for step in (2, 4):
        mark_complete(tmp_path / f"checkpoint-{step}")
    assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert remove_incomplete_checkpoints(tmp_path) == [tmp_path / "checkpoint-10"]
    assert newest_complete_checkpoint(tmp_path / "nowhere") is None


def test_checkpoints_of_others_are_neither_taken_nor_deleted(folder):
    """TRL's and transformers' have no marker; ``--resume`` is passed by scripts that don't look."""
    path = recipe_file(folder, "others")
    theirs = folder / "others" / "checkpoint-100" / "model.safetensors"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"weights")
    for resume in (True, False):
        with pytest.raises(BfpoError, match=r"checkpoint-100: this checkpoint wasn't written by bfpo.*move it"):
            train(load_recipe(path), resume=resume)
    assert theirs.read_bytes() == b"weights"


def test_a_checkpoint_that_is_named_or_the_best_is_checked_too(tmp_path):
    for step in (1, 2, 3):
        mark_begun(tmp_path / f"checkpoint-{step}")
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"weights")
    mark_complete(tmp_path / "checkpoint-1")
    mark_complete(tmp_path / "checkpoint-2")
    check_intact(tmp_path / "checkpoint-1", own=False)
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"weighty")
    (tmp_path / "checkpoint-4").mkdir()
    check_intact(tmp_path / "checkpoint-4", own=False)
    trainer = CheckpointingTrainer.__new__(CheckpointingTrainer)
    trainer.state = TrainerState(best_model_checkpoint=str(tmp_path / "checkpoint-2"))
    for refused in (lambda: trainer.train(str(tmp_path / "checkpoint-2")), trainer._load_best_model):
        with pytest.raises(BfpoError, match=r"checkpoint-2: model\.safetensors changed"):
            refused()
    with pytest.raises(BfpoError, match="checkpoint-3: the checkpoint is incomplete"):
        trainer.train(str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, how):
    checkpoint = tmp_path / "checkpoint-4"
    (checkpoint / "inside").mkdir(parents=True)
    for name in ("model.safetensors", "inside/scheduler.pt"):
        (checkpoint / name).write_bytes(b"some content")
    mark_complete(checkpoint)
    check_intact(checkpoint)
    file = checkpoint / "inside/scheduler.pt"
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(b"some content"[:-3] if how == "cut" else b"sime content")
    with pytest.raises(BfpoError, match=r"checkpoint-4: inside/scheduler.pt changed since .* delete this folder"):
        check_intact(checkpoint)
    (checkpoint / "complete").write_text("")
    with pytest.raises(BfpoError, match=r"checkpoint-4/complete: can't be read as .* delete this folder"):
        check_intact(checkpoint)
