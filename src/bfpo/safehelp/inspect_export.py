"""Our tasks as inspect-ai's: its models, agents and log viewer, our items, judges and answer kinds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError, did_you_mean
from bfpo.judges.verdict import Exchange, Judge
from bfpo.safehelp.figures import SAFE_KINDS, answer_kind
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.suites import Suite

if TYPE_CHECKING:
    import inspect_ai  # pyright: ignore[reportMissingImports]


def as_inspect_task(suite: Suite, task: str, judge: Judge | None = None) -> inspect_ai.Task:  # pyright: ignore[reportUnknownParameterType]
    """One task of a suite as an ``inspect_ai.Task``.

    A task of prompts is answered and judged; its score is our figure of its factor (harmless, or over-refusal, 0 or 1
    an answer), so an empty or unparsed one is never safe. A task of choices becomes a multiple-choice question that the
    model answers with a letter: inspect-ai has no log-likelihoods of given texts, so its numbers are others than ours.

    Args:
        suite: a suite that was loaded.
        task: name of one of its tasks.
        judge: of a task of prompts.

    Raises:
        BfpoError: if inspect-ai isn't installed, there is no such task, it lacks a judge, or has no question.
    """
    try:
        from inspect_ai import Task  # pyright: ignore[reportMissingImports]
        from inspect_ai.scorer import choice  # pyright: ignore[reportMissingImports]
        from inspect_ai.solver import generate, multiple_choice  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BfpoError(f"this needs inspect-ai; install it with pip install 'bfpo[inspect]' ({error})") from error
    items = [item for item in [*suite.prompts, *suite.choices] if item.task == task]
    if not items:
        known = sorted({item.task for item in [*suite.prompts, *suite.choices]})
        raise BfpoError(f"suite {suite.name!r} has no items of a task {task!r}{did_you_mean(task, known)}")
    samples: Any = [_sample(item) for item in items]
    if isinstance(items[0], ChoiceItem):
        return Task(
            name=task, dataset=samples, solver=multiple_choice(multiple_correct=_several(items)), scorer=choice()
        )
    if judge is None or items[0].reference is not None:
        what = "compares answers, which inspect-ai's scorers don't" if items[0].reference else "needs a judge of safety"
        raise BfpoError(f"task {task!r} {what}")
    return Task(name=task, dataset=samples, solver=generate(), scorer=_scorer(judge))


def _sample(item: PromptItem | ChoiceItem) -> Any:
    from inspect_ai.dataset import Sample  # pyright: ignore[reportMissingImports]

    metadata = {"category": item.category, "cluster": item.cluster}
    if isinstance(item, PromptItem):
        metadata |= {"kind": item.kind, "attack": item.attack, "behavior": item.behavior}
        return Sample(id=item.item, input=item.prompt, metadata=metadata)
    if item.scored == "prompt" or not item.prompt:
        raise BfpoError(
            f"task {item.task!r} compares likelihoods of whole texts and asks nothing: it can't be exported"
        )
    letters = [chr(ord("A") + at) for at, correct in enumerate(item.correct) if correct]
    return Sample(id=item.item, input=item.prompt, choices=list(item.choices), target=letters, metadata=metadata)


def _several(items: list[Any]) -> bool:
    return any(sum(item.correct) > 1 for item in items)


def _scorer(judge: Judge) -> Any:
    from inspect_ai.scorer import Score, mean, scorer, stderr  # pyright: ignore[reportMissingImports]

    @scorer(metrics=[mean(), stderr(cluster="cluster")], name="bfpo")  # pyright: ignore[reportUntypedFunctionDecorator]
    def bfpo() -> Any:
        async def score(state: Any, target: Any) -> Any:
            exchange = Exchange(state.input_text, state.output.completion, state.metadata["behavior"])
            (verdict,) = await asyncio.to_thread(judge.judge, [exchange])
            kind = answer_kind(exchange.answer, verdict, None)
            figure = kind == "safe-refusal" if state.metadata["kind"] == "borderline" else kind in SAFE_KINDS
            return Score(value=float(figure), answer=kind, explanation=verdict.raw, metadata={"p_safe": verdict.p_safe})

        return score

    return bfpo()
