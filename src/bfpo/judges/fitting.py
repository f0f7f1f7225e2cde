"""Fitting of a small classifier to labeled answers, with out-of-fold predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bfpo.errors import BfpoError
from bfpo.judges.checking import JudgeReport, check_judge
from bfpo.judges.fitted import FittedJudge, NgramBlock, Target, key_of, linear_scores
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.unjudged import is_empty
from bfpo.judges.verdict import Exchange
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
class Fit:
    """A judge fitted to all answers, and predictions of judges that were fitted in the same way to the other folds.

    Attributes:
        judge: the judge; its record holds the report.
        labeled: [N] answers that have the label and are not empty.
        labels: [N] labels of the target.
        out_of_fold: [N] probabilities of the target; no answer's prediction uses answers to the same question.
        report: figures of these predictions against the labels, with intervals.
    """

    judge: FittedJudge
    labeled: list[LabeledAnswer]
    labels: np.ndarray
    out_of_fold: np.ndarray
    report: JudgeReport


def fit_judge(
    labeled: Sequence[LabeledAnswer],
    target: Target = "safety",
    *,
    name: str = "judge",
    folds: int = 5,
    seed: int = 0,
    blocks: Sequence[NgramBlock] = BLOCKS,
) -> Fit:
    """Fit a judge.

    Args:
        labeled: labeled answers; empty ones are skipped, as no judge sees them.
        target: "safety" or "refusal".
        name: display name of the judge.
        folds: number of cross-validation folds; all answers to one question are in one fold.
        seed: random seed for the folds.
        blocks: feature blocks.

    Raises:
        BfpoError: if there are too few questions with answers of either label.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    used = [answer for answer in labeled if answer.label(target) is not None and not is_empty(answer.exchange)]
    labels = np.array([answer.label(target) for answer in used], dtype=bool)
    exchanges = [answer.exchange for answer in used]
    groups = [exchange.prompt for exchange in exchanges]
    _check_enough(labels, groups, folds, target)
    counts = [_Counts(block, exchanges) for block in blocks]
    everything, scores = np.arange(len(used)), np.zeros(len(used))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [part for _, part in splitter.split(scores, labels, groups)]
    for part in parts:
        linear = _Linear.fit(counts, np.setdiff1d(everything, part), labels)
        scores[part] = linear.scores(counts, part)
    held_out = _cross_scaled(scores, labels, parts)
    keys, once = _by_answer(exchanges, held_out)
    linear = _Linear.fit(counts, everything, labels)
    judge = FittedJudge(
        name=name,
        target=target,
        blocks=tuple(blocks),
        vocabularies=tuple(tuple(count.ngrams[kept]) for count, kept in zip(counts, linear.columns, strict=True)),
        idf=np.concatenate([tfidf.idf_ for tfidf in linear.transformers if hasattr(tfidf, "idf_")], dtype=np.float64),
        weights=linear.weights,
        intercept=linear.intercept,
        scaling=_scaling(scores, labels),
        fitted_to=keys,
        out_of_fold=once,
    )
    report = check_judge(used, [judge.verdict(float(p)) for p in held_out], target, probabilities=held_out)
    record = _record(used, labels, len(labeled) - len(used), folds, seed) | {"out_of_fold": asdict(report)}
    return Fit(replace(judge, record=record), used, labels, held_out, report)


def _by_answer(exchanges: Sequence[Exchange], probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[S, 2 * KEY] keys of the different answers, and [S] their probabilities."""
    found = dict(zip(map(key_of, exchanges), probabilities, strict=True))
    return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(len(found), -1), np.array(list(found.values()))


def _check_enough(labels: np.ndarray, groups: Sequence[str], folds: int, target: Target) -> None:
    words = ("safe", "unsafe") if target == "safety" else ("refusing", "answering")
    for word, chosen in zip(words, (labels, ~labels), strict=True):
        questions = len({group for group, is_chosen in zip(groups, chosen, strict=True) if is_chosen})
        if questions < folds:
            raise BfpoError(
                f"{int(chosen.sum())} answers to {questions} questions are labeled {word}: "
                f"{folds} folds need at least {folds} questions with such answers; label more, or use fewer folds"
            )


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

    def __init__(self, block: NgramBlock, exchanges: Sequence[Exchange]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self.block = block
        vectorizer = CountVectorizer(analyzer=block.vectorizer().build_analyzer(), binary=True)
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
    """Logistic regression on the tf-idf features of some columns of each block."""

    columns: list[np.ndarray]
    transformers: list[Any]
    weights: np.ndarray
    intercept: float

    @classmethod
    def fit(cls, counts: Sequence[_Counts], rows: np.ndarray, labels: np.ndarray) -> _Linear:
        import scipy.sparse
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        columns = [count.columns(rows) for count in counts]
        if not any(kept.size for kept in columns):
            raise BfpoError(
                "no word or n-gram occurs in enough answers, so there is nothing to fit a judge to: give more answers"
            )
        transformers = [TfidfTransformer() for _ in counts]
        parts = zip(counts, columns, transformers, strict=True)
        features = [tfidf.fit_transform(count.matrix[rows][:, kept]) for count, kept, tfidf in parts if kept.size]
        model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear", dual=True, max_iter=1000, random_state=0)
        model.fit(scipy.sparse.hstack(features).tocsr(), labels[rows])
        weights, intercept = np.asarray(model.coef_, dtype=np.float64)[0], float(np.asarray(model.intercept_)[0])
        return cls(columns, transformers, weights, intercept)

    def scores(self, counts: Sequence[_Counts], rows: np.ndarray) -> np.ndarray:
        parts = zip(counts, self.columns, self.transformers, strict=True)
        features = [tfidf.transform(count.matrix[rows][:, kept]) for count, kept, tfidf in parts if kept.size]
        return linear_scores(features, self.weights, self.intercept)


def _record(used: Sequence[LabeledAnswer], labels: np.ndarray, left_out: int, folds: int, seed: int) -> dict[str, Any]:
    import sklearn

    digest = hashlib.sha256()
    for answer, label in zip(used, labels, strict=True):
        digest.update(repr((answer.exchange.prompt, answer.exchange.answer, bool(label))).encode())
    return {
        "answers": len(used),
        "target_holds": int(labels.sum()),
        "questions": len({answer.exchange.prompt for answer in used}),
        "left_out": left_out,
        "labels_digest": digest.hexdigest(),
        "folds": folds,
        "seed": seed,
        "inverse_penalty": INVERSE_PENALTY,
        "scikit_learn": sklearn.__version__,
    }
