"""``bfpo label`` on half-labeled public sets: ``python benchmarks/half_labeled.py``.

Needs ../shared/data (public samples that are not part of the repository). People's labels of half of the prompts are
given, a judge is fitted to them, and ``bfpo label`` labels the rest. Measures the log-loss of the probabilities in the
file on that rest, and how much of the squared error of the flags the first tenth of the queue removes. Writes
docs/results/half-labeled.md.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.files import write_text
from bfpo.judges.fitting import fit_judge
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.verdict import Exchange
from bfpo.labeling.filling import label_preferences
from bfpo.labeling.queue import queue_for_people
from bfpo.objectives.bfpo import GlobalPreference

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "half-labeled.md"
SOURCES = ("gptfuzz", "pku")
RANDOM_ORDERS = 200


def main() -> None:
    """Measure both sets and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the samples")
    parser.add_argument("--seeds", type=int, default=5, help="number of halves of the prompts")
    given = parser.parse_args()
    lines = (given.data / "derived" / "response_safety_dev.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    figures = {
        source: [measure([row for row in rows if row["source"] == source], seed) for seed in range(given.seeds)]
        for source in SOURCES
    }
    write_text(PAGE, page(figures))
    print(PAGE.read_text(encoding="utf-8"))


def pairs_of(rows: list[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], list[tuple[float, float]]]:
    """Pairs of different answers to one prompt, and their flags; those of the second half of the prompts are open."""
    random = np.random.default_rng(seed)
    answers: dict[str, dict[str, bool]] = defaultdict(dict)
    for row in rows:
        if row["response"].strip():
            answers[row["prompt"]][row["response"]] = not row["unsafe"]
    pairs: list[dict[str, Any]] = []
    truth: list[tuple[float, float]] = []
    for number, at in enumerate(random.permutation(len(answers))):
        prompt, own = list(answers.items())[at]
        texts = [list(own)[place] for place in random.permutation(len(own))]
        for first, second in zip(texts[::2], texts[1::2], strict=False):
            flags = float(own[first]), float(own[second])
            known = flags if number < len(answers) / 2 else (None, None)
            pairs.append(
                {"prompt": prompt, "chosen": first, "rejected": second, "chosen_is_safe": known[0],
                 "rejected_is_safe": known[1], "chosen_is_better": 1.0, "chosen_is_safer": None, "row": len(pairs)}
            )  # fmt: skip
            truth.append(flags)
    return pairs, truth


def measure(rows: list[dict[str, Any]], seed: int) -> dict[str, float]:
    """The figures of one half."""
    pairs, truth = pairs_of(rows, seed)
    labeled = [
        LabeledAnswer(Exchange(pair["prompt"], pair[name]), bool(pair[f"{name}_is_safe"]), None)
        for pair in pairs
        if pair["chosen_is_safe"] is not None
        for name in ("chosen", "rejected")
    ]
    fit = fit_judge(labeled, name="half")
    found = label_preferences(pairs, [fit.judge])
    is_open = [at for at, pair in enumerate(pairs) if pair["chosen_is_safe"] is None]
    names = ("chosen", "rejected")
    noted = np.array([[found.rows[at]["judged_as"][name]["probability"] for name in names] for at in is_open])
    flags = np.array([truth[at] for at in is_open])
    labeling = GlobalPreference()
    verdicts = np.array([[found.rows[at][f"{name}_is_safe"] for name in names] for at in is_open])
    wrong = np.array([
        float(labeling.target(*said) - labeling.target(*right)) ** 2
        for said, right in zip(verdicts.tolist(), flags.tolist(), strict=True)
    ])  # fmt: skip
    place = {pairs[at]["row"]: number for number, at in enumerate(is_open)}
    queue = [place[row["row"]] for row in queue_for_people(found.rows, labeling, found.report.prior)]
    tenth = len(is_open) // 10
    random = np.random.default_rng(seed)
    by_chance = np.mean([wrong[random.permutation(len(wrong))[:tenth]].sum() for _ in range(RANDOM_ORDERS)])
    (error,) = found.report.errors
    assert error is not None
    return {
        "pairs": len(is_open),
        "loss": _loss(noted, flags),
        "ratio": float(wrong[queue[:tenth]].sum() / by_chance),
        "sensitivity_off": error.sensitivity.value - float((verdicts[flags == 0] == 0).mean()),
        "specificity_off": error.specificity.value - float((verdicts[flags == 1] == 1).mean()),
    }


def _loss(p: np.ndarray, flags: np.ndarray) -> float:
    return float(-np.log(np.where(flags == 1, p, 1 - p)).mean())


def page(figures: dict[str, list[dict[str, float]]]) -> str:
    """The page."""
    removed = [
        f"{np.mean([half['ratio'] for half in own]):.2f} times as much on {source}" for source, own in figures.items()
    ]
    lines = [
        "# Half-labeled sets",
        "",
        "How much more error do people remove by answering the first tenth of `bfpo label`'s queue than by answering "
        "a random tenth?",
        "",
        f"**{' and '.join(removed)}.**",
        "",
        "| set | halves | open pairs | log-loss | removed | sensitivity off | specificity off |",
        "|---|---|---|---|---|---|---|",
    ]
    for source, halves in figures.items():
        means = {name: (np.mean([h[name] for h in halves]), np.std([h[name] for h in halves])) for name in halves[0]}
        names = ("loss", "ratio", "sensitivity_off", "specificity_off")
        shown = " | ".join("{:.3f} ({:.3f})".format(*means[name]) for name in names)
        lines.append(f"| {source} | {len(halves)} | {means['pairs'][0]:,.0f} | {shown} |")
    lines += [
        "",
        "People's labels of half of the prompts are given, a judge is fitted to them, and `bfpo label` fills in the "
        "other half. Means over halves (standard deviations in brackets).",
        "",
        "- *log-loss*: of the probabilities beside the flags of the other half, in nats. They are the judge's own, "
        "which was calibrated when it was fitted.",
        "- *removed*: squared error of BFPO's label that people remove by answering the first tenth of the queue, "
        "relative to a random tenth.",
        "- *off*: error estimated from people's labels minus the judge's error on the other half.",
        "",
        "Made by `python benchmarks/half_labeled.py` (three minutes, 1 core) on the public samples next to the "
        "checkout, which are not part of the repository.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
