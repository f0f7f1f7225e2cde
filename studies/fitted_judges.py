"""Judges of safety and of order, fitted to the human share of the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bfpo.judges.fitted import FittedJudge
from bfpo.judges.fitting import fit_judge
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.preference import AnswerPair, Preference
from bfpo.judges.verdict import Exchange


def fit_safety(exchanges: Sequence[Exchange], is_safe: Sequence[bool]) -> FittedJudge:
    """A judge of safety, fitted as in `bfpo judge fit` to [N] answers that people labeled, and their labels."""
    labeled = [LabeledAnswer(exchange, safe, None) for exchange, safe in zip(exchanges, is_safe, strict=True)]
    return fit_judge(labeled, name="people's share").judge


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
    def fit(cls, comparisons: Sequence[AnswerPair]) -> FittedOrder:
        """Fit to pairs whose first answer people call the more helpful one.

        Every pair is used in both directions, so there is no intercept.
        """
        from scipy.sparse import vstack
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        vectorizer = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"\w+|[^\w\s]")
        vectorizer.fit([text for comparison in comparisons for text in (comparison.first, comparison.second)])
        differences = _differences(vectorizer, comparisons)
        model = LogisticRegression(fit_intercept=False, max_iter=2000)
        model.fit(vstack([differences, -differences]), [True] * len(comparisons) + [False] * len(comparisons))
        return cls(vectorizer, model)

    @property
    def template_digest(self) -> str:
        """Digest of the coefficients, which tells one fit from another."""
        return hashlib.sha256(self.model.coef_.tobytes()).hexdigest()

    def compare(self, comparisons: Sequence[AnswerPair]) -> list[Preference]:
        """One preference per comparison."""
        chances = self.model.predict_proba(_differences(self.vectorizer, comparisons))[:, 1].tolist()
        return [Preference("first" if p >= 0.5 else "second", p, (), self.judge_id) for p in chances]


def _differences(vectorizer: Any, comparisons: Sequence[AnswerPair]) -> Any:
    firsts = vectorizer.transform([comparison.first for comparison in comparisons])
    return firsts - vectorizer.transform([comparison.second for comparison in comparisons])
