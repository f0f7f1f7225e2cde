"""Transfer of fitted judges between the sources of a file of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.checking import Slice, check_judge, probabilities_of
from bfpo.judges.fitted import FittedJudge, Target
from bfpo.judges.fitting import Fit, fit_judge
from bfpo.judges.labels import LabeledAnswer, of_source
from bfpo.statistics.intervals import Estimate, rate_interval


@dataclass(frozen=True)
class Transfer:
    """Figures of a judge that was fitted to one source, on another.

    Attributes:
        fitted_to: the source that it was fitted to, or "all but NAME".
        checked_on: the source that it was checked on; if the same, out of fold.
        figures: its figures.
        base_rate: accuracy of always giving the commoner label.
    """

    fitted_to: str
    checked_on: str
    figures: Slice
    base_rate: Estimate


def transfer_table(labeled: Sequence[LabeledAnswer], target: Target = "safety", *, seed: int = 0) -> list[Transfer]:
    """Fit a judge to each source, and with three or more to all but one, and check it on the others.

    Answers to prompts that the judge was fitted to are left out of its checks on other sources. The seed is that of the
    folds and of the calibration errors by chance.

    Raises:
        BfpoError: if there are fewer than two sources, or a source has too few labels to fit a judge to.
    """
    known = [answer for answer in labeled if answer.label(target) is not None]
    names = sorted({answer.source for answer in known})
    if len(names) < 2:
        raise BfpoError(
            f"transfer needs labels of {target} from at least two sources, not {len(names)}: add a column 'source'"
        )
    parts = {name: of_source(known, name) for name in names}
    table: list[Transfer] = []
    for name in names:
        fit = _fitted(parts[name], target, name, seed)
        for other in names:
            if other == name:
                table.append(Transfer(name, name, fit.report.overall, _base_rate(fit.labeled, target)))
            else:
                table.append(_on(fit.judge, name, other, parts[other], seed))
    for name in names if len(names) > 2 else ():
        rest = f"all but {name}"
        fit = _fitted([answer for answer in known if answer.source != name], target, rest, seed)
        table.append(_on(fit.judge, rest, name, parts[name], seed))
    return table


def _fitted(labeled: Sequence[LabeledAnswer], target: Target, name: str, seed: int) -> Fit:
    try:
        return fit_judge(labeled, target, name=name or "none", seed=seed)
    except BfpoError as error:
        raise BfpoError(f"source {name!r}: {error}") from error


def _on(judge: FittedJudge, name: str, other: str, labeled: Sequence[LabeledAnswer], seed: int) -> Transfer:
    shared = judge.knows_prompt([answer.exchange for answer in labeled])
    rest = [answer for answer, is_shared in zip(labeled, shared, strict=True) if not is_shared]
    if not rest:
        raise BfpoError(f"source {other!r} has only prompts of {name!r}, so nothing is left to check")
    exchanges = [answer.exchange for answer in rest]
    known = probabilities_of(judge, exchanges, judge.target)
    report = check_judge(rest, judge.judge(exchanges), judge.target, probabilities=known, seed=seed)
    return Transfer(name, other, report.overall, _base_rate(rest, judge.target))


def _base_rate(labeled: Sequence[LabeledAnswer], target: Target) -> Estimate:
    holds = np.array([bool(answer.label(target)) for answer in labeled])
    return rate_interval((holds == (holds.mean() >= 0.5)).tolist(), [answer.exchange.prompt for answer in labeled])
