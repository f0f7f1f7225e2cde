"""The reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bfpo.files import whole_file
from bfpo.statistics.calibration import Bin


def reliability_diagram(bins: Sequence[Bin], path: Path, title: str) -> None:
    """Write a PNG of observed shares against predicted probabilities, one point per bin, with 95 % intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    observed = [part.observed for part in bins]
    axes.plot([0, 1], [0, 1], color="#777777", lw=1, ls="--")
    axes.errorbar(
        [part.predicted for part in bins],
        [each.value for each in observed],
        yerr=[[each.value - each.low for each in observed], [each.high - each.value for each in observed]],
        fmt="o",
        color="#0072B2",
        capsize=2.5,
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability predicted", ylabel="share observed")
    axes.set_title(title, fontsize=8, wrap=True)
    axes.grid(alpha=0.18)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
