"""Files of red-teaming tools that hold rows among other things: garak's reports, JailbreakBench's artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bfpo.preferences.schema import Problem

Row = dict[str, Any]
Read = Callable[[list[Problem]], Iterator[tuple[int, Row]]]

# garak's default, which its own tools assume where a report doesn't say (garak/analyze/ci_calculator.py, 0b83f44).
EVAL_THRESHOLD = 0.5
_COMPLETE = 2


def artifact_rows(value: Any) -> Any:
    """The attacks of a JailbreakBench artifact, each with the artifact's parameters; other values as they are.

    An artifact is an object with ``parameters`` and ``jailbreaks`` (JailbreakBench/artifacts, 909e68c).
    """
    attacks = value.get("jailbreaks") if isinstance(value, dict) else None
    if not isinstance(attacks, list):
        return value
    shared = {"parameters": value["parameters"]} if "parameters" in value else {}
    return [shared | attack if isinstance(attack, dict) else attack for attack in attacks]


def attempts_of(read: Read) -> Read:
    """Reader of a JSONL file's rows; of garak's report, only the attempts, with ``eval_threshold``.

    The rows of a report have an ``entry_type``. An attempt is written when it is answered (status 1) and once more
    when detectors have scored it (status 2), so the first one is left out if the second one follows. A score is a hit
    from the threshold on that the run's setup names (docs/source/reporting.rst, 0b83f44; garak/attempt.py, 00da980).
    """

    def read_attempts(problems: list[Problem]) -> Iterator[tuple[int, Row]]:
        _, first = next(read([]), (0, {}))
        if "entry_type" not in first:
            yield from read(problems)
            return
        completed = {str(row.get("uuid")) for _, row in read([]) if row.get("status") == _COMPLETE}
        threshold, found = EVAL_THRESHOLD, False
        for number, row in read(problems):
            threshold = row.get("run.eval_threshold", threshold)
            if row.get("entry_type") != "attempt":
                continue
            found = True
            if row.get("status") == _COMPLETE or str(row.get("uuid")) not in completed:
                yield number, row | {"eval_threshold": threshold}
        if not found:
            problems.append(Problem(None, None, "it is a garak report without attempts", "run garak to the end"))

    return read_attempts
