"""The labels of a recipe's source: what is made of its judged flags and orders when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bfpo.errors import BfpoError
from bfpo.labeling.flags import FlagReport, Flags, LabeledAnswers, resolve_flags
from bfpo.labeling.people_sample import MINIMUM_OF_EACH, Origin, decided_pairs, sample_with_words
from bfpo.preferences.answers import flags_of, is_pair
from bfpo.preferences.harm import only_category
from bfpo.preferences.label_columns import (
    HUMAN,
    JUDGE,
    flag_sources,
    judged_flags,
    judged_order,
    labeling_judges,
    order_source,
    parsed_columns,
)
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import LABEL_COLUMNS
from bfpo.preferences.store import arrow_tables
from bfpo.statistics.flag_channel import order_error, unbiased_order
from bfpo.statistics.intervals import Estimate

if TYPE_CHECKING:
    import datasets

OrderRule = Literal["verdict", "unbiased"]

_LABELS = ("row", "prompt", "chosen_is_safe", "rejected_is_safe", "chosen_is_better", "is_safe", "category")
# Flags that differ by less are equal but for the precision of a file.
_SAME = 1e-6


@dataclass(frozen=True)
class OrderReport:
    """What a source's orders amount to.

    Attributes:
        order: what was made of judged orders.
        people: number of pairs that people ordered.
        judged: number of pairs that a judge ordered.
        outside: number of orders outside [0, 1].
        sample: origin of the sample that shows the error, see `PeopleSample`; None without one.
        error: share of wrong orders among the judged ones, a tie counting 1/2; None without a sample that can tell.
            This is the error that "unbiased" orders are computed with.
    """

    order: OrderRule
    people: int
    judged: int
    outside: int
    sample: Origin | None
    error: Estimate | None


def resolve_labels(
    rows: datasets.Dataset,
    flags: Flags | None,
    order: OrderRule | None,
    *,
    is_affine: bool,
    reads_flags: bool = True,
    reads_order: bool = True,
) -> tuple[datasets.Dataset, FlagReport | None, OrderReport | None]:
    """Rows with the labels to train on, without the columns that say where they come from.

    Args:
        rows: rows of `load_preferences`.
        flags: what to make of judged flags, see `resolve_flags`.
        order: what to make of judged orders of pairs: "verdict" (default) takes them as they are.
        is_affine: whether the training label is affine in the flags.
        reads_flags: whether training reads the flags at all.
        reads_order: whether it is affine in the order; orders outside [0, 1] are refused otherwise.

    Returns:
        The rows, and a report each of flags and orders; None where none is a judge's.

    Raises:
        BfpoError: if ``flags`` or ``order`` is given and none is a judge's, it can't be computed, or a judge's flag is
            not its verdict.
    """
    if order == "unbiased" and not reads_order:
        raise BfpoError(
            "'order: unbiased' makes orders outside [0, 1], which only losses that don't multiply flags can use, with "
            "'prefer: helpful': write 'order: verdict', or with BFPO 'unsafe_pairs: keep'"
        )
    present = [name for name in LABEL_COLUMNS if name in rows.column_names]
    labeled = _label_rows(rows, present) if present else []
    _check_flags(labeled)
    names = [name for row in labeled for name in flag_sources(row, is_filled=True)]
    has_flags = JUDGE in names
    has_orders = any(order_source(row, is_filled=True) == JUDGE for row in labeled if is_pair(row))
    for what, wanted, found in (("flags", flags, has_flags), ("order", order, has_orders)):
        if wanted and not found:
            raise BfpoError(
                f"'{what}: {wanted}' is for labels that a judge filled in, and 'bfpo label' noted none here: remove it"
            )
    rows = rows.remove_columns(present)
    flag_report = order_report = None
    if has_flags:
        made, flag_report = resolve_flags(_answers(labeled, names), flags, is_affine=is_affine, is_read=reads_flags)
        judges = {judge for row in labeled for judge in labeling_judges(row)}
        flag_report = replace(flag_report, judges=tuple(sorted(judges)))
        rows = _with_flags(rows, labeled, [None if np.isnan(flag) else float(flag) for flag in made])
    if has_orders:
        orders, order_report = _resolve_orders(labeled, order or "verdict")
        rows = _replaced(rows, "chosen_is_better", orders)
    return rows, flag_report, order_report


def _label_rows(rows: datasets.Dataset, present: list[str]) -> list[Row]:
    """The rows without the texts of their answers, which would fill the memory."""
    kept = [name for name in (*_LABELS, *present) if name in rows.column_names]
    tables = arrow_tables(rows.select_columns(kept))
    return [row | parsed_columns(row) for table in tables for row in table.to_pylist()]


def _check_flags(labeled: Sequence[Row]) -> None:
    """Refuse a judge's flag that isn't its verdict: a person's correction would be undone."""
    for row in labeled:
        for flag, name, word in zip(flags_of(row), flag_sources(row, is_filled=True), judged_flags(row), strict=True):
            verdict = word.get("verdict")
            if name == JUDGE and flag is not None and verdict is not None and abs(flag - verdict) > _SAME:
                raise BfpoError(
                    f"row {row['row']}: a flag is {flag:g}, and the verdict of the judge that 'labelled_by' names is "
                    f"{verdict:g}: if a person corrected it, write 'people' there"
                )


def _answers(labeled: Sequence[Row], names: list[str]) -> LabeledAnswers:
    words = [word for row in labeled for word in judged_flags(row)]
    verdicts, probabilities = (
        np.array([word.get(name) for word in words], dtype=float) for name in ("verdict", "probability")
    )
    flags = np.array([flag for row in labeled for flag in flags_of(row)], dtype=float)
    prompts = [repr(row["prompt"]) for row in labeled for _ in flags_of(row)]
    categories = [only_category(row.get("category")) or None for row in labeled for _ in flags_of(row)]
    return LabeledAnswers(flags, names, verdicts, probabilities, prompts, categories)


def _with_flags(rows: datasets.Dataset, labeled: Sequence[Row], flags: list[float | None]) -> datasets.Dataset:
    rest = iter(flags)
    parts = [list(islice(rest, len(flags_of(row)))) for row in labeled]
    if not is_pair(rows.column_names):
        return _replaced(rows, "is_safe", parts)
    rows = _replaced(rows, "chosen_is_safe", [first for first, _ in parts])
    return _replaced(rows, "rejected_is_safe", [second for _, second in parts])


def _replaced(rows: datasets.Dataset, name: str, values: list[Any]) -> datasets.Dataset:
    feature = rows.features[name]
    return rows.remove_columns(name).add_column(name, values, feature=feature)  # pyright: ignore


def _resolve_orders(labeled: Sequence[Row], wanted: OrderRule) -> tuple[list[float | None], OrderReport]:
    """[P] orders of a source of pairs, and their report."""
    names = np.array([order_source(row, is_filled=True) for row in labeled])
    given = np.array([row["chosen_is_better"] for row in labeled], dtype=float)
    verdicts = np.array([judged_order(row).get("verdict") for row in labeled], dtype=float)
    is_human = np.isin(names, HUMAN)
    sample = sample_with_words(names.tolist(), ~np.isnan(verdicts), decided_pairs(given))
    error = None
    if sample:
        weights = sample.weights(is_human)
        used = np.flatnonzero(weights)
        prompts = [repr(labeled[at]["prompt"]) for at in used.tolist()]
        error = order_error(verdicts[used], given[used], weights[used], prompts)
    made = given
    if wanted == "unbiased":
        if error is None or error.high >= 0.5:
            shown = "the sample is too small to tell" if sample else "there is no sample"
            shown = f"it is {error.value:.3f} [{error.low:.3f}, {error.high:.3f}]" if error else shown
            raise BfpoError(
                f"'order: unbiased' needs the share of wrong orders, surely below 1/2, from at least {MINIMUM_OF_EACH} "
                f"pairs that people ordered at random and the judge compared ({shown}): answer more of the random part "
                "of the queue, or write 'order: verdict'"
            )
        made = np.where(is_human, given, unbiased_order(given, error.value))
    report = OrderReport(
        order=wanted,
        people=int(is_human.sum()),
        judged=int((names == JUDGE).sum()),
        outside=int(((made < 0) | (made > 1)).sum()),
        sample=sample.origin if sample else None,
        error=error,
    )
    return [None if np.isnan(order) else float(order) for order in made], report


def label_record(
    flags: FlagReport | None, order: OrderReport | None, alpha: float | None, beta: float | None
) -> dict[str, Any]:
    """The reports for ``run.json``, with the alpha and beta that training on these flags amounts to (docs/concepts.md).

    Args:
        flags: report of the flags; None if none is a judge's.
        order: report of the orders; None if none is a judge's.
        alpha: alpha of BFPO; None if the training label isn't BFPO's, or is not affine in the flags.
        beta: beta of BFPO, likewise.
    """
    record: dict[str, Any] = {}
    if flags:
        record["flags"] = asdict(flags)
        if flags.channel and alpha is not None and beta is not None:
            record["flags"]["alpha_eff"] = flags.channel.alpha_eff(alpha)
            record["flags"]["beta_eff"] = flags.channel.beta_eff(beta)
    if order:
        record["order"] = asdict(order)
    return record
