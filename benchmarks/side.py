"""One side of the engine benchmark, run in a process of its own: trains some steps and prints measurements as JSON.

Usage: side.py CASE, where CASE is a JSON object with the fields of `Case`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import LoraConfig
from torch._dynamo.utils import counters
from transformers import PreTrainedModel, TrainerCallback, set_seed
from transformers.quantizers.auto import AutoHfQuantizer

from figures import OURS
from machine import matmul_peak, memory
from workload import (
    Computed,
    Passes,
    Workload,
    as_groups,
    as_pairs,
    flops,
    make_batches,
    make_model,
    make_texts,
    make_tokenizer,
    of_group,
    of_rows,
)

BATCH = 8
BETA = 0.1
LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Case:
    """Side and settings of one process.

    Attributes:
        side: "ours", "roomy" (micro-batches of 16,384 tokens), "groups" (all answers of a prompt in one group), or
            TRL's "shipped" (its defaults except for the precision), "best" or "compact".
        precision: "fp32" or "bf16" (autocast over float32 weights).
        trained: "all", "lora" (rank 16 on all linear layers), "qlora" (the same on weights in 4 bits), or a substring
            of the names of the trained weights.
        workload: the data and the model.
        steps: number of steps; the first is not timed.
        batch: prompts per step (pairs, if every pair is a row).
        tokens: our micro-batches' largest number of tokens; by default as shipped on a CPU.
        parts: TRL's micro-batches per step.
        processes: number of processes, one thread each, that share a step; 0 for one process with all threads.
        checkpointing: whether activations are recomputed; TRL's "shipped" always does.
    """

    side: str
    precision: str = "fp32"
    trained: str = "all"
    workload: Workload = field(default_factory=Workload)
    steps: int = 7
    batch: int = BATCH
    tokens: int = 1_536
    parts: int = 1
    checkpointing: bool = False
    processes: int = 0

    @property
    def adapts(self) -> bool:
        """Whether an adapter is trained."""
        return self.trained in ("lora", "qlora")

    @property
    def is_ours(self) -> bool:
        """Whether the side is one of ours."""
        return self.side in OURS

    def texts(self) -> list[tuple[str, list[str]]]:
        """Prompts and their answers to train on."""
        return make_batches(self.workload, self.batch) if self.workload.batches else make_texts(self.workload)


class StepTimes(TrainerCallback):
    """Duration of every step in seconds, including logging and loading."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Mark the beginning of the first step."""
        if not self.marks:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self._mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Mark the end of a step, on the device too."""
        self._mark()

    def _mark(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """Durations of all steps but the first."""
        return [later - earlier for earlier, later in zip(self.marks, self.marks[1:], strict=False)][1:]


@dataclass
class Seen:
    """Useful and computed tokens of every step, counted after training so that no step waits for it."""

    times: StepTimes
    counts: list[tuple[int, Callable[[], tuple[int, Computed]]]] = field(default_factory=list)

    def add(self, count: Callable[[], tuple[int, Computed]]) -> None:
        """Add a micro-batch of the current step by the function that counts it."""
        self.counts.append((len(self.times.marks), count))

    def timed(self) -> tuple[int, Computed]:
        """Totals over all steps but the first."""
        useful, total = 0, Computed(0, 0, 0)
        for _, count in (one for one in self.counts if one[0] >= 2):
            tokens, computed = count()
            useful, total = useful + tokens, total + computed
        return useful, total


def common(case: Case) -> dict[str, Any]:
    """Training arguments that are the same on every side."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_steps": case.steps,
        "per_device_train_batch_size": case.batch // case.parts // max(1, case.processes),
        "gradient_accumulation_steps": case.parts,
        "gradient_checkpointing": case.checkpointing,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": case.precision == "bf16",
        "use_cpu": not torch.accelerator.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "beta": BETA,
        "loss_type": "ipo",
        "max_length": None,
    }


def starting_model(case: Case) -> PreTrainedModel:
    """The model on the device: float32 if all weights train, else as the precision; perhaps in 4 bits."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    dtype = torch.bfloat16 if case.adapts and case.precision == "bf16" else torch.float32
    model: Any = make_model(case.workload, device or "cpu", dtype)
    if case.trained == "qlora":
        from bfpo.models import four_bit_config, quantize_to_4bit

        quantize_to_4bit(model, dtype)
        # The Trainer asks it whether the weights can be trained on.
        model.hf_quantizer = AutoHfQuantizer.from_config(four_bit_config(dtype), pre_quantized=False)
    return model


def adapter(case: Case) -> LoraConfig | None:
    """The adapter to train, if any."""
    if not case.adapts:
        return None
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def ours(case: Case, data: Any, times: StepTimes, seen: Seen) -> tuple[Any, Passes]:
    """Our trainer; "roomy" has a step in one micro-batch."""
    from bfpo import BFPOConfig, BFPOTrainer

    class Timed(BFPOTrainer):
        reference_seconds = 0.0

        def _with_reference(self, data: Any) -> Any:
            started = time.perf_counter()
            scored = super()._with_reference(data)
            self.reference_seconds += time.perf_counter() - started
            return scored

    arguments: dict[str, Any] = {
        **common(case),
        "max_length": 8192,
        "reduction": "mean",
        "trainable": "all" if case.adapts else case.trained,
        "micro_batch_tokens": 16_384 if case.side == "roomy" else case.tokens,
        "reference_cache": None,
    }
    trainer = Timed(
        starting_model(case),
        BFPOConfig(**arguments),
        data,
        processing_class=make_tokenizer(case.workload),
        peft_config=adapter(case),
        callbacks=[times],
    )
    model: Any = trainer.model

    def count(_: Any, __: Any, values: dict[str, Any]) -> None:
        stream = values.get("stream")
        if stream is not None and times.marks and model.training and torch.is_grad_enabled():
            # Not the stream itself, whose masks would stay in memory.
            parts = (stream.group, stream.tokens, stream.answer, stream.position_ids[0], stream.scored)
            seen.add(partial(counted, *parts))

    model.register_forward_pre_hook(count, with_kwargs=True)
    return trainer, Passes(1 + case.checkpointing, head=3 if case.trained == "all" else 2)


def counted(*stream: torch.Tensor) -> tuple[int, Computed]:
    """Useful tokens of a stream, given by its group, tokens, answer, positions and scored; and what they take."""
    useful, total = 0, Computed(0, 0, 0)
    group, tokens, answer, positions, scored = (part.cpu() for part in stream)
    places = positions[scored]
    for number in range(int(group[-1]) + 1):
        answers = tokens[group == number].tolist()
        # A prompt's last token predicts the first one of its first answer.
        prompt = int(places[group[answer] == number][0]) + 1
        # An answer's last token goes through no layer.
        computed = of_group(prompt, [answer - 1 for answer in answers], shared=True)
        useful += len(answers) * prompt + sum(answers)
        total += Computed(computed.tokens, computed.seen, sum(answers))
    return useful, total


def theirs(case: Case, data: Any, times: StepTimes, seen: Seen) -> tuple[Any, Passes]:
    """TRL's trainer: as shipped except for the precision; at its best; or with its GPU path's position selection."""
    trl: Any = import_module("trl")

    class Timed(trl.DPOTrainer):
        reference_seconds = 0.0

        def _precompute_ref_logps(self, *given: Any) -> Any:
            started = time.perf_counter()
            scored = super()._precompute_ref_logps(*given)
            self.reference_seconds += time.perf_counter() - started
            return scored

    utils: Any = import_module("trl.trainer.utils")
    arguments = common(case) | {"loss_type": ["ipo"]}
    shipped, compact = case.side == "shipped", case.side == "compact" or torch.cuda.is_available()
    if shipped:
        arguments["gradient_checkpointing"] = True
    else:
        # The rows come in batches of about one length.
        arguments |= {"precompute_ref_log_probs": True, "train_sampling_strategy": "sequential"}
    if compact:
        utils._use_triton = lambda device: True
    model: Any = starting_model(case)
    # By default TRL loads the reference from the folder of the model, which this one doesn't have.
    reference = starting_model(case).eval() if shipped and not case.adapts else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not case.adapts and (case.trained == "all" or case.trained in name))
    # As ours does, before the adapter's random weights.
    set_seed(42)
    trainer = Timed(
        model,
        reference,
        args=trl.DPOConfig(**arguments),
        train_dataset=data,
        processing_class=make_tokenizer(case.workload),
        peft_config=adapter(case),
        callbacks=[times],
    )
    model = trainer.model

    def count(_: Any, __: Any, values: dict[str, Any]) -> None:
        if times.marks and model.training and torch.is_grad_enabled():
            mask, labels = values["attention_mask"], values["labels"]
            seen.add(lambda: padded(mask, labels, compact))

    model.register_forward_pre_hook(count, with_kwargs=True)
    # The head is recomputed for the backward pass; a frozen head gets no gradient.
    head = 4 if case.trained == "all" else 3
    return trainer, Passes(layers_forward=1 + 2 * shipped + (case.checkpointing and not shipped), head=head + shipped)


def padded(mask: torch.Tensor, labels: torch.Tensor, compact: bool) -> tuple[int, Computed]:
    """Useful tokens of padded rows, and what is computed for them."""
    scored = int((labels[:, 1:] != -100).sum()) if compact else len(mask) * (mask.shape[1] - 1)
    return int(mask.sum()), of_rows(len(mask), mask.shape[1], scored)


def needed(model: PreTrainedModel, data: Any, trained: str) -> dict[str, float]:
    """Mean FLOPs of a row, without padding or recomputation, with the prompt once or before every answer."""
    passes = Passes(1, 3 if trained == "all" else 2)
    totals: dict[str, float] = {"shared": 0.0, "packed": 0.0}
    for row in data:
        answers = row["responses"] if "responses" in row else [row["chosen"], row["rejected"]]
        lengths = [len(answer.split()) + 1 for answer in answers]
        for layout in totals:
            computed = of_group(len(row["prompt"].split()), lengths, shared=layout == "shared")
            totals[layout] += flops(model, computed, passes) / len(data)
    return totals


def measure(case: Case) -> dict[str, Any]:
    """Train, and return the measurements."""
    texts = case.texts()
    data = as_groups(texts) if case.side == "groups" else as_pairs(texts)
    times = StepTimes()
    seen = Seen(times)
    if case.is_ours:
        import bfpo.training.trainer  # noqa: F401  # pyright: ignore[reportUnusedImport]
    else:
        import trl.trainer.dpo_trainer  # noqa: F401  # pyright: ignore
    imported = memory()
    started = time.perf_counter()
    trainer, passes = (ours if case.is_ours else theirs)(case, data, times, seen)
    prepared = time.perf_counter() - started
    trainer.train()
    model = trainer.model
    peak_memory = memory()
    on_gpu = torch.cuda.is_available()
    device_peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    weights = sum(p.numel() for p in model.parameters())
    training = sum(p.numel() for p in model.parameters() if p.requires_grad)
    useful_tokens, computed = seen.timed()
    if case.processes > 1:
        useful_tokens = sum(gather_object([useful_tokens]))
    dtype = torch.bfloat16 if case.precision == "bf16" else torch.float32
    return {
        "step_seconds": times.seconds,
        "first_step_seconds": times.marks[1] - times.marks[0],
        "prepare_seconds": prepared,
        "reference_seconds": trainer.reference_seconds,
        "rows": len(data),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "net_mb": peak_memory - imported - 4 * (weights + 3 * training) / 2**20,
        "device_mb": device_peak,
        "weights_mb": sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "weights": weights,
        "useful_tokens": useful_tokens,
        "tokens_a_row": sum(len(" ".join(_parts(row)).split()) + len(_parts(row)) // 2 for row in data) / len(data),
        "layout": asdict(trainer.layout) if case.is_ours else None,
        "graphs": counters["stats"]["unique_graphs"],
        "flops_executed": flops(model, computed, passes),
        "flops_needed_a_row": needed(model, data, case.trained),
        "matmul_peak": matmul_peak(model.device, dtype),
    }


def _parts(row: Any) -> list[str]:
    """Every answer with its prompt before it."""
    answers = row["responses"] if "responses" in row else [row["chosen"], row["rejected"]]
    return [part for answer in answers for part in (row["prompt"], answer)]


def case_of(given: dict[str, Any]) -> Case:
    """The case of a JSON object."""
    fields: dict[str, Any] = given | {"workload": Workload(**given["workload"])}
    return Case(**fields)


if __name__ == "__main__":
    measured = json.dumps(measure(case_of(json.loads(sys.argv[1]))))
    if os.environ.get("RANK", "0") == "0":
        print(measured, flush=True)
    if torch.distributed.is_initialized():
        # Now and then gloo aborts while Python shuts down, after all work is done.
        torch.distributed.barrier()
        os._exit(0)
