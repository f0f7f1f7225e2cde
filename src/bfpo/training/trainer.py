"""`BFPOTrainer`: a `transformers.Trainer` for groups of answers and any objective."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import datasets
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from bfpo.engine.forward import Engine
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.out_of_memory import explained_out_of_memory
from bfpo.engine.reference_cache import model_digest, open_cache
from bfpo.engine.trainable import prepare_model
from bfpo.groups import LossInputs
from bfpo.models import load_model, load_tokenizer
from bfpo.training.batches import Batch, collate, first_and_longest, row_sizes
from bfpo.training.config import BFPOConfig, checked_objective
from bfpo.training.evaluating import EvaluatingTrainer, one_or_several
from bfpo.training.sharded import empty_pass, hold_whole, is_sharded
from bfpo.training.step_plan import StepLoader, StepSampler, whole_steps
from bfpo.training.training_data import Blend, KnownTokens, ReferenceCounts, TrainingData, prepare, with_reference


class BFPOTrainer(EvaluatingTrainer):
    """Train a causal language model on preferences with BFPO or any other objective.

    Args:
        model: a model, a `PeftModel` whose adapter trains, or the name or folder of a model.
        args: the configuration.
        train_dataset: rows from `load_preferences` (or in TRL's format), or a `Blend` of sources.
        eval_dataset: rows for evaluation (or a `Blend`), with the same reference; or several sets of them by name.
        processing_class: the tokenizer; by default the model's.
        peft_config: a PEFT configuration, for example LoRA, which freezes the base model.
        callbacks: additional callbacks for the Trainer.
        reference_progress: function called with the numbers of answers scored and to score, during that pass.

    Raises:
        BfpoError: if the configuration or the data doesn't fit the objective.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel | str,
        args: BFPOConfig,
        train_dataset: datasets.Dataset | Blend,
        eval_dataset: datasets.Dataset | Blend | Mapping[str, datasets.Dataset | Blend] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        reference_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.objective = checked_objective(args)
        self._reference_progress = reference_progress
        if isinstance(model, str):
            dtype = torch.bfloat16 if args.bf16 else torch.float32
            model = load_model(model, dtype=dtype, device=torch.device("cpu"))
        if peft_config is not None:
            # The adapter's initial weights are random, but must be the same in every process and after a restart.
            set_seed(args.seed)
        prepared = prepare_model(
            model, args.trainable, peft_config, disable_dropout=args.disable_dropout, mixed=args.bf16 or args.fp16
        )
        base: Any = prepared.get_base_model() if isinstance(prepared, PeftModel) else prepared
        tokenizer = processing_class or load_tokenizer(str(prepared.config.name_or_path))
        known = KnownTokens.of(prepared, tokenizer)
        data = prepare(train_dataset, tokenizer, args.max_length, self.objective, known)
        # One set is evaluated under the name "", several under their names.
        sets: Any = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
        evaluation = {
            name: prepare(rows, tokenizer, args.max_length, self.objective, known, name or "eval_dataset")
            for name, rows in sets.items()
            if rows is not None
        }
        super().__init__(
            model=prepared,
            args=args.with_whole_steps(),
            train_dataset=data.rows,
            eval_dataset=one_or_several({name: one.rows for name, one in evaluation.items()}),
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        if is_sharded(self.accelerator):
            hold_whole(self.accelerator, prepared, bf16=args.bf16)
        tokens, widths = row_sizes(data.rows)
        first, longest = first_and_longest(data.rows, widths)
        autocast: Any = self.accelerator.autocast
        with explained_out_of_memory("comparing layouts", args.tokens_at_once):
            self.layout = choose_layout(base, prepared, first, args.layout, args.tokens_at_once, autocast, longest)
        self.engine = Engine(base, self.layout.layout, args.tokens_at_once, self.layout.attention)
        self.data_collator = partial(collate, split=self.engine.split, normalizer=self.objective.normalizer)
        self.reference = ReferenceCounts()
        self.training_data = self._with_reference(data)
        self.train_dataset = self.training_data.rows
        self.eval_dataset = one_or_several({name: self._with_reference(one).rows for name, one in evaluation.items()})
        self.plan = args.step_plan(data.main, data.buffer).largest_first(tokens)

    @property
    def precision(self) -> str:
        """Precision of the model's computation, in words."""
        if not self.accelerator.native_amp:
            return "as the weights"
        return "bf16 autocast" if self.args.bf16 else "fp16 autocast"

    @cached_property
    def starting_digest(self) -> str:
        """Digest of the model before its first update."""
        return model_digest(self.model, self.precision)  # pyright: ignore[reportArgumentType]

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run."""
        return whole_steps(self.args.max_steps, self.args.num_train_epochs, self.plan)

    def _with_reference(self, data: TrainingData) -> TrainingData:
        """Score the reference with the current weights, i.e. before the first update."""
        if not self.objective.needs_reference:
            return data
        assert isinstance(self.args, BFPOConfig)
        # Without a cache on disk nothing reads the digest, which is of all weights.
        digest = self.starting_digest if self.args.reference_cache else ""
        cache = open_cache(self.args.reference_cache, self.model, self.precision, digest)
        with explained_out_of_memory("scoring the reference", self.engine.max_tokens):
            data, counts = with_reference(
                data, cache, self.engine, self.model, self.accelerator, self._reference_progress
            )
        self.reference += counts
        return data

    def get_train_dataloader(self) -> StepLoader:
        """A loader that yields this process's share of each step."""
        sampler = StepSampler(self.plan, self.args.process_index, self.args.world_size)
        return StepLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)  # pyright: ignore

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
        self.step_rows = [row for batch in batches for row in batch.rows]
        own = torch.tensor([inputs["count"], len(batches)], device=self.args.device)
        counts, numbers = self.accelerator.gather(own).view(-1, 2).T.tolist()  # pyright: ignore
        # Engines average gradients over processes, but this loss is already normalized globally.
        scale = self.args.world_size / sum(counts)
        total = torch.zeros((), device=self.args.device)
        loss_of = self.with_kl([inputs["mismatched"]], self.means) if self.objective.estimates_kl else self.objective
        # As many passes as the process with the most: they wait for each other in every pass if weights are divided.
        passes = [*batches, *[None] * (int(max(numbers)) - len(batches))]
        for number, batch in enumerate(passes, start=1):
            is_last = number == len(passes)
            # DeepSpeed updates the weights in the backward pass of the last. FSDP would keep whole gradients until it.
            self.accelerator.gradient_state._set_sync_gradients(is_last)  # pyright: ignore
            waits = is_last or self.accelerator.is_fsdp2
            with contextlib.nullcontext() if waits else self.accelerator.no_sync(model):
                total += self._backward(model, batch, scale, loss_of)
        if not math.isfinite(total.item()):
            raise self.not_finite(f"the loss is {total.item()}")
        return total

    def _backward(self, model: nn.Module, batch: Batch | None, scale: float, loss_of: Any) -> Tensor:
        """Loss of one micro-batch, 0 for an empty one, after its forward and backward pass."""
        with self.engine.attached():
            with self.accelerator.autocast():
                if batch is None:
                    loss = 0.0 * empty_pass(self.engine, model)
                else:
                    inputs = LossInputs(loss_of, batch.labels, batch.reference, scale)
                    loss, logps = self.engine.loss(model, batch.groups, inputs)
                    if self.args.logging_strategy != "no":
                        self.unlogged.append((logps, batch.labels))
            self.accelerator.backward(loss)
        return loss.detach()
