"""The part of people's labels that is a random sample, from which errors can be estimated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bfpo.preferences.label_columns import PEOPLE, RANDOM
from bfpo.statistics.flag_channel import rest_weights

# Smallest number of safe and of unsafe answers labeled by people for an estimate of a judge's error.
MINIMUM_OF_EACH = 10
# From this number on, the random part of the queue is used alone, and unbiased flags are the default.
ENOUGH_OF_EACH = 50


# The random part of the queue; or the labels that came with the set, which are taken as random.
Origin = Literal["random part", "labels of the set"]


@dataclass(frozen=True)
class PeopleSample:
    """People's labels that stand for all others.

    Attributes:
        origin: where they come from.
        inside: [N] whether a label is part of the sample.
        population: [N] whether a label is among those that the sample was drawn from.
    """

    origin: Origin
    inside: np.ndarray
    population: np.ndarray

    def weights(self, known: np.ndarray) -> np.ndarray:
        """[N] weights with which people's labels stand for the answers that are not known, see `rest_weights`."""
        weights, part = np.zeros(len(known)), self.population
        weights[part] = rest_weights(self.inside[part], known[part])
        return weights


def sample_with_words(
    sources: Sequence[str] | np.ndarray, has_word: np.ndarray, size: Callable[[np.ndarray], float]
) -> PeopleSample | None:
    """The sample from which a judge's errors are estimated; people's other answers to the queue are never part of it.

    The queue asks for the labels that are hardest for the judge, so its answers make a judge look worse (or better, as
    the queue ranks pairs) than it is. If the random part is large enough it is used alone, as nobody knows how the
    labels that came with the set were chosen; otherwise both together. What the judge gave no word on says nothing
    about its errors.

    Args:
        sources: [N] source of every label, an array of objects if it is one.
        has_word: [N] whether the judge gave a word.
        size: size of a part [N], such as the smaller number of safe and of unsafe answers in it.

    Returns:
        None if even both together have less than `MINIMUM_OF_EACH`.
    """
    names = np.asarray(sources, dtype=object)
    random, given = has_word & (names == RANDOM), has_word & (names == PEOPLE)
    if size(random) >= ENOUGH_OF_EACH or (not given.any() and size(random) >= MINIMUM_OF_EACH):
        return PeopleSample("random part", random, has_word & ~given)
    if size(random | given) >= MINIMUM_OF_EACH:
        return PeopleSample("labels of the set", random | given, has_word.copy())
    return None


def decided_pairs(orders: np.ndarray) -> Callable[[np.ndarray], float]:
    """The number of pairs of a part that people ordered, for `sample_with_words`; 1/2 is undecided."""
    return lambda part: float((part & (orders != 0.5)).sum())


def of_each(is_safe: np.ndarray) -> Callable[[np.ndarray], float]:
    """The smaller number of safe and of unsafe answers in a part, for `sample_with_words`; NaN counts for neither."""

    def size(part: np.ndarray) -> float:
        known = is_safe[part & ~np.isnan(is_safe)]
        return min(float(known.sum()), len(known) - float(known.sum()))

    return size
