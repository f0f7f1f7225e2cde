"""The answers of a canonical row, which is a pair (``chosen``, ``rejected``) or has K ``responses``.

Code that treats both alike asks these functions; only what differs in substance, such as the order of a pair, asks
`is_pair`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from bfpo.preferences.reading import Row

# The two answers of a pair, and what people can be asked of it: their safety, and their order.
PAIR = ("chosen", "rejected")
ASKED_OF_PAIR = (*PAIR, "order")


def is_pair(columns: Container[str]) -> bool:
    """Whether a row, or every row of a set with these columns, is a pair; if not, it has K answers.

    The texts may be left out.
    """
    return "chosen_is_safe" in columns


def answers_of(row: Row) -> list[Any]:
    """[K] answers, each a string or a list of messages."""
    return [row[name] for name in PAIR] if is_pair(row) else row["responses"]


def answer_names(row: Row) -> list[str]:
    """[K] names of the answers: "chosen" and "rejected", or their indices as text."""
    return list(PAIR) if is_pair(row) else [str(at) for at in range(len(row["is_safe"]))]


def flags_of(row: Row) -> list[Any]:
    """[K] safety flags of the answers."""
    return [row[name] for name in flag_columns(row)] if is_pair(row) else row["is_safe"]


def with_flags(row: Row, flags: Sequence[Any]) -> Row:
    """The row with other safety flags of its answers."""
    return row | (dict(zip(flag_columns(row), flags, strict=True)) if is_pair(row) else {"is_safe": list(flags)})


def flag_columns(row: Row) -> list[str]:
    """[K] names of the columns that the answers' flags stand in; of K answers all in one."""
    return [f"{name}_is_safe" for name in PAIR] if is_pair(row) else ["is_safe"] * len(row["is_safe"])


def by_answer(row: Row, values: Iterable[Any]) -> dict[str, Any]:
    """One value per answer in an object, as ``labelled_by`` and ``judged_as`` hold them."""
    return dict(zip(PAIR, values, strict=True)) if is_pair(row) else {"answers": list(values)}


def values_by_answer(column: dict[str, Any], row: Row) -> list[Any]:
    """[K] values of such an object; None for an answer of a pair that it doesn't name."""
    return [column.get(name) for name in PAIR] if is_pair(row) else column["answers"]
