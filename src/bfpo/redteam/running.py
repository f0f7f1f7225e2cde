"""Red teaming of one model: attacks in turns, each chosen by what came before, then held-out styles, then groups."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bfpo.claims import claimed
from bfpo.errors import BfpoError, RunError
from bfpo.files import file_sha256, write_json, write_rows
from bfpo.generation.protocol import Generator
from bfpo.judges.verdict import Judge
from bfpo.redteam.archive import Archive
from bfpo.redteam.asking import HELD_OUT, Asking, Progress, turn_name
from bfpo.redteam.attacker import STYLE as ATTACKER
from bfpo.redteam.attacker import Attacker
from bfpo.redteam.attacking import RequestJudge, outcomes
from bfpo.redteam.bank import Pair
from bfpo.redteam.grouping import Row, preference_groups
from bfpo.redteam.settings import RedTeam
from bfpo.safehelp.figures import ANSWER_FIGURES, items_of
from bfpo.safehelp.records import GenerationRecord, read_header
from bfpo.statistics.intervals import Estimate

GROUPS, SUMMARY, SETTINGS = "groups.jsonl", "redteam.json", "settings.json"
# The record of several rounds, in whose folder no single run may lie.
ROUNDS = "rounds.json"


class NoGroupsError(RunError):
    """Red teaming found no group to train on, as of a model that withstands all attacks."""


@dataclass(frozen=True)
class Attacked:
    """What red teaming found.

    Attributes:
        attacks: number of attacks, by style.
        success: share of unsafe answers, "all" and by style and category; held-out styles only by style.
        over_refusal: share of refused twins, likewise; empty where the judge doesn't report refusals.
        groups: number of groups to train on, attacks and twins.
        left_out: number of answers and attacks that are not in them, by reason.
        cells: success of the best attack by category and style.
    """

    attacks: Mapping[str, int]
    success: Mapping[str, Estimate]
    over_refusal: Mapping[str, Estimate]
    groups: int
    left_out: Mapping[str, int]
    cells: Mapping[str, Mapping[str, float]]


def red_team(
    generator: Generator,
    judge: Judge,
    pairs: Sequence[Pair],
    settings: RedTeam,
    folder: Path,
    *,
    evaluation: Mapping[str, Sequence[str]] | None = None,
    refusal_judge: Judge | None = None,
    attacker: Attacker | None = None,
    merge: Sequence[Path] = (),
    progress: Progress = lambda what, done, total: None,
) -> Attacked:
    """Attack a model, and write groups to train on; an interrupted run is resumed, nothing is asked twice.

    Args:
        generator: the model.
        judge: safety judge, which sees the requests behind styled prompts.
        pairs: risky requests with their twins.
        settings: how many attacks, of which styles.
        folder: folder of the run: its turns are evaluations in subfolders; the groups and the summary are written last.
        evaluation: evaluation prompts by the name of their set, which no group contains.
        refusal_judge: judge that decides which answers decline; by default the safety judge.
        attacker: model that words the attacks in the style ``attacker``.
        merge: folders of all parts of the run (`bfpo.redteam.parts.attack_part`), whose answers are taken.
        progress: function called with a turn and its numbers of finished and all answers.

    Raises:
        BfpoError: if the folder holds another run, or there are no pairs.
        RunError: if no answer or verdict was given; `NoGroupsError` if no group is left to train on.
    """
    if (folder / ROUNDS).exists():
        raise BfpoError(f"{folder}: contains several rounds; name another folder")
    check_attacks(pairs, settings, attacker)
    _claim(folder, settings, evaluation or {})
    judges = [RequestJudge(judge)], None if refusal_judge is None else RequestJudge(refusal_judge)
    ask = Asking(generator, *judges, attacker, settings, folder, progress, merge=merge)
    archive, rows, left_out, found = Archive(pairs, settings.styles), [], Counter[str](), []
    for turn in range(settings.turns):
        planned = archive.choose(settings.in_turn(turn), settings.seed)
        if not planned:
            break
        check_parts(merge, turn_name(turn))
        records, items, dropped = ask.tried(planned, turn_name(turn), turn_name(turn))
        archive = archive.with_outcomes(outcomes(planned, records))
        made, counts = preference_groups(items, records, evaluation or {}, settings.refusals)
        rows, left_out, found = [*rows, *made], left_out + counts + dropped, [*found, *records]
    unseen = Archive(pairs, settings.held_out).choose(settings.measured, settings.seed)
    if unseen:
        check_parts(merge, HELD_OUT)
        records, _, dropped = ask.tried(unseen, HELD_OUT, "held-out styles")
        found, left_out = [*found, *records], left_out + dropped
    return _written(archive, found, rows, left_out, settings, attacker, folder)


def _claim(folder: Path, settings: RedTeam, evaluation: Mapping[str, Sequence[str]]) -> None:
    """Check that the folder holds no other run, whose groups this one would replace, and record this one.

    The answers' model, judges and attacker are checked by each turn's own record.
    """
    if (folder / SUMMARY).exists() and not (folder / SETTINGS).exists():
        raise BfpoError(f"{folder}: contains red teaming by an older version; name another folder")
    digests = {name: hashlib.sha256(json.dumps(list(own)).encode()).hexdigest() for name, own in evaluation.items()}
    claimed(folder / SETTINGS, asdict(settings) | {"evaluation_prompts": digests}, "red teaming")


def check_attacks(pairs: Sequence[Pair], settings: RedTeam, attacker: Attacker | None) -> None:
    """Check that there is something to attack with.

    Raises:
        BfpoError: if there are no pairs, or no attacker for its style.
    """
    if not pairs:
        raise BfpoError("there is no risky request to attack with: name another prompt bank")
    if (ATTACKER in (*settings.styles, *settings.held_out)) != (attacker is not None):
        raise BfpoError(f"an attacker words the attacks in the style {ATTACKER!r}: give both, or none of them")


def is_finished(part: Path, name: str) -> bool:
    """Whether a part has made a turn, or the held-out styles."""
    header = read_header(part / name)
    return header is not None and header.finished


def check_parts(parts: Sequence[Path], name: str) -> None:
    """Check that all parts have made a turn, or the held-out styles.

    Raises:
        BfpoError: if one hasn't.
    """
    for part in parts:
        if not is_finished(part, name):
            raise BfpoError(f"{part}: {name} isn't finished there; repeat the commands of all parts, then merge")


def _written(
    archive: Archive,
    records: Sequence[GenerationRecord],
    rows: Sequence[Row],
    left_out: Mapping[str, int],
    settings: RedTeam,
    attacker: Attacker | None,
    folder: Path,
) -> Attacked:
    """The summary, after it and the groups were written."""
    if not rows:
        shown = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise NoGroupsError(f"no group is left to train on ({shown}): try more attacks or samples, or another judge")
    cells: dict[str, dict[str, float]] = {}
    for (category, style), best in archive.best.items():
        cells.setdefault(category, {})[style] = best.success
    attacks = Counter(str(record.attack) for record in records if record.kind == "harmful" and record.sample == 0)
    success, refused = (_by_part(name, records, settings.styles) for name in ("attack_success", "over_refusal"))
    result = Attacked(dict(attacks), success, refused, len(rows), dict(left_out), cells)
    write_rows(folder / GROUPS, rows)
    digest = file_sha256(folder / GROUPS)
    summary = {"settings": asdict(settings), "groups_sha256": digest} | asdict(result)
    if attacker:
        summary["attacker"] = attacker.record | {"model": attacker.generator.identity.path}
    write_json(folder / SUMMARY, summary)
    return result


def _by_part(figure: str, records: Sequence[GenerationRecord], styles: Sequence[str]) -> dict[str, Estimate]:
    """A figure of all attacks and by category, both in the styles that training sees, and of every style."""
    trained = [record for record in records if record.attack in styles]
    parts = {"all": trained}
    for name in dict.fromkeys(record.category for record in trained):
        parts[f"category {name}"] = [record for record in trained if record.category == name]
    for style in dict.fromkeys(record.attack for record in records):
        parts[f"style {style}"] = [record for record in records if record.attack == style]
    found = {name: items_of(own, ANSWER_FIGURES[figure]).estimate() for name, own in parts.items()}
    return {name: estimate for name, estimate in found.items() if estimate}
