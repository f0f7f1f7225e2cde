"""Training metrics over pairs: TRL's, and those of the four safety cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.registry import Objective

CELLS = ("SS", "SU", "US", "UU")


@dataclass
class RunningMeans:
    """Running weighted means of named values; counts are plain sums."""

    sums: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, tuple[float, float]]) -> None:
        """Add a (sum, weight) for every name; weight 0 marks a count, which is not divided."""
        for name, (total, weight) in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + total
            self.weights[name] = self.weights.get(name, 0.0) + weight

    def merge(self, other: RunningMeans) -> None:
        """Add the sums and weights of another process."""
        self.add({name: (total, other.weights[name]) for name, total in other.sums.items()})

    def gather(self) -> None:
        """Add the sums and weights of all other processes."""
        state = PartialState()
        for process, other in enumerate(gather_object([self]) if state.num_processes > 1 else ()):
            if process != state.process_index:
                self.merge(other)

    def take(self) -> dict[str, float]:
        """Return the means and reset."""
        means = {name: total / (self.weights[name] or 1.0) for name, total in self.sums.items()}
        self.sums, self.weights = {}, {}
        return means


def pair_metrics(logps: GroupLogps, labels: GroupLabels, objective: Objective) -> dict[str, tuple[float, float]]:
    """Sums and weights of a batch's metrics, in float64, for `RunningMeans`.

    TRL's names: ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins``, ``rewards/accuracies``,
    ``logps/chosen``, ``logps/rejected``; chosen is the first answer of each pair. ``level`` is the mean log-ratio to
    the reference over a group's answers, in nats, which margins leave free. For every safety cell (SU:
    chosen safe, rejected unsafe; a flag below 1/2 is unsafe), ``cells/SU/...``: ``count``; ``gap``, the mean of
    sign(T) (T - beta h), which is |T| at the start, 0 at the target and negative beyond it (only objectives with a
    target); ``drift_chosen`` and ``drift_rejected``, the mean log-ratio to the reference in nats;
    ``sign_accuracy``, the share of pairs whose margin has the same sign as the target.
    """
    logps = replace(logps, policy=logps.policy.cpu().double(), tokens=logps.tokens.cpu(), group=logps.group.cpu())
    rewards = objective.rewards(logps)
    if rewards is None or not len(labels.first):
        return {}
    margin = rewards[labels.first] - rewards[labels.second]
    everything = torch.ones_like(margin, dtype=torch.bool)
    metrics = {
        "rewards/chosen": _mean(rewards[labels.first], everything),
        "rewards/rejected": _mean(rewards[labels.second], everything),
        "rewards/margins": _mean(margin, everything),
        "rewards/accuracies": _mean((margin > 0).to(margin), everything),
        "logps/chosen": _mean(logps.policy[labels.first], everything),
        "logps/rejected": _mean(logps.policy[labels.second], everything),
    }
    target = objective.target(labels)
    wanted = labels.first_is_better - 0.5 if target is None else target
    drift = None if logps.reference is None else logps.log_ratios()
    if drift is not None:
        levels = logps.levels()
        metrics["level"] = (float(levels.sum()), float(len(levels)))
    safe_first, safe_second = labels.is_safe[labels.first], labels.is_safe[labels.second]
    known = ~(safe_first.isnan() | safe_second.isnan())
    for cell in CELLS:
        members = known & ((safe_first >= 0.5) == (cell[0] == "S")) & ((safe_second >= 0.5) == (cell[1] == "S"))
        if not members.any():
            continue
        metrics[f"cells/{cell}/count"] = (float(members.sum()), 0.0)
        if target is not None:
            metrics[f"cells/{cell}/gap"] = _mean(target.sign() * (target - margin), members)
        if drift is not None:
            metrics[f"cells/{cell}/drift_chosen"] = _mean(drift[labels.first], members)
            metrics[f"cells/{cell}/drift_rejected"] = _mean(drift[labels.second], members)
        metrics[f"cells/{cell}/sign_accuracy"] = _mean((margin.sign() == wanted.sign()).to(margin), members)
    return metrics


def _mean(values: Tensor, members: Tensor) -> tuple[float, float]:
    return float(values[members].sum()), float(members.sum())
