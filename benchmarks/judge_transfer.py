"""Transfer of fitted judges between public sources of labels: ``python benchmarks/judge_transfer.py``.

Needs ../shared/data (public samples that are not part of the repository). Joins the labels of GPTFuzz, DiaSafety, PKU
and XSTest, runs ``bfpo judge check --leave-one-source-out`` on them, and writes docs/results/judge-transfer.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bfpo.files import write_text

ROOT = Path(__file__).parents[1]
FILES = ("response_safety_dev.jsonl", "xstest_human_dev.jsonl")
PAGE = ROOT / "docs" / "results" / "judge-transfer.md"


def main() -> None:
    """Run the command and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.jsonl"
        derived = ROOT.parent / "shared" / "data" / "derived"
        labels.write_text("".join((derived / name).read_text(encoding="utf-8") for name in FILES), encoding="utf-8")
        command = ["judge", "check", "--leave-one-source-out", "--labels", str(labels), "--json"]
        done = subprocess.run([sys.executable, "-m", "bfpo", *command], check=True, capture_output=True, text=True)
    write_text(PAGE, page(json.loads(done.stdout)))
    print(PAGE.read_text(encoding="utf-8"))


def page(table: list[dict[str, Any]]) -> str:
    """The page."""
    own = [row for row in table if row["fitted_to"] == row["checked_on"]]
    pairs = [row for row in table if row not in own and not row["fitted_to"].startswith("all but ")]
    better = [row for row in pairs if row["figures"]["accuracy"]["low"] > row["base_rate"]["high"]]
    ranking = [row for row in pairs if row["figures"]["auc"]["low"] > 0.75]
    rows = "\n".join(
        f"| {row['fitted_to']} | {row['checked_on']} | {row['figures']['answers']:,} | "
        + " | ".join(map(shown, (*(row["figures"][name] for name in ("auc", "accuracy")), row["base_rate"])))
        + f" | {row['figures']['ece']['value']:.3f} ({row['figures']['ece']['by_chance']:.3f}) |"
        for row in table
    )
    return f"""# Transfer of fitted judges between sources

Does a judge that is fitted to one source of labels work on another?

**Of {len(pairs)} transfers, {len(ranking)} have an AUC that is certainly above .75, and {len(better)} an accuracy
certainly above the base rate; the calibration error is {span(own, "ece")} within a source and
{span(pairs, "ece")} between sources.**

| fitted to | checked on | answers | AUC | accuracy | base rate | ECE |
|---|---|---|---|---|---|---|
{rows}

- **Ranking transfers only sometimes.** Between sources, AUC runs from {span(pairs, "auc")}, within one from
  {span(own, "auc")}. It is certainly above .75 in {len(ranking)} of {len(pairs)} transfers:
  {", ".join(f"{row['fitted_to']} to {row['checked_on']}" for row in ranking)}.
- **Thresholds don't transfer.** Accuracy is certainly above the base rate in only {len(better)} of {len(pairs)}
  transfers.
- **Calibration doesn't transfer.** ECE runs from {span(pairs, "ece")}; within a source from {span(own, "ece")}.
- Fitting to several other sources doesn't fix that: see the rows "all but ...".

The sources are GPTFuzz (complying with a jailbreak), DiaSafety (offensive or careless talk), PKU (risky advice) and
XSTest (full compliance with an unsafe prompt). A source against itself is out of fold, with all answers to a prompt in
the same fold. *Base rate* is the accuracy of always giving the commoner label of the source that is checked, and ECE
the calibration error, with that of a perfectly calibrated judge by chance (95th percentile). Intervals (95 %) are over
prompts.

Made by `python benchmarks/judge_transfer.py` (minutes, 2 cores) from the public samples next to the checkout, which are
not part of the repository; it runs `bfpo judge check --leave-one-source-out --labels labels.jsonl`.
"""


def span(rows: list[dict[str, Any]], name: str) -> str:
    """The smallest and the largest of a figure."""
    values = [row["figures"][name]["value"] for row in rows]
    return f"{min(values):.3f} to {max(values):.3f}"


def shown(estimate: dict[str, float] | None) -> str:
    """A figure with its interval."""
    return "-" if estimate is None else f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


if __name__ == "__main__":
    main()
