"""The asking for answers to planned attacks, whole or in parts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bfpo.generation.protocol import Generator
from bfpo.judges.verdict import Judge
from bfpo.redteam.archive import Planned
from bfpo.redteam.attacker import STYLE as ATTACKER
from bfpo.redteam.attacker import Attacker
from bfpo.redteam.attacking import attack_suite
from bfpo.redteam.settings import RedTeam
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import GenerationRecord
from bfpo.shards import Shard

Progress = Callable[[str, int, int], None]
HELD_OUT = "held-out"


def turn_name(turn: int) -> str:
    """Name of the folder of a turn, which counts from 0."""
    return f"turn-{turn}"


@dataclass(frozen=True)
class Asking:
    """The model that is asked, and those that judge and word what it is asked.

    Attributes:
        generator: the model.
        judges: the safety judge.
        refusal_judge: judge of refusals, if it is another one.
        attacker: model that words attacks, if there is one.
        settings: settings of the run.
        folder: folder of the run; None saves nothing.
        progress: function called with what is asked for and its numbers of finished and all answers.
        shard: the part of the answers to ask for; None for all.
        merge: folders of all parts, whose answers are taken.
    """

    generator: Generator
    judges: Sequence[Judge]
    refusal_judge: Judge | None
    attacker: Attacker | None
    settings: RedTeam
    folder: Path | None
    progress: Progress
    shard: Shard | None = None
    merge: Sequence[Path] = ()

    def tried(
        self, planned: Sequence[Planned], part: str, shown: str
    ) -> tuple[list[GenerationRecord], Sequence[PromptItem], Counter[str]]:
        """Records and items of attacks, and what an attacker's wordings lost, of a turn or the held-out styles."""
        wordings, dropped = {}, Counter[str]()
        if self.attacker and self.folder:
            path = self.folder / f"{part}-wordings.json"
            # Another turn asks again for what had no usable wording, with another seed.
            seed = random.Random(f"{self.settings.seed} {part}").getrandbits(31)
            wordings, dropped = self.attacker.reword(planned, seed, path)
            planned = [plan for plan in planned if plan.style != ATTACKER or plan.pair.id in wordings]
        if not planned:
            return [], [], dropped
        suite = attack_suite(planned, self.settings.seed, self.settings.decoding, wordings)
        result = evaluate(
            self.generator, suite, decoding=self.settings.decoding, folder=self.folder and self.folder / part,
            judges=self.judges, refusal_judge=self.refusal_judge, allow_labeling_judge=True, shard=self.shard,
            merge=[folder / part for folder in self.merge],
            progress=lambda _, done, total: self.progress(shown, done, total),
        )  # fmt: skip
        return list(result.generations), suite.prompts, dropped
