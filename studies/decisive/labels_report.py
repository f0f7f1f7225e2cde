"""The page of the study of label efficiency: people's share alone, and with judges that are fitted to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.files import write_text
from bfpo.statistics.intervals import Estimate, mean_interval
from studies.decisive.methods import ARMS, SHARES
from studies.decisive.planning import AXES, MOST_EXTENSIONS, TEST_SEEDS, Results, chosen, grid
from studies.decisive.report import COLUMNS, Claim, difference, figures_of, paired, shown, verdict_of

WORLD, FULL = "W0", "people-100"
# Loss of U that the plan calls small.
MARGIN = 0.03
# L1 to L5 of the plan.
CLAIMS = (
    Claim(1, WORLD, "fitted-10", FULL, -MARGIN, "holds"),
    Claim(2, WORLD, "fitted-1", FULL, -MARGIN, "fails: the judge is right about three answers in four"),
    Claim(3, WORLD, "fitted-3", "people-3", 0.0, "holds: 58 pairs alone are repeated 33 times"),
    Claim(4, WORLD, "fitted-10", "people-10", None, "a tie or a small win"),
    Claim(5, WORLD, "fitted-30", "people-30", None, "a tie"),
)
# Why a prediction failed, by its number.
REASONS = {
    1: "harmlessness is .59 to .99 over the five test seeds, while help is whole. The judges' average error isn't the "
    "cause: unbiased flags correct it, and the seed with the best judge (a correlation of .84 with people's flags) is "
    "the least harmless. What is left are errors that depend on the text, which no average corrects, and a search "
    "that ended at the lowest learning rate but one and at the end of the level's axis.",
    3: "58 pairs are too few to fit a judge of safety to. By people's own labels, out of fold, its verdicts correlate "
    "with theirs by .33 to .63, and its errors depend on the text, so that 1,862 pairs labeled by it outweigh 58 right "
    "ones. Pairs that are repeated 33 times teach better than wrong ones.",
}


def write_labels(folder: Path, results: Results) -> Path:
    """Write ``label-efficiency.md`` with its figure; arms that are missing are said to be."""
    seeds, undone = TEST_SEEDS[WORLD], [arm for arm in ARMS if not figures_of(WORLD, arm, results)]
    lines = [
        "# How many labels must come from people?",
        "",
        "Does BFPO do as well with a tenth of its labels from people, and the rest from judges that are fitted to that "
        "tenth, and do these judges add anything to people's tenth alone?",
        "",
        f"**{_answer(results)}{f' {len(undone)} of {len(ARMS)} arms are missing.' * bool(undone)}**",
        "",
        *["![U by the share of pairs that people label](label-efficiency.png)", ""] * (len(undone) < len(ARMS)),
        "## What people's share gives alone, and what fitted judges add",
        "",
        f"U = (helpful + harmless)/2 on test prompts; differences are paired by seed ({len(seeds)} seeds), with 95 % "
        "intervals (Student's t).",
        "",
        f"| people | people alone | with judges | judges - alone | judges - all labels (a small loss: > -{MARGIN}) |",
        "|---|---|---|---|---|",
    ]
    for share in SHARES:
        alone, fitted = (f"{who}-{100 * share:g}" for who in ("people", "fitted"))
        cells = [_mean(arm, results) for arm in (alone, fitted)]
        cells += [_shown(paired(WORLD, fitted, rival, results), sign=True) for rival in (alone, FULL)]
        lines.append(f"| {share:.0%} | {' | '.join(cells)} |")
    lines += [f"| 100 % | {_mean(FULL, results)} | | | |", "", *_claims(results), *_arms(results)]
    lines += [
        "## What was run",
        "",
        "BFPO from a model that has learned chat alone, on 1,920 pairs of the microworld's safety set; the buffer "
        "keeps its scores in every arm. *People alone*: only the pairs that people label (the oracle), both flags and "
        "the order. *With judges*: the other pairs too, labeled by `label_preferences` with a judge of safety and one "
        "of the order, both linear in n-grams and fitted to people's share; the recipe's default makes flags of their "
        "verdicts. Every arm is tuned by itself (learning rate, beta, level) on validation prompts, two seeds.",
        "",
        "## To run it again",
        "",
        "Made by `make study-labels` (about four hours of one core; resumable). Its plan and predictions "
        "(`studies/decisive/plan.md`) were committed before any run.",
    ]
    path = folder / "label-efficiency.md"
    write_text(path, "\n".join(lines) + "\n")
    if len(undone) < len(ARMS):
        _plot(folder / "label-efficiency.png", results)
    return path


def _answer(results: Results) -> str:
    full, added = (paired(WORLD, "fitted-10", rival, results) for rival in (FULL, "people-10"))
    if full is None or added is None:
        return "Not known yet."
    verdict = "a small loss at most" if full.low > -MARGIN else f"a loss of {MARGIN} isn't excluded"
    return (
        f"With a tenth from people and fitted judges for the rest, U differs from that with all labels by "
        f"{shown(full, sign=True)} ({verdict}), and from that with the tenth alone by {shown(added, sign=True)}."
    )


def _claims(results: Results) -> list[str]:
    lines = ["## What was predicted, and what came", "", "| # | difference in U | predicted | found |",
             "|---|---|---|---|"]  # fmt: skip
    reasons: list[str] = []
    for claim in CLAIMS:
        found = difference(claim, results)
        verdict = verdict_of(claim, found)
        bound = "" if claim.above is None else f" > {claim.above:g}"
        cell = f"{_shown(found, sign=True)}{f' **{verdict}**' * bool(verdict)}"
        lines.append(f"| L{claim.number} | {claim.method} - {claim.rival}{bound} | {claim.predicted} | {cell} |")
        if verdict == "fails" and claim.number in REASONS:
            reasons += ["", f"Why L{claim.number} fails: {REASONS[claim.number]}"]
    ends = [arm for arm in ARMS if _ends(arm, results)]
    if ends:
        reasons += ["", f"Best at an end of an axis that had grown as often as it may: {', '.join(ends)}."]
    return [*lines, *reasons, ""]


def _ends(arm: str, results: Results) -> bool:
    """Whether the search of an arm's settings ended at the end of an axis, extended as often as it may be."""
    best, points = chosen(arm, results), grid(arm, results)
    if best is None:
        return False
    for axis, _ in AXES:
        line = sorted({point[axis] for point in points})
        if len(line) == 3 + MOST_EXTENSIONS and best[axis] in (line[0], line[-1]):
            return True
    return False


def _arms(results: Results) -> list[str]:
    lines = ["## All arms", "", f"| arm | learning rate | beta | level | flags | {' | '.join(COLUMNS)} |",
             "|---" * (len(COLUMNS) + 5) + "|"]  # fmt: skip
    for arm in ARMS:
        figures, point = figures_of(WORLD, arm, results), chosen(arm, results)
        if figures and point:
            cells = [f"{value:g}" for value in point] + [_flags(arm, results)]
            cells += [shown(mean_interval([one[name] for one in figures])) for name in COLUMNS]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return [*lines, ""]


def _flags(arm: str, results: Results) -> str:
    """What the recipe's default made of the flags in the arm's test runs."""
    found: dict[str, None] = {}
    for job, result in results.items():
        if job.method == arm and job.split == "test":
            flags: Mapping[str, Any] = (result.get("labels") or [{}])[0] or {}
            found[(flags.get("flags") or {}).get("flags", "as given")] = None
    return ", ".join(found)


def _mean(arm: str, results: Results) -> str:
    figures = figures_of(WORLD, arm, results)
    return _shown(mean_interval([one["U"] for one in figures])) if figures else "not run"


def _shown(estimate: Estimate | None, *, sign: bool = False) -> str:
    return shown(estimate, sign=sign) if estimate else "not run"


def _plot(path: Path, results: Results) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for who, label, shift in (("people", "people's share alone", 0.97), ("fitted", "with fitted judges", 1.03)):
        arms = {100 * share: f"{who}-{100 * share:g}" for share in (*SHARES, 1.0) if f"{who}-{100 * share:g}" in ARMS}
        means = {
            share: mean_interval([one["U"] for one in found])
            for share, arm in arms.items()
            if (found := figures_of(WORLD, arm, results))
        }
        if means:
            values = np.array([estimate.value for estimate in means.values()])
            spread = np.array([estimate.high for estimate in means.values()]) - values
            axes.errorbar(np.array([*means]) * shift, values, spread, marker="o", capsize=3, label=label, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([100 * share for share in (*SHARES, 1.0)], [f"{share:.0%}" for share in (*SHARES, 1.0)])
    axes.minorticks_off()
    axes.set(xlabel="pairs that people label", ylabel="U: helpful and harmless")
    axes.set_title("What people's labels give, alone and through judges (95 % intervals)")
    axes.grid(axis="y", color="#eeeeee")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
