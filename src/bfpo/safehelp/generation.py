"""The generation runner: answers sampled and judged batch by batch, each batch on disk before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bfpo.generation.protocol import Asked, Completion, Generator
from bfpo.safehelp.figures import answer_kind
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.judging import Judged, Judging
from bfpo.safehelp.records import GenerationRecord


def run_prompts(
    generator: Generator,
    judging: Judging,
    items: Sequence[PromptItem],
    samples: int,
    journal: Journal[GenerationRecord],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Answer and judge every prompt, going on where the journal ends.

    Batches are planned from the items alone. A batch of which the journal lacks any answer is done again as a whole, so
    that a run that was killed ends in the same records as one that wasn't.

    Args:
        generator: what answers.
        judging: who judges.
        items: the prompts.
        samples: answers to each.
        journal: where records go.
        progress: told how many answers of how many are there.
    """
    by_key = {f"{item.task}/{item.item}": item for item in items}
    asked = [Asked(key, item.prompt, number) for key, item in by_key.items() for number in range(samples)]
    done = 0
    for batch in generator.plan(asked):
        owners = [by_key[one.key] for one in batch]
        wanted = [(item.task, item.item, one.sample) for item, one in zip(owners, batch, strict=True)]
        if not all(key in journal.done for key in wanted):
            completions = generator.answer(batch)
            judged = judging.judge(owners, [completion.text for completion in completions])
            journal.append(list(_records(generator, owners, batch, completions, judged)))
        done += len(batch)
        progress(done, len(asked))


def _records(
    generator: Generator,
    items: Sequence[PromptItem],
    batch: Sequence[Asked],
    completions: Sequence[Completion],
    judged: Sequence[Judged],
) -> Iterable[GenerationRecord]:
    for item, one, completion, said in zip(items, batch, completions, judged, strict=True):
        yield GenerationRecord(
            task=item.task,
            item=item.item,
            sample=one.sample,
            kind=item.kind,
            category=item.category,
            attack=item.attack,
            cluster=item.cluster,
            prompt=item.prompt,
            rendered=generator.render(item.prompt),
            answer=completion.text,
            tokens=completion.tokens,
            truncated=completion.truncated,
            verdicts=said.verdicts,
            p_help=said.p_help,
            answer_kind=answer_kind(
                completion.text, said.verdicts[0] if said.verdicts else None, said.p_help, said.detail
            ),
            detail=said.detail,
        )
