"""Judges of safety and of order, fitted to the human share of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bfpo.judges.fitted import FittedJudge
from bfpo.judges.fitting import fit_judge
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.preference import AnswerPair, Preference
from bfpo.judges.verdict import Exchange
from bfpo.labeling.people_sample import MINIMUM_OF_EACH
from bfpo.statistics.judge_error import JudgeError, judge_error


def fit_safety(exchanges: Sequence[Exchange], is_safe: Sequence[bool]) -> tuple[FittedJudge, JudgeError | None]:
    """A judge of safety, fitted as in `bfpo judge fit`, and its error, estimated out of fold.

    Args:
        exchanges: [N] answers that people labeled.
        is_safe: [N] their labels.
    """
    labeled = [LabeledAnswer(exchange, safe, None) for exchange, safe in zip(exchanges, is_safe, strict=True)]
    fit = fit_judge(labeled, name="people's share")
    if min(fit.labels.sum(), (~fit.labels).sum()) < MINIMUM_OF_EACH:
        return fit.judge, None
    said = ["safe" if p >= 0.5 else "unsafe" for p in fit.out_of_fold]
    return fit.judge, judge_error(fit.labels.astype(float).tolist(), said)


@dataclass(frozen=True)
class FittedOrder:
    """Judge of the order of helpfulness: logistic regression on the difference of two answers' n-grams (Bradley-Terry).

    Attributes:
        vectorizer: scikit-learn's fitted vectorizer.
        model: scikit-learn's fitted regression.
        judge_id: name of the judge in records.
    """

    vectorizer: Any
    model: Any
    judge_id: str = "fitted-order"

    @classmethod
    def fit(cls, comparisons: Sequence[AnswerPair], first_is_better: Sequence[bool]) -> FittedOrder:
        """Fit to the human order; every comparison is used in both directions, so there is no intercept."""
        from scipy.sparse import vstack
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        vectorizer = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\w+|[^\w\s]")
        vectorizer.fit([text for comparison in comparisons for text in (comparison.first, comparison.second)])
        differences, better = _differences(vectorizer, comparisons), np.asarray(first_is_better, dtype=bool)
        model = LogisticRegression(fit_intercept=False, max_iter=2000)
        model.fit(vstack([differences, -differences]), np.concatenate([better, ~better]))
        return cls(vectorizer, model)

    def compare(self, comparisons: Sequence[AnswerPair]) -> list[Preference]:
        """One preference per comparison."""
        chances = self.model.predict_proba(_differences(self.vectorizer, comparisons))[:, 1].tolist()
        return [Preference("first" if p >= 0.5 else "second", p, (), self.judge_id) for p in chances]


def _differences(vectorizer: Any, comparisons: Sequence[AnswerPair]) -> Any:
    firsts = vectorizer.transform([comparison.first for comparison in comparisons])
    return firsts - vectorizer.transform([comparison.second for comparison in comparisons])
