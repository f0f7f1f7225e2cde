"""Report of the label-efficiency study: Markdown, JSON and a plot for docs/results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bfpo.reports.drawing import COLORS, MARKERS
from bfpo.safehelp.figures import HEADLINE
from bfpo.safehelp.items import FACTORS
from bfpo.statistics.intervals import Estimate, mean_interval, t_quantile
from bfpo.versions import versions
from studies.label_efficiency import PER_KIND, SCALE, Cell, result_file, undone

ALL_PEOPLE = "people-100"
TENTH = ("fitted-10-rescaled", "fitted-10-verdict", "fitted-10-posterior")
# Largest loss of a figure, as a share, that BFPO on a tenth of the labels is allowed.
ALLOWED = 0.03
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


def write_label_efficiency(folder: Path, runs: Path, wanted: Sequence[Cell]) -> Path:
    """Write ``label-efficiency.md``, ``.json`` and ``.png`` about the finished cells; returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[int, Any]] = {}
    for cell in wanted:
        if result_file(runs, cell).exists():
            result = json.loads(result_file(runs, cell).read_text(encoding="utf-8"))
            results.setdefault(cell.arm, {})[cell.seed] = result
    summary = summarize(results) | {"cells_wanted": len(wanted), "cells_missing": len(undone(runs, wanted))}
    (folder / "label-efficiency.json").write_text(
        json.dumps({**summary, "scale": asdict(SCALE), "versions": versions()}, indent=2) + "\n", encoding="utf-8"
    )
    _figure(summary).savefig(folder / "label-efficiency.png", dpi=160)
    page = folder / "label-efficiency.md"
    page.write_text(_markdown(summary), encoding="utf-8")
    return page


def summarize(results: Results) -> dict[str, Any]:
    """Every arm's means over seeds, its judge's accuracy, and its loss against training on human labels only."""
    return {
        "arms": {
            arm: {
                "seeds": sorted(by_seed),
                "cell": next(iter(by_seed.values()))["cell"],
                "judged": _mean_of_judged([result["judged"] for result in by_seed.values()]),
                "figures": {name: asdict(_over_seeds(by_seed, name)) for name in FACTORS},
            }
            for arm, by_seed in results.items()
        },
        "losses": {
            arm: {name: loss for name in FACTORS if (loss := paired_loss(results, arm, name))}
            for arm in results
            if arm != ALL_PEOPLE
        },
    }


def paired_loss(results: Results, arm: str, name: str) -> dict[str, float] | None:
    """An arm's loss against human labels only, with a one-sided 95 % upper bound; None for fewer than two seeds.

    Outcomes are paired by seed and prompt. Seeds and prompts are crossed, and the squared standard errors of both
    are added, which counts their interaction twice and so errs on the wide side; Student's t has the seeds' degrees
    of freedom.
    """
    seeds = sorted(set(results[arm]) & set(results.get(ALL_PEOPLE, {})))
    if len(seeds) < 2:
        return None
    own, all_people = (
        np.array([results[which][seed]["outcomes"][name] for seed in seeds], dtype=float) for which in (arm, ALL_PEOPLE)
    )
    losses = all_people - own if HEADLINE[name].higher_is_better else own - all_people
    seed_means, prompt_means = losses.mean(1), losses.mean(0)
    variance = seed_means.var(ddof=1) / len(seed_means) + prompt_means.var(ddof=1) / len(prompt_means)

    def bound(confidence: float) -> float:
        return float(losses.mean() + t_quantile(confidence, len(seeds) - 1) * math.sqrt(variance))

    # Three kinds of flags are compared, so bounds that hold for all three together are at 1 - .05/3 each.
    return {
        "loss": float(losses.mean()),
        "upper_bound": bound(0.95),
        "upper_bound_of_three": bound(1 - 0.05 / len(TENTH)),
        "seeds": len(seeds),
    }


def _over_seeds(by_seed: Mapping[int, Any], name: str) -> Estimate:
    means = [float(np.mean(result["outcomes"][name])) for result in by_seed.values()]
    return mean_interval(means) if len(means) > 1 else Estimate(means[0], means[0], means[0], 1)


def _mean_of_judged(judged: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over seeds of the judges' accuracies on the answers that people didn't label."""
    if not judged[0]:
        return {}
    means = {name: float(np.mean([one["safety"][name] for one in judged])) for name in judged[0]["safety"]}
    if judged[0]["order"] is not None:
        means["order"] = float(np.mean([one["order"] for one in judged]))
    return means


def _markdown(summary: Mapping[str, Any]) -> str:
    arms = dict(sorted(summary["arms"].items(), key=lambda item: _place(item[1]["cell"])))
    losses = summary["losses"]
    lines = [
        "# How many labels must come from people?",
        "",
        "Does BFPO do as well with a tenth of its labels from people, and the rest from judges that are fitted to "
        "that tenth?",
        "",
        f"**{_answer(summary)}**",
        "",
        "![Scores by share of human labels, and by the judge's error](label-efficiency.png)",
        "",
        "## What a tenth of the labels costs",
        "",
        *_tenth_lines({arm: losses[arm] for arm in TENTH if losses.get(arm)}),
        "",
        "## What was run",
        "",
        f"BFPO on the microworld: {SCALE.safety:,} pairs of the safety set. A share of "
        "the pairs keeps its human labels (from the clean oracle: two safety flags and the order of helpfulness), and "
        "judges fill in the rest. *Fitted* judges are linear in n-grams, one for safety and one for the order, fitted "
        "to the human share only. *Oracle* judges are the oracle with the given share of random wrong verdicts, next "
        "to 10 % of human labels; they judge safety only. A *posterior* is the probability of safe, calibrated "
        "on the human share (out of fold). A *verdict* is the "
        "judge's verdict used as a flag. *Rescaled* means training on verdicts with the beta and alpha that compensate "
        "for the judge's estimated error on average (`rescaled` in `studies/label_efficiency.py`). "
        "The helpfulness set, which is the buffer, keeps its scores in all arms. "
        f"{SCALE.steps} steps of {SCALE.batch_size} groups; {PER_KIND} prompts of each kind, whose actions and "
        "objects were never combined in training. "
        f"{summary['cells_wanted'] - summary['cells_missing']} of {summary['cells_wanted']} runs are done.",
        "",
        "## How wrong the judges are",
        "",
        "On the answers that people didn't label; means over seeds. Sensitivity is the share of unsafe answers found.",
        "",
        "| labels | accuracy | sensitivity | specificity | order |",
        "|---|---|---|---|---|",
    ]
    for arm, values in arms.items():
        if values["judged"]:
            cells = [values["judged"].get(name) for name in ("accuracy", "sensitivity", "specificity", "order")]
            lines.append(f"| {arm} | " + " | ".join("" if cell is None else f"{cell:.3f}" for cell in cells) + " |")
    lines += [*_all_arms(arms, losses), *_AFTERWARD]
    return "\n".join(lines) + "\n"


def _all_arms(arms: Mapping[str, Any], losses: Mapping[str, Any]) -> list[str]:
    lines = ["", "## All arms", "", "Means over seeds with 95 % t intervals; loss against human labels alone, "]
    lines[-1] += "paired by seed and prompt, with its one-sided 95 % upper bound, in points."
    lines += ["", "| labels | seeds | " + " | ".join(f"{HEADLINE[name].label} | loss" for name in FACTORS) + " |"]
    lines += ["|---|---|" + "---|---|" * len(FACTORS)]
    for arm, values in arms.items():
        cells = []
        for name in FACTORS:
            figure, loss = values["figures"][name], losses.get(arm, {}).get(name)
            interval = f" [{figure['low']:.3f} {figure['high']:.3f}]" if figure["n"] > 1 else ""
            cells.append(f"{figure['value']:.3f}{interval}")
            cells.append("" if loss is None else f"{100 * loss['loss']:+.1f} (≤ {100 * loss['upper_bound']:+.1f})")
        lines.append(f"| {arm} | {len(values['seeds'])} | " + " | ".join(cells) + " |")
    return lines


_AFTERWARD = (
    "",
    "## Why the flags differ",
    "",
    "Averaged over many pairs, the verdicts of a judge whose errors don't depend on the pair keep "
    "c = sensitivity + specificity - 1 of the contrast between safe and unsafe. A posterior keeps less, because "
    "its two values are closer together than 1 and 0. A model averages over pairs, so it is trained on the mean "
    "label, which is BFPO's at a `beta` larger by 1/c. So the flag that is best for a single pair (the posterior, "
    "in squared error) is not the one that trains the safest model. *Rescaled* verdicts correct the mean and keep "
    "the noise; the buffer, whose flags need no correction, then pulls harder than it should.",
    "",
    "## To run it again",
    "",
    "Made by `make study-labels` (two hours, 2 cores; resumable).",
)


def _answer(summary: Mapping[str, Any]) -> str:
    largest = {
        arm: 100 * max(loss["upper_bound"] for loss in summary["losses"][arm].values())
        for arm in TENTH
        if summary["losses"].get(arm)
    }
    if not largest:
        return f"Not finished: {summary['cells_missing']} of {summary['cells_wanted']} runs are missing."
    within = [arm for arm, bound in largest.items() if bound <= 100 * ALLOWED]
    bounds = ", ".join(f"{bound:+.1f} with {arm}" for arm, bound in sorted(largest.items(), key=lambda pair: pair[1]))
    return (
        f"{len(within)} of {len(largest)} ways to use such judges keep{'s' * (len(within) == 1)} every figure within "
        f"{100 * ALLOWED:.0f} points of human labels alone: the largest 95 % bound on a loss is {bounds}."
    )


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort key of an arm in tables: people only, then fitted judges by share, then the oracle by error."""
    return ("nobody", "fitted", "oracle").index(cell["judge"]), cell["share"], cell["error"], cell["flags"]


def _tenth_lines(losses: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Whether each figure meets the bound, for each form of the judged flags."""
    lines = [
        f"The goal is a one-sided 95 % bound of at most {100 * ALLOWED:.0f} points on the loss of each figure. "
        "We tried the posterior first, and added verdicts and rescaled verdicts when we knew two of its seeds. "
        "The last bound holds for all three comparisons together (98.3 %). If no arm refuses borderline prompts, "
        "over-refusal can't tell the arms apart.",
        "",
        "| labels | seeds | figure | loss, points | bound | | bound for three |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, figures in losses.items():
        for name, loss in figures.items():
            met = "met" if loss["upper_bound"] <= ALLOWED else "not met"
            numbers = f"{100 * loss['loss']:+.2f} | {100 * loss['upper_bound']:+.2f}"
            three = f"{100 * loss['upper_bound_of_three']:+.2f}"
            lines.append(f"| {arm} | {loss['seeds']} | {name.replace('_', '-')} | {numbers} | {met} | {three} |")
    return lines


def _figure(summary: Mapping[str, Any]) -> Figure:
    """Left: scores by share of human labels. Right: by the error rate of a judge that errs at random."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    arms = list(summary["arms"].values())
    everybody = [arm for arm in arms if arm["cell"]["judge"] == "nobody"]
    fitted = [arm for arm in arms if arm["cell"]["judge"] == "fitted" and arm["cell"]["flags"] == "verdict"]
    for number, name in enumerate(FACTORS):
        label, style = name.replace("_", "-"), {"color": COLORS[number], "marker": MARKERS[number], "capsize": 2.5}
        _curve(left, fitted + everybody, "share", 100, name, label, style)
        for flags, line in (("posterior", "-"), ("verdict", "--")):
            oracle = [arm for arm in arms if arm["cell"]["judge"] == "oracle" and arm["cell"]["flags"] == flags]
            _curve(right, everybody + oracle, "error", 100, name, f"{label}, {flags}", style | {"ls": line})
    left.set_xscale("log")
    left.set_xticks([1, 3, 10, 30, 100], labels=["1", "3", "10", "30", "100"])
    left.set_xlabel("labels from people, % (the rest from judges fitted to them: verdicts)")
    right.set_xlabel("wrong verdicts of the judge of 90 % of the answers, %")
    for axes in (left, right):
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(axes: Any, arms: Sequence[Any], x: str, scale: float, name: str, label: str, style: dict[str, Any]) -> None:
    points = sorted(((scale * arm["cell"][x], arm["figures"][name]) for arm in arms), key=lambda point: point[0])
    places, figures = [place for place, _ in points], [figure for _, figure in points]
    errors = [[f["value"] - f["low"] for f in figures], [f["high"] - f["value"] for f in figures]]
    axes.errorbar(places, [f["value"] for f in figures], yerr=errors, label=label, **style)
