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
SPEED_SIZES = (16, 32, 64)  # fewer and more are slower for both on a CPU


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and its CPU time in seconds."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def differences(model: Any, tokenizer: Any, items: list[Any], chat: bool) -> list[float]:
    """Largest difference from lm-eval, in nats, at each of our batch sizes."""
    from support.choice_parity import by_bfpo, by_lm_eval, largest_difference

    expected = by_lm_eval(model, tokenizer, items, chat)
    return [largest_difference(expected, by_bfpo(model, tokenizer, items, chat, size)) for size in PARITY_SIZES]


def speeds(model: Any, tokenizer: Any, items: list[Any], repeats: int) -> tuple[dict[int, float], dict[int, float]]:
    """Items per second of lm-eval and of ours by batch size, medians of runs that take turns."""
    from lm_eval.models.huggingface import HFLM

    from support.choice_parity import by_bfpo, lm_eval_requests

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

    from support.choice_parity import load_stories, sample_items

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


def overall(speed: list[Any]) -> tuple[float, float]:
    """Seconds of lm-eval and of bfpo for all items, each package at its best batch size for the task."""
    theirs, ours = (sum(one[1] / max(one[place].values()) for one in speed) for place in (2, 3))
    return theirs, ours


def speed_table(speed: list[Any]) -> list[str]:
    """Items per second by task, each package at its best batch size."""
    lines = ["| task | items | choices | lm-eval (batch) | bfpo (batch) | ratio |", "|---|---|---|---|---|---|"]
    choices = {"winogrande": "2 beginnings", "bbq": "3 answers", "crows_pairs": "2 sentences"}
    for task, number, *rates in speed:
        (their_size, slow), (our_size, fast) = (max(own.items(), key=lambda pair: pair[1]) for own in rates)
        lines.append(
            f"| {task} | {number:,} | {choices[task]} | {slow:.0f} ({their_size}) | {fast:.0f} ({our_size}) "
            f"| {fast / slow:.2f} |"
        )
    return lines


def page(parity: list[Any], speed: list[Any], start_up: dict[str, float]) -> str:
    """The result as Markdown."""
    import lm_eval
    import torch
    import transformers

    count = sum(number for _, number, chat, _ in parity if not chat)
    theirs, ours = overall(speed)
    lines = [
        "# The likelihood runner against lm-eval",
        "",
        "Does the likelihood runner give lm-eval's log-likelihoods, and how fast is it beside lm-eval?",
        "",
        f"**On {count:,} items they differ by at most {max(max(found) for *_, found in parity):.1e} nats, and bfpo is "
        f"{theirs / ours:.2f} times as fast.**",
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
        *speed_table(speed),
    ]
    total = sum(number for _, number, *_ in speed)
    lines += [
        f"| all | {total:,} | | {total / theirs:.0f} | {total / ours:.0f} | {theirs / ours:.2f} |",
        "",
        "The gain comes from beginnings: choices are sorted by their tokens, and what neighbors in a batch begin with",
        "goes through the model once, within an item and between items. CrowS sentences share least. The two packages",
        "took turns.",
        "",
        "## Start-up, timed separately",
        "",
        "Process time in seconds to import, in this order:",
        "",
        *(f"- {name}: {value:.1f}" for name, value in start_up.items()),
        "",
        "lm-eval's default task index takes about five more seconds in every process; our suites don't need it.",
        "",
        "## To run it again",
        "",
        f"Made by `python benchmarks/likelihood.py` (six minutes): lm-eval {lm_eval.__version__} (HFLM), transformers "
        f"{transformers.__version__}, torch {torch.__version__}; the 260K-parameter llama2.c model in float32 on one "
        "CPU thread.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
