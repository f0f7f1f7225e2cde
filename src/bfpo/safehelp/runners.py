"""The runners, which answer and judge prompts or score choices, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bfpo.generation.protocol import ChoiceRequest, Completion, Decoding, Generator, LikelihoodScorer, sample_requests
from bfpo.safehelp.answer_kinds import answer_kind
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.judge_panel import JudgedAnswer, JudgePanel
from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord

Progress = Callable[[int, int], None]


def run_prompts(
    generator: Generator,
    decoding: Decoding,
    panel: JudgePanel,
    items: Sequence[PromptItem],
    journal: Journal[GenerationRecord],
    progress: Progress = lambda done, total: None,
) -> None:
    """Answer and judge every prompt, resuming where the journal ends.

    Batches depend only on the items. A batch that is incomplete in the journal is redone as a whole, so a resumed run
    has the same records as an uninterrupted one. ``progress`` is called with the numbers of finished and all answers.
    """
    by_key = {f"{item.task}/{item.item}": item for item in items}
    requests = sample_requests({key: item.prompt for key, item in by_key.items()}, decoding)
    done = 0
    for batch in generator.plan(requests, decoding):
        owners = [by_key[request.key] for request in batch]
        keys = [(item.task, item.item, request.sample) for item, request in zip(owners, batch, strict=True)]
        if not all(key in journal.done for key in keys):
            completions = generator.generate(batch, decoding)
            judged = panel.judge(owners, [completion.text for completion in completions])
            journal.append(
                [
                    generation_record(item, generator.render(item.prompt), request.sample, completion, judgment)
                    for item, request, completion, judgment in zip(owners, batch, completions, judged, strict=True)
                ]
            )
        done += len(batch)
        progress(done, len(requests))


def generation_record(
    item: PromptItem, rendered: str, sample: int, completion: Completion, judged: JudgedAnswer
) -> GenerationRecord:
    """The record of one answer."""
    primary = judged.verdicts[0] if judged.verdicts else None
    return GenerationRecord(
        task=item.task,
        item=item.item,
        sample=sample,
        kind=item.kind,
        category=item.category,
        attack=item.attack,
        cluster=item.cluster,
        prompt=item.prompt,
        rendered=rendered,
        answer=completion.text,
        tokens=completion.tokens,
        truncated=completion.truncated,
        verdicts=judged.verdicts,
        p_help=judged.p_help,
        answer_kind=answer_kind(completion.text, primary, judged.p_help, judged.detail),
        detail=judged.detail,
    )


def run_choices(
    scorer: LikelihoodScorer,
    items: Sequence[ChoiceItem],
    journal: Journal[LikelihoodRecord],
    progress: Progress = lambda done, total: None,
) -> None:
    """Score the choices of every item, resuming where the journal ends.

    ``progress`` is called with the numbers of finished and all items.
    """
    by_key = {f"{item.task}/{item.item}": item for item in items}
    requests = [
        ChoiceRequest(key, item.prompt, item.choices, item.scored, item.delimiter) for key, item in by_key.items()
    ]
    done = frozenset(f"{task}/{item}" for task, item, _ in journal.done)
    for batch in scorer.score_choices(requests, done) if requests else ():
        journal.append([likelihood_record(by_key[each.key], each.logps, each.truncated) for each in batch])
        progress(len(journal.done), len(items))


def likelihood_record(item: ChoiceItem, logps: tuple[float, ...], truncated: bool = False) -> LikelihoodRecord:
    """The record of one item's choices, from the log-likelihood of each."""
    return LikelihoodRecord(
        task=item.task,
        item=item.item,
        factor=item.factor,
        category=item.category,
        cluster=item.cluster,
        prompt=item.prompt,
        choices=item.choices,
        logps=logps,
        bytes=tuple(len(choice.encode()) for choice in item.choices),
        correct=item.correct,
        truncated=truncated,
        labels=item.labels,
        scored=item.scored,
    )
