"""A buffer of help for red teaming: a model's own answers to plain requests, each beside a written refusal.

Training on attacks and their twins alone teaches some models to decline requests that nobody attacked with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bfpo.errors import BfpoError
from bfpo.files import write_rows
from bfpo.generation.protocol import Decoding, Generator
from bfpo.judges.verdict import Judge
from bfpo.preferences.overlap import find_overlap
from bfpo.redteam.asking import Progress
from bfpo.redteam.bank import Bank
from bfpo.redteam.grouping import plain_groups
from bfpo.redteam.measuring import measuring_suite
from bfpo.redteam.running import GROUPS
from bfpo.safehelp.evaluate import evaluate


def write_help_buffer(
    model: Generator,
    judge: Judge,
    bank: Bank,
    refusals: Sequence[str],
    folder: Path,
    *,
    decoding: Decoding,
    evaluation: Mapping[str, Sequence[str]],
    refusal_judge: Judge | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, int]:
    """Answer a bank's plain requests, and write the groups to ``groups.jsonl``; an interrupted run is resumed.

    Args:
        model: the model.
        judge: judge that tells which answers decline; their safety is the bank's word.
        bank: requests, of which the pairs are not read.
        refusals: written refusals, one of which joins the answers to each request.
        folder: folder of the answers and groups.
        decoding: how answers are sampled, and how many to each request.
        evaluation: evaluation prompts by the name of their set; requests that overlap with them are left out.
        refusal_judge: judge that decides which answers decline, in place of ``judge``.
        progress: function called with the stage and its numbers of finished and all answers.

    Returns:
        How many requests and answers were left out, by reason, and under "groups" the number of groups.

    Raises:
        BfpoError: if there is no request or no refusal, or no request leaves anything to learn.
    """
    apart = Bank((), tuple(one for one in bank.plain if not find_overlap([one.plain], evaluation)))
    if not apart.plain or not refusals:
        what = "written refusals" if apart.plain else "plain requests that are apart from the evaluation prompts"
        raise BfpoError(f"a buffer of help needs {what}, and there are none; add some, or leave the buffer out")
    suite = replace(measuring_suite(apart, (), decoding.seed, decoding), name="plain")
    found = evaluate(
        model, suite, name="plain requests", decoding=decoding, folder=folder, judges=[judge],
        refusal_judge=refusal_judge, allow_labeling_judge=True, progress=progress,
    )  # fmt: skip
    rows, left_out = plain_groups(suite.prompts, found.generations, refusals)
    if overlapping := len(bank.plain) - len(apart.plain):
        left_out["requests that overlap with evaluation prompts"] = overlapping
    if not rows:
        raise BfpoError(
            f"{folder}: the model declines all plain requests or answers none, or no judge says which it declines: "
            "name another judge of refusals, or leave the buffer out"
        )
    write_rows(folder / GROUPS, rows)
    return {"groups": len(rows), **left_out}
