"""`BFPOConfig`: transformers' `TrainingArguments` with TRL's names for preference training, and BFPO's own."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace
from typing import TYPE_CHECKING

from transformers import TrainingArguments

from bfpo.engine.layout_choice import WantedLayout
from bfpo.objectives.registry import Objective, build_objective, option_types

if TYPE_CHECKING:
    # What editors and type checkers see: the options of the default objective.
    from bfpo.objectives.bfpo import BFPO as _Options  # noqa: N811
else:
    _Options = make_dataclass("ObjectiveOptions", [(name, kind | None, None) for name, kind in option_types().items()])


@dataclass  # pyright: ignore[reportGeneralTypeIssues]  (at run time no base is frozen)
class BFPOConfig(_Options, TrainingArguments):
    """Arguments of `BFPOTrainer`; every field of `transformers.TrainingArguments` is one too.

    How many groups (pairs) go through the model at once is decided by ``micro_batch_tokens``, which never
    changes the result. The options of all objectives are fields: ``beta`` (strength of the pull to the reference) and
    ``reduction`` ("sum" or "mean" of token log-ratios); ``b1``, ``alpha`` (BFPO's labeling function) and
    ``unsafe_pairs`` ("keep", "neutral" or "drop" pairs of two unsafe answers). An option that isn't given, or is None,
    has the objective's own default; giving one that the objective doesn't read is an error.

    Attributes:
        loss_type: name of the objective: "bfpo", "dpo", "ipo" or "sft".
        max_length: tokens of prompt and answer together; what is longer is cut at its end, and counted.
        trainable: "all", or a regular expression of the names of the parameters that train.
        global_batch_size: groups of a step on all processes together, buffer included; None for
            ``per_device_train_batch_size * gradient_accumulation_steps`` on each process.
        buffer_ratio: buffer groups for each main group of a step, if the data has a buffer.
        micro_batch_tokens: tokens that go through the model at once, padding included.
        layout: how a prompt and its answers lie in memory: "shared" (the prompt once), "packed" (once an answer),
            "padded" (a row an answer), or "auto" for the first of them whose numbers equal the padded ones.
        reference_cache: folder of the reference log-probabilities, found again by weights, precision and token
            ids; "default" for ``$BFPO_CACHE/reference`` (``~/.cache/bfpo/reference``), None to score anew every time.
        disable_dropout: whether every dropout of the model is set to zero.
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

    # The published recipe's, where it differs from transformers'.
    learning_rate: float = 5e-7
    lr_scheduler_type: str = "cosine"  # pyright: ignore[reportIncompatibleVariableOverride]
    warmup_steps: float = 0.1
    num_train_epochs: float = 1.0
    # Every tenth step, as TRL does.
    logging_steps: float = 10
    # A hidden NaN is a silent failure.
    logging_nan_inf_filter: bool = False
    # The rows carry columns that no model's forward names.
    remove_unused_columns: bool = field(default=False, init=False)

    def objective(self) -> Objective:
        """The objective with the options that were set.

        Raises:
            BfpoError: if the name is unknown, an option is out of range or not read by the objective.
        """
        given = {name: getattr(self, name) for name in option_types()}
        return build_objective(self.loss_type, {name: value for name, value in given.items() if value is not None})

    def with_whole_steps(self) -> BFPOConfig:
        """The same steps, with a whole step as the Trainer's batch: splitting it is the engine's business."""
        batch_size = self.per_device_train_batch_size * self.gradient_accumulation_steps
        return replace(self, per_device_train_batch_size=batch_size, gradient_accumulation_steps=1)
