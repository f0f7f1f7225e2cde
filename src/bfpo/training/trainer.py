"""`BFPOTrainer`: `transformers.Trainer` whose batch is a step's groups and whose loss is an objective."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.utils import gather_object
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput, rotate_checkpoints

from bfpo.engine.forward import Engine
from bfpo.engine.head import GroupLoss
from bfpo.engine.logps import TokenGroup
from bfpo.engine.memory import explained_out_of_memory
from bfpo.engine.selfcheck import choose_layout
from bfpo.engine.trainable import keep_trained_weights_in_float32, select_trainable
from bfpo.errors import BfpoError
from bfpo.groups import GroupLogps
from bfpo.training.checkpoints import (
    mark_complete,
    newest_complete_checkpoint,
    remove_incomplete_checkpoints,
)
from bfpo.training.config import BFPOConfig
from bfpo.training.data import Blend, TrainingData, prepare, with_reference
from bfpo.training.labels import Row, as_rows, group_labels, row_tokens, token_groups
from bfpo.training.metrics import RunningMeans, pair_metrics
from bfpo.training.referencing import ReferenceCounts, open_cache, reference_of
from bfpo.training.sampling import StepLoader, StepPlan, StepSampler

# Rows on which a layout is tried.
_CHECKED_ROWS = 64


class BFPOTrainer(Trainer):
    """Train a causal language model on preferences with BFPO or any other objective.

    Args:
        model: a model, or a name or folder to load one from.
        args: the configuration.
        train_dataset: rows of `load_preferences` (or in TRL's format), or a `Blend` of sources.
        eval_dataset: rows to evaluate on, against the same reference.
        processing_class: the tokenizer; by default the one saved beside the model.
        peft_config: a PEFT configuration, for example LoRA; the base's weights then stay as they are.
        callbacks: more callbacks for the Trainer.

    Raises:
        BfpoError: if the configuration or the data don't fit the objective.
    """

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: BFPOConfig,
        train_dataset: datasets.Dataset | Blend,
        eval_dataset: datasets.Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.objective = args.objective()
        if args.n_gpu > 1:
            raise BfpoError("several GPUs need one process each: start with 'accelerate launch -m bfpo train ...'")
        if args.fp16 and args.device.type == "cpu":
            # Accelerate would train in float32 and say nothing.
            raise BfpoError("fp16 needs a GPU: leave it out, or set bf16=True, which a CPU can do")
        prepared = _prepare_model(model, args, peft_config)
        tokenizer = processing_class or AutoTokenizer.from_pretrained(prepared.config.name_or_path)
        data = prepare(train_dataset, tokenizer, args.max_length, self.objective)
        evaluation = prepare(eval_dataset, tokenizer, args.max_length, self.objective) if eval_dataset else None
        super().__init__(
            model=prepared,
            args=_whole_steps(args),
            data_collator=_as_rows,
            train_dataset=data.rows,
            eval_dataset=evaluation.rows if evaluation else None,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        base = prepared.get_base_model() if isinstance(prepared, PeftModel) else prepared
        assert isinstance(base, PreTrainedModel)
        first = token_groups(as_rows(data.rows.select(range(min(_CHECKED_ROWS, len(data.rows))))))
        self.layout = choose_layout(base, prepared, first, args.layout, args.micro_batch_tokens)
        self.engine = Engine(base, self.layout.layout, args.micro_batch_tokens, self.layout.attention)
        self.reference = ReferenceCounts()
        self.training_data = self._with_reference(data)
        self.train_dataset = self.training_data.rows
        if evaluation:
            self.eval_dataset = self._with_reference(evaluation).rows
        plan = StepPlan(
            main=data.main,
            buffer=data.buffer,
            batch_size=args.global_batch_size or self.args.per_device_train_batch_size * self.args.world_size,
            buffer_ratio=args.buffer_ratio,
            seed=args.data_seed if args.data_seed is not None else args.seed,
        )
        self.plan = plan.largest_first(row_tokens(data.rows, self.layout.layout), args.micro_batch_tokens)
        self._means = RunningMeans()

    def _with_reference(self, data: TrainingData) -> TrainingData:
        """Score the reference with the weights as they are now, which is before the first update."""
        if not self.objective.needs_reference:
            return data
        assert self.model is not None
        assert isinstance(self.args, BFPOConfig)
        precision = "bf16 autocast" if self.args.bf16 else "fp16 autocast" if self.args.fp16 else "as the weights"
        cache = open_cache(self.args.reference_cache, self.model, precision)
        with explained_out_of_memory("scoring the reference", self.engine.max_tokens):
            sums, answers, counts = reference_of(data.rows, cache, self.engine, self.model, self.accelerator)
        self.reference += counts
        return with_reference(data, sums, answers)

    def get_train_dataloader(self) -> StepLoader:
        """A loader that yields this process's share of one whole step at a time."""
        sampler = StepSampler(self.plan, self.args.process_index, self.args.world_size)
        return StepLoader(self.train_dataset, batch_sampler=sampler, collate_fn=_as_rows)  # pyright: ignore

    def get_eval_dataloader(self, eval_dataset: Any = None) -> StepLoader:
        """A loader over the evaluation rows, in order, by process."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        share = range(self.args.process_index, len(rows), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        batches = [list(share[at : at + size]) for at in range(0, len(share), size)]
        return StepLoader(rows, batch_sampler=batches, collate_fn=_as_rows)  # pyright: ignore

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One step's forward and backward passes, in micro-batches; the step's loss of all processes' groups.

        The loss is the sum over groups (tokens, for SFT) divided by their number in the *global* step, so
        neither micro-batches nor processes change it.
        """
        model.train()
        rows: list[Row] = inputs["rows"]
        groups = token_groups(rows)
        batches = self.engine.split(groups)
        # Data-parallel training averages gradients over processes; this loss is already a share of the whole.
        scale = self.args.world_size / self._normalizer(rows)
        total = torch.zeros((), device=self.args.device)
        logps: dict[int, list[float]] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            part, objective = (
                [groups[index] for index in batch],
                self._objective([rows[index] for index in batch], scale),
            )
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                loss, policy = self._backward(model, part, objective)
            total += loss
            logps |= zip(batch, _by_group(policy, part), strict=True)
        if rows:
            self._means.add(self._metrics(rows, [logps[index] for index in range(len(rows))]))
        else:
            # The other processes wait for this one's share of the gradients, even where a step left it no group.
            self._backward(model, [TokenGroup([0], [[0]])], lambda logps, first, end: 0 * logps.policy)
        return total

    def _backward(self, model: nn.Module, groups: Sequence[TokenGroup], objective: GroupLoss) -> tuple[Tensor, Tensor]:
        """Forward and backward pass of one micro-batch: its loss, and its answers' log-probabilities."""
        with self.engine.attached():
            with self.accelerator.autocast():
                loss, policy = self.engine.loss(model, groups, objective)
            self.accelerator.backward(loss)
        return loss.detach(), policy

    def _objective(self, rows: Sequence[Row], scale: float = 1.0) -> GroupLoss:
        """The objective on some neighbouring groups of a micro-batch, with their labels and reference."""

        def loss(logps: GroupLogps, first: int, end: int) -> Tensor:
            part = rows[first:end]
            if self.objective.needs_reference:
                reference = [value for row in part for value in row["reference"]]
                logps = replace(logps, reference=logps.policy.new_tensor(reference))
            return self.objective(logps, group_labels(part, logps.policy.device)) * scale

        return loss

    def _normalizer(self, rows: Sequence[Row]) -> float:
        """Groups (answer tokens, for SFT) of the global step."""
        count = len(rows)
        if self.objective.normalizer == "tokens":
            count = sum(len(answer) for row in rows for answer in row["answer_ids"])
        local = torch.tensor(float(count), device=self.args.device)
        return self.accelerator.reduce(local, reduction="sum").item()  # pyright: ignore

    def _metrics(self, rows: Sequence[Row], policy: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        if not self.objective.needs_reference:
            return {}
        logps = GroupLogps(
            policy=torch.tensor([value for sums in policy for value in sums], dtype=torch.float64),
            reference=torch.tensor([value for row in rows for value in row["reference"]], dtype=torch.float64),
            tokens=torch.tensor([len(answer) for row in rows for answer in row["answer_ids"]]),
            group=torch.tensor([index for index, row in enumerate(rows) for _ in row["answer_ids"]]),
        )
        return pair_metrics(logps, group_labels(rows), self.objective)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and metrics over the evaluation rows, against the reference scored before training."""
        assert self.model is not None
        model = self._wrap_model(self.model, training=False)
        model.eval()
        means = RunningMeans()
        for inputs in dataloader:
            rows, groups = inputs["rows"], token_groups(inputs["rows"])
            for batch in self.engine.split(groups):
                part = [rows[index] for index in batch]
                with self.accelerator.autocast(), self.engine.attached():
                    logps = self.engine.logps(model, [groups[index] for index in batch])
                loss = self._objective(part)(logps, 0, len(part)).sum().item()
                count = len(part)
                if self.objective.normalizer == "tokens":
                    count = sum(len(answer) for row in part for answer in row["answer_ids"])
                sums = _by_group(logps.policy, [groups[index] for index in batch])
                means.add({"loss": (loss, float(count)), **self._metrics(part, sums)})
        self._gather(means)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.take().items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))  # pyright: ignore

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of the steps since the last training log."""
        if "loss" in logs:
            self._gather(self._means)
            logs |= self._means.take()
        super().log(logs, start_time)

    def _gather(self, means: RunningMeans) -> None:
        if self.args.world_size > 1:
            for process, other in enumerate(gather_object([means])):
                if process != self.args.process_index:
                    means.merge(other)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip as the Trainer does, and count how often it had to."""
        norm = super()._clip_grad_norm(model)
        clipped = norm is not None and norm > self.args.max_grad_norm
        self._means.add({"clipped_steps": (float(clipped), 1.0)})
        return norm

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; ``resume_from_checkpoint=True`` goes on from the newest *complete* checkpoint, if there is one."""
        if resume_from_checkpoint is True:
            folder = Path(str(self.args.output_dir))
            newest = newest_complete_checkpoint(folder)
            if self.is_world_process_zero():
                remove_incomplete_checkpoints(folder)
            self.accelerator.wait_for_everyone()
            resume_from_checkpoint = str(newest) if newest else None
        with explained_out_of_memory("training", self.engine.max_tokens):
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save as the Trainer does, but leave no pickle of the arguments beside the model."""
        super()._save(output_dir, state_dict)
        (Path(output_dir or str(self.args.output_dir)) / TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save as the Trainer does, mark the checkpoint complete, and only then delete older ones."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial))
            mark_complete(folder / f"checkpoint-{self.state.global_step}")
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=False,
            )


def _prepare_model(
    model: PreTrainedModel | str, args: BFPOConfig, peft_config: PeftConfig | None
) -> PreTrainedModel | PeftModel:
    """The model with its adapter, its dropout off, and only the wanted weights training."""
    if isinstance(model, str):
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if args.bf16 else torch.float32)
    assert isinstance(model, PreTrainedModel)
    prepared: PreTrainedModel | PeftModel = model
    if peft_config is not None:
        # The adapter's first weights are random: the same in every process, and in a run that begins again.
        set_seed(args.seed)
        adapted = get_peft_model(model, peft_config)
        assert isinstance(adapted, PeftModel)
        prepared = adapted
    if args.disable_dropout:
        for module in prepared.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    select_trainable(prepared, args.trainable)
    if args.bf16:
        keep_trained_weights_in_float32(prepared)
    return prepared


def _by_group(values: Tensor, groups: Sequence[TokenGroup]) -> list[list[float]]:
    """[N] values of answers, as a list for each group."""
    flat = iter(values.tolist())
    return [[next(flat) for _ in group.answers] for group in groups]


def _as_rows(rows: list[Row]) -> dict[str, list[Row]]:
    return {"rows": rows}


def _whole_steps(args: BFPOConfig) -> BFPOConfig:
    """The same steps, with a whole step as the Trainer's batch: splitting it is the engine's business."""
    return replace(
        args,
        per_device_train_batch_size=args.per_device_train_batch_size * args.gradient_accumulation_steps,
        gradient_accumulation_steps=1,
    )
