"""Fitting of a small classifier to labeled answers, with out-of-fold predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.fitted import FittedJudge, NgramBlock, Target, token_options
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.unjudged import is_empty
from bfpo.statistics.calibration import Scaling, fit_scaling, logit

# Words catch topics, parts of words catch spellings and languages, openings catch refusals.
BLOCKS = (
    NgramBlock("prompt", "word", 1, 2, 2, 50_000),
    NgramBlock("answer", "word", 1, 2, 2, 100_000),
    NgramBlock("answer", "char_wb", 2, 4, 3, 50_000),
    NgramBlock("opening", "word", 1, 3, 2, 50_000),
)
# scikit-learn's C, the inverse penalty on squared weights; results hardly differ between 1 and 10.
INVERSE_PENALTY = 3.0


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions: no answer's prediction uses answers to the same question.

    Attributes:
        labeled: [N] answers that have the label and are not empty.
        labels: [N] labels of the target.
        scores: [N] logits from judges fitted to the other folds.
        probabilities: [N] scores scaled by the other folds' scaling.
    """

    labeled: list[LabeledAnswer]
    labels: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Fit:
    """A judge fitted to all answers, and out-of-fold predictions of judges fitted the same way."""

    judge: FittedJudge
    out_of_fold: OutOfFold


def fit_judge(
    labeled: Sequence[LabeledAnswer],
    target: Target = "safety",
    *,
    name: str = "judge",
    folds: int = 5,
    seed: int = 0,
    blocks: Sequence[NgramBlock] = BLOCKS,
    inverse_penalty: float = INVERSE_PENALTY,
) -> Fit:
    """Fit a judge.

    Args:
        labeled: labeled answers; empty ones are skipped, as no judge sees them.
        target: "safety" or "refusal".
        name: display name of the judge.
        folds: number of cross-validation folds; all answers to one question are in one fold.
        seed: random seed for the folds.
        blocks: feature blocks.
        inverse_penalty: scikit-learn's C.

    Raises:
        BfpoError: if there are too few questions with answers of either label.
    """
    used, labels = _used(labeled, target)
    groups = [answer.exchange.prompt for answer in used]
    _check_enough(labels, groups, folds, target)
    counts = [_Counts(block, [answer.exchange for answer in used]) for block in blocks]
    parts = _split(labels, groups, folds, seed)
    scores = np.empty(len(used))
    for held_out in parts:
        kept = np.setdiff1d(np.arange(len(used)), held_out)
        scores[held_out] = _Linear.fit(counts, kept, labels[kept], inverse_penalty).scores(counts, held_out)
    probabilities = _cross_scaled(scores, labels, parts)
    everything = _Linear.fit(counts, np.arange(len(used)), labels, inverse_penalty)
    judge = FittedJudge(
        name=name,
        target=target,
        blocks=tuple(blocks),
        vocabularies=tuple(
            tuple(count.ngrams[columns]) for count, columns in zip(counts, everything.columns, strict=True)
        ),
        idf=np.concatenate(everything.idf),
        weights=everything.weights,
        intercept=everything.intercept,
        scaling=_scaling(scores, labels),
    )
    record = _record(used, labels, labeled, folds, seed, inverse_penalty)
    return Fit(replace(judge, record=record), OutOfFold(used, labels, scores, probabilities))


def _used(labeled: Sequence[LabeledAnswer], target: Target) -> tuple[list[LabeledAnswer], np.ndarray]:
    used = [answer for answer in labeled if answer.label(target) is not None and not is_empty(answer.exchange)]
    return used, np.array([answer.label(target) for answer in used], dtype=bool)


def _check_enough(labels: np.ndarray, groups: Sequence[str], folds: int, target: Target) -> None:
    words = ("safe", "unsafe") if target == "safety" else ("refusing", "answering")
    for word, chosen in zip(words, (labels, ~labels), strict=True):
        questions = len({group for group, is_chosen in zip(groups, chosen, strict=True) if is_chosen})
        if questions < folds:
            raise BfpoError(
                f"{int(chosen.sum())} answers to {questions} questions are labeled {word}: "
                f"{folds} folds need at least {folds} questions with such answers; label more, or use fewer folds"
            )


def _split(labels: np.ndarray, groups: Sequence[str], folds: int, seed: int) -> list[np.ndarray]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(np.zeros(len(labels)), labels, groups)]


def _cross_scaled(scores: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """[N] probabilities of each fold's scores by a scaling fitted to the other folds."""
    probabilities = np.empty(len(scores))
    for held_out in parts:
        others = np.setdiff1d(np.arange(len(scores)), held_out)
        probabilities[held_out] = _scaling(scores[others], labels[others]).apply(scores[held_out])
    return probabilities


def _scaling(scores: np.ndarray, labels: np.ndarray) -> Scaling:
    """The fitted scaling, or the constant base rate if the scores carry no information."""
    try:
        return fit_scaling(scores, labels)
    except BfpoError:
        return Scaling(0.0, float(logit([labels.mean()])[0]))


class _Counts:
    """Binary n-gram matrix of a block, computed once for all folds."""

    def __init__(self, block: NgramBlock, exchanges: Sequence[Any]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self.block = block
        vectorizer = CountVectorizer(
            analyzer=block.analyzer,
            ngram_range=(block.shortest, block.longest),
            binary=True,
            **token_options(block.analyzer),
        )
        try:
            matrix: Any = vectorizer.fit_transform(block.texts(exchanges))
        except ValueError as error:
            raise BfpoError(f"the {block.part}s have no words to fit a judge to") from error
        matrix = matrix.tocsr()
        enough = np.flatnonzero(np.diff(matrix.tocsc().indptr) >= block.min_documents)
        self.ngrams = vectorizer.get_feature_names_out()[enough]
        self.matrix: Any = matrix[:, enough]

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """Columns that a vectorizer fitted to these rows alone would keep."""
        part = self.matrix[rows].tocsc()
        enough = np.flatnonzero(np.diff(part.indptr) >= self.block.min_documents)
        frequency = np.asarray(part[:, enough].sum(axis=0)).ravel()
        most = np.argsort(-frequency, kind="stable")[: self.block.max_features]
        return np.sort(enough[most])


@dataclass(frozen=True)
class _Linear:
    """Logistic regression on tf-idf features."""

    columns: list[np.ndarray]
    idf: list[np.ndarray]
    weights: np.ndarray
    intercept: float

    @classmethod
    def fit(cls, counts: Sequence[_Counts], rows: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> _Linear:
        import scipy.sparse
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        columns, idf, matrices = [], [], []
        for count in counts:
            kept = count.columns(rows)
            transformer = TfidfTransformer()
            matrices.append(transformer.fit_transform(count.matrix[rows][:, kept]))
            columns.append(kept)
            idf.append(np.asarray(transformer.idf_, dtype=np.float64))
        model = LogisticRegression(C=inverse_penalty, solver="liblinear", dual=True, max_iter=1000, random_state=0)
        model.fit(scipy.sparse.hstack(matrices).tocsr(), labels)
        coefficients, intercept = np.asarray(model.coef_)[0], np.asarray(model.intercept_)[0]
        return cls(columns, idf, coefficients.astype(np.float64), float(intercept))

    def scores(self, counts: Sequence[_Counts], rows: np.ndarray) -> np.ndarray:
        from sklearn.feature_extraction.text import TfidfTransformer

        total, start = np.full(len(rows), self.intercept), 0
        for count, columns, idf in zip(counts, self.columns, self.idf, strict=True):
            transformer = TfidfTransformer()
            transformer.idf_ = idf
            features: Any = transformer.transform(count.matrix[rows][:, columns])
            total += features @ self.weights[start : start + len(columns)]
            start += len(columns)
        return total


def _record(
    used: Sequence[LabeledAnswer],
    labels: np.ndarray,
    labeled: Sequence[LabeledAnswer],
    folds: int,
    seed: int,
    inverse_penalty: float,
) -> dict[str, Any]:
    import sklearn

    digest = hashlib.sha256()
    for answer, label in zip(used, labels, strict=True):
        digest.update(repr((answer.exchange.prompt, answer.exchange.answer, bool(label))).encode())
    return {
        "answers": len(used),
        "target_holds": int(labels.sum()),
        "questions": len({answer.exchange.prompt for answer in used}),
        "left_out": len(labeled) - len(used),
        "labels_digest": digest.hexdigest(),
        "folds": folds,
        "seed": seed,
        "inverse_penalty": inverse_penalty,
        "scikit_learn": sklearn.__version__,
    }
