"""The length-controlled win rate against worlds whose answer is known, and against scikit-learn's fit."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.length_control import length_controlled_scores, length_controlled_win_rate
from bfpo.safehelp.records import GenerationRecord
from bfpo.statistics.intervals import wilson


def world(quality, taste_for_length, longer, count=2000, seed=0):
    """Wins of a model with longer answers, by a judge that prefers length."""
    generator = np.random.default_rng(seed)
    reference = generator.integers(200, 800, count)
    lengths = reference + generator.normal(longer, 300, count).astype(int)
    difference = lengths - reference
    chance = 1 / (1 + np.exp(-(quality + taste_for_length * np.tanh(difference / difference.std()))))
    return (generator.random(count) < chance).astype(float), lengths, reference


@pytest.mark.parametrize("quality", [-1.0, 0.0, 0.7])
def test_finds_the_quality_behind_a_taste_for_length(quality):
    wins, lengths, reference = world(quality, taste_for_length=1.5, longer=300)
    truth = 1 / (1 + np.exp(-quality))
    found = length_controlled_win_rate(wins.tolist(), lengths.tolist(), reference.tolist())
    assert found.low < truth < found.high
    assert found.high - found.low < 0.12
    assert wins.mean() > found.high  # the plain win rate rewards length


def test_covers_the_truth_in_simulation():
    hits = 0
    for seed in range(200):
        wins, lengths, reference = world(0.4, 1.0, 150, count=150, seed=seed)
        found = length_controlled_win_rate(wins.tolist(), lengths.tolist(), reference.tolist())
        hits += found.low <= 1 / (1 + np.exp(-0.4)) <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_repeated_prompts_say_nothing_new():
    """20 prompts, 20 times each: the interval is that of 20, as everywhere else."""
    wins, lengths, reference = (values.tolist() for values in world(0.6, 1.0, 150, count=20, seed=3))
    once = length_controlled_win_rate(wins, lengths, reference)
    repeated = length_controlled_win_rate(wins * 20, lengths * 20, reference * 20, list(range(20)) * 20)
    apart = length_controlled_win_rate(wins * 20, lengths * 20, reference * 20)
    assert repeated.value == pytest.approx(apart.value)
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.3)
    assert apart.high - apart.low < 0.4 * (repeated.high - repeated.low)
    with pytest.raises(ValueError, match="three clusters of prompts"):
        length_controlled_win_rate(wins, lengths, reference, [0, 1] * 10)


def test_equals_scikit_learns_fit():
    wins, lengths, reference = world(0.3, 0.8, 100, count=300)
    difference = lengths - reference
    design = np.stack([np.ones(300), np.tanh(difference / difference.std())], 1)
    fit = LogisticRegression(C=4.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(design, wins)  # 1/C is the ridge
    found = length_controlled_win_rate(wins.tolist(), lengths.tolist(), reference.tolist())
    assert found.value == pytest.approx(1 / (1 + np.exp(-fit.coef_[0, 0])), abs=1e-5)


def test_equal_lengths_leave_the_win_rate():
    wins = [1.0] * 60 + [0.5] * 20 + [0.0] * 20
    found = length_controlled_win_rate(wins, [100] * 100, [50] * 100)
    assert found.value == pytest.approx(0.7, abs=0.003)  # the prior weighs as much as one drawn prompt
    half = 1.984 * np.std(wins, ddof=1) / 10
    assert found.high - found.low == pytest.approx(2 * half, rel=0.03)


def test_all_won_or_all_lost_is_wilsons():
    assert length_controlled_win_rate([1.0] * 20, list(range(20)), [3] * 20) == wilson(20, 20)
    assert length_controlled_win_rate([0.0] * 20, list(range(20)), [3] * 20) == wilson(0, 20)


def test_rows_of_a_runs_records():
    def record(item, answer, p_help, task="alpaca_eval", kind="partial"):
        return GenerationRecord(
            task, item, 0, "benign", None, None, item, f"q{item}", "q", answer, None, False, (), p_help, kind
        )

    prompts = [
        PromptItem("alpaca_eval", str(n), "benign", None, None, str(n), "q", reference="x" * 50) for n in range(6)
    ]
    records = [record(str(n), "y" * (40 + 10 * n), float(n % 2)) for n in range(5)]
    records += [record("0", "y" * 60, 1.0), record("5", "y", None), record("1", "y", 1.0, "other")]
    (row,) = length_controlled_scores(records, prompts)
    assert (row.task, row.metric, row.factor, row.chance) == (
        "alpaca_eval",
        "win_rate_length_controlled",
        "helpful",
        0.5,
    )
    # Every prompt of the task counts: an answer without a preference loses, as in the figure "helpful".
    expected = length_controlled_win_rate([0.5, 1.0, 0.0, 1.0, 0.0, 0.0], [50, 50, 60, 70, 80, 1], [50] * 6)
    assert row.estimate == expected
    assert length_controlled_scores(records[:2], prompts) == []
    # Neither does a refusal win, whatever the judge prefers.
    refusing = [record(str(n), "y" * 50, 0.9, kind="safe-refusal") for n in range(6)]
    (row,) = length_controlled_scores(refusing, prompts)
    assert row.estimate.value == 0


def test_too_little_to_fit_is_refused():
    with pytest.raises(ValueError, match="three clusters"):
        length_controlled_win_rate([1.0, 0.0], [1, 2], [1, 2])
    with pytest.raises(ValueError, match="as many lengths"):
        length_controlled_win_rate([1.0, 0.0, 1.0], [1, 2], [1, 2])
