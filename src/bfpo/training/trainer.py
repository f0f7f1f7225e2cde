"""`BFPOTrainer`: a `transformers.Trainer` for groups of answers and any objective."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import datasets
import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed
from transformers.trainer_utils import EvalLoopOutput

from bfpo.engine.forward import Engine
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.out_of_memory import explained_out_of_memory
from bfpo.engine.reference_cache import open_cache
from bfpo.engine.trainable import prepare_model
from bfpo.groups import GroupLabels, GroupLogps, LossInputs, TokenGroup
from bfpo.models import load_model, load_tokenizer
from bfpo.training.batches import Batch, as_rows, collate, row_tokens, token_groups
from bfpo.training.checkpoints import CheckpointingTrainer
from bfpo.training.config import BFPOConfig
from bfpo.training.pair_metrics import RunningMeans, pair_metrics
from bfpo.training.step_plan import StepLoader, StepSampler
from bfpo.training.training_data import Blend, ReferenceCounts, TrainingData, prepare, with_reference

# Number of rows from which the layout check takes its sample.
_CHECKED_ROWS = 64


class BFPOTrainer(CheckpointingTrainer):
    """Train a causal language model on preferences with BFPO or any other objective.

    Args:
        model: a model, or the name or folder of one.
        args: the configuration.
        train_dataset: rows from `load_preferences` (or in TRL's format), or a `Blend` of sources.
        eval_dataset: rows for evaluation, with the same reference.
        processing_class: the tokenizer; by default the model's.
        peft_config: a PEFT configuration, for example LoRA, which freezes the base model.
        callbacks: additional callbacks for the Trainer.

    Raises:
        BfpoError: if the configuration or the data doesn't fit the objective.
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
        args.check_devices()
        if isinstance(model, str):
            dtype = torch.bfloat16 if args.bf16 else torch.float32
            model = load_model(model, dtype=dtype, device=torch.device("cpu"))
        if peft_config is not None:
            # The adapter's initial weights are random, but must be the same in every process and after a restart.
            set_seed(args.seed)
        prepared = prepare_model(
            model, args.trainable, peft_config, disable_dropout=args.disable_dropout, bf16=args.bf16
        )
        tokenizer = processing_class or load_tokenizer(str(prepared.config.name_or_path))
        data = prepare(train_dataset, tokenizer, args.max_length, self.objective)
        evaluation = prepare(eval_dataset, tokenizer, args.max_length, self.objective) if eval_dataset else None
        super().__init__(
            model=prepared,
            args=args.with_whole_steps(),
            train_dataset=data.rows,
            eval_dataset=evaluation.rows if evaluation else None,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        first = token_groups(as_rows(data.rows.select(range(min(_CHECKED_ROWS, len(data.rows))))))
        self.layout = choose_layout(model, prepared, first, args.layout, args.micro_batch_tokens)
        self.engine = Engine(model, self.layout.layout, args.micro_batch_tokens, self.layout.attention)
        self.data_collator = partial(collate, split=self.engine.split)
        self.reference = ReferenceCounts()
        self.training_data = self._with_reference(data)
        self.train_dataset = self.training_data.rows
        if evaluation:
            self.eval_dataset = self._with_reference(evaluation).rows
        tokens = row_tokens(data.rows, self.layout.layout)
        self.plan = args.step_plan(data.main, data.buffer).largest_first(tokens, args.micro_batch_tokens)
        self._means = RunningMeans()
        self._unlogged: list[tuple[GroupLogps, GroupLabels]] = []

    def _with_reference(self, data: TrainingData) -> TrainingData:
        """Score the reference with the current weights, i.e. before the first update."""
        if not self.objective.needs_reference:
            return data
        assert isinstance(self.args, BFPOConfig)
        precision = "bf16 autocast" if self.args.bf16 else "fp16 autocast" if self.args.fp16 else "as the weights"
        cache = open_cache(self.args.reference_cache, self.model, precision)
        with explained_out_of_memory("scoring the reference", self.engine.max_tokens):
            data, counts = with_reference(data, cache, self.engine, self.model, self.accelerator)
        self.reference += counts
        return data

    def get_train_dataloader(self) -> StepLoader:
        """A loader that yields this process's share of each step."""
        sampler = StepSampler(self.plan, self.args.process_index, self.args.world_size)
        return StepLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)  # pyright: ignore

    def get_eval_dataloader(self, eval_dataset: Any = None) -> StepLoader:
        """A loader over this process's share of the evaluation rows, in order."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        share = range(self.args.process_index, len(rows), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        batches = [list(share[at : at + size]) for at in range(0, len(share), size)]
        return StepLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)  # pyright: ignore

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Train; ``resume_from_checkpoint=True`` resumes from the newest *complete* checkpoint, if there is one."""
        with explained_out_of_memory("training", self.engine.max_tokens):
            return super().train(resume_from_checkpoint, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One step's forward and backward passes, in micro-batches.

        The loss is the sum over groups (tokens, for SFT) divided by their number in the *global* step, so
        it depends neither on micro-batches nor on the number of processes.
        """
        model.train()
        batches: list[Batch] = inputs["batches"]
        count = torch.tensor(self._count(batches), device=self.args.device)
        # Data-parallel training averages gradients over processes, but this loss is already normalized globally.
        scale = self.args.world_size / self.accelerator.reduce(count, reduction="sum").item()  # pyright: ignore
        total = torch.zeros((), device=self.args.device)
        for batch in batches:
            with contextlib.nullcontext() if batch is batches[-1] else self.accelerator.no_sync(model):
                total += self._backward(model, batch, scale)
        if not batches:
            # The other processes wait for this one's gradients even if the step gave it no group.
            self._backward(model, None, 0.0)
        return total

    def _backward(self, model: nn.Module, batch: Batch | None, scale: float) -> Tensor:
        """Loss of one micro-batch (or of a dummy token), after its forward and backward pass."""
        with self.engine.attached():
            with self.accelerator.autocast():
                if batch is None:
                    loss = scale * self.engine.logps(model, [TokenGroup([0], [[0]])]).policy.sum()
                else:
                    inputs = LossInputs(self.objective, batch.labels, batch.reference, scale)
                    loss, logps = self.engine.loss(model, batch.groups, inputs)
                    if self.args.logging_strategy != "no":
                        self._unlogged.append((logps, batch.labels))
            self.accelerator.backward(loss)
        return loss.detach()

    def _count(self, batches: Sequence[Batch]) -> float:
        """Divisor of the summed loss: number of groups, or of answer tokens for SFT."""
        groups = [group for batch in batches for group in batch.groups]
        if self.objective.normalizer == "groups":
            return float(len(groups))
        return float(sum(len(answer) for group in groups for answer in group.answers))

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and metrics over the evaluation rows, with the reference scored before training."""
        assert self.model is not None
        model = self._wrap_model(self.model, training=False)
        model.eval()
        means = RunningMeans()
        for batch in (batch for inputs in dataloader for batch in inputs["batches"]):
            with self.accelerator.autocast(), self.engine.attached():
                inputs = LossInputs(self.objective, batch.labels, batch.reference)
                loss, logps = self.engine.loss(model, batch.groups, inputs)
            means.add({"loss": (loss.item(), self._count([batch]))})
            means.add(pair_metrics(logps, batch.labels, self.objective))
        means.gather()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.take().items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))  # pyright: ignore

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of the steps since the last training log."""
        if "loss" in logs:
            for logps, labels in self._unlogged:
                self._means.add(pair_metrics(logps, labels, self.objective))
            self._unlogged.clear()
            self._means.gather()
            logs |= self._means.take()
        super().log(logs, start_time)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip as the Trainer does, and count the clipped steps."""
        norm = super()._clip_grad_norm(model)
        clipped = norm is not None and norm > self.args.max_grad_norm
        self._means.add({"clipped_steps": (float(clipped), 1.0)})
        return norm
