"""AlpacaEval's length-controlled win rate, for a single model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import expit

from bfpo.safehelp.clusters import clusters_of
from bfpo.safehelp.figures import help_of
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import GenerationRecord, TaskScore
from bfpo.statistics.calibration import fit_logistic
from bfpo.statistics.intervals import UPPER, Estimate, cluster_codes, rate_interval, t_quantile

# Keeps the fit finite if length separates wins from losses; as strong as one prompt that is half won.
_RIDGE = 0.25


def length_controlled_win_rate(
    wins: Sequence[float],
    lengths: Sequence[int],
    reference_lengths: Sequence[int],
    clusters: Sequence[Hashable] | None = None,
) -> Estimate:
    """The win rate that a model would have if its answers were as long as the references.

    A logistic regression of the wins on a constant and on tanh((length - reference length) / their standard
    deviation), evaluated at equal lengths (Dubois et al., arXiv 2404.04475, equations 1 and 2, without the
    term for each instruction's difficulty, which is fitted across a whole leaderboard). The interval is Student's t for
    the constant by the cluster-robust sandwich estimator, mapped through the logistic function; if all prompts are won,
    or all are lost, it is that of `rate_interval`.

    Args:
        wins: [N] probability in [0, 1] that the model's answer is better; a tie is 1/2.
        lengths: [N] lengths of the model's answers, in characters or tokens.
        reference_lengths: [N] lengths of the reference answers, in the same unit.
        clusters: [N] cluster of each prompt; by default every prompt is its own cluster.

    Raises:
        ValueError: if there are fewer than three clusters, or the lists differ in length.
    """
    codes = cluster_codes(clusters, len(wins))
    independent = len(np.unique(codes))
    if not len(wins) == len(lengths) == len(reference_lengths) or independent < 3:
        raise ValueError(
            f"needs three clusters of prompts or more, and as many lengths as wins: {independent} clusters, "
            f"{len(wins)} wins, {len(lengths)} lengths"
        )
    target = np.asarray(wins, dtype=float)
    if len(set(wins)) == 1 and wins[0] in (0.0, 1.0):
        return rate_interval(wins, clusters)
    difference = np.asarray(lengths, dtype=float) - np.asarray(reference_lengths, dtype=float)
    spread = difference.std()
    columns = [np.ones(len(target))]
    # If all differences are equal, the effect of length can't be separated from the model's.
    if spread > 0:
        columns.append(np.tanh(difference / spread))
    design = np.stack(columns, axis=1)
    weights, _ = fit_logistic(design, target, intercept=False, ridge=_RIDGE)
    probabilities = expit(design @ weights)
    residuals = np.zeros((independent, design.shape[1]))
    np.add.at(residuals, codes, design * (target - probabilities)[:, None])
    curvature = (design * (probabilities * (1 - probabilities))[:, None]).T @ design
    inverse = np.linalg.inv(curvature + _RIDGE * np.eye(len(weights)))
    covariance = inverse @ (residuals.T @ residuals) @ inverse
    degrees = independent - design.shape[1]
    half = t_quantile(UPPER, degrees) * math.sqrt(covariance[0, 0] * independent / degrees)
    value, low, high = expit([weights[0], weights[0] - half, weights[0] + half]).tolist()
    return Estimate(value, low, high, len(target))


def length_controlled_scores(records: Sequence[GenerationRecord], prompts: Sequence[PromptItem]) -> list[TaskScore]:
    """Length-controlled win rates of every task whose answers were compared with references.

    A missing or empty answer loses, and so does one that declines or that the judge could not compare, as in `helpful`.
    Lengths are in characters, as in AlpacaEval.
    """
    measured = {record.task for record in records if record.p_help is not None}
    references = {(item.task, item.item): item.reference for item in prompts if item.reference is not None}
    compared: dict[str, dict[str, list[GenerationRecord]]] = {}
    for record in records:
        if record.task in measured and (record.task, record.item) in references:
            compared.setdefault(record.task, {}).setdefault(record.item, []).append(record)
    rows = []
    for task, items in compared.items():
        clusters = clusters_of([own[0] for own in items.values()])
        if len(set(clusters)) < 3:
            continue
        wins = [sum(map(help_of, own)) / len(own) for own in items.values()]
        lengths = [round(sum(len(record.answer) for record in own) / len(own)) for own in items.values()]
        reference_lengths = [len(references[task, item] or "") for item in items]
        estimate = length_controlled_win_rate(wins, lengths, reference_lengths, clusters)
        rows.append(TaskScore(task, "win_rate_length_controlled", "helpful", estimate, True, 0.5, "generation"))
    return rows
