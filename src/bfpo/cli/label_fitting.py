"""``bfpo label --fit-preference``: fits the labeling function, and prints it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bfpo.cli.printing import echo
from bfpo.files import check_exists, check_not_overwritten, check_suffix

if TYPE_CHECKING:
    from bfpo.labeling.fitted import FittedLabeling
    from bfpo.objectives.preference_fit import PreferenceFit


def fit_and_print(source: Path, output: Path | None, order_error: float, as_json: bool) -> None:
    """Fit b1 and alpha to a file of overall judgments, and write the labeling if an output is named."""
    check_exists(source)
    from bfpo.labeling.fitted import fit_file

    if output:
        check_suffix(output, ".json")
        check_not_overwritten(output, [(source, "the judgments")])
    fitted, fit = fit_file(str(source), order_error=order_error)
    if output:
        fitted.save(output)
    if as_json:
        echo(json.dumps(asdict(fitted.preference) | dict(fitted.record), indent=2))
        return
    for line in _fit_lines(fitted, fit):
        echo(line)
    if output:
        echo(f"Wrote {output}; to train with it, write 'labeling: {output}' in a recipe.")


def _fit_lines(fitted: FittedLabeling, fit: PreferenceFit) -> list[str]:
    errors = fit.covariance.diagonal().sqrt().tolist()
    (low, high), threshold = fit.b1_interval, fit.refusal_threshold
    cells = ", ".join(f"{cell} {count:g}" for cell, count in fit.n_per_cell.items())
    lines = [
        f"b1 {fit.preference.b1:.3f} (95 % profile interval {low:.3f} to {high:.3f})",
        f"b3 {fit.preference.b3:.3f} ({fit.b3_interval[0]:.3f} to {fit.b3_interval[1]:.3f}; standard error "
        f"{errors[0]:.3f})",
        f"alpha {fit.preference.alpha:.3f} (standard error {errors[1]:.3f})",
        f"temperature {fit.temperature:.3f} (standard error {errors[2]:.3f})",
        f"refusal threshold {threshold.value:.3f} ({threshold.low:.3f} to {threshold.high:.3f}): prompts that look "
        "alike are refused if a larger share of them is harmful",
        "covariance of (b3, alpha, temperature):",
        *("  " + "  ".join(f"{value:+.5f}" for value in row) for row in fit.covariance.tolist()),
        f"against the paper's b1 = 3, alpha = 1/2: likelihood ratio {fit.likelihood_ratio:.2f}, "
        f"p = {fit.p_value:.3g} (2 degrees of freedom, temperature free)",
        f"pairs by safety (more, less helpful answer): {cells}",
    ]
    if fit.lack_of_fit is not None:
        lines.append(f"lack of fit: {fit.lack_of_fit:.2f}, p = {fit.lack_of_fit_p:.3g} (1 degree of freedom)")
    if unanswered := fitted.record["unanswered"]:
        lines.append(f"left out: {unanswered:,} rows that people haven't answered")
    lines += [f"warning: {warning}" for warning in fitted.record["warnings"]]
    if fitted.prices:
        preference, by_category = fitted.preference, fitted.record["prices"]["categories"]
        lines.append(f"with prices by category: alpha {preference.alpha:.3f}; other categories {preference.b3:.3f}")
        for name, one in by_category.items():
            low, high = one["interval"]
            lines.append(f"price of {name}: {one['price']:.3f} (95 % interval {low:.3f} to {high:.3f})")
        if unknown := fitted.record["without_category"]:
            lines.append(f"pairs without a category, whose harm has the price of other categories: {unknown:,}")
    return lines
