"""The dial's study at the smallest scale: what it measures, keeps and writes."""

import pytest

from bfpo.bounding import BoundNotMetError
from bfpo.errors import RunError
from bfpo.models import MICROWORLD
from bfpo.quickstart import Scale
from bfpo.statistics.intervals import Estimate
from studies import dial_and_bound
from studies.dial_and_bound import Place, run_bounds, run_places, write_report

SMALL = Scale(chat=8, safety=16, helpful=8, answers=2, sft_steps=1, steps=1, batch_size=4)


@pytest.mark.long
def test_places_and_bounds_are_measured_once_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(dial_and_bound, "PLACES", 2)
    monkeypatch.setattr(dial_and_bound, "LIMITS", (0.99, 0.98))
    monkeypatch.setattr(dial_and_bound, "PROMPTS", 20)
    lines = []
    places = run_places(tmp_path / "runs", tmp_path / "results", SMALL, 4, lines.append)
    assert [place.b3 for place in places] == list(dial_and_bound.CORNERS)
    # At its ends the dial is one of its models: nothing is rejected, and nothing drifts.
    assert [(place.candidates, place.by_weight) for place in places] == [(1.0, 0.0)] * 2
    # Log-probabilities in float32 sum to one only to rounding.
    assert all(0 <= place.drift < 1e-4 for place in places)
    again = run_places(tmp_path / "gone", tmp_path / "results", SMALL, 4, lines.append)
    assert again == places
    bounds = run_bounds(tmp_path / "runs", tmp_path / "results", SMALL, [0], lines.append)
    assert [bound["limit"] for bound in bounds] == [0.99, 0.98]
    corners = [tmp_path / "runs" / "seed0" / f"bound-{limit}" / "corner-low" for limit in (0.99, 0.98)]
    # The second bound takes the corners of the first.
    assert len({(corner / "run.json").read_text() for corner in corners}) == 1
    text = write_report(tmp_path, places, bounds).read_text()
    assert "| 0.020 | " in text
    assert "| 99% | 0 | " in text


def test_a_bound_that_is_not_met_is_a_result_and_any_other_failure_is_not(tmp_path, monkeypatch):
    failures = [RunError("the loss is no number"), BoundNotMetError("can't be met")]

    def fails(*given, **more):
        raise failures.pop(0)

    monkeypatch.setattr(dial_and_bound, "LIMITS", (0.99,))
    monkeypatch.setattr(dial_and_bound, "ensure_sft", lambda folder, scale, seed: MICROWORLD)
    monkeypatch.setattr(dial_and_bound, "train_to_bound", fails)
    with pytest.raises(RunError, match="no number"):
        run_bounds(tmp_path / "runs", tmp_path / "results", SMALL, [0], print)
    assert not (tmp_path / "results").exists()
    [bound] = run_bounds(tmp_path / "runs", tmp_path / "results", SMALL, [0], print)
    assert bound == {"limit": 0.99, "seed": 0, "failure": "can't be met"}


def test_a_fall_of_harmlessness_beyond_the_intervals_is_told(tmp_path):
    def place(b3, trained, exact):
        by_series = [
            {name: Estimate(value, value - 0.02, value + 0.02, 100) for name in dial_and_bound.FIGURES}
            for value in (trained, exact, exact)
        ]
        return Place(b3, *by_series, candidates=1.0, by_weight=0.0, drift=0.0)

    places = [place(1.0, 0.80, 0.80), place(2.0, 0.90, 0.95), place(3.0, 0.87, 0.90)]
    text = write_report(tmp_path, places, []).read_text()
    fall = "from b3 2.000 to 3.000"
    assert f"the trained models: nowhere; the exact dial: {fall}; token by token: {fall}." in text
