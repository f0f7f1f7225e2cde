"""The two columns in which `bfpo label` notes who labeled what, and how judges judged it.

``labelled_by`` names the source of every label: {"chosen": ..., "rejected": ..., "order": ...} for a pair, {"answers":
[...]} for K answers. ``judged_as`` holds the judges' word on every answer, whoever labeled it, in objects of the same
form: {"verdict": share of the judges that call it safe, "probability": calibrated probability that it is safe}, for the
order of a pair the same about ``chosen`` being the more helpful answer; null where there is none. Its ``judges``
are the ids of the judges of safety, if they were noted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bfpo.preferences.answers import ASKED_OF_PAIR, PAIR, flags_of, is_pair, values_by_answer
from bfpo.preferences.reading import Row
from bfpo.preferences.schema import RowError
from bfpo.preferences.strict_json import load_json

# Labels by people: those that came with the set, and answers to the queue's random part and to the rest of it.
PEOPLE, RANDOM, QUEUE = "people", "random", "queue"
HUMAN = (PEOPLE, RANDOM, QUEUE)
JUDGE, UNPARSED, UNKNOWN = "judge", "unparsed", "unknown"
_NAMES = (*HUMAN, JUDGE, UNPARSED, UNKNOWN)
_REMEDY = "keep it as 'bfpo label' wrote it, or leave the column out"
_WORDS = ("verdict", "probability")


def label_column(name: str, value: Any, row: Row) -> str | None:
    """JSON text of a row's ``labelled_by`` or ``judged_as``, given as an object or as text (in CSV); None without.

    Raises:
        RowError: if it doesn't describe the row's labels.
    """
    if value is None:
        return None
    try:
        found = load_json(value) if isinstance(value, str) else value
    except ValueError:
        found = value
    if name == "labelled_by" and not _describes(found, row, lambda one: one in _NAMES, ("order",)):
        raise RowError(name, f"{str(value)[:60]!r} doesn't name the sources of this row's labels", _REMEDY)
    if name == "judged_as" and not (_describes(_words_of(found), row, _is_judged, ()) and _has_ids(found)):
        raise RowError(name, f"{str(value)[:60]!r} doesn't hold a verdict and a probability per answer", _REMEDY)
    return json.dumps(found)


def parsed_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical row's ``labelled_by`` and ``judged_as`` as objects, where it has them."""
    return {name: json.loads(row[name]) for name in ("labelled_by", "judged_as") if row.get(name) is not None}


def flag_sources(row: Row, *, is_filled: bool = False) -> list[str]:
    """The source of each answer's flag.

    Args:
        row: canonical row, with ``labelled_by`` as an object.
        is_filled: whether open labels were filled in since the sources were noted, see `_source`.
    """
    by, flags = row.get("labelled_by"), flags_of(row)
    noted = [None] * len(flags) if by is None else values_by_answer(by, row)
    return [_source(name, flag, UNPARSED, is_filled) for name, flag in zip(noted, flags, strict=True)]


def order_source(row: Row, *, is_filled: bool = False) -> str:
    """The source of a pair's order; see `flag_sources`."""
    return _source((row.get("labelled_by") or {}).get("order"), row["chosen_is_better"], UNKNOWN, is_filled)


def _source(noted: str | None, label: float | None, unknown: str, is_filled: bool) -> str:
    # A recipe fills in open labels (unknown_safety, unknown_order) before it reads the sources: what is noted as
    # unknown isn't people's then, and a row without a note came with the set.
    if is_filled:
        return noted or PEOPLE
    # In a file, whoever wrote a label where none was noted is a person, and one who removed a label gave none.
    noted = unknown if noted is None or (noted in HUMAN and label is None) else noted
    return PEOPLE if noted in (UNPARSED, UNKNOWN) and label is not None else noted


def judged_flags(row: Row) -> list[Mapping[str, float | None]]:
    """The judges' word on the safety of each answer; empty objects without one."""
    judged = row.get("judged_as")
    return [{}] * len(flags_of(row)) if judged is None else [one or {} for one in values_by_answer(judged, row)]


def labeling_judges(row: Row) -> list[str]:
    """Ids of the judges whose verdicts are flags of this row, as far as they were noted."""
    return list((row.get("judged_as") or {}).get("judges") or ()) if JUDGE in flag_sources(row, is_filled=True) else []


def judged_order(row: Row) -> Mapping[str, float | None]:
    """The judge's word on a pair's order; an empty object without one."""
    return (row.get("judged_as") or {}).get("order") or {}


def _describes(column: Any, row: Row, is_entry: Any, more: tuple[str, ...]) -> bool:
    """Whether a column has an entry for every answer, and in pairs for ``more``."""
    if not isinstance(column, Mapping):
        return False
    if is_pair(row):
        return set(column) <= set(ASKED_OF_PAIR) and all(
            is_entry(column.get(name)) for name in ASKED_OF_PAIR if name in column or name in (*PAIR, *more)
        )
    entries = column.get("answers")
    return isinstance(entries, list) and len(entries) == len(flags_of(row)) and all(map(is_entry, entries))


def _words_of(column: Any) -> Any:
    """``judged_as`` without the judges' ids."""
    return {key: value for key, value in column.items() if key != "judges"} if isinstance(column, Mapping) else column


def _has_ids(column: Any) -> bool:
    ids = column.get("judges", [])
    return isinstance(ids, list) and all(isinstance(one, str) for one in ids)


def _is_judged(entry: Any) -> bool:
    if entry is None:
        return True
    return isinstance(entry, Mapping) and set(entry) <= set(_WORDS) and all(map(_is_share, entry.values()))


def _is_share(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value <= 1)
