"""The likelihood runner against lm-eval's HFLM: differences item by item, and speeds at the best batch sizes.

    python benchmarks/likelihood.py                       # six minutes; writes docs/results/likelihood.md
    python benchmarks/likelihood.py --model runs/smollm2  # also speeds of a real model (half an hour)

Needs the public samples in ../shared/data (winogrande, BBQ, CrowS-Pairs, the 260K-parameter model) and the lm-eval
extra. Results are kept in docs/results/likelihood.json, to which ``--only`` adds one part. Times are CPU times of the
process on one thread, so that other work on the machine matters less, and the two packages take turns.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
DATA = ROOT.parent / "shared" / "data"
TASKS = ("winogrande", "bbq", "crows_pairs")
PARITY_SIZES = (1, 3, 8, 64)
SPEED_SIZES = (16, 32, 64)  # fewer and more are slower for both on a CPU
# Items of each task, and batch sizes, for a real model.
REAL_ITEMS = {"winogrande": 400, "bbq": 60, "crows_pairs": 1508}
REAL_SIZES = (8, 32)
PARTS = ("parity", "speed", "real", "start_up")


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


def speeds(
    model: Any, tokenizer: Any, items: list[Any], repeats: int, sizes: Sequence[int] = SPEED_SIZES
) -> tuple[dict[int, float], ...]:
    """Items per second of lm-eval and of ours by batch size, medians of runs that take turns."""
    from lm_eval.models.huggingface import HFLM

    from support.choice_parity import by_bfpo, lm_eval_requests

    make: Any = HFLM
    lms = {size: make(pretrained=model, tokenizer=tokenizer, batch_size=size) for size in sizes}
    requests = lm_eval_requests(lms[sizes[0]], items, False)
    lms[sizes[0]].loglikelihood(requests[:64], disable_tqdm=True)
    by_bfpo(model, tokenizer, items[:64], False)
    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(repeats):
        for size, lm in lms.items():
            theirs = timed(lambda lm=lm: lm.loglikelihood(requests, disable_tqdm=True))[1]
            ours = timed(lambda size=size: by_bfpo(model, tokenizer, items, False, size))[1]
            times.setdefault(("theirs", size), []).append(theirs)
            times.setdefault(("ours", size), []).append(ours)
    return tuple(
        {size: len(items) / statistics.median(times[who, size]) for size in sizes} for who in ("theirs", "ours")
    )


def main() -> None:
    """Compare, time, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="number of timed rounds")
    parser.add_argument("--only", choices=PARTS, help="run one part, and keep the others' results")
    parser.add_argument("--model", type=Path, help="folder of a real model, from 'bfpo model smollm2'")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results", help="folder of the page")
    arguments = parser.parse_args()
    if arguments.only == "real" and not arguments.model:
        parser.error("--only real needs --model FOLDER")
    logging.disable(logging.WARNING)
    kept = arguments.output / "likelihood.json"
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    wanted = [arguments.only] if arguments.only else [part for part in PARTS if part != "real" or arguments.model]
    start_up = imports()
    for part in wanted:
        found[part] = start_up if part == "start_up" else measured(part, arguments.repeats, arguments.model)
        # Keys of batch sizes become text.
        found = json.loads(json.dumps(found))
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if all(part in found for part in PARTS if part != "real"):
        (arguments.output / "likelihood.md").write_text(page(found), encoding="utf-8")


def imports() -> dict[str, float]:
    """Process time of imports, in their order; measured before anything else is imported."""
    modules = {
        "torch and transformers, which both need": "transformers.modeling_utils",
        "bfpo's runner": "bfpo.generation.choice_scoring",
        "lm-eval's HFLM": "lm_eval.models.huggingface",
    }
    return {name: timed(lambda module=module: __import__(module))[1] for name, module in modules.items()}


def measured(part: str, repeats: int, folder: Path | None) -> list[Any]:
    """Results of one part: parity or speed of the small model, or speed of a real one."""
    import torch

    from support.choice_parity import load_stories, sample_items

    torch.set_num_threads(1)
    items = sample_items(DATA)
    parts = {task: [item for item in items if item.key.startswith(f"{task}/")] for task in TASKS}
    if part == "real":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        assert folder is not None
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        parts = {task: parts[task][:number] for task, number in REAL_ITEMS.items()}
        return [printed(task, own, speeds(model, tokenizer, own, 1, REAL_SIZES)) for task, own in parts.items()]
    model, tokenizer = load_stories(DATA)
    if part == "speed":
        return [printed(task, own, speeds(model, tokenizer, own, repeats)) for task, own in parts.items()]
    return [
        printed(task, own, (chat, differences(model, tokenizer, own, chat)))
        for chat in (False, True)
        for task, own in parts.items()
    ]


def printed(task: str, items: Sequence[Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A task's result, which takes minutes to come."""
    print(task, len(items), *values, flush=True)
    return (task, len(items), *values)


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
            f"| {task} | {number:,} | {choices[task]} | {slow:.3g} ({their_size}) | {fast:.3g} ({our_size}) "
            f"| {fast / slow:.2f} |"
        )
    return lines


def real_table(real: list[Any] | None) -> list[str]:
    """Items per second of a real model, if it was measured."""
    if not real:
        return []
    return [
        "## A real model",
        "",
        "SmolLM2-135M-Instruct, one round. The small model above spends two fifths of its time in attention, where",
        "every token of a choice still sees its whole beginning; a real one spends it on tokens.",
        "",
        *speed_table(real),
        "",
    ]


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    import lm_eval
    import torch
    import transformers

    parity, speed, start_up = found["parity"], found["speed"], found["start_up"]
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
        *real_table(found.get("real")),
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
        "Made by `python benchmarks/likelihood.py` (six minutes; with `--model` half an hour): lm-eval "
        f"{lm_eval.__version__} (HFLM), transformers {transformers.__version__}, torch {torch.__version__}; the "
        "260K-parameter llama2.c model in float32 on one CPU thread.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
