"""``bfpo label``: a preference set in; the same set with its labels, and a queue for people, out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.files import write_lines
from bfpo.judges.cache import VerdictCache
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.verdict import Judge
from bfpo.labeling.filling import Flags, LabeledSet, label_preferences
from bfpo.labeling.people import with_answers
from bfpo.labeling.queue import queue_for_people
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.loading import inspect_preferences
from bfpo.statistics.judge_error import JudgeError


def label(
    source: str,
    judges: Sequence[Judge],
    output: Path,
    *,
    order_judge: HelpfulnessJudge | None = None,
    flags: Flags | None = None,
    errors: Sequence[JudgeError | None] | None = None,
    labeling: GlobalPreference | None = None,
    cache: VerdictCache | None = None,
    answers: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
) -> LabeledSet:
    """Label a file or Hub data set into ``output``, and write the rows worth a person's minute beside it.

    Args:
        source: the preferences.
        judges: of safety.
        output: JSONL file of the labelled rows; the queue goes to ``NAME.queue.jsonl``.
        order_judge: of helpfulness.
        flags: see `label_preferences`.
        errors: see `label_preferences`.
        labeling: the labeling function that will train, by which the queue is ordered; by default the paper's.
        cache: of verdicts.
        answers: queues of earlier runs in which people filled in ``asks`` (see `with_answers`).
        reading: arguments of `load_preferences` (split, revision, columns).

    Raises:
        BfpoError: if the source has problems, a judge is missing, or ``output`` can't be written.
    """
    if Path(source).exists() and output.exists() and os.path.samefile(source, output):
        raise BfpoError(f"{output}: the labels would replace the set they are made from; name another file with -o")
    dataset, _ = inspect_preferences(source, unknown_safety="keep", **(reading or {}))
    rows = [dict(row) for row in dataset]  # pyright: ignore[reportArgumentType, reportCallIssue]
    for name in answers:
        rows = with_answers(rows, name)
    labelled = label_preferences(rows, judges, order_judge=order_judge, flags=flags, errors=errors, cache=cache)
    queue = queue_for_people(labelled.rows, labeling or GlobalPreference(), labelled.report.prior)
    _write(output, labelled.rows)
    _write(queue_file(output), ({"value": one.value, "asks": dict.fromkeys(one.asks), **one.row} for one in queue))
    return labelled


def queue_file(output: Path) -> Path:
    """Where the queue of a labelled file goes."""
    return output.with_name(f"{output.name.removesuffix('.jsonl')}.queue.jsonl")


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_lines(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
