"""Accuracy of the fitted judge on real samples: ``python benchmarks/fitted_judges.py``.

Needs ../shared/data (public samples that are not part of the repository). Every part is fitted with the defaults of
``bfpo judge fit`` and evaluated out of fold, with folds grouped by prompt. The numbers of each part (``--only NAME``)
are saved in ``runs/judges``, from which an interrupted run resumes. Writes docs/results/judges.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.judges.checking import JudgeReport, check_judge
from bfpo.judges.fitting import Fit, fit_judge
from bfpo.judges.keywords import KeywordJudge
from bfpo.judges.labels import LabeledAnswer, load_labels, of_source
from bfpo.judges.verdict import Exchange

ROOT = Path(__file__).parents[1]
DERIVED = ROOT.parent / "shared" / "data" / "derived"
KEPT = ROOT / "runs" / "judges"


def main() -> None:
    """Evaluate the parts without a result, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(PARTS), help="evaluate one part and exit")
    only = parser.parse_args().only
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in [only] if only else PARTS:
        path = KEPT / f"{name}.json"
        if only or not path.exists():
            path.write_text(json.dumps(PARTS[name]()) + "\n", encoding="utf-8")
    if only is None:
        page = ROOT / "docs" / "results" / "judges.md"
        page.write_text(written({name: json.loads((KEPT / f"{name}.json").read_text()) for name in PARTS}))
        print(page.read_text())


def safety(source: str) -> Callable[[], dict[str, Any]]:
    """One source of response_safety_dev, out of fold."""

    def figure() -> dict[str, Any]:
        labeled = of_source(load_labels(str(DERIVED / "response_safety_dev.jsonl")), source)
        started = time.perf_counter()
        made = fit_judge(labeled, name=source)
        seconds = time.perf_counter() - started
        record = figures(made.report, made, seconds)
        record["both_labels"] = answers_with_both_labels(labeled)
        if source == "diasafety":
            held_out = load_labels(str(DERIVED / "response_safety_devval.jsonl"))
            verdicts = made.judge.judge([answer.exchange for answer in held_out])
            record["held_out"] = asdict(check_judge(held_out, verdicts, "safety").overall)
        return record

    return figure


def refusal() -> dict[str, Any]:
    """XSTest's answers with human labels, any refusal (partial or full) against full compliance."""
    rows = [json.loads(line) for line in (DERIVED / "xstest_human_dev.jsonl").open(encoding="utf-8")]
    labeled = [
        LabeledAnswer(Exchange(row["prompt"], row["response"]), None, row["compliance"] != 1, row["model"])
        for row in rows
    ]
    started = time.perf_counter()
    made = fit_judge(labeled, "refusal", name="xstest")
    seconds = time.perf_counter() - started
    report = made.report
    keywords = KeywordJudge().judge([answer.exchange for answer in made.labeled])
    record = figures(report, made, seconds)
    record["keywords"] = asdict(check_judge(made.labeled, keywords, "refusal"))
    record["full"] = full_refusal(rows)
    seeds = [fit_judge(labeled, "refusal", seed=seed).report.overall.accuracy for seed in range(10)]
    record["accuracies"] = [accuracy.value for accuracy in seeds if accuracy]
    return record


def full_refusal(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same for full refusals, leaving out partial ones: undisputed refusals."""
    clear = [row for row in rows if row["compliance"] != 3]
    labeled = [
        LabeledAnswer(Exchange(row["prompt"], row["response"]), None, row["compliance"] == 2, row["model"])
        for row in clear
    ]
    made = fit_judge(labeled, "refusal", name="xstest-full")
    keywords = KeywordJudge().judge([answer.exchange for answer in made.labeled])
    return {
        "fitted": asdict(made.report.overall),
        "keywords": asdict(check_judge(made.labeled, keywords, "refusal").overall),
    }


def answers_with_both_labels(labeled: list[LabeledAnswer]) -> float:
    """Share of answers whose very text is labeled safe in one row and unsafe in another, to the same prompt."""
    labels: dict[Exchange, set[bool | None]] = {}
    for answer in labeled:
        labels.setdefault(answer.exchange, set()).add(answer.is_safe)
    return float(np.mean([len(labels[answer.exchange]) > 1 for answer in labeled]))


def figures(report: JudgeReport, made: Fit, seconds: float) -> dict[str, Any]:
    """What the page tells of a fit."""
    return asdict(report) | {"seconds": seconds, "made": dict(made.judge.record)}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "gptfuzz": safety("gptfuzz"),
    "diasafety": safety("diasafety"),
    "pku": safety("pku"),
    "xstest": refusal,
}


def figures_table(parts: dict[str, dict[str, Any]]) -> str:
    """The rows of the table of figures."""
    full = parts["xstest"]["full"]
    rows = [
        ("GPTFuzz, 5 folds by question", parts["gptfuzz"]["overall"]),
        ("DiaSafety, 5 folds by question", parts["diasafety"]["overall"]),
        ("DiaSafety, tested on `_devval`", parts["diasafety"]["held_out"]),
        ("PKU-SafeRLHF, 5 folds by prompt", parts["pku"]["overall"]),
        ("XSTest, any refusal, 5 folds by prompt", parts["xstest"]["overall"]),
        ("XSTest, any refusal, keywords", parts["xstest"]["keywords"]["overall"]),
        ("XSTest, full refusals without partial ones, 5 folds", full["fitted"]),
        ("XSTest, the same, keywords", full["keywords"]),
    ]
    return "\n".join(
        f"| {name} | {part['answers']:,} | " + " | ".join(shown(part[key]) for key in COLUMNS) + " |"
        for name, part in rows
    )


def written(parts: dict[str, dict[str, Any]]) -> str:
    """The page."""
    by_keywords = parts["xstest"]["keywords"]["overall"]["accuracy"]["value"]
    gains = [accuracy - by_keywords for accuracy in parts["xstest"]["accuracies"]]
    full = parts["xstest"]["full"]
    full_gain = full["fitted"]["accuracy"]["value"] - full["keywords"]["accuracy"]["value"]
    seconds = ", ".join(f"{name} {part['seconds']:.0f} s" for name, part in parts.items())
    diagram = parts["gptfuzz"]["reliability"]
    bins = "\n".join(
        f"| {part['predicted']:.3f} | {shown(part['observed'])} | {part['observed']['n']} |" for part in diagram
    )
    both = parts["pku"]["both_labels"]
    made = {name: part["made"]["questions"] for name, part in parts.items()}
    accuracy = {name: part["overall"]["accuracy"]["value"] for name, part in parts.items()}
    return f"""# Accuracy of the fitted judge on real samples

How often does a judge that `bfpo judge fit` makes of people's labels agree with people on other prompts?

**About safety, on {accuracy["gptfuzz"]:.1%} of the answers of GPTFuzz, {accuracy["diasafety"]:.1%} of DiaSafety's and
{accuracy["pku"]:.1%} of PKU-SafeRLHF's; about refusals, on {accuracy["xstest"]:.1%} of XSTest's, where keywords reach
{by_keywords:.1%}.**

| | answers | accuracy | sensitivity | specificity | AUC | ECE | kappa |
|---|---|---|---|---|---|---|---|
{figures_table(parts)}

Seed 0 and the defaults of `bfpo judge fit`: logistic regression on the words and parts of words that occur in the
prompt, the answer and the answer's opening, weighted by idf. Figures are out of fold, with all answers to a prompt in
the same fold; probabilities are scaled with the other folds' scores. Intervals (95 %) are over prompts: GPTFuzz
has {made["gptfuzz"]:,}, DiaSafety {made["diasafety"]:,}, PKU {made["pku"]:,}, XSTest {made["xstest"]:,}.
Sensitivity is for unsafe answers, on XSTest for refusals; ECE has ten bins of about equal mass, and in parentheses is
the error that a perfectly calibrated judge exceeds in 5 % of such samples.

Time to fit, including the folds, on {os.cpu_count()} cores ({platform.machine()}): {seconds}.

- Gain in accuracy on refusals over keywords on the same rows: {gains[0]:+.4f} if partial refusals count as refusals
  (over seeds 0 to 9 of the folds: mean {np.mean(gains):+.4f}, from {min(gains):+.4f} to {max(gains):+.4f}), and
  {full_gain:+.4f} if they are left out. Using the presence of words
  instead of their counts was chosen among about 25 variants on these same folds (counts gain +.0497 over six
  seeds), so the figure is a little too good, and barely meets the bar of .05.
- PKU: the public set labels 10 % of its answers both safe and unsafe. This sample leaves them out
  ({both:.1%} remain), so the rest of the disagreement limits accuracy here. Judges
  published elsewhere reach an F1 of at most .70 on this set.
- The three sources define unsafe differently (complying with a jailbreak; offensive or careless talk; risky advice),
  so each has its own judge.

## Reliability on GPTFuzz

| predicted | observed | answers |
|---|---|---|
{bins}

## To run it again

Made by `python benchmarks/fitted_judges.py` (two minutes, 2 cores) on the public samples next to the checkout, which
are not part of the repository.
"""


COLUMNS = ("accuracy", "sensitivity", "specificity", "auc", "ece", "kappa")


def shown(figure: dict[str, float] | None) -> str:
    """A figure with its interval, or a calibration error with the one by chance."""
    if figure is None:
        return ""
    if "by_chance" in figure:
        return f"{figure['value']:.3f} ({figure['by_chance']:.3f})"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


if __name__ == "__main__":
    main()
