"""The fit of b1 and alpha on simulated judgments: ``python benchmarks/labeling_fit.py``.

Truth: b1 = 3, alpha = 1/2, temperature .8, and cells as in PKU-SafeRLHF (SS .45, SU .10, US .17, UU .28). Measures the
median of the fitted b1 and how often its interval covers the truth when flags are calibrated probabilities from a judge
that is wrong in 10 %, and when its verdicts are taken as flags; the test of fit, with exact flags; and N from 200 to
5,000. Seeded; writes docs/results/labeling-fit.md (five minutes, one core).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bfpo.errors import BfpoError
from bfpo.files import write_text
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.preference_fit import PreferenceFit, fit_preference

PAGE = Path(__file__).parents[1] / "docs" / "results" / "labeling-fit.md"
SHARES = (0.45, 0.10, 0.17, 0.28)
FLAGS = np.array([[1.0, 1], [1, 0], [0, 1], [0, 0]])
TEMPERATURE, ERROR, ORDER_ERROR = 0.8, 0.1, 0.26
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def judgments(
    seed: int, pairs: int, *, indifferent: bool = False, balanced: bool = False, order_error: float = 0.0
) -> Columns:
    """True flags of the more and the less helpful answer, and judgments by the paper's constants.

    Args:
        seed: random seed.
        pairs: number of pairs.
        indifferent: whether people are indifferent between two unsafe answers.
        balanced: whether all cells are equally frequent, as a quota makes them.
        order_error: share of pairs whose order is wrong.
    """
    random = np.random.default_rng(seed)
    flags = FLAGS[random.choice(4, pairs, p=[0.25] * 4 if balanced else SHARES)]
    label = GlobalPreference().target(*torch.tensor(flags.T)).numpy()
    label = np.where((flags.sum(1) == 0) & indifferent, 0.0, label)
    prefers = random.random(pairs) < 1 / (1 + np.exp(-label / TEMPERATURE))
    wrong = random.random(pairs) < order_error
    flags = np.where(wrong[:, None], flags[:, ::-1], flags)
    return flags[:, 0], flags[:, 1], np.where(wrong, ~prefers, prefers).astype(float)


def judged(columns: Columns, seed: int) -> Columns:
    """The flags as a judge's calibrated probabilities, P(safe | verdict) at the base rate of all answers."""
    random = np.random.default_rng([seed, 1])
    rate = (2 * SHARES[0] + SHARES[1] + SHARES[2]) / 2
    safe, unsafe = rate * (1 - ERROR), (1 - rate) * ERROR
    p_safe, p_unsafe = safe / (safe + unsafe), rate * ERROR / (rate * ERROR + (1 - rate) * (1 - ERROR))
    soft = []
    for flags in columns[:2]:
        said = np.where(random.random(len(flags)) < ERROR, 1 - flags, flags)
        soft.append(np.where(said == 1, p_safe, p_unsafe))
    return soft[0], soft[1], columns[2]


def verdicts(columns: Columns, seed: int) -> Columns:
    """The judge's verdicts, taken as true flags."""
    better, worse, prefers = judged(columns, seed)
    return (better > 0.5).astype(float), (worse > 0.5).astype(float), prefers


def fits(draws: int, make: Callable[[int], Columns], **options: Any) -> list[PreferenceFit]:
    """Fits of so many draws; refused ones are left out."""
    found = []
    for seed in range(draws):
        try:
            found.append(fit_preference(*(column.tolist() for column in make(seed)), **options))
        except BfpoError:
            continue
    return found


def line(name: str, pairs: int, draws: int, found: list[PreferenceFit]) -> str:
    """A row of the table of fits."""
    b1 = [fit.preference.b1 for fit in found]
    covers = sum(fit.b1_interval[0] <= 3 <= fit.b1_interval[1] for fit in found)
    closed = sum(math.isfinite(fit.b1_interval[1]) and fit.b1_interval[0] > 1 for fit in found)
    ends = [np.median([fit.b1_interval[end] for fit in found]) for end in (0, 1)]
    threshold = np.median([fit.refusal_threshold.value for fit in found])
    return (
        f"| {name} | {pairs:,} | {draws} | {draws - len(found)} | {np.median(b1):.2f} | {ends[0]:.2f} to {ends[1]:.2f} "
        f"| {covers} | {closed} | {threshold:.3f} |"
    )


def rejected(draws: int, pairs: int, **options: Any) -> tuple[int, int]:
    """How often the test of fit rejects at 5 %, of how many draws."""
    found = fits(draws, lambda seed: judgments(seed, pairs, **options))
    return sum(fit.lack_of_fit_p is not None and fit.lack_of_fit_p < 0.05 for fit in found), len(found)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draws", type=int, default=100, help="draws of every fit; ten times as many for the test of fit"
    )
    draws = parser.parse_args().draws
    flat = math.inf
    rows = [line("exact flags", n, draws, fits(draws, lambda s, n=n: judgments(s, n))) for n in (200, 1000, 5000)]
    rows += [
        line("exact flags, no prior", n, draws, fits(draws, lambda s, n=n: judgments(s, n), prior_sd=flat))
        for n in (200, 1000)
    ]
    quota = fits(draws, lambda s: judgments(s, 1000, balanced=True))
    rows.append(line("exact flags, quota by cell", 1000, draws, quota))
    soft = {"10 % errors, probabilities": judged, "10 % errors, verdicts as flags": verdicts}
    rows += [
        line(name, 5000, draws, fits(draws, lambda s, make=make: make(judgments(s, 5000), s)))
        for name, make in soft.items()
    ]
    wrong = [judgments(seed, 5000, order_error=ORDER_ERROR) for seed in range(draws)]
    rows.append(line("26 % wrong orders, unknown", 5000, draws, fits(draws, lambda s: wrong[s])))
    known = fits(draws, lambda s: wrong[s], order_error=ORDER_ERROR)
    rows.append(line("26 % wrong orders, known", 5000, draws, known))
    tests = [
        ("judgments follow T", rejected(10 * draws, 2000)),
        ("indifferent between two unsafe answers", rejected(10 * draws, 2000, indifferent=True)),
        ("the same, quota by cell", rejected(10 * draws, 2000, indifferent=True, balanced=True)),
    ]
    write_text(PAGE, page(rows, tests))
    print(PAGE.read_text(encoding="utf-8"))


def page(rows: list[str], tests: list[tuple[str, tuple[int, int]]]) -> str:
    """The page."""
    cells = [row.strip("| ").split(" | ") for row in rows]
    covered = ", ".join(f"{own[6]} of {own[2]} draws ({own[0]})" for own in cells if own[1] == "5,000")
    lines = [
        "# The fit of b1 and alpha",
        "",
        "Does the fit find the b1 that people's judgments follow, and does its interval cover it?",
        "",
        f"**With 5,000 pairs the interval covers the true b1 in {covered}.**",
        "",
        "| flags | pairs | draws | refused | median b1 | median interval | intervals that cover 3 | closed on both "
        "sides | median refusal threshold |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "The test of fit, with exact flags and 2,000 pairs, rejects at 5 %:",
        "",
        "| judgments | rejected | draws |",
        "|---|---|---|",
        *(f"| {name} | {100 * count / of:.1f} % | {of:,} |" for name, (count, of) in tests),
        "",
        "Truth: b1 = 3, alpha = 1/2, temperature .8, and cells as in PKU-SafeRLHF (SS .45, SU .10, US .17, UU .28), so "
        "the refusal threshold is .333.",
        "",
        "Made by `python benchmarks/labeling_fit.py` (five minutes, 1 core).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
