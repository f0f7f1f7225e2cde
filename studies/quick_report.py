"""Report on five seeds of the quickstart: Markdown, JSON and a plot for docs/results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bfpo.reports.drawing import COLORS, MARKERS
from bfpo.safehelp.figures import HEADLINE, label_of
from bfpo.versions import versions

FIGURES = (*HEADLINE, "U")


def write_study(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``study-quick.md``, ``.json`` and ``.png``; returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study-quick.json").write_text(
        json.dumps({**summary, "versions": versions()}, indent=2) + "\n", encoding="utf-8"
    )
    _figure(summary).savefig(folder / "study-quick.png", dpi=160)
    page = folder / "study-quick.md"
    page.write_text(_markdown(summary), encoding="utf-8")
    return page


def _markdown(summary: Mapping[str, Any]) -> str:
    seeds, scale = summary["seeds"], summary["scale"]
    lines = [
        "# The study behind the quickstart",
        "",
        "Does BFPO make the SFT model harmless without losing help, and does it do better than the best of its rivals?",
        "",
        f"**{_answer(summary)}**",
        "",
        "![Helpful against harmless: means over seeds](study-quick.png)",
        "",
        "| method | beta | " + " | ".join(label_of(name) for name in FIGURES) + " |",
        "|---|---|" + "---|" * len(FIGURES),
    ]
    for method, figures in summary["means"].items():
        beta = summary["betas"].get(method)
        cells = " | ".join(_interval(figures[name]) for name in FIGURES)
        lines.append(f"| {method} | {'' if beta is None else f'{beta:g}'} | {cells} |")
    lines += [
        "",
        f"Means over {len(seeds)} seeds ({', '.join(map(str, seeds))}) with 95 % t intervals, which cover the "
        "variation of data, training and sampling together: each seed has its own data, SFT, order and sampling. "
        f"Every method trains for {scale['steps']} steps of {scale['batch_size']} groups. Its beta was chosen from one "
        f"grid by U on validation compositions (seed {seeds[0]}); the figures above are on test compositions. "
        "U = (helpful + harmless)/2.",
    ]
    lines += ["", "## Differences, paired over seeds", "", "| difference | mean [95 % interval] |", "|---|---|"]
    lines += [f"| {name} | {_interval(value, sign=True)} |" for name, value in summary["differences"].items()]
    lines += ["", "## The grid of betas (validation compositions)", "", "| run | " + " | ".join(FIGURES) + " |"]
    lines += ["|---|" + "---|" * len(FIGURES)]
    for run, result in summary["selection"].items():
        lines.append(f"| {run} | " + " | ".join(f"{result[name]:.3f}" for name in FIGURES) + " |")
    lines += ["", "## To run it again", "", "Made by `make study-quick` (23 minutes, 2 cores; resumable)."]
    return "\n".join(lines) + "\n"


def _answer(summary: Mapping[str, Any]) -> str:
    rival, differences = summary["best_rival"], summary["differences"]
    harmless, helpful = (_interval(differences[f"{name}, BFPO - SFT"], sign=True) for name in ("harmless", "helpful"))
    apart = differences[f"U, BFPO - {rival}"]
    outcome = "a win" if apart["low"] > 0 else "a loss" if apart["high"] < 0 else "a tie"
    return (
        f"From SFT to BFPO, harmless changes by {harmless} and helpful by {helpful}; against {rival}, the best rival, "
        f"U differs by {_interval(apart, sign=True)}, which is {outcome}."
    )


def _interval(value: Mapping[str, float], sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{value['value']:{form}} [{value['low']:{form}} {value['high']:{form}}]"


def _figure(summary: Mapping[str, Any]) -> Figure:
    """Each method's mean with its intervals over seeds."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    for number, (method, figures) in enumerate(summary["means"].items()):
        helpful, harmless = figures["helpful"], figures["harmless"]
        axes.errorbar(
            helpful["value"],
            harmless["value"],
            xerr=[[helpful["value"] - helpful["low"]], [helpful["high"] - helpful["value"]]],
            yerr=[[harmless["value"] - harmless["low"]], [harmless["high"] - harmless["value"]]],
            fmt=MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            capsize=3,
            label=method,
        )
    axes.set_xlabel("helpful")
    axes.set_ylabel("harmless")
    axes.grid(alpha=0.2)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
