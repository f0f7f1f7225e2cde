"""Measurements on a GPU other than whole training runs, each in a process of its own, which prints them as JSON.

Usage: gpu_parts.py PART, where PART is a JSON object with the name of a function here and its arguments.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from bfpo.engine import head as head_module
from bfpo.engine.attention import Attention
from bfpo.engine.forward import Engine
from bfpo.engine.head import FusedLoss, LogitShape
from bfpo.engine.layout import build_stream, stream_tokens
from bfpo.groups import GroupLabels, LossInputs, TokenGroup
from bfpo.objectives.pairwise import IPO
from side import Case, Seen, StepTimes, case_of, ours
from workload import Workload, as_pairs, make_model

ATTENTIONS: tuple[Attention, ...] = ("pieces", "blocks")
# What a kernel does, by words in its name; the first that fits.
KINDS = {
    "matrix products": r"gemm|nvjet|cutlass|xmma|splitk|cublas",
    "attention": r"flex|flash|fmha|triton_tem|attention|softmax_warp",
    "optimizer": r"multi_tensor|adam|foreach",
    "copies": r"memcpy|memset|copy|cat",
    "indexing": r"index|scatter|gather|embedding|sort|scan",
    "softmax and sums": r"softmax|reduce|norm",
    "element by element": r"elementwise|triton_poi|pointwise|fill|vectorized",
}


def seconds(run: Callable[[], object], device: torch.device, repeats: int = 10, warmup: int = 3) -> float:
    """Mean time of a call, by the device's own clock where it has one."""
    for _ in range(warmup):
        run()
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - started) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def peak_mb(device: torch.device) -> float | None:
    """Most device memory since the last call, in MB."""
    if device.type != "cuda":
        return None
    most = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return most


def card(device: torch.device, size: int = 8192, copied: int = 2**29) -> dict[str, Any]:
    """The device: name, matrix products of ``size``, and copying so many float32 numbers."""
    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if device.type == "cuda":
        about: Any = torch.cuda.get_device_properties(device)
        found |= {"device": about.name, "memory_gb": about.total_memory / 1e9}
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        matrix = torch.randn(size, size, device=device, dtype=dtype)
        taken = seconds(partial(torch.matmul, matrix, matrix), device, 20 if name == "bf16" else 4)
        found[f"{name}_flops"] = 2 * size**3 / taken
    source = torch.randn(copied, device=device)
    target = torch.empty_like(source)
    found["copied_bytes_a_second"] = 8 * copied / seconds(lambda: target.copy_(source), device)
    return found


def pairs_of(length: int, tokens: int) -> list[TokenGroup]:
    """Equal pairs with so many tokens of prompt and answer, as many as fit into the tokens of a stream."""
    prompt = length * 14 // 25
    group = TokenGroup([5] * prompt, [[6] * (length - prompt), [7] * (length - prompt)])
    return [group] * max(1, tokens // stream_tokens(group, "shared"))


def lengths(
    device: torch.device, model: str, each: Sequence[int] = (256, 1024, 4096), tokens: int = 16_384, layers: int = 4
) -> dict[str, Any]:
    """Forward and backward pass of layers by either attention, laying out the stream included."""
    made = make_model(Workload(model=model), device, torch.bfloat16, num_hidden_layers=layers).train()
    rows: list[dict[str, Any]] = []
    for length in each:
        batch = pairs_of(length, tokens)
        row: dict[str, Any] = {"length": length, "tokens": sum(stream_tokens(group, "shared") for group in batch)}
        for attention in ATTENTIONS:
            engine = Engine(made, "shared", 10**9, attention)

            def run(engine: Engine = engine, batch: Sequence[TokenGroup] = batch) -> None:
                with engine.attached():
                    engine.hidden(made, build_stream(batch, "shared", device)).float().sum().backward()
                made.zero_grad()

            try:
                peak_mb(device)
                started = time.perf_counter()
                run()
                row[f"{attention}_first"] = time.perf_counter() - started
                row[attention] = seconds(run, device, repeats=5, warmup=1) / layers
                row[f"{attention}_mb"] = peak_mb(device)
            except Exception as error:  # the other attention's figures are worth having
                row[f"{attention}_error"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
    return {"rows": rows, "layers": layers}


def heads(device: torch.device, model: str, pairs: int = 16, factors: Sequence[int] = (1, 4, 16, 64)) -> dict[str, Any]:
    """The fused head with its gradients, by how many logits are in memory at once."""
    shape = Workload(model=model).shape
    batch = [TokenGroup([5] * 139, [[6] * 110, [7] * 110])] * pairs
    stream = build_stream(batch, "shared", device)
    answers = torch.arange(2 * pairs)
    labels = GroupLabels(torch.ones(2 * pairs), answers[::2], answers[1::2], torch.ones(pairs), is_checked=True)
    inputs = LossInputs(
        IPO(reduction="mean"), labels, torch.full((2 * pairs,), -1000.0, dtype=torch.float64), 1 / pairs
    )
    size = (len(stream.targets), shape["hidden_size"])
    hidden = torch.randn(size, device=device, dtype=torch.bfloat16, requires_grad=True)
    rows: list[dict[str, Any]] = []
    for trains in (True, False):
        dtype = torch.float32 if trains else torch.bfloat16
        weight = (0.02 * torch.randn(shape["vocab_size"], size[1], device=device, dtype=dtype)).requires_grad_(trains)

        def run(weight: torch.Tensor = weight) -> None:
            FusedLoss.apply(hidden, weight, stream, inputs, LogitShape())[0].backward()  # pyright: ignore
            hidden.grad = weight.grad = None

        for factor in factors:
            head_module._MORE_ON_GPU = factor  # pyright: ignore[reportPrivateUsage]
            peak_mb(device)
            taken = seconds(run, device, repeats=5, warmup=2)
            kind = "trains" if trains else "frozen"
            rows.append({"kind": kind, "factor": factor, "seconds": taken, "mb": peak_mb(device)})
    products = 2 * size[0] * size[1] * shape["vocab_size"]
    return {"rows": rows, "scored": size[0], "flops": {"trains": 3 * products, "frozen": 2 * products}}


class Profiled(TrainerCallback):
    """Profiles the kernels of two steps, once all is compiled."""

    def __init__(self) -> None:
        self.profiler = profile(activities=[ProfilerActivity.CUDA])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Profile nothing once, which sets up the driver's part of the profiler."""
        with profile(activities=[ProfilerActivity.CUDA]):
            torch.cuda.synchronize()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start before the fourth step."""
        if state.global_step == 3:
            torch.cuda.synchronize()
            self.profiler.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop after the fifth."""
        if state.global_step == 5:
            torch.cuda.synchronize()
            self.profiler.stop()


def profiled(device: torch.device, case: dict[str, Any]) -> dict[str, Any]:
    """The kernels of two steps of ours: the longest, their kinds, and the share of time without any."""
    chosen: Case = case_of(case)
    times, callback = StepTimes(), Profiled()
    trainer, _ = ours(chosen, as_pairs(chosen.texts()), times, Seen(times))
    trainer.add_callback(callback)
    trainer.train()
    kernels = [
        (event.name, event.time_range.start, event.time_range.end)
        for event in callback.profiler.events() or ()
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    return {"layout": trainer.layout.reason, "step_seconds": times.seconds} | summary(kernels)


def summary(kernels: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Total times of kernels, given by name, start and end in microseconds, and the time that none was running."""
    if not kernels:
        raise ValueError("the profiler saw no kernel")
    by_name: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, float] = defaultdict(float)
    end, busy = float("-inf"), 0.0
    for name, start, stop in sorted(kernels, key=lambda kernel: kernel[1]):
        by_name[name].append(stop - start)
        kind = next((kind for kind, words in KINDS.items() if re.search(words, name, re.IGNORECASE)), "other")
        kinds[kind] += stop - start
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    span = end - min(start for _, start, _ in kernels)
    longest = sorted(by_name.items(), key=lambda one: -sum(one[1]))[:15]
    return {
        "span_us": span,
        "idle": 1 - busy / span,
        "kernels": len(kernels),
        "kinds_us": dict(sorted(kinds.items(), key=lambda one: -one[1])),
        "longest": [{"name": name[:120], "calls": len(each), "us": sum(each)} for name, each in longest],
    }


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "card": card,
    "lengths": lengths,
    "heads": heads,
    "profiled": profiled,
}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(PARTS[given.pop("part")](torch.device("cuda"), **given)))
