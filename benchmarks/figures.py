"""Sides of the engine benchmark, and the figures that are computed from a run's measurements."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]

OURS = ("ours", "roomy", "groups")
SIDES = ("ours", "roomy", "shipped", "best", "compact")
MEANING = {
    "ours": "bfpo as shipped, micro-batches of 1,536 tokens",
    "roomy": "bfpo, micro-batches of 16,384 tokens",
    "shipped": "TRL's defaults except for the precision",
    "best": "TRL, reference precomputed, no checkpointing, batches of about one length",
    "compact": "the same, with the position selection of its GPU path switched on",
}


def tokens_per_second(result: Result) -> float:
    """Training tokens per second, counting a prompt once per answer."""
    return result["useful_tokens"] / sum(result["step_seconds"])


def rows_per_second(result: Result) -> float:
    """Pairs (groups) of average length per second, so that it doesn't matter which of them the timed steps got."""
    return tokens_per_second(result) / result["tokens_a_row"]


def epoch_rows_per_second(result: Result) -> float:
    """The same in a run of one epoch, whose reference pass takes time too."""
    return 1 / (1 / rows_per_second(result) + result["reference_seconds"] / result["rows"])


def flops_a_token(result: Result) -> float:
    """FLOPs that the side executes per training token."""
    return result["flops_executed"] / result["useful_tokens"]


def share_of_peak(result: Result) -> float:
    """Unavoidable FLOPs as a share of the matmul peak of the same process."""
    layout = "shared" if result["case"]["side"] in OURS else "packed"
    return rows_per_second(result) * result["flops_needed_a_row"][layout] / result["matmul_peak"]
