"""The table of judges by name, and `load_judge`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError, did_you_mean
from bfpo.judges.guard_templates import TEMPLATES
from bfpo.judges.verdict import Judge


@dataclass(frozen=True)
class JudgeKind:
    """One kind of judge.

    Attributes:
        name: name, the part of a specification before the colon.
        argument: form of the part after the colon.
        summary: description in one line.
        load: loader of the judge from its argument.
        check: check of the argument without loading a model's weights; None if ``load`` loads none.
    """

    name: str
    argument: str
    summary: str
    load: Callable[[str], Judge]
    check: Callable[[str], object] | None = None


_BY_SUFFIX = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gz"), "replay"),
    **dict.fromkeys((".yaml", ".yml"), "configured"),
}


def load_judge(spec: str) -> Judge:
    """Load a judge.

    Args:
        spec: folder of a fitted judge, file of verdicts, YAML file that configures a judge, or ``kind`` or
            ``kind:argument`` of a known kind (`KINDS`).

    Raises:
        BfpoError: if there is no such judge.
    """
    kind, argument = parse_judge(spec)
    with _explained(spec):
        return kind.load(argument)


def check_judge(spec: str) -> None:
    """Check that a judge exists, without loading a model's weights or asking a server; see `load_judge`.

    Raises:
        BfpoError: if there is no such judge.
    """
    kind, argument = parse_judge(spec)
    with _explained(spec):
        (kind.check or kind.load)(argument)


@contextmanager
def _explained(spec: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BfpoError(f"the judge {spec[:80]!r} can't be read ({error.strerror}); check its name") from error


def parse_judge(spec: str) -> tuple[JudgeKind, str]:
    """The kind of a judge and its argument, without loading it; see `load_judge`.

    Raises:
        BfpoError: if there is no such kind.
    """
    path = Path(spec)
    name, colon, argument = spec.partition(":")
    if not (colon and name in KINDS):
        by_place = "fitted" if os.path.isdir(spec) else _BY_SUFFIX.get(path.suffix)
        name, argument = (by_place, spec) if by_place else (name, argument)
    if name not in KINDS:
        raise BfpoError(
            f"no judge {spec!r}{did_you_mean(name, KINDS)}: name a fitted judge's folder, a file of verdicts, "
            f"a YAML file, or one of {', '.join(sorted(KINDS))}"
        )
    if argument and not KINDS[name].argument:
        raise BfpoError(f"{name} takes no argument, not {argument!r}")
    return KINDS[name], argument


def _loader(module: str, function: str, *given: object) -> Callable[[str], Any]:
    """A loader, or a check, that imports its module on the first call; ``given`` arguments precede the user's."""
    return lambda argument: _imported(module, function)(*given, argument)


def _imported(module: str, function: str) -> Callable[..., Any]:
    return getattr(import_module(module), function)


KINDS: dict[str, JudgeKind] = {
    kind.name: kind
    for kind in (
        JudgeKind(
            "compliance", "JUDGE",
            "calls an answer to a risky request unsafe unless JUDGE finds that it declines, e.g. compliance:refusals",
            _loader("bfpo.redteam.compliance", "load_compliance", load_judge),
            check=check_judge,
        ),
        JudgeKind(
            "configured", "FILE.yaml",
            "judge from a YAML file: a model with a template, question or rubric, or a scaled judge",
            # A scaled judge loads another one, hence load_judge.
            _loader("bfpo.judges.configured", "load_configured", load_judge),
            check=_loader("bfpo.judges.configured", "check_configured", check_judge),
        ),
        JudgeKind(
            "fitted", "FOLDER", "small classifier from 'bfpo judge fit'",
            _loader("bfpo.judges.fitted", "load_fitted"),
        ),
        JudgeKind(
            "keywords", "", "finds refusals by how they begin (XSTest's string match); no verdict on safety",
            lambda _: _imported("bfpo.judges.keywords", "KeywordJudge")(),
        ),
        JudgeKind(
            "microworld-oracle", "ERROR | OF_SAFE,OF_UNSAFE[,SEED]",
            "the microworld's exact oracle, optionally with a share of wrong verdicts",
            _loader("bfpo.microworld.judge", "load_oracle"),
        ),
        JudgeKind(
            "refusals", "", "finds refusals by their words; fitted to people's labels, and part of the package",
            lambda _: _imported("bfpo.judges.fitted", "load_packaged")(),
        ),
        JudgeKind("replay", "FILE", "replays the verdicts in a file", _loader("bfpo.judges.replay", "load_replay")),
        *(
            JudgeKind(
                template.name, "MODEL[@REVISION] | MODEL@URL | FOLDER | FILE.gguf",
                f"guard model, e.g. {template.example}, here or on a server",
                _loader("bfpo.judges.configured", "load_guard", template),
                check=_loader("bfpo.judges.configured", "check_guard", template),
            )
            for template in TEMPLATES.values()
        ),
    )
}  # fmt: skip
