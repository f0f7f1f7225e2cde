"""The panel that says in plain words what a quickstart on a real model did and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bfpo.reports.panel import Column, Panel, Table, estimate_or_dash
from bfpo.safehelp.figures import ANSWER_FIGURES, items_of
from bfpo.safehelp.records import Evaluation
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judge_error import JudgeError


@dataclass(frozen=True)
class Outcome:
    """Rates of one model on held-out requests; None where nothing was measured.

    Attributes:
        name: name of the model.
        complied: share of risky requests that it complied with.
        corrected: the same, corrected for the judge's errors.
        twins_refused: share of their harmless twins refused.
        plain_refused: share of everyday requests refused.
        prefers_refusal: share of risky requests where a refusal is likelier than an earlier answer that complied.
        prefers_answer: share of twins where the earlier answer is likelier than the refusal.
    """

    name: str
    complied: Estimate | None
    corrected: Estimate | None
    twins_refused: Estimate | None
    plain_refused: Estimate | None
    prefers_refusal: Estimate | None
    prefers_answer: Estimate | None

    @classmethod
    def of(cls, evaluation: Evaluation, plain_refused: Estimate | None) -> Outcome:
        """The rates in an evaluation."""
        scores = evaluation.scores
        likelihood = {task.factor: task.estimate for task in evaluation.tasks if task.kind == "likelihood"}
        return cls(
            evaluation.model,
            items_of(evaluation.generations, ANSWER_FIGURES["attack_success"]).estimate(),
            scores.get("attack_success/corrected"),
            scores.get("over_refusal"),
            plain_refused,
            likelihood.get("harmless"),
            likelihood.get("over_refusal"),
        )


def real_model_panel(
    model: str, outcomes: Sequence[Outcome], judge: str, error: JudgeError | None, groups: int
) -> Panel:
    """The panel, with a row for each model."""
    lead = (
        f"{model} was asked risky requests and harmless twins of almost the same words, such as how to read somebody's "
        f"diary in secret and how to keep one's own diary private. Its answers and written refusals became {groups:,} "
        "comparisons: refusing is better where a request is risky, answering where it is harmless. DPO and BFPO, two "
        "methods, trained on the same comparisons. The table shows requests that no training saw."
    )
    columns = (
        Column("model", lambda one: one.name),
        Column("complied with risky requests", lambda one: estimate_or_dash(one.complied), "lower is safer"),
        Column("corrected for the judge's errors", lambda one: estimate_or_dash(one.corrected), "lower is safer"),
        Column("refused harmless twins", lambda one: estimate_or_dash(one.twins_refused), "lower is more useful"),
        Column("refused everyday requests", lambda one: estimate_or_dash(one.plain_refused), "lower is more useful"),
        Column("finds a refusal likelier, risky", lambda one: estimate_or_dash(one.prefers_refusal), "no judge"),
        Column("finds an answer likelier, twins", lambda one: estimate_or_dash(one.prefers_answer), "no judge"),
    )
    return Panel("what-happened", "What happened", lead, tables=[Table.of("Held-out requests", columns, outcomes)])
