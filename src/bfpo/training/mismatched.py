"""Answers to other prompts, from whose log-ratios KTO estimates the KL divergence between policy and reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator

from bfpo.engine.forward import Engine
from bfpo.engine.reference_cache import scored
from bfpo.errors import BfpoError
from bfpo.groups import TokenGroup


@dataclass(frozen=True)
class Mismatched:
    """Prompts, each with one answer to another prompt, and the sum of their reference log-probabilities in nats."""

    groups: list[TokenGroup]
    reference: float


def with_mismatched(rows: datasets.Dataset, max_length: int) -> datasets.Dataset:
    """Add to every encoded row an answer of another prompt's row, cut to ``max_length``: ``mismatched_ids``.

    The choice is random but the same in every run, so that the reference cache knows the answers again.
    ``mismatched_context`` holds the places of their tokens that are not scored.

    Raises:
        BfpoError: if all rows have the same prompt.
    """
    prompts, generator = rows["prompt_ids"][:], np.random.default_rng(0)
    order = generator.permutation(len(rows))
    place = np.argsort(order)
    ids, contexts = [], []
    for at, prompt in enumerate(prompts):
        others = (int(order[(place[at] + step) % len(rows)]) for step in range(1, len(rows)))
        other = next((one for one in others if prompts[one] != prompt), None)
        if other is None:
            raise BfpoError(
                "all rows have the same prompt, but KTO estimates the KL divergence from answers to other prompts: "
                "add rows with other prompts, or use another loss_type"
            )
        chosen: Any = rows[other]
        number = int(generator.integers(len(chosen["answer_ids"])))
        room = max_length - len(prompt)
        answer = chosen["answer_ids"][number][:room]
        skipped = [one for one in (chosen["context"][number] if chosen["context"] else []) if one < room]
        # An answer that begins with other turns may have nothing left that is scored.
        ids.append(answer)
        contexts.append(skipped if len(skipped) < len(answer) else [])
    kind = datasets.List(datasets.Value("int32"))
    for name, column in (("mismatched_ids", ids), ("mismatched_context", contexts)):
        rows = rows.add_column(name, column, feature=kind)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return rows


def mismatched_rows(rows: datasets.Dataset) -> datasets.Dataset:
    """The mismatched answers as rows with a single answer, for scoring."""
    features = datasets.Features({name: rows.features[name] for name in ("prompt_ids", "answer_ids", "context")})
    return rows.select_columns(["prompt_ids", "mismatched_ids", "mismatched_context"]).map(
        lambda row: {
            "prompt_ids": row["prompt_ids"],
            "answer_ids": [row["mismatched_ids"]],
            "context": [row["mismatched_context"]] if row["mismatched_context"] else [],
        },
        remove_columns=["mismatched_ids", "mismatched_context"],
        features=features,
    )


def mismatched_of(rows: Sequence[Any]) -> Mismatched | None:
    """The mismatched answers of encoded rows; None if they have none."""
    if not rows or "mismatched_ids" not in rows[0]:
        return None
    groups = [TokenGroup(row["prompt_ids"], [row["mismatched_ids"]], [row["mismatched_context"]]) for row in rows]
    return Mismatched(groups, sum(row["mismatched_reference"] for row in rows))


def estimated_kl(engine: Engine, model: Any, parts: Iterable[Mismatched | None], accelerator: Accelerator) -> float:
    """max(0, mean log-ratio of mismatched answers) over all processes, in nats (KTO, arXiv 2402.01306, section 4.1)."""
    difference, count = 0.0, 0
    for part in parts:
        if part is not None:
            with accelerator.autocast():
                difference += sum(sum(values) for _, values in scored(engine, model, part.groups)) - part.reference
            count += len(part.groups)
    sums = torch.tensor([difference, count], dtype=torch.float32, device=accelerator.device)
    total: Any = accelerator.reduce(sums, reduction="sum")
    return max(0.0, float(total[0] / total[1]))
