"""The part of `BFPOTrainer` that evaluates, and that logs the metrics of steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from bfpo.engine.forward import Engine
from bfpo.errors import BfpoError, RunError
from bfpo.groups import GroupLabels, GroupLogps, LossInputs
from bfpo.objectives.registry import Objective
from bfpo.training.batches import Batch
from bfpo.training.checkpoints import CheckpointingTrainer, newest_complete_checkpoint
from bfpo.training.finite import not_finite
from bfpo.training.mismatched import MISMATCHED_COLUMNS, Mismatched, mean_log_ratio, mismatched_of
from bfpo.training.pair_metrics import RunningMeans, pair_metrics
from bfpo.training.sharded import empty_pass, in_step
from bfpo.training.step_plan import StepLoader

# Methods of the Trainer that subclasses often override, and that neither training nor evaluation calls here.
_UNCALLED = ("compute_loss", "prediction_step")


class EvaluatingTrainer(CheckpointingTrainer):
    """A Trainer that runs evaluation rows through the engine.

    Attributes:
        engine: the engine.
        objective: the objective in training.
        means: metrics since the last log.
        step_rows: numbers of the rows in the current step of this process.
        unlogged: log-probabilities and labels of the micro-batches whose metrics are not yet in ``means``.
    """

    engine: Engine
    objective: Objective

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass with a loss that nothing would call.

        Raises:
            BfpoError: if there is one.
        """
        super().__init_subclass__(**options)
        for name in _UNCALLED:
            if getattr(cls, name) is not getattr(Trainer, name):
                raise BfpoError(
                    f"{cls.__name__} overrides {name}, which BFPOTrainer never calls: write the loss as an Objective, "
                    "and return it from the method 'objective' of a subclass of BFPOConfig"
                )

    def __init__(self, **options: Any) -> None:
        self.means = RunningMeans()
        self.step_rows: list[int] = []
        self.unlogged: list[tuple[GroupLogps, GroupLabels]] = []
        super().__init__(**options)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> StepLoader:
        """A loader over this process's share of the evaluation rows, in order.

        Raises:
            BfpoError: if the rows were not given to the trainer, so that they have no reference.
        """
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(rows, str):
            rows = self.eval_dataset[rows]  # pyright: ignore
        if rows is None or "answer_ids" not in rows.column_names:
            raise BfpoError(
                "evaluate only rows that were given to the trainer as eval_dataset (several sets as a dict): their "
                "reference is scored before training"
            )
        share = range(self.args.process_index, len(rows), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        batches = [list(share[at : at + size]) for at in range(0, len(share), size)]
        return StepLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)  # pyright: ignore

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a preference has no prediction."""
        raise BfpoError("BFPOTrainer has no predictions: call evaluate for losses, or model.generate for answers")

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
        # DeepSpeed gathers weights only for passes through its wrapper.
        model = self.deepspeed or self._wrap_model(self.model, training=False)
        model.eval()
        self.step_rows = []
        means = RunningMeans()
        loss_of = self.objective
        if self.objective.estimates_kl:
            rows = dataloader.dataset.select_columns(list(MISMATCHED_COLUMNS))
            parts = StepLoader(rows, batch_sampler=dataloader.batch_sampler, collate_fn=mismatched_of)
            loss_of = self.with_kl(parts, means)

        self.callback_handler.eval_dataloader = dataloader
        for share in in_step(self.accelerator, dataloader, always=True):
            batches: list[Batch] = share["batches"] if share else []
            means.add({"loss": (0.0, share["count"] if share else 0)})
            for batch in in_step(self.accelerator, batches):
                means.add(self._evaluated(model, batch, loss_of))
            # All processes are here at the same time, so that they can stop together.
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        means.gather()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.take().items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))  # pyright: ignore

    def _evaluated(self, model: nn.Module, batch: Batch | None, loss_of: Any) -> dict[str, tuple[float, float]]:
        """A micro-batch's loss and metrics; those of None, where a process waits for others, are none."""
        with self.accelerator.autocast(), self.engine.attached():
            if batch is None:
                empty_pass(self.engine, model)
                return {}
            loss, logps = self.engine.loss(model, batch.groups, LossInputs(loss_of, batch.labels, batch.reference))
        return {"loss": (loss.item(), 0.0)} | pair_metrics(logps, batch.labels, self.objective)

    def with_kl(
        self, parts: Iterable[Mismatched | None], means: RunningMeans
    ) -> Callable[[GroupLogps, GroupLabels], Tensor]:
        """The objective with the KL divergence that these answers to other prompts give, which joins the metrics."""
        mean = mean_log_ratio(self.engine, self.deepspeed or self.model, parts, self.accelerator)
        if not math.isfinite(mean):
            raise self.not_finite(f"the mean log-ratio of answers to other prompts is {mean}")
        kl = max(0.0, mean)
        means.add({"kl": (kl, 1.0)})
        return partial(self.objective, kl=kl)  # pyright: ignore[reportCallIssue]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm, before the update: count the clipped steps, and stop at a norm that isn't finite."""
        norm: Any = super()._get_grad_norm(model, grad_norm)
        # FSDP leaves its parts in the processes.
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # With fp16, the scaler skips such steps.
        if self.accelerator.scaler is None and not math.isfinite(norm):
            raise self.not_finite(f"the gradient's norm is {float(norm)}")
        clipped = grad_norm is not None and norm > self.args.max_grad_norm
        self.means.add({"clipped_steps": (float(clipped), 1.0)})
        return norm

    def not_finite(self, what: str) -> RunError:
        """The error for what isn't finite in the current step, or in an evaluation."""
        newest = newest_complete_checkpoint(Path(str(self.args.output_dir)))
        return not_finite(what, self.state.global_step + 1, self.step_rows, newest)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of the steps since the last training log."""
        if "loss" in logs:
            for logps, labels in self.unlogged:
                self.means.add(pair_metrics(logps, labels, self.objective))
            self.unlogged.clear()
            self.means.gather()
            logs |= self.means.take()
        super().log(logs, start_time)


def one_or_several(sets: dict[str, Any]) -> Any:
    """Evaluation sets as the Trainer takes them: None, the only one, or a dictionary."""
    return sets.get("", sets or None)
