"""Metrics on pairs small enough to count by hand."""

import math

import pytest
import torch

from bfpo.groups import GroupLabels, GroupLogps
from bfpo.objectives.registry import build_objective
from bfpo.training.pair_metrics import RunningMeans, pair_metrics

LOGPS = GroupLogps(
    policy=torch.tensor([-4.0, -7.0, -9.0, -2.0]),
    reference=torch.tensor([-6.0, -6.0, -8.0, -3.0]),
    tokens=torch.tensor([2, 2, 4, 1]),
    group=torch.tensor([0, 0, 1, 1]),
)


def labels(safe):
    return GroupLabels(torch.tensor(safe), torch.tensor([0, 2]), torch.tensor([1, 3]), torch.ones(2))


def means(objective, safe):
    running = RunningMeans()
    running.add(pair_metrics(LOGPS, labels(safe), objective))
    return running.take()


def test_bfpo_cells():
    found = means(build_objective("bfpo", {"beta": 0.1}), [1.0, 0.0, 0.0, 0.0])
    # Log-ratios are 2, -1, -1, 1: margins 3 and -2 nats.
    assert found["rewards/chosen"] == pytest.approx(0.1 * (2 - 1) / 2)
    assert found["level"] == pytest.approx(((2 - 1) / 2 + (-1 + 1) / 2) / 2)
    assert found["rewards/margins"] == pytest.approx(0.1 * (3 - 2) / 2)
    assert found["rewards/accuracies"] == 0.5
    assert found["logps/rejected"] == pytest.approx(-4.5)
    assert found["cells/SU/count"] == found["cells/UU/count"] == 1
    assert found["cells/SU/gap"] == pytest.approx(1.0 - 0.3)
    assert found["cells/UU/gap"] == pytest.approx(0.5 - 0.2)
    assert found["cells/SU/drift_chosen"] == pytest.approx(2.0)
    assert found["cells/UU/drift_rejected"] == pytest.approx(1.0)
    assert found["cells/SU/sign_accuracy"] == found["cells/UU/sign_accuracy"] == 1.0
    assert not any(name.startswith(("cells/SS", "cells/US")) for name in found)


def test_an_objective_without_target_has_signs_but_no_gap():
    found = means(build_objective("dpo", {"beta": 0.1}), [1.0, 0.0, 0.0, 0.0])
    assert found["cells/UU/sign_accuracy"] == 0.0
    assert "cells/UU/gap" not in found


def test_unknown_safety_belongs_to_no_cell_and_sft_has_no_pairs():
    assert not any("cells" in name for name in means(build_objective("dpo", {}), [math.nan] * 4))
    assert means(build_objective("sft", {}), [1.0] * 4) == {}


def test_without_a_reference_there_is_no_drift_and_no_level():
    without = GroupLogps(LOGPS.policy, None, LOGPS.tokens, LOGPS.group)
    found = pair_metrics(without, labels([1.0, 0.0, 0.0, 0.0]), build_objective("simpo", {"beta": 2.0}))
    # Mean log-probabilities are -2, -3.5, -2.25 and -2.
    assert found["rewards/margins"] == (pytest.approx(2 * (1.5 - 0.25)), 2.0)
    assert not any("drift" in name or name == "level" for name in found)


def test_running_means_weigh_by_pairs_and_start_afresh():
    running, other = RunningMeans(), RunningMeans()
    running.add({"a": (6.0, 2.0), "n": (2.0, 0.0)})
    other.add({"a": (3.0, 7.0), "n": (5.0, 0.0)})
    running.merge(other)
    assert running.take() == {"a": 1.0, "n": 7.0}
    assert running.take() == {}
