"""Red teaming in parts: several processes answer the attacks of one turn, and then the next turn can be chosen.

Which attacks a turn tries depends on all answers to the turns before it, so parts can't run ahead of each other. With
an archive of its own, a part could; but it would choose other attacks, and the result would depend on their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Generator
from bfpo.judges.verdict import Judge
from bfpo.redteam.archive import Archive
from bfpo.redteam.asking import HELD_OUT, Asking, Progress, turn_name
from bfpo.redteam.attacking import RequestJudge, outcomes
from bfpo.redteam.bank import Pair
from bfpo.redteam.running import check_attacks, is_finished
from bfpo.redteam.settings import RedTeam
from bfpo.shards import Shard


@dataclass(frozen=True)
class Part:
    """What a call of `attack_part` has made.

    Attributes:
        turn: the turn, which counts from 0; None if all turns are finished.
        answers: number of this part's answers to the turn's attacks.
        is_last: whether all parts can be merged once they have made this turn.
    """

    turn: int | None
    answers: int
    is_last: bool


def attack_part(
    generator: Generator,
    judge: Judge,
    pairs: Sequence[Pair],
    settings: RedTeam,
    folder: Path,
    shard: Shard,
    *,
    parts: Sequence[Path] = (),
    refusal_judge: Judge | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Part:
    """Answer a part of the first turn that isn't finished in all parts, and with the first one of the held-out styles.

    Called in every part once for each turn, this makes what `red_team` merges: the same attacks and answers, hence the
    same groups, as those of one process. Arguments that are not listed are those of `red_team`.

    Args:
        folder: folder of this part; an interrupted part is resumed.
        shard: the part.
        parts: folders of all parts, this one included, from which earlier turns are read; not needed for the first one.

    Raises:
        BfpoError: if the folder holds another run, a part is missing, or an attacker words the attacks.
        RunError: if no answer or verdict was given.
    """
    check_attacks(pairs, settings, None)
    judges = [RequestJudge(judge)], None if refusal_judge is None else RequestJudge(refusal_judge)
    ask = Asking(generator, *judges, None, settings, folder, progress, shard)
    read = replace(ask, folder=None, shard=None, merge=parts)
    unseen = Archive(pairs, settings.held_out).choose(settings.measured, settings.seed)
    archive = Archive(pairs, settings.styles)
    if unseen and is_finished(folder, turn_name(0)) and not is_finished(folder, HELD_OUT):
        # The part was interrupted between the two.
        ask.tried(unseen, HELD_OUT, "held-out styles")
    for turn in range(settings.turns):
        planned = archive.choose(settings.in_turn(turn), settings.seed)
        if not planned:
            break
        if parts and all(is_finished(part, turn_name(turn)) for part in parts):
            records, *_ = read.tried(planned, turn_name(turn), f"{turn_name(turn)} of all parts")
            archive = archive.with_outcomes(outcomes(planned, records))
            continue
        if not parts and turn == 0 and settings.turns > 1 and is_finished(folder, turn_name(turn)):
            raise BfpoError(
                f"{folder}: turn 1 of part {shard} is finished, and the next one depends on what all parts found: give "
                "the folder of each with --merge"
            )
        records, *_ = ask.tried(planned, turn_name(turn), turn_name(turn))
        if turn == 0 and unseen:
            ask.tried(unseen, HELD_OUT, "held-out styles")
        return Part(turn, len(records), turn == settings.turns - 1)
    return Part(None, 0, True)
