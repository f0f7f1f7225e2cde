"""Study of how many labels must come from people: BFPO on a share of the oracle's labels, the rest from judges."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import datasets

from bfpo.files import write_rows
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.preference import AnswerPair
from bfpo.judges.verdict import Exchange, Verdict
from bfpo.labeling.filling import label_preferences
from bfpo.microworld.data import safety_set
from bfpo.microworld.judge import OracleJudge
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.preferences.loading import convert
from bfpo.preferences.reading import Row, dataset_source
from bfpo.quickstart import METHODS, Scale, method_recipe, write_recipe
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import HEADLINE, items_of
from bfpo.safehelp.items import FACTORS
from bfpo.safehelp.records import GenerationRecord
from bfpo.safehelp.suites import load_suite
from bfpo.statistics.intervals import Estimate
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from studies.fitted_judges import FittedOrder, fit_safety
from studies.quick import ensure_sft
from studies.sharing import lock, run_first

SEEDS = (0, 1, 2, 3, 4)
SHARES = (0.01, 0.03, 0.1, 0.3)
Flags = Literal["posterior", "verdict", "rescaled"]
BOTH: tuple[Flags, ...] = ("posterior", "verdict")
# Prompts of each kind that every model answers.
PER_KIND = 300
# Two answers per prompt in the buffer, where the quickstart has four, save a third of the time.
SCALE = Scale(answers=2)


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation.

    Attributes:
        seed: random seed for data, order, labels and sampling.
        judge: source of the labels that people don't give: "nobody" (people label everything), "fitted" (judges of
            safety and order, fitted to people's share) or "oracle" (with an error rate; it judges safety only).
        share: share of the pairs that people (the clean oracle) label.
        error: error rate of the oracle as a judge, the same for safe and unsafe answers.
        flags: form of a judged flag: its calibrated probability, the verdict, or "rescaled", verdicts with a beta and
            alpha that compensate for their error.
    """

    seed: int
    judge: Literal["nobody", "fitted", "oracle"]
    share: float = 1.0
    error: float = 0.0
    flags: Flags = "posterior"

    @property
    def arm(self) -> str:
        """Name of the setting, which the cells of all seeds share."""
        if self.judge == "nobody":
            return "people-100"
        error = f"-error-{self.error:g}" if self.judge == "oracle" else ""
        return f"{self.judge}-{100 * self.share:g}{error}-{self.flags}"

    @property
    def name(self) -> str:
        """Name of the cell: its arm and seed."""
        return f"{self.arm}-seed{self.seed}"


def cells(seeds: Sequence[int] = SEEDS) -> list[Cell]:
    """All cells, the most important first, so that a study that is stopped early still has a result."""
    ordered = [Cell(seed, "nobody") for seed in seeds]
    ordered += [
        Cell(seed, "fitted", 0.1, flags=flags) for flags in ("verdict", "posterior", "rescaled") for seed in seeds
    ]
    for seed in seeds:
        ordered += [Cell(seed, "oracle", 0.1, error, flags) for error in (0.3, 0.1) for flags in BOTH]
        ordered += [Cell(seed, "fitted", share, flags="verdict") for share in SHARES if share != 0.1]
    return ordered + [Cell(seed, "oracle", 0.1, 0.2, flags) for seed in seeds for flags in BOTH]


def undone(folder: Path, wanted: Sequence[Cell]) -> list[Cell]:
    """The cells without a result."""
    return [cell for cell in wanted if not result_file(folder, cell).exists()]


def run_next(folder: Path, wanted: Sequence[Cell], scale: Scale = SCALE) -> tuple[Cell, dict[str, Any]] | None:
    """Run the first cell that is neither done nor running in another process; None if there is none."""
    return run_first(
        folder,
        wanted,
        lambda cell: cell.name,
        lambda cell: result_file(folder, cell).exists(),
        lambda cell: run_cell(cell, folder, scale),
    )


def run_cell(cell: Cell, folder: Path, scale: Scale = SCALE) -> dict[str, Any]:
    """Label, train and evaluate; writes the result, with the outcome of every prompt, to ``results``."""
    seed_folder = folder / f"seed{cell.seed}"
    with lock(folder, f"SFT-seed{cell.seed}"):
        model = ensure_sft(seed_folder, scale, cell.seed)
    data = seed_folder / "labels" / cell.arm
    rows, judged = labeled_rows(cell, scale)
    data.mkdir(parents=True, exist_ok=True)
    write_rows(data / "safety.jsonl", rows)
    shutil.copyfile(seed_folder / "data" / "helpful.jsonl", data / "helpful.jsonl")
    output = seed_folder / cell.arm
    shutil.rmtree(output, ignore_errors=True)
    method = METHODS["BFPO"]
    beta, alpha = method.beta, GlobalPreference.alpha
    if cell.flags == "rescaled":
        found = judged["error"]
        if found is not None:
            sensitivity, specificity = (_smoothed(Estimate(**found[name])) for name in ("sensitivity", "specificity"))
            beta, alpha = rescaled(sensitivity, specificity, cell.share, beta, alpha)
    recipe = method_recipe(method, beta, data, model, output, scale, cell.seed) | {"alpha": alpha}
    train(load_recipe(write_recipe(seed_folder / "recipes" / f"{cell.arm}.yaml", recipe)))
    result = {"cell": asdict(cell), "judged": judged, "outcomes": outcomes(_answers(output, cell.seed))}
    shutil.rmtree(output)
    file = result_file(folder, cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


def _smoothed(rate: Estimate) -> float:
    """A rate with half an answer added to either side (Jeffreys' prior), so that none is 0 or 1."""
    return (rate.value * rate.n + 0.5) / (rate.n + 1)


def rescaled(sensitivity: float, specificity: float, share: float, beta: float, alpha: float) -> tuple[float, float]:
    """The beta and alpha with which training on verdicts matches training on true flags, on average.

    If verdicts err independently of the pair, E[flag | truth] = a + c truth, where c = share + (1 - share)
    (sensitivity + specificity - 1) and a = (1 - share)(1 - sensitivity). BFPO's label T is affine in the flags with
    coefficients that add up to 1, so the mean label is a + c (T + alpha) - alpha', which is c T for
    alpha' = a + c alpha; and c T/(c beta) = T/beta. Derived here, and exact only for the mean: single labels stay
    as noisy as before.

    Args:
        sensitivity: share of unsafe answers that the judge finds.
        specificity: share of safe answers that it passes.
        share: share of the flags that come from people.
        beta: beta for true flags.
        alpha: alpha for true flags.
    """
    contrast = share + (1 - share) * (sensitivity + specificity - 1)
    return beta * contrast, (1 - share) * (1 - sensitivity) + contrast * alpha


def labeled_rows(cell: Cell, scale: Scale) -> tuple[list[Row], dict[str, Any]]:
    """The safety set with the cell's labels, and the judges' accuracy on the labels that people didn't give."""
    made = datasets.Dataset.from_list(list(safety_set(scale.safety, cell.seed)))
    dataset, _ = convert(dataset_source("safety set", made))
    truth: list[Row] = [dict(row) for row in dataset]  # pyright: ignore
    if cell.judge == "nobody":
        return truth, {}
    people = set(random.Random(f"people {cell.seed}").sample(range(len(truth)), round(cell.share * len(truth))))
    known, left = [truth[at] for at in sorted(people)], [row for at, row in enumerate(truth) if at not in people]
    nothing = {"chosen_is_safe": None, "rejected_is_safe": None, "chosen_is_safer": None}
    order, error = None, None
    if cell.judge == "fitted":
        judge, error = fit_safety(*_exchanges(known))
        order = FittedOrder.fit(*_comparisons(known))
        # The judge of order is symmetric in the two answers, so their places give nothing away.
        nothing |= {"chosen_is_better": None}
    else:
        judge = OracleJudge(cell.error, cell.error, cell.seed)
    rows = [row if at in people else row | nothing for at, row in enumerate(truth)]
    labeled = label_preferences(rows, [judge], order_judge=order)
    exchanges, is_safe = _exchanges(left)
    judged = {
        "safety": _agreement(is_safe, judge.judge(exchanges)),
        "order": None if order is None else _order_agreement(order, left),
        "report": asdict(labeled.report),
        "error": error and asdict(error),
    }
    return [_with_flags(row, cell.flags) for row in labeled.rows], judged


def _with_flags(row: Row, flags: Flags) -> Row:
    """The row with judged flags in the form of the cell, without the column from which a recipe would make its own."""
    values = {
        f"{name}_is_safe": row["judged_as"][name]["probability"]
        for name in ("chosen", "rejected")
        if flags == "posterior" and row["labelled_by"][name] == "judge"
    }
    return {name: value for name, value in (row | values).items() if name != "judged_as"}


def _exchanges(rows: Sequence[Row]) -> tuple[list[Exchange], list[bool]]:
    """Both answers of every pair, and whether each is safe."""
    exchanges = [exchange_of(row, number) for row in rows for number in (0, 1)]
    return exchanges, [bool(flag) for row in rows for flag in (row["chosen_is_safe"], row["rejected_is_safe"])]


def _comparisons(rows: Sequence[Row]) -> tuple[list[AnswerPair], list[bool]]:
    """Pairs, every second one swapped, and whether the first answer is the more helpful one."""
    pairs = [
        (row["chosen"], row["rejected"]) if at % 2 else (row["rejected"], row["chosen"]) for at, row in enumerate(rows)
    ]
    comparisons = [AnswerPair(row["prompt"], *pair) for row, pair in zip(rows, pairs, strict=True)]
    return comparisons, [bool(at % 2) for at in range(len(rows))]


def _agreement(is_safe: Sequence[bool], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Accuracy, sensitivity (share of unsafe answers found) and specificity, against the oracle."""
    right = [(verdict.label == "safe") == safe for verdict, safe in zip(verdicts, is_safe, strict=True)]
    unsafe = [hit for hit, safe in zip(right, is_safe, strict=True) if not safe]
    safe_ones = [hit for hit, safe in zip(right, is_safe, strict=True) if safe]
    return {
        "accuracy": sum(right) / len(right),
        "sensitivity": sum(unsafe) / len(unsafe),
        "specificity": sum(safe_ones) / len(safe_ones),
    }


def _order_agreement(judge: FittedOrder, rows: Sequence[Row]) -> float:
    """Share of pairs on which a judge of order agrees with people, who make errors too."""
    comparisons, first_is_better = _comparisons(rows)
    found = judge.compare(comparisons)
    right = [(one.choice == "first") == first for one, first in zip(found, first_is_better, strict=True)]
    return sum(right) / len(right)


def _answers(model: Path, seed: int) -> list[GenerationRecord]:
    suite = load_suite("microworld", per_kind=PER_KIND)
    return evaluate(model, suite, name="cell", decoding=replace(suite.decoding, seed=seed)).generations


def outcomes(records: Sequence[GenerationRecord]) -> dict[str, list[float]]:
    """SafeHelp's value for each prompt of a figure; the figure is the mean of these values."""
    return {factor: list(items_of(records, HEADLINE[factor]).values) for factor in FACTORS}


def result_file(folder: Path, cell: Cell) -> Path:
    """The file that holds a cell's result once it is done."""
    return folder / "results" / f"{cell.name}.json"
