"""Sampling by `LocalGenerator` against transformers' own `generate`, and against the bare forward passes.

    python benchmarks/generation.py MODEL...      # minutes; writes docs/results/generation.md

MODEL is a folder, such as one that `bfpo model smollm2` made, or "microworld". All three take turns on the same
prompts, batch, number of new tokens and threads: ours and transformers' sample with temperature .7 and top-p .95, and
the bare passes feed given tokens through the model with a cache. No answer ends early. Figures are medians of ratios
within a round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import DynamicCache

from bfpo.generation import sampling
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding, sample_requests

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "generation.md"


def contestants(name: str, answers: int, tokens: int) -> dict[str, Callable[[], Any]]:
    """The three ways to spend the same forward passes."""
    generator = LocalGenerator.load(name)
    model: Any = generator.model
    decoding = Decoding(max_new_tokens=tokens)
    requests = sample_requests({str(at): f"Tell me about the number {at}." for at in range(answers)}, decoding)
    prompts = [generator.encode(request.prompt) for request in requests]
    width, pad = max(map(len, prompts)), generator.tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])

    def ours() -> None:
        with patch.object(sampling, "end_tokens", lambda *_: []):
            generator.generate(requests, decoding)

    @torch.inference_mode()
    def transformers() -> None:
        torch.manual_seed(0)
        model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=0.7, top_p=0.95, top_k=0,
            max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=pad,
        )  # fmt: skip

    @torch.inference_mode()
    def bare() -> None:
        cache, seen = DynamicCache(config=model.config), mask
        model(input_ids=ids, attention_mask=seen, past_key_values=cache, logits_to_keep=1)
        for _ in range(tokens - 1):
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
            model(input_ids=ids[:, -1:], attention_mask=seen, past_key_values=cache, logits_to_keep=1)

    return {"ours": ours, "transformers": transformers, "bare": bare}


def main() -> None:
    """Measure every model and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--answers", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: list[list[str]] = []
    for name in options.models:
        ways = contestants(name, options.answers, options.tokens)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                times[way].append(time.perf_counter() - started)
        ratios = {
            way: statistics.median(other / own for other, own in zip(times[way], times["ours"], strict=True))
            for way in ("transformers", "bare")
        }
        medians = [f"{statistics.median(times[way]):.1f}" for way in ("ours", "transformers", "bare")]
        rows.append([Path(name).name, *medians, f"{ratios['transformers']:.2f}x", f"{ratios['bare']:.2f}x"])
        print(rows[-1], flush=True)
    PAGE.write_text(page(rows, options), encoding="utf-8")


def page(rows: list[list[str]], options: argparse.Namespace) -> str:
    """The page, from the cells of its table."""
    answers = [
        f"{generate.rstrip('x')} times as fast as `generate` and {bare.rstrip('x')} times as fast as the bare passes "
        f"on {model}"
        for model, *_, generate, bare in rows
    ]
    lines = [
        "# Sampling speed",
        "",
        "How fast does bfpo sample beside transformers' `generate`, and beside the bare forward passes?",
        "",
        f"**bfpo is {', and '.join(answers)}.**",
        "",
        "| model | ours, s | transformers' generate, s | bare forward passes, s | against generate | against bare |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
        f"{options.answers} answers of {options.tokens} tokens, temperature .7, top-p .95, float32, "
        f"{torch.get_num_threads()} CPU threads, {options.rounds} rounds in turns. A ratio above 1 means that we are "
        "faster.",
        "",
        f"Made by `python benchmarks/generation.py microworld models/smollm2 --rounds {options.rounds}` (minutes).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
