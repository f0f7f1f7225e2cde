"""`BFPOConfig`: `transformers.TrainingArguments` plus TRL's names for preference training and BFPO's options."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace
from typing import TYPE_CHECKING

from transformers import TrainingArguments

from bfpo.engine.layout_choice import WantedLayout
from bfpo.errors import BfpoError
from bfpo.objectives.registry import Objective, build_objective, option_types
from bfpo.training.step_plan import StepPlan

if TYPE_CHECKING:
    # Editors and type checkers see the options of the default objective.
    from bfpo.objectives.bfpo import BFPO as _Options  # noqa: N811
else:
    _Options = make_dataclass("ObjectiveOptions", [(name, kind | None, None) for name, kind in option_types().items()])


@dataclass  # pyright: ignore[reportGeneralTypeIssues]  (at run time no base is frozen)
class BFPOConfig(_Options, TrainingArguments):
    """Arguments of `BFPOTrainer`, including all of `transformers.TrainingArguments`.

    The options of all objectives are fields: ``beta`` (strength of the regularization toward the reference),
    ``reduction`` ("sum" or "mean" of token log-ratios), ``b1`` and ``alpha`` (BFPO's labeling function), and
    ``unsafe_pairs`` ("keep", "neutral" or "drop" pairs of two unsafe answers). None means the objective's default;
    setting an option that the objective doesn't read is an error.

    Attributes:
        loss_type: name of the objective: "bfpo", "dpo", "ipo" or "sft".
        max_length: largest number of tokens in prompt and answer; longer ones are truncated at the end and counted.
        trainable: "all", or a regular expression for the names of trainable parameters.
        global_batch_size: groups in a step over all processes, buffer included; None for
            ``per_device_train_batch_size * gradient_accumulation_steps`` on each process.
        buffer_ratio: buffer groups for each main group of a step, if the data has a buffer.
        micro_batch_tokens: largest number of tokens in the model at once, padding included; doesn't change the result.
        layout: layout of a prompt and its answers: "shared" (the prompt once), "packed" (the prompt once per answer),
            "padded" (one row per answer), or "auto" for the first of these whose numbers equal the padded ones.
        reference_cache: folder of cached reference log-probabilities, addressed by weights, precision and token ids;
            "default" for ``$BFPO_CACHE/reference`` (``~/.cache/bfpo/reference``), None to score them in every run.
        disable_dropout: whether to set every dropout to zero.
    """

    loss_type: str = "bfpo"
    max_length: int = 1024
    trainable: str = "all"
    global_batch_size: int | None = None
    buffer_ratio: float = 1.0
    micro_batch_tokens: int = 16_384
    layout: WantedLayout = "auto"
    reference_cache: str | None = "default"
    disable_dropout: bool = True

    # The published recipe, where it differs from transformers' defaults.
    learning_rate: float = 5e-7
    lr_scheduler_type: str = "cosine"  # pyright: ignore[reportIncompatibleVariableOverride]
    warmup_steps: float = 0.1
    num_train_epochs: float = 1.0
    # Every tenth step, as TRL does.
    logging_steps: float = 10
    # NaN losses must not be hidden.
    logging_nan_inf_filter: bool = False
    # The rows have columns that are not arguments of the model's forward.
    remove_unused_columns: bool = field(default=False, init=False)

    def objective(self) -> Objective:
        """The objective with the options that were set; see `build_objective` for errors."""
        given = {name: getattr(self, name) for name in option_types()}
        return build_objective(self.loss_type, {name: value for name, value in given.items() if value is not None})

    def check_devices(self) -> None:
        """Refuse devices that training would use wrongly without an error.

        Raises:
            BfpoError: if a process has several GPUs, or fp16 has none.
        """
        if self.n_gpu > 1:
            raise BfpoError("several GPUs need one process each: start with 'accelerate launch -m bfpo train ...'")
        if self.fp16 and self.device.type == "cpu":
            # Accelerate would silently train in float32.
            raise BfpoError("fp16 needs a GPU: leave it out, or set bf16=True, which a CPU supports")

    def step_plan(self, main: int, buffer: int) -> StepPlan:
        """The plan of steps over so many main rows and buffer rows."""
        process = self.per_device_train_batch_size * self.gradient_accumulation_steps
        return StepPlan(
            main=main,
            buffer=buffer,
            batch_size=self.global_batch_size or process * self.world_size,
            buffer_ratio=self.buffer_ratio,
            seed=self.seed if self.data_seed is None else self.data_seed,
        )

    def with_whole_steps(self) -> BFPOConfig:
        """The same steps, with a whole step as the Trainer's batch, which the engine splits."""
        batch_size = self.per_device_train_batch_size * self.gradient_accumulation_steps
        return replace(self, per_device_train_batch_size=batch_size, gradient_accumulation_steps=1)
