"""The runners, which answer and judge prompts or score choices, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from bfpo.errors import RunError
from bfpo.generation.protocol import (
    ChoiceRequest,
    Completion,
    Decoding,
    Generator,
    LikelihoodScorer,
    SampleRequest,
    StreamingGenerator,
    sample_requests,
)
from bfpo.judges.streaming import no_verdict
from bfpo.judges.unjudged import is_unanswered
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.answer_kinds import answer_kind
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.journal import Journal, Key, key_of
from bfpo.safehelp.judge_panel import JudgedAnswer, JudgePanel
from bfpo.safehelp.parts import Work
from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord
from bfpo.thinking import split_thinking

Progress = Callable[[int, int], None]
# Answers in the first batch after which a server that gave none, or a judge without a verdict, ends the run.
_ENOUGH = 5


def run_prompts(
    generator: Generator,
    decoding: Decoding,
    panel: JudgePanel,
    items: Sequence[PromptItem],
    journal: Journal[GenerationRecord],
    progress: Progress = lambda done, total: None,
    work: Work | None = None,
) -> None:
    """Answer and judge every prompt, resuming where the journal ends.

    Batches depend only on the items. A batch that is incomplete in the journal is redone as a whole, so a resumed run
    has the same records as an uninterrupted one. Answers and verdicts that a server failed to give to an earlier run
    are asked for again first. ``progress`` is called with the numbers of finished and all answers.
    """
    by_key = {f"{item.task}/{item.item}": item for item in items}
    requests = sample_requests({key: item.request for key, item in by_key.items()}, decoding)
    _ask_again(generator, decoding, panel, by_key, requests, journal)
    work, done = work or Work(), 0
    batches = generator.plan(requests, decoding)
    if work.shard:
        batches = [batch for place, batch in enumerate(batches) if work.shard.has(place)]
    total = sum(map(len, batches))

    def keys_of(batch: Sequence[SampleRequest]) -> list[Key]:
        return [(by_key[request.key].task, by_key[request.key].item, request.sample) for request in batch]

    def is_made(batch: Sequence[SampleRequest]) -> bool:
        return any(all(key in made for key in keys_of(batch)) for made in (journal.done, work.answers))

    completions = _completions(generator, [batch for batch in batches if not is_made(batch)], decoding)
    for batch in batches:
        if not is_made(batch):
            records = _judged(generator, panel, [by_key[one.key] for one in batch], batch, next(completions))
            if not journal.done and len(records) >= _ENOUGH:
                require_some(records, is_unanswered, is_part=work.shard is not None)
            journal.append(records)
        elif not all(key in journal.done for key in keys_of(batch)):
            journal.append([work.answers[key] for key in keys_of(batch)])
        done += len(batch)
        progress(done, total)


def _completions(
    generator: Generator, batches: Sequence[Sequence[SampleRequest]], decoding: Decoding
) -> Iterator[list[Completion]]:
    """The answers to every batch; a server goes on to answer the next ones while a batch is judged."""
    if isinstance(generator, StreamingGenerator):
        stream = generator.stream(chain.from_iterable(batches), decoding)
        yield from ([_without_thinking(each) for each in islice(stream, len(batch))] for batch in batches)
    else:
        yield from ([_without_thinking(each) for each in generator.generate(batch, decoding)] for batch in batches)


def require_some(
    records: Sequence[GenerationRecord], is_silent: Callable[[Verdict], bool], *, is_part: bool = False
) -> None:
    """Check that there are answers and verdicts in one batch or all; ``is_silent`` tells which verdicts count as none.

    A part of a run may have no answer, since batches are by length and the longest prompts leave no room for one.

    Raises:
        RunError: if there is no answer, or no verdict on any answer.
    """
    if records and not is_part and all(record.failure for record in records):
        raise RunError(
            f"none of {len(records):,} prompts got an answer ({records[0].failure.rstrip('.')}): correct the model or "
            "the settings and rerun"
        )
    answered = [record for record in records if record.answer.strip()]
    judged = [record.verdicts[0] for record in answered if record.verdicts]
    of_refusals = [record.refusal_verdict for record in answered if record.refusal_verdict]
    for verdicts in (judged, of_refusals):
        if verdicts and all(map(is_silent, verdicts)):
            raise RunError(no_verdict(verdicts[0]))
    if of_refusals and all(verdict.refusal == "unknown" for verdict in of_refusals):
        judge = of_refusals[0].judge_id
        raise RunError(f"the judge {judge} doesn't tell which answers decline: name another one with --refusal-judge")


def _ask_again(
    generator: Generator,
    decoding: Decoding,
    panel: JudgePanel,
    by_key: Mapping[str, PromptItem],
    requests: Sequence[SampleRequest],
    journal: Journal[GenerationRecord],
) -> None:
    """Replace the records without an answer, a verdict or a preference because of a server."""
    records = journal.records() if journal.done else []
    missing = {
        (f"{record.task}/{record.item}", record.sample): record
        for record in records
        if record.failure or record.uncompared or any(map(is_unanswered, _all_verdicts(record)))
    }
    again = [request for request in requests if (request.key, request.sample) in missing]
    for start in range(0, len(again), decoding.batch_size):
        batch = again[start : start + decoding.batch_size]
        found = [missing[request.key, request.sample] for request in batch]
        failed = [request for request, record in zip(batch, found, strict=True) if record.failure]
        answered = iter(generator.generate(failed, decoding) if failed else ())
        completions = [_without_thinking(next(answered)) if record.failure else _completion(record) for record in found]
        journal.replace(_judged(generator, panel, [by_key[request.key] for request in batch], batch, completions))


def _all_verdicts(record: GenerationRecord) -> list[Verdict]:
    return [*record.verdicts, *([record.refusal_verdict] if record.refusal_verdict else [])]


def _without_thinking(completion: Completion) -> Completion:
    if completion.thinking:
        return completion
    thinking, answer = split_thinking(completion.text)
    return replace(completion, text=answer, thinking=thinking)


def _completion(record: GenerationRecord) -> Completion:
    """The completion that a record was made of."""
    return Completion(
        record.answer, record.truncated, record.tokens, record.thinking, record.refusal, record.failure,
        record.finish_reason, record.usage,
    )  # fmt: skip


def _judged(
    generator: Generator,
    panel: JudgePanel,
    items: Sequence[PromptItem],
    batch: Sequence[SampleRequest],
    completions: Sequence[Completion],
) -> list[GenerationRecord]:
    judged = panel.judge(items, [completion.text for completion in completions])
    return [
        generation_record(item, generator.render(item.request), request.sample, completion, judgment)
        for item, request, completion, judgment in zip(items, batch, completions, judged, strict=True)
    ]


def generation_record(
    item: PromptItem, rendered: str, sample: int, completion: Completion, judged: JudgedAnswer
) -> GenerationRecord:
    """The record of one answer."""
    primary = judged.verdicts[0] if judged.verdicts else None
    refusal, failure = completion.refusal, completion.failure
    # The exact judge's label is of a text, and here the model wrote none.
    detail = None if refusal or failure else judged.detail
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
        answer_kind=answer_kind(
            completion.text,
            primary,
            judged.p_help,
            detail,
            refusal=refusal,
            failure=failure,
            refusal_verdict=judged.refusal,
        ),
        detail=detail,
        thinking=completion.thinking,
        refusal=refusal,
        failure=failure,
        finish_reason=completion.finish_reason,
        usage=completion.usage,
        refusal_verdict=judged.refusal,
        # As with the label, there is none of a text that the model didn't write.
        harm=None if refusal or failure else judged.harm,
        uncompared=judged.uncompared,
    )


def run_choices(
    scorer: LikelihoodScorer,
    items: Sequence[ChoiceItem],
    journal: Journal[LikelihoodRecord],
    progress: Progress = lambda done, total: None,
    work: Work | None = None,
) -> None:
    """Score the choices of every item, resuming where the journal ends; of several parts, the first does it all.

    ``progress`` is called with the numbers of finished and all items.
    """
    work = work or Work()
    if work.shard and work.shard.number > 1:
        return
    journal.append([record for record in work.likelihoods if key_of(record) not in journal.done])
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
