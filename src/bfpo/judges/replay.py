"""A judge that replays verdicts stored in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.files import check_replaceable, check_suffix, encodable, file_sha256, write_lines
from bfpo.judges.unjudged import NOT_RECORDED, around_empty, unjudged
from bfpo.judges.verdict import Exchange, Verdict, verdict_from, verdict_problems
from bfpo.preferences.reading import Row, is_csv, parse_cell, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem

_Key = tuple[str, str, str | None]


@dataclass(frozen=True)
class ReplayJudge:
    """Stored verdicts by prompt, answer and behavior; other exchanges are unparsed.

    Attributes:
        judge_id: name and digest of the file.
        recorded: stored verdicts.
        template_digest: always "".
    """

    judge_id: str
    recorded: Mapping[_Key, Verdict]
    template_digest: str = ""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The stored verdict on every exchange."""
        return around_empty(self, exchanges, lambda given: [self._recorded(exchange) for exchange in given])

    def _recorded(self, exchange: Exchange) -> Verdict:
        found = self.recorded.get(_key(exchange))
        return found or unjudged(self, NOT_RECORDED)


def load_replay(name: str) -> ReplayJudge:
    """Load a file whose rows have prompt, answer and the fields of a verdict, such as `save_verdicts` writes.

    Raises:
        BfpoError: if the file has no verdicts, or different verdicts on the same answer.
    """
    if not name:
        raise BfpoError("replay needs a file of verdicts: write replay:FILE")
    rows = read_rows(name, "train", None)
    judge_id = f"replay:{Path(name).name}@{file_sha256(name)[:16]}"
    problems: list[Problem] = []
    recorded: dict[_Key, Verdict] = {}
    for number, row in map(_with_numbers, rows) if is_csv(name) else rows:
        texts = [column for column in ("prompt", "answer") if not isinstance(row.get(column), str)]
        texts += ["behavior"] if not isinstance(row.get("behavior"), str | None) else []
        problems += [Problem(number, column, "it is missing or not a string", "write a string") for column in texts]
        wrong = [Problem(number, *problem) for problem in verdict_problems(row)]
        problems += wrong
        if texts or wrong:
            continue
        key = _key(Exchange(row["prompt"], row["answer"], row.get("behavior")))
        verdict = verdict_from(row, judge_id)
        if recorded.setdefault(key, verdict) != verdict:
            problems.append(Problem(number, None, "it contradicts an earlier verdict", "keep one of the rows"))
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return ReplayJudge(judge_id, recorded)


def _with_numbers(numbered: tuple[int, Row]) -> tuple[int, Row]:
    """A row of CSV, whose cells are text or null, as the row of a verdict."""
    number, cells = numbered
    row: Row = {name: cell for name, cell in cells.items() if cell is not None or name == "p_safe"}
    for name in ("p_safe", "mass", "harm"):
        if isinstance(value := row.get(name), str):
            row[name] = parse_cell(value)
    if isinstance(categories := row.get("categories"), str):
        row["categories"] = [name.strip() for name in categories.split(",")]
    # An empty answer has a verdict, too.
    return number, row | {"answer": row.get("answer", "")}


def save_verdicts(path: Path, judged: Iterable[tuple[Exchange, Verdict]]) -> None:
    """Write verdicts to a JSONL file for `load_replay`.

    Raises:
        BfpoError: if the file exists and has anything but earlier verdicts of the same judge on these answers.
    """
    check_suffix(path, ".jsonl")
    given = list(judged)
    judges = {_key(exchange): _judge_of(verdict) for exchange, verdict in given}

    def check(earlier: Path) -> None:
        for key, verdict in load_replay(str(earlier)).recorded.items():
            if judges.get(key) not in (("", ""), _judge_of(verdict)):
                raise BfpoError(f"{earlier}: it has another verdict, by {verdict.judge_id}")

    check_replaceable(path, check, "an earlier one with this judge's verdicts on these answers")
    write_lines(path, (json.dumps(_row(exchange, verdict)) + "\n" for exchange, verdict in given))


def _judge_of(verdict: Verdict) -> tuple[str, str]:
    # Judges that ask one model different questions share an id.
    return verdict.judge_id, verdict.template_digest


def _row(exchange: Exchange, verdict: Verdict) -> dict[str, Any]:
    prompt, answer, behavior = _key(exchange)
    texts = {"prompt": prompt, "answer": answer} | ({} if behavior is None else {"behavior": behavior})
    return texts | asdict(verdict) | {"raw": encodable(verdict.raw)}


def _key(exchange: Exchange) -> _Key:
    behavior = None if exchange.behavior is None else encodable(exchange.behavior)
    return encodable(exchange.prompt), encodable(exchange.answer), behavior
