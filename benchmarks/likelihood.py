"""The likelihood runner against lm-eval's HFLM: differences item by item, and speeds at the best batch sizes.

    python benchmarks/likelihood.py            # minutes; writes docs/results/likelihood.md

Needs the public samples in ../shared/data (winogrande, BBQ, CrowS-Pairs, the 260K-parameter model) and the lm-eval
extra. Times are CPU times of the process on one thread, so that other work on the machine matters less, and the two
packages take turns.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
DATA = ROOT.parent / "shared" / "data"
TASKS = ("winogrande", "bbq", "crows_pairs")
PARITY_SIZES = (1, 3, 8, 64)
SPEED_SIZES = (8, 16, 32)  # more is slower for both on a CPU


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and its CPU time in seconds."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def differences(model: Any, tokenizer: Any, items: list[Any], chat: bool) -> list[float]:
    """Largest difference from lm-eval, in nats, at each of our batch sizes."""
    from generation.parity import by_bfpo, by_lm_eval, largest_difference

    expected = by_lm_eval(model, tokenizer, items, chat)
    return [largest_difference(expected, by_bfpo(model, tokenizer, items, chat, size)) for size in PARITY_SIZES]


def speeds(model: Any, tokenizer: Any, items: list[Any], repeats: int) -> tuple[dict[int, float], dict[int, float]]:
    """Items per second of lm-eval and of ours by batch size, medians of runs that take turns."""
    from lm_eval.models.huggingface import HFLM

    from generation.parity import by_bfpo, lm_eval_requests

    make: Any = HFLM
    lms = {size: make(pretrained=model, tokenizer=tokenizer, batch_size=size) for size in SPEED_SIZES}
    requests = lm_eval_requests(lms[SPEED_SIZES[0]], items, False)
    lms[SPEED_SIZES[0]].loglikelihood(requests[:64], disable_tqdm=True)
    by_bfpo(model, tokenizer, items[:64], False)
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for size, lm in lms.items():
            theirs = timed(lambda lm=lm: lm.loglikelihood(requests, disable_tqdm=True))[1]
            ours = timed(lambda size=size: by_bfpo(model, tokenizer, items, False, size))[1]
            times.setdefault(("theirs", size), []).append(theirs)
            times.setdefault(("ours", size), []).append(ours)
    return tuple(
        {size: len(items) / statistics.median(times[who, size]) for size in SPEED_SIZES} for who in ("theirs", "ours")
    )  # pyright: ignore


def main() -> None:
    """Compare, time, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="number of timed rounds")
    parser.add_argument(
        "--only", choices=("parity", "speed"), help="run only one half, and print it without writing the page"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "likelihood.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    start_up = {}
    _, start_up["torch and transformers, which both need"] = timed(lambda: __import__("transformers.modeling_utils"))
    _, start_up["bfpo's runner"] = timed(lambda: __import__("bfpo.generation.choice_scoring"))
    _, start_up["lm-eval's HFLM"] = timed(lambda: __import__("lm_eval.models.huggingface"))
    import torch

    from generation.parity import load_stories, sample_items

    torch.set_num_threads(1)
    items = sample_items(DATA)
    model, tokenizer = load_stories(DATA)
    parts = {task: [item for item in items if item.key.startswith(f"{task}/")] for task in TASKS}
    parity, speed = [], []
    if arguments.only != "speed":
        for chat in (False, True):
            for task, part in parts.items():
                parity.append((task, len(part), chat, differences(model, tokenizer, part, chat)))
                print(parity[-1], flush=True)
    if arguments.only != "parity":
        for task, part in parts.items():
            speed.append((task, len(part), *speeds(model, tokenizer, part, arguments.repeats)))
            print(speed[-1], flush=True)
    print(start_up)
    if not arguments.only:
        arguments.output.write_text(page(parity, speed, start_up), encoding="utf-8")


def page(parity: list[Any], speed: list[Any], start_up: dict[str, float]) -> str:
    """The result as Markdown."""
    import lm_eval
    import torch
    import transformers

    count = sum(number for _, number, chat, _ in parity if not chat)
    lines = [
        "# The likelihood runner against lm-eval",
        "",
        f"lm-eval {lm_eval.__version__} (HFLM), transformers {transformers.__version__}, torch {torch.__version__}; "
        "the 260K-parameter llama2.c model in float32 on one CPU thread. Made by `python benchmarks/likelihood.py`.",
        "",
        f"## Differences, {count:,} items",
        "",
        "Largest absolute difference between the log-likelihoods of any choice, in nats, by our batch size (lm-eval's "
        "is 64).",
        "The log-likelihoods are sums of tens to hundreds of nats, which lm-eval accumulates in float32.",
        "",
        "| task | items | chat template | " + " | ".join(map(str, PARITY_SIZES)) + " |",
        "|---|---|---|" + "---|" * len(PARITY_SIZES),
        *(
            f"| {task} | {number:,} | {'yes' if chat else 'no'} | " + " | ".join(f"{one:.1e}" for one in found) + " |"
            for task, number, chat, found in parity
        ),
        "",
        "## Items per second, steady state",
        "",
        "Without a chat template, from texts to log-likelihoods, each package at its best batch size.",
        "",
        "| task | items | choices | lm-eval (batch) | bfpo (batch) | ratio |",
        "|---|---|---|---|---|---|",
    ]
    seconds = [0.0, 0.0]
    choices = {"winogrande": "2 beginnings", "bbq": "3 answers", "crows_pairs": "2 sentences"}
    for task, number, theirs, ours in speed:
        their_size, our_size = max(theirs, key=theirs.get), max(ours, key=ours.get)
        seconds = [seconds[0] + number / theirs[their_size], seconds[1] + number / ours[our_size]]
        lines.append(
            f"| {task} | {number:,} | {choices[task]} | {theirs[their_size]:.0f} ({their_size}) | "
            f"{ours[our_size]:.0f} ({our_size}) | {ours[our_size] / theirs[their_size]:.2f} |"
        )
    total = sum(number for _, number, *_ in speed)
    lines += [
        f"| all | {total:,} | | {total / seconds[0]:.0f} | {total / seconds[1]:.0f} | {seconds[0] / seconds[1]:.2f} |",
        "",
        "The gain comes from the beginning that the choices share: it goes through the model once, however far",
        "it extends into the scored text. Two CrowS sentences share little, so there is little to gain; the ratio over",
        "all items comes from the other two tasks. The two packages took turns.",
        "",
        "## Start-up, timed separately",
        "",
        "Process time in seconds to import, in this order:",
        "",
        *(f"- {name}: {value:.1f}" for name, value in start_up.items()),
        "",
        "lm-eval's default task index takes about five more seconds in every process; our suites don't need it.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
