"""`BFPOConfig`: `transformers.TrainingArguments` plus TRL's names for preference training and BFPO's options."""

from __future__ import annotations

import copy
from dataclasses import MISSING, asdict, dataclass, fields, make_dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from transformers import SchedulerType, Trainer, TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.training_args import OptimizerNames

from bfpo.config import validated
from bfpo.engine.layout_choice import WantedLayout
from bfpo.errors import BfpoError, did_you_mean
from bfpo.objectives.registry import Objective, build_objective, option_types
from bfpo.training.engines import check_engine, set_up_engine
from bfpo.training.step_plan import StepPlan, some_steps

# Arguments of transformers' Trainer that `BFPOTrainer` doesn't read.
_UNREAD = (
    "label_smoothing_factor", "neftune_noise_alpha", "dataloader_num_workers", "dataloader_drop_last",
    "dataloader_persistent_workers", "dataloader_prefetch_factor", "train_sampling_strategy", "auto_find_batch_size",
    "use_liger_kernel", "bf16_full_eval", "fp16_full_eval", "torch_empty_cache_steps",
    "prediction_loss_only", "eval_accumulation_steps", "label_names", "batch_eval_metrics",
    "eval_use_gather_object", "eval_do_concat_batches", "length_column_name", "dataloader_in_order",
    "dataloader_multiprocessing_context", "liger_kernel_config", "push_to_hub", "include_for_metrics",
    "include_num_input_tokens_seen",
)  # fmt: skip

# The part of ``accelerator_config`` that transformers reads when it starts accelerate; all the rest is about data
# loaders and accumulated gradients, which are the engine's.
_READ_OF_ACCELERATOR = {"use_configured_state"}

# Numbers that must be greater than 0; all others but the objectives' options must be at least 0.
_POSITIVE = (
    "max_length", "global_batch_size", "buffer_ratio", "micro_batch_tokens", "per_device_train_batch_size",
    "per_device_eval_batch_size", "gradient_accumulation_steps", "num_train_epochs", "learning_rate",
)  # fmt: skip
# Default of micro_batch_tokens. More than this is no faster on a CPU (docs/engine.md).
_TOKENS_ON_CPU, _TOKENS_ON_ACCELERATOR = 1_536, 16_384

_BOUNDS: dict[str, Any] = {
    **dict.fromkeys(_POSITIVE, Field(gt=0)),
    **dict.fromkeys(option_types(), Field()),  # which the objective checks
    "max_steps": AfterValidator(some_steps),
    "local_rank": Field(ge=-1),
    "seed": Field(ge=0, le=2**32 - 1),
}

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
    ``unsafe_pairs`` ("keep", "neutral" or "drop" pairs of two unsafe answers), ``level`` (the anchor of the mean
    log-ratio), and those of the other objectives. None means the objective's default; setting an option that the
    objective doesn't read is an error.

    Attributes:
        loss_type: name of the objective: "bfpo", "dpo", "rdpo", "ipo", "simpo", "orpo", "kto", "safedpo", "bso",
            "modpo" or "sft".
        max_length: largest number of tokens in prompt and answer; longer ones are truncated at the end and counted.
        trainable: "all", or a regular expression for the names of trainable parameters.
        global_batch_size: groups in a step over all processes, buffer included; None for
            ``per_device_train_batch_size * gradient_accumulation_steps`` on each process.
        buffer_ratio: buffer groups for each main group of a step, if the data has a buffer.
        micro_batch_tokens: largest number of tokens in the model at once, padding included; doesn't change the result.
            None for 1,536 on a CPU, where more only takes memory, and 16,384 on other devices.
        layout: layout of a prompt and its answers: "shared" (the prompt once), "packed" (the prompt once per answer),
            "padded" (one row per answer), or "auto" for the first of these whose numbers equal the padded ones.
        reference_cache: folder of cached reference log-probabilities, addressed by weights, precision and token ids;
            "default" for ``$BFPO_CACHE/reference`` (``~/.cache/bfpo/reference``), None to score them in every run.
        disable_dropout: whether to set the model's dropout to zero; an adapter keeps its own (``lora_dropout``).

    Raises:
        BfpoError: if a number is of another type, not finite or out of bounds, or transformers refuses an argument.
    """

    loss_type: str = "bfpo"
    max_length: int = 1024
    trainable: str = "all"
    global_batch_size: int | None = None
    buffer_ratio: float = 1.0
    micro_batch_tokens: int | None = None
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
    remove_unused_columns: bool = False

    def __post_init__(self) -> None:
        numbers = _numbers()
        values = {name: getattr(self, name) for name in numbers.model_fields}
        validated(numbers, {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}, "BFPOConfig")
        # Before transformers' own checks, which import the engines and change the environment.
        check_engine(self)
        wanted = self.report_to
        try:
            super().__post_init__()
        except ValueError as error:
            raise BfpoError(f"{' '.join(str(error).split())}: correct the arguments of training") from error
        set_up_engine()
        if "kubeflow" not in (wanted or ()):
            # Transformers adds this tracker by itself where a Kubeflow job runs.
            self.report_to = [name for name in self.report_to or () if name != "kubeflow"]

    @property
    def tokens_at_once(self) -> int:
        """Largest number of tokens in the model at once: ``micro_batch_tokens``, or the device's default."""
        return self.micro_batch_tokens or (_TOKENS_ON_CPU if self.device.type == "cpu" else _TOKENS_ON_ACCELERATOR)

    def objective(self) -> Objective:
        """The objective with the options that were set; see `build_objective` for errors.

        A subclass may return an `Objective` of its own.
        """
        given = {name: getattr(self, name) for name in option_types()}
        return build_objective(self.loss_type, {name: value for name, value in given.items() if value is not None})

    def check(self) -> None:
        """Refuse what training would ignore or do wrongly without an error, and what would fail only later.

        Raises:
            BfpoError: if a process has several GPUs, fp16 has none, an argument isn't read, or the optimizer,
                scheduler or tracker can't be made.
        """
        defaults = {
            each.name: each.default if each.default_factory is MISSING else each.default_factory()
            for each in fields(TrainingArguments)
        }
        unread = [name for name in _UNREAD if getattr(self, name) != defaults[name]]
        own, others = asdict(self.accelerator_config), asdict(AcceleratorConfig())  # pyright: ignore
        changed = {name for name in own if own[name] != others[name]} - _READ_OF_ACCELERATOR
        unread += sorted(f"accelerator_config.{name}" for name in changed)
        if unread:
            raise BfpoError(f"BFPOTrainer doesn't read {', '.join(unread)}: leave the default")
        if self.remove_unused_columns:
            raise BfpoError(
                "remove_unused_columns would remove the answers, which are in columns of their own: leave it out"
            )
        if self.save_only_model:
            raise BfpoError("save_only_model leaves the optimizer out, without which no run resumes: leave it out")
        if (optimizer := OptimizerNames(self.optim).value).startswith("schedule_free"):
            raise BfpoError(f"optim {optimizer} isn't supported: choose one with a learning-rate schedule")
        if self.torch_compile:
            raise BfpoError(
                "torch_compile would compile the model again for almost every micro-batch, because no two have the "
                "same shape: leave it out"
            )
        _check_made(self)
        if self.n_gpu > 1:
            raise BfpoError("several GPUs need one process each: start with 'accelerate launch -m bfpo train ...'")
        if self.fp16 and self.device.type == "cpu":
            # Accelerate would silently train in float32.
            raise BfpoError("fp16 needs a GPU: leave it out, or set bf16=True, which a CPU supports")

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """As transformers', but a share of all steps leaves at least one: a warmup starts at a learning rate of 0."""
        steps = super().get_warmup_steps(num_training_steps)
        return min(steps, num_training_steps - 1) if self.warmup_steps < 1 else steps

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


@cache
def _numbers() -> type[BaseModel]:
    """The arguments that are numbers, and BFPO's that are text or flags, as a model that refuses anything else."""
    hints = get_type_hints(BFPOConfig)
    kinds = {each.name: hints[each.name] for each in fields(BFPOConfig) if each.init}
    checked: dict[str, Any] = {
        name: (Annotated[kind, _BOUNDS.get(name, Field(ge=0))], ...)
        for name, kind in kinds.items()
        if {int, float} & {kind, *get_args(kind)}
    }
    checked |= {name: (kinds[name], ...) for name in ("loss_type", "trainable", "disable_dropout")}
    return create_model("Numbers", __config__=ConfigDict(strict=True, allow_inf_nan=False), **checked)


def checked_objective(arguments: BFPOConfig) -> Objective:
    """The objective of arguments that `BFPOTrainer` can train with as they are.

    Raises:
        BfpoError: if they are not a `BFPOConfig`, the objective can't be built, or `BFPOConfig.check` refuses them.
    """
    if not isinstance(arguments, BFPOConfig):  # pyright: ignore[reportUnnecessaryIsInstance]  (a user of TRL's)
        raise BfpoError(f"args is {type(arguments).__name__}: pass a BFPOConfig, whose loss_type chooses the loss")
    objective = arguments.objective()
    arguments.check()
    return objective


def _check_made(config: BFPOConfig) -> None:
    """Make optimizer and scheduler on a dummy weight, and look for the trackers."""
    weight = torch.nn.Parameter(torch.zeros(1))
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(config)
        plain = copy.copy(config)
        plain.optim_args = None
        if config.optim_args and options == Trainer.get_optimizer_cls_and_kwargs(plain)[1]:
            raise ValueError(f"this optimizer doesn't read optim_args {config.optim_args!r}")
        options = {key: value for key, value in options.items() if key not in ("params", "model", "optimizer_dict")}
        get_scheduler(
            config.lr_scheduler_type,
            kind([weight], **options),
            num_warmup_steps=1,
            num_training_steps=2,
            scheduler_specific_kwargs=config.lr_scheduler_kwargs,  # pyright: ignore[reportArgumentType]
        )
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        optimizer, scheduler = OptimizerNames(config.optim).value, SchedulerType(config.lr_scheduler_type).value
        raise BfpoError(
            f"optim {optimizer} with lr_scheduler_type {scheduler} can't be made: "
            f"{' '.join(str(error).split())}; check optim_args and lr_scheduler_kwargs"
        ) from error
    for tracker in config.report_to or ():
        if tracker not in INTEGRATION_TO_CALLBACK:
            hint = did_you_mean(tracker, INTEGRATION_TO_CALLBACK)
            raise BfpoError(f"report_to: transformers knows no tracker {tracker!r}{hint}")
        if tracker not in get_available_reporting_integrations():
            raise BfpoError(f"report_to: {tracker} is not installed; install it, or leave report_to out")
