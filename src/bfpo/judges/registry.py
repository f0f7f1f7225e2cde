"""Judges by name: one entry a kind, found by a short specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bfpo.errors import BfpoError, did_you_mean
from bfpo.judges.verdict import Judge

Loader = Callable[[str], Judge]


@dataclass(frozen=True)
class JudgeKind:
    """One kind of judge.

    Attributes:
        name: what stands before the colon of a specification.
        argument: what may stand after it.
        summary: one line for people.
        load: makes the judge from the argument.
    """

    name: str
    argument: str
    summary: str
    load: Loader


KINDS: dict[str, JudgeKind] = {}
_REPLAYED = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gz")


def register_judge(name: str, argument: str, summary: str) -> Callable[[Loader], Loader]:
    """Make a loader known under a name; the world's own judges register themselves where they are imported."""

    def add(load: Loader) -> Loader:
        KINDS[name] = JudgeKind(name, argument, summary, load)
        return load

    return add


def known_kinds() -> list[JudgeKind]:
    """Every kind of judge, by name."""
    from bfpo.judges import configured, fitted, keywords, replay  # noqa: F401  (they register themselves)

    return [KINDS[name] for name in sorted(KINDS)]


def load_judge(spec: str) -> Judge:
    """The judge that a specification names.

    Args:
        spec: the folder of a fitted judge, a file of verdicts, a YAML file that configures a judge, or ``kind`` or
            ``kind:argument`` of a known kind (`KINDS`).

    Raises:
        BfpoError: if there is no such judge, with what is near.
    """
    known_kinds()
    path = Path(spec)
    if path.is_dir():
        return KINDS["fitted"].load(spec)
    if path.suffix in _REPLAYED:
        return KINDS["replay"].load(spec)
    if path.suffix in (".yaml", ".yml"):
        return KINDS["configured"].load(spec)
    name, _, argument = spec.partition(":")
    if name not in KINDS:
        raise BfpoError(
            f"no judge {spec!r}{did_you_mean(name, KINDS)}: name a fitted judge's folder, a file of verdicts, "
            f"a YAML file, or one of {', '.join(sorted(KINDS))}"
        )
    return KINDS[name].load(argument)
