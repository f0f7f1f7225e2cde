"""The run that an output folder already contains: whether it is finished, and whether a recipe can resume it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bfpo.errors import BfpoError
from bfpo.training.checkpoints import check_own, newest_complete_checkpoint
from bfpo.training.recipe import LoraRecipe, SourceRecipe
from bfpo.training.run_record import read_record

# Settings that may change on resuming, because they don't change the result.
FREE = {
    "output_dir", "micro_batch_tokens", "gradient_checkpointing", "reference_cache", "logging_steps", "save_steps",
    "save_total_limit", "report_to", "evaluation_prompts", "allow_overlap",
    "expected",
}  # fmt: skip
# Settings that extend a run.
_LENGTH = {"max_steps", "num_train_epochs"}


@dataclass(frozen=True)
class EarlierRun:
    """A run to resume.

    Attributes:
        record: its ``run.json``.
        checkpoint: its newest complete checkpoint, if any.
        changed: settings that the recipe changes, as [earlier, new] by key.
    """

    record: dict[str, Any]
    checkpoint: Path | None
    changed: dict[str, list[Any]]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.record["finished"]) and not _LENGTH & self.changed.keys()


def earlier_run(
    folder: Path, config: Mapping[str, Mapping[str, Any]], processes: Mapping[str, Any], resume: bool
) -> EarlierRun | None:
    """The run in a folder, which a recipe resumes; None if there is none, or it took no step.

    Args:
        folder: the output folder.
        config: the recipe's values and their origins by key.
        processes: number and sharding of the processes.
        resume: whether the user asked to resume.

    Raises:
        BfpoError: if the folder holds a run that can't be resumed with this recipe.
    """
    record, checkpoint = read_record(folder), newest_complete_checkpoint(folder)
    if not resume and (record or checkpoint):
        raise BfpoError(f"{folder}: contains another run; continue it with --resume, or choose another output_dir")
    check_own(folder)
    if record is None:
        if checkpoint:
            raise BfpoError(
                f"{folder}: has {checkpoint.name} and no run.json, which says what was trained; restore it, or choose "
                "another output_dir"
            )
        _check_free(folder)
        return None
    before = {key: _as_now(key, entry["value"]) for key, entry in record["config"].items()}
    changed = {
        key: [before.get(key), entry["value"]]
        for key, entry in config.items()
        # A setting that an older version didn't know had its default then.
        if (before[key] != entry["value"] if key in before else entry["origin"] != "default")
    }
    free = FREE - {"save_steps"} if before.get("keep_best") else FREE
    lora = before.get("lora")
    if isinstance(lora, dict) and lora.get("lora_dropout"):
        # Dropout's random numbers are drawn by micro-batch.
        free = free - {"micro_batch_tokens"}
    refused = [f"{key} was {then!r}, now {now!r}" for key, (then, now) in changed.items() if key not in free | _LENGTH]
    if refused:
        raise BfpoError(
            f"{folder}: the run to resume was started with other settings: {', '.join(refused)}; set them back, or "
            "choose another output_dir"
        )
    _check_processes(folder, record.get("processes"), processes)
    if record["finished"] and _LENGTH & changed.keys() and checkpoint is None:
        raise BfpoError(f"{folder}: the run is finished and has no checkpoint to extend; choose another output_dir")
    return EarlierRun(record, checkpoint, changed)


_NESTED: dict[str, type[BaseModel]] = {"data": SourceRecipe, "eval_data": SourceRecipe, "lora": LoraRecipe}


def _as_now(key: str, value: Any) -> Any:
    """A stored setting, in which parts that an older version didn't know have their defaults."""
    if key not in _NESTED or value is None:
        return value
    known = {name: each.default for name, each in _NESTED[key].model_fields.items() if not each.is_required()}
    return [known | one for one in value] if isinstance(value, list) else known | value


# What a run writes when it ends, beside run.json.
_WRITTEN = (
    "config.json", "adapter_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors", "README.md",
)  # fmt: skip


def _check_free(folder: Path) -> None:
    """Refuse a folder that isn't a run's, and has a model or a README that a run would write over."""
    taken = next((name for name in _WRITTEN if (folder / name).exists()), None)
    if taken:
        raise BfpoError(
            f"{folder}: has {taken}, which training would write over, and no run.json of an earlier run; choose "
            "another output_dir"
        )


def _check_processes(folder: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Refuse checkpoints in the form of another engine, and DeepSpeed's of another number of processes."""
    # Older runs didn't record their processes, and none was sharded.
    then = before["sharding"] if before else "none"
    if then != now["sharding"]:
        raise BfpoError(
            f"{folder}: the run to resume was started with sharding {then}, and this one with {now['sharding']}, which "
            "has other checkpoints; start it as before, or choose another output_dir"
        )
    if before and then in ("ZeRO-2", "ZeRO-3") and before["number"] != now["number"]:
        raise BfpoError(
            f"{folder}: the run to resume was started with {before['number']} processes, and only as many can read "
            f"DeepSpeed's checkpoints, not {now['number']}; start it as before, or choose another output_dir"
        )


def check_same_inputs(earlier: EarlierRun, record: Mapping[str, Any]) -> None:
    """Refuse to resume with other data, tokens, labels or weights than the run was started with.

    Raises:
        BfpoError: if they differ; the message names the first that does.
    """
    for then, now in zip(_sources(earlier.record), _sources(record), strict=True):
        if then.get("digest") != now.get("digest"):
            raise BfpoError(
                f"{now['source']}: its rows have changed since the run to resume was started; restore them, or choose "
                "another output_dir"
            )
    before, model = earlier.record["model"], record["model"]
    labeling: Mapping[str, Any] = record.get("labeling", {})
    compared = [
        (model["name"], "model", before.get("digest"), model["digest"]),
        # Older runs didn't record it.
        (
            model["name"], "tokenizer or its chat template",
            before.get("tokenizer_digest", model["tokenizer_digest"]), model["tokenizer_digest"],
        ),
        # In the JSON of a record, tuples are lists.
        (labeling.get("file"), "labeling", earlier.record.get("labeling", {}), json.loads(json.dumps(labeling))),
    ]  # fmt: skip
    for name, what, then, now in compared:
        if then != now:
            raise BfpoError(
                f"{name}: the {what} has changed since the run to resume was started; restore it, or choose another "
                "output_dir"
            )


def check_length(earlier: EarlierRun, steps: int) -> None:
    """Refuse to resume a run of more steps than the recipe wants.

    Raises:
        BfpoError: if the earlier run was longer.
    """
    config, mix = earlier.record["config"], earlier.record["mix"]
    wanted = config["max_steps"]["value"]
    before = wanted if wanted > 0 else math.ceil(mix["steps_per_epoch"] * config["num_train_epochs"]["value"])
    if steps < before:
        raise BfpoError(
            f"the run to resume has {before:,} steps, which can be extended but not shortened to {steps:,}; set its "
            "length back, or choose another output_dir"
        )


def _sources(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*record["data"], *filter(None, [record.get("eval_data")])]
