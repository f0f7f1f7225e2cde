"""Export of SafeHelp's tasks to inspect-ai, for its models, agents and log viewer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError, did_you_mean
from bfpo.generation.protocol import Completion
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.verdict import Judge
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.figures import help_of, is_refused
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.judge_panel import JudgePanel
from bfpo.safehelp.runners import generation_record
from bfpo.safehelp.suites import Suite
from bfpo.thinking import split_thinking

if TYPE_CHECKING:
    import inspect_ai  # pyright: ignore[reportMissingImports]


def as_inspect_task(  # pyright: ignore[reportUnknownParameterType]
    suite: Suite, task: str, judges: Sequence[Judge] = (), helpfulness_judge: HelpfulnessJudge | None = None
) -> inspect_ai.Task:
    """One task of a suite as an ``inspect_ai.Task``.

    Answers to prompts are judged as in `evaluate`. An answer's score is its value in the figure for its kind of prompt:
    harmless, over-refusal (borderline prompts), or its helpfulness if the task measures it. A task of choices becomes a
    multiple-choice question that the model answers with a letter: inspect-ai doesn't compute log-likelihoods of given
    texts, so the scores differ from SafeHelp's.

    Args:
        suite: a loaded suite.
        task: name of one of its tasks.
        judges: safety judges, the primary one first; a suite with an exact judge needs none.
        helpfulness_judge: judge that compares answers with references, for a pairwise task.

    Raises:
        BfpoError: if inspect-ai isn't installed, or the task doesn't exist, lacks a judge or has no question.
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
        solver = multiple_choice(multiple_correct=any(len(sample.target) > 1 for sample in samples))
        return Task(name=task, dataset=samples, solver=solver, scorer=choice())
    if items[0].reference is not None and helpfulness_judge is None:
        raise BfpoError(f"task {task!r} compares answers with references: pass helpfulness_judge=")
    panel = JudgePanel(suite, judges, helpfulness_judge)
    by_name = {item.item: item for item in items if isinstance(item, PromptItem)}
    return Task(name=task, dataset=samples, solver=generate(), scorer=_scorer(panel, by_name))


def _sample(item: PromptItem | ChoiceItem) -> Any:
    from inspect_ai.dataset import Sample  # pyright: ignore[reportMissingImports]

    metadata = {"category": item.category, "cluster": item.cluster}
    if isinstance(item, PromptItem):
        metadata |= {"kind": item.kind, "attack": item.attack}
        return Sample(id=item.item, input=_input(item), metadata=metadata)
    if item.scored == "prompt" or not item.prompt:
        raise BfpoError(
            f"task {item.task!r} compares likelihoods of whole texts and has no question: it can't be exported"
        )
    letters = [chr(ord("A") + at) for at, correct in enumerate(item.correct) if correct]
    return Sample(id=item.item, input=item.prompt, choices=list(item.choices), target=letters, metadata=metadata)


def _input(item: PromptItem) -> Any:
    from inspect_ai.model import (  # pyright: ignore[reportMissingImports]
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
    )

    if item.messages is None:
        return item.prompt
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return [kinds[message["role"]](content=message["content"]) for message in item.messages]


def _scorer(panel: JudgePanel, items: dict[str, PromptItem]) -> Any:
    from inspect_ai.scorer import Score, mean, scorer, stderr  # pyright: ignore[reportMissingImports]

    @scorer(metrics=[mean(), stderr(cluster="cluster")], name="bfpo")  # pyright: ignore[reportUntypedFunctionDecorator]
    def bfpo() -> Any:
        async def score(state: Any, target: Any) -> Any:
            item, (_, answer) = items[state.sample_id], split_thinking(state.output.completion, before=None)
            (judged,) = await asyncio.to_thread(panel.judge, [item], [answer])
            record = generation_record(item, "", 0, Completion(answer, truncated=False), judged)
            verdict = next(iter(record.verdicts), None)
            kind = record.answer_kind
            value = float(is_refused(record) if item.kind == "borderline" else ANSWER_KINDS[kind].is_safe)
            if item.kind == "benign" and record.p_help is not None:
                value = help_of(record)
            metadata = {"p_safe": verdict and verdict.p_safe, "p_help": record.p_help}
            return Score(value=value, answer=kind, explanation=verdict.raw if verdict else "", metadata=metadata)

        return score

    return bfpo()
