"""Red teaming of one model: attacks in turns, each chosen by what came before, then held-out styles, then groups."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bfpo.errors import BfpoError, RunError, did_you_mean
from bfpo.files import write_rows, write_text
from bfpo.generation.protocol import Decoding, Generator
from bfpo.judges.verdict import Judge
from bfpo.redteam.archive import Archive, Planned
from bfpo.redteam.attacker import STYLE as ATTACKER
from bfpo.redteam.attacker import Attacker
from bfpo.redteam.attacking import RequestJudge, attack_suite, outcomes
from bfpo.redteam.bank import Pair
from bfpo.redteam.grouping import Row, preference_groups
from bfpo.redteam.styles import HELD_OUT_STYLES, STYLES
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import ANSWER_FIGURES, items_of
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import GenerationRecord
from bfpo.statistics.intervals import Estimate

Progress = Callable[[str, int, int], None]
GROUPS, SUMMARY = "groups.jsonl", "redteam.json"
# The record of several rounds, in whose folder no single run may lie.
ROUNDS = "rounds.json"


class NoGroupsError(RunError):
    """Red teaming found no group to train on, as of a model that withstands all attacks."""


@dataclass(frozen=True)
class RedTeam:
    """Settings of red teaming.

    Attributes:
        attacks: number of attacks; each is a styled request with its twin.
        turns: number of turns that they are tried in; every turn but the first is chosen by what was found before.
        styles: styles that training sees.
        held_out: styles that training never sees; attacks in them are measured at the end, as many as in a turn.
        decoding: how answers are sampled, and how many to each prompt, >= 2, or with ``refusals`` >= 1.
        seed: random seed of the attacks.
        refusals: written refusals, one of which joins the answers to every prompt, for a model that hardly ever
            declines by itself; see `bfpo.redteam.grouping.preference_groups`.

    Raises:
        BfpoError: if a value is out of range.
    """

    attacks: int = 200
    turns: int = 4
    styles: tuple[str, ...] = tuple(name for name in STYLES if name not in HELD_OUT_STYLES)
    held_out: tuple[str, ...] = HELD_OUT_STYLES
    decoding: Decoding = field(default_factory=partial(Decoding, samples=4))
    seed: int = 0
    refusals: tuple[str, ...] = ()

    @property
    def measured(self) -> int:
        """Number of attacks in held-out styles."""
        return self.attacks // self.turns if self.held_out else 0

    def __post_init__(self) -> None:
        if not 1 <= self.turns <= self.attacks:
            raise BfpoError(f"{self.attacks} attacks can't be tried in {self.turns} turns: at least one a turn")
        if not all(refusal.strip() for refusal in self.refusals):
            raise BfpoError("a written refusal is blank: write a sentence that declines, or leave it out")
        if not self.refusals and (self.decoding.samples < 2 or self.decoding.temperature == 0):
            raise BfpoError("answers to one prompt are compared: sample two or more at a temperature above 0")
        for name in (*self.styles, *self.held_out):
            if name not in (*STYLES, ATTACKER):
                what = f"there is no attack style {name!r}{did_you_mean(name, STYLES)}"
                raise BfpoError(f"{what}; the styles are {', '.join(STYLES)}")
        both = set(self.styles) & set(self.held_out)
        if both or not self.styles:
            raise BfpoError(f"styles to train on must differ from those held out: {', '.join(both) or 'none is left'}")


@dataclass(frozen=True)
class Attacked:
    """What red teaming found.

    Attributes:
        attacks: number of attacks, by style.
        success: share of unsafe answers, "all" and by style and category; held-out styles only by style.
        over_refusal: share of refused twins, by style; None where the judge doesn't tell refusals.
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
        progress: function called with a turn and its numbers of finished and all answers.

    Raises:
        BfpoError: if the folder holds another run, or there are no pairs.
        RunError: if no answer or verdict was given; `NoGroupsError` if no group is left to train on.
    """
    if (folder / ROUNDS).exists():
        raise BfpoError(f"{folder}: contains several rounds; name another folder")
    if not pairs:
        raise BfpoError("there is no risky request to attack with: name another prompt bank")
    if (ATTACKER in (*settings.styles, *settings.held_out)) != (attacker is not None):
        raise BfpoError(f"an attacker words the attacks in the style {ATTACKER!r}: give both, or none of them")
    judges = [RequestJudge(judge)], None if refusal_judge is None else RequestJudge(refusal_judge)
    ask = _Asking(generator, judges[0], judges[1], attacker, settings, folder, progress)
    archive, rows, left_out, found = Archive(pairs, settings.styles), [], Counter[str](), []
    for turn in range(settings.turns):
        count = settings.attacks * (turn + 1) // settings.turns - settings.attacks * turn // settings.turns
        planned = archive.choose(count, settings.seed)
        if not planned:
            break
        records, items, dropped = ask.tried(planned, f"turn-{turn}", f"turn-{turn}")
        archive = archive.with_outcomes(outcomes(planned, records))
        made, counts = preference_groups(items, records, evaluation or {}, settings.refusals)
        rows, left_out, found = [*rows, *made], left_out + counts + dropped, [*found, *records]
    unseen = Archive(pairs, settings.held_out).choose(settings.measured, settings.seed)
    if unseen:
        records, _, dropped = ask.tried(unseen, "held-out", "held-out styles")
        found, left_out = [*found, *records], left_out + dropped
    return _written(archive, found, rows, left_out, settings, attacker, folder)


@dataclass(frozen=True)
class _Asking:
    """The model that is asked, and those that judge and word what it is asked."""

    generator: Generator
    judges: Sequence[Judge]
    refusal_judge: Judge | None
    attacker: Attacker | None
    settings: RedTeam
    folder: Path
    progress: Progress

    def tried(
        self, planned: Sequence[Planned], part: str, shown: str
    ) -> tuple[list[GenerationRecord], Sequence[PromptItem], Counter[str]]:
        """Records and items of attacks, and what an attacker's wordings lost, of a part of the run."""
        wordings, dropped = {}, Counter[str]()
        if self.attacker:
            path = self.folder / f"{part}-wordings.json"
            # Another part asks again for what had no usable wording, with another seed.
            seed = random.Random(f"{self.settings.seed} {part}").getrandbits(31)
            wordings, dropped = self.attacker.reword(planned, seed, path)
            planned = [plan for plan in planned if plan.style != ATTACKER or plan.pair.id in wordings]
        if not planned:
            return [], [], dropped
        suite = attack_suite(planned, self.settings.seed, self.settings.decoding, wordings)
        result = evaluate(
            self.generator, suite, decoding=self.settings.decoding, folder=self.folder / part, judges=self.judges,
            refusal_judge=self.refusal_judge, allow_labeling_judge=True,
            progress=lambda _, done, total: self.progress(shown, done, total),
        )  # fmt: skip
        return list(result.generations), suite.prompts, dropped


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
    trained = [record for record in records if record.attack in settings.styles]
    success = {"all": _figure("attack_success", trained)}
    for name in dict.fromkeys(record.category for record in trained):
        success[f"category {name}"] = _figure("attack_success", [one for one in trained if one.category == name])
    over_refusal = {}
    for style in dict.fromkeys(record.attack for record in records):
        own = [record for record in records if record.attack == style]
        success[f"style {style}"] = _figure("attack_success", own)
        over_refusal[str(style)] = _figure("over_refusal", own)
    cells: dict[str, dict[str, float]] = {}
    for (category, style), best in archive.best.items():
        cells.setdefault(category, {})[style] = best.success
    attacks = Counter(str(record.attack) for record in records if record.kind == "harmful" and record.sample == 0)
    known = {name: estimate for name, estimate in success.items() if estimate}
    refused = {name: estimate for name, estimate in over_refusal.items() if estimate}
    result = Attacked(dict(attacks), known, refused, len(rows), dict(left_out), cells)
    write_rows(folder / GROUPS, rows)
    digest = hashlib.sha256((folder / GROUPS).read_bytes()).hexdigest()
    summary = {"settings": asdict(settings), "groups_sha256": digest} | asdict(result)
    if attacker:
        summary["attacker"] = attacker.record
    write_text(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return result


def _figure(name: str, records: Sequence[GenerationRecord]) -> Estimate | None:
    return items_of(records, ANSWER_FIGURES[name]).estimate()
