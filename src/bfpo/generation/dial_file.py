"""The file that ``bfpo dial`` writes: two trained models and the b3 between them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bfpo.config import Closed, read_json
from bfpo.errors import BfpoError
from bfpo.files import check_replaceable, check_suffix, write_json
from bfpo.generation.dial import Dial
from bfpo.generation.local_generator import LocalGenerator
from bfpo.training.earlier_run import FREE
from bfpo.training.run_record import read_record

# Settings in which two corners may differ: the weight of safety, and what doesn't change the result.
_MAY_DIFFER = FREE | {"b1"}


class DialFile(Closed):
    """A place between two models, as a file that ``bfpo evaluate`` reads.

    Attributes:
        format: name of the format.
        low: folder of the model with the smaller b3; an absolute path, as the next.
        high: folder of the model with the larger b3.
        b3: weight of safety, between theirs.
        share: place of b3 between theirs, in [0, 1].
        candidates: see `Dial`.
    """

    format: Literal["bfpo-dial-1"]
    low: str
    high: str
    b3: float
    share: float
    candidates: int = 32

    def save(self, path: Path) -> None:
        """Write the file as JSON.

        Raises:
            BfpoError: if the name has another suffix, or the file exists and is not a dial.
        """
        check_suffix(path, ".json")
        check_replaceable(path, load_dial, "a dial")
        write_json(path, self.model_dump())

    def load_models(self, system_prompt: str | None = None, *, chat: bool = True) -> Dial:
        """Load both models."""
        low, high = (LocalGenerator.load(name, system_prompt, chat=chat) for name in (self.low, self.high))
        return Dial(low, high, self.share, self.candidates)


def load_dial(path: Path) -> DialFile:
    """Read a file that `DialFile.save` wrote.

    Raises:
        BfpoError: if it can't be read or is none.
    """
    return read_json(path, DialFile, "a dial", "make it with 'bfpo dial'")


@dataclass(frozen=True)
class Corner:
    """A model trained with BFPO, as its run's record describes it.

    Attributes:
        folder: its run folder.
        b3: its weight of safety, 1/(b1 - 1).
        shared: settings that the other corner must have as well.
    """

    folder: Path
    b3: float
    shared: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Corner:
        """Read the record of a finished run.

        Raises:
            BfpoError: if the folder holds no finished run of BFPO.
        """
        record = read_record(folder)
        if record is None or not record["finished"]:
            raise BfpoError(f"{folder}: no finished training run; name a folder that 'bfpo train' wrote")
        objective = record.get("objective", {})
        if objective.get("name") != "bfpo":
            raise BfpoError(f"{folder}: trained with {objective.get('name')}; only BFPO's models have a dial, for b3")
        shared = {key: entry["value"] for key, entry in record["config"].items()}
        # The objective's own values include its defaults.
        shared = {key: value for key, value in (shared | objective).items() if key not in _MAY_DIFFER}
        return cls(folder, 1 / (objective["b1"] - 1), shared)


def dial_between(first: Path, second: Path, b3: float, candidates: int = 32) -> DialFile:
    """The dial at b3 between two runs that differ in b1 alone.

    The optimal policies of all b3 are geometric mixtures of two only at one beta, alpha, reference and data.

    Raises:
        BfpoError: if the runs differ in more, have the same b3, or b3 isn't between theirs.
    """
    low, high = sorted((Corner.of(first), Corner.of(second)), key=lambda corner: corner.b3)
    for key in sorted(low.shared.keys() | high.shared.keys()):
        ours, theirs = low.shared.get(key), high.shared.get(key)
        if ours != theirs:
            raise BfpoError(
                f"{low.folder} and {high.folder} differ in {key} ({ours!r} and {theirs!r}): train both from one recipe "
                "that differs in b1 only"
            )
    if low.b3 == high.b3:
        raise BfpoError(f"{low.folder} and {high.folder} have the same b3, {low.b3:g}: train one with another b1")
    # An end's b3 comes from its recipe's b1: 1/(b1 - 1) of b1 = 1 + 1/.3 is below .3.
    b3 = next((end for end in (low.b3, high.b3) if math.isclose(b3, end)), b3)
    if not low.b3 <= b3 <= high.b3:
        raise BfpoError(f"b3 {b3:g} is not between those of the two models, {low.b3:g} and {high.b3:g}")
    share = (b3 - low.b3) / (high.b3 - low.b3)
    places = {name: os.path.abspath(corner.folder) for name, corner in (("low", low), ("high", high))}
    return DialFile(format="bfpo-dial-1", **places, b3=b3, share=share, candidates=candidates)
