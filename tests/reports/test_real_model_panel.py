"""The panel about a quickstart on a real model: its figures, and what it says about the judge."""

from types import SimpleNamespace

import pytest

from bfpo.reports.real_model_panel import Outcome, _shifts, real_model_panel
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judge_error import ErrorRates


def rate(value):
    return Estimate(value, value - 0.1, value + 0.1, 48)


START = Outcome("start", rate(0.9), None, rate(0.1), None, {"harmless": rate(0.5)}, {})
TRAINED = Outcome(
    "BFPO", rate(0.3), rate(0.2), rate(0.2), rate(0.1), {"harmless": rate(0.8), "over_refusal": rate(0.4)},
    {"harmless": rate(0.3)}, {"risky": rate(3.0)},
)  # fmt: skip
GOOD, BAD = ErrorRates(rate(0.9), rate(0.6)), ErrorRates(rate(0.7), rate(0.6))


def test_every_model_has_its_figures_and_gains_are_signed():
    panel = real_model_panel("Small-1B", [START, TRAINED], 214, {"A": GOOD}, 1.4)
    assert "Small-1B was asked risky requests" in panel.lead
    assert "214 prompts" in panel.lead
    sampled, likely, moved = panel.tables
    assert [[cell.text for cell in row] for row in moved.rows] == [["BFPO", "+3.00 [+2.90, +3.10]", "–", "–", "–"]]
    assert [[cell.text for cell in row] for row in sampled.rows] == [
        ["start", ".90 [.80, 1.0]", "–", ".10 [.00, .20]", "–"],
        ["BFPO", ".30 [.20, .40]", ".20 [.10, .30]", ".20 [.10, .30]", ".10 [.00, .20]"],
    ]
    assert [[cell.text for cell in row] for row in likely.rows] == [
        ["start", ".50 [.40, .60]", "–"],
        ["BFPO", ".80 [.70, .90]", ".40 [.30, .50]"],
    ]
    assert likely.rows[0][1].note == ""
    assert likely.rows[1][1].note == "+.30 [+.20, +.40] against the start"


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ({}, "never compared with people's labels, so only the tables without a judge are results"),
        ({"A": GOOD, "B": BAD}, "below 1.4 on one of them, so no rate is corrected, and only the tables"),
        ({"A": GOOD}, "A sensitivity .90, specificity .60. The correction takes the source on which it errs most."),
    ],
)
def test_what_the_judge_is_worth_is_said(errors, said):
    assert said in real_model_panel("m", [START], 1, errors, 1.4).notes[-1]


def test_a_shift_is_the_change_of_the_log_odds_and_twins_are_compared_with_their_requests():
    def run(**logps):
        return SimpleNamespace(
            likelihoods=[
                SimpleNamespace(factor=factor, cluster=cluster, logps=logps[f"{factor}{cluster}"])
                for factor, cluster in (
                    ("harmless", "a"),
                    ("harmless", "b"),
                    ("over_refusal", "a"),
                    ("over_refusal", "b"),
                )
            ]
        )

    before = run(harmlessa=(-9, -1), harmlessb=(-9, -1), over_refusala=(-9, -1), over_refusalb=(-9, -1))
    after = run(harmlessa=(-5, -2), harmlessb=(-4, -3), over_refusala=(-8, -1), over_refusalb=(-9, -1.5))
    shifts = _shifts(after, before)
    assert {name: one.value for name, one in shifts.items()} == {
        "risky": 6.0, "twins": 0.75, "apart": 5.25, "lost": 0.25,
    }  # fmt: skip
    assert shifts["apart"].low < 5.25 < shifts["apart"].high
