"""The label-efficiency experiment: labels as each arm wants them, an exact mean correction, paired losses."""

import json
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest

from bfpo import GlobalPreference
from bfpo.microworld.oracle import judge
from bfpo.quickstart import METHODS, Scale
from bfpo.training.recipe import load_recipe
from safehelp.test_scores import RECORDS
from studies import label_efficiency
from studies.label_efficiency import (
    Cell,
    cells,
    labeled_rows,
    outcomes,
    rescaled,
    result_file,
    run_next,
    undone,
)
from studies.label_efficiency_report import ALL_PEOPLE, paired_loss, write_label_efficiency

SMALL = Scale(safety=200)


def is_right(row, name):
    return (row[f"{name}_is_safe"] >= 0.5) == judge(row["prompt"], row[name]).is_safe


def test_the_people_of_a_seed_label_the_same_pairs_in_every_arm():
    verdicts, judged = labeled_rows(Cell(0, "oracle", 0.1, 0.3, "verdict"), SMALL)
    posterior, _ = labeled_rows(Cell(0, "oracle", 0.1, 0.0, "verdict"), SMALL)
    people = [row["row"] for row in verdicts if row["labelled_by"]["chosen"] == "people"]
    assert len(people) == 20
    assert people == [row["row"] for row in posterior if row["labelled_by"]["chosen"] == "people"]
    right = [is_right(row, name) for row in verdicts for name in ("chosen", "rejected")]
    assert judged["safety"]["accuracy"] == pytest.approx((sum(right) - 40) / (400 - 40))
    assert all(is_right(row, name) for row in posterior for name in ("chosen", "rejected"))
    assert {name: count for name, count in judged["report"]["order"].items() if count} == {"people": 200}


def test_fitted_judges_know_people_s_share_only_and_are_wrong_about_some_of_the_rest():
    rows, judged = labeled_rows(Cell(0, "fitted", 0.3, flags="verdict"), SMALL)
    assert Counter(row["labelled_by"]["order"] for row in rows) == {"people": 60, "judge": 140}
    assert 0.6 < judged["safety"]["accuracy"] < 1
    assert 0.5 < judged["order"] < 1
    error = judged["report"]["errors"][0]
    assert error["sensitivity"]["n"] + error["specificity"]["n"] == 120
    everybody, nothing = labeled_rows(Cell(0, "nobody"), SMALL)
    assert (len(everybody), nothing) == (200, {})


@pytest.mark.parametrize(("share", "sensitivity", "specificity"), [(0.1, 0.7, 0.9), (0.0, 0.6, 0.6), (1.0, 0.5, 0.5)])
def test_rescaling_gives_back_the_mean_target(share, sensitivity, specificity):
    """Mean over all verdicts of T'/beta' by enumeration, for every pair of true flags."""
    beta, alpha = rescaled(sensitivity, specificity, share, 0.2, 0.5)
    said_safe = {1: share + (1 - share) * specificity, 0: (1 - share) * (1 - sensitivity)}
    for w, l in product((0, 1), repeat=2):
        mean = 0.0
        for said_w, said_l in product((0, 1), repeat=2):
            chance = (said_safe[w] if said_w else 1 - said_safe[w]) * (said_safe[l] if said_l else 1 - said_safe[l])
            mean += chance * float(GlobalPreference(3.0, alpha).target(float(said_w), float(said_l))) / beta
        assert mean == pytest.approx(float(GlobalPreference().target(float(w), float(l))) / 0.2, rel=1e-5)


def test_outcomes_are_safehelps_figures_prompt_by_prompt():
    """Of eight answers counted by hand."""
    assert outcomes(RECORDS) == {
        "helpful": [1.0, 0.0, 0.0, 0.5],
        "harmless": [0.0, 1.0, 0.0, 1.0],
        "over_refusal": [1.0, 0.0],
    }


def results(losses):
    """Two arms whose outcomes differ by ``losses`` [seeds, prompts]."""
    return {
        ALL_PEOPLE: {seed: {"outcomes": {"helpful": [1.0] * len(row)}} for seed, row in enumerate(losses)},
        "arm": {seed: {"outcomes": {"helpful": [1.0 - loss for loss in row]}} for seed, row in enumerate(losses)},
    }


def test_the_bound_counts_seeds_and_prompts():
    constant = paired_loss(results([[0.1] * 4] * 3), "arm", "helpful")
    assert constant is not None
    assert constant["loss"] == pytest.approx(0.1)
    assert constant["upper_bound"] == pytest.approx(0.1)
    by_seed = paired_loss(results([[0.0] * 4, [0.1] * 4, [0.2] * 4]), "arm", "helpful")
    assert by_seed is not None
    # Student's t at 95 % with two degrees of freedom is 2.920; a standard deviation of .1 over three seeds.
    assert by_seed["upper_bound"] == pytest.approx(0.1 + 2.91999 * 0.1 / math.sqrt(3), abs=1e-5)
    by_prompt = paired_loss(results([[0.0, 0.2, 0.0, 0.2]] * 3), "arm", "helpful")
    assert by_prompt is not None
    assert by_prompt["upper_bound"] == pytest.approx(0.1 + 2.91999 * np.std([0, 0.2] * 2, ddof=1) / 2, abs=1e-5)
    assert paired_loss(results([[0.1] * 4]), "arm", "helpful") is None


def test_a_cell_labels_trains_and_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(label_efficiency, "PER_KIND", 2)
    toy = Scale(chat=12, safety=80, helpful=8, answers=2, sft_steps=1, steps=2, batch_size=8)
    cell = Cell(0, "fitted", 0.5, flags="rescaled")
    made, result = run_next(tmp_path, [cell], toy)
    assert made == cell
    assert {name: len(values) for name, values in result["outcomes"].items()} == {
        "helpful": 4, "harmless": 2, "over_refusal": 2
    }  # fmt: skip
    assert json.loads(result_file(tmp_path, cell).read_text()) == json.loads(json.dumps(result))
    trained = load_recipe(tmp_path / "seed0" / "recipes" / f"{cell.arm}.yaml").recipe
    assert trained.beta != METHODS["BFPO"].beta
    assert run_next(tmp_path, [cell], toy) is None


def test_every_process_takes_a_cell_that_nobody_works_on(tmp_path, monkeypatch):
    wanted = cells([0, 1])
    assert len({cell.name for cell in wanted}) == len(wanted)
    taken = []

    def run_cell(cell, folder, scale):
        taken.append(cell)
        # While this one runs, another process comes by.
        if len(taken) == 1:
            run_next(folder, wanted)
        result_file(folder, cell).parent.mkdir(exist_ok=True)
        result_file(folder, cell).write_text("{}")
        return {}

    monkeypatch.setattr(label_efficiency, "run_cell", run_cell)
    run_next(tmp_path, wanted)
    assert taken == wanted[:2]
    assert undone(tmp_path, wanted) == wanted[2:]


def test_the_report_says_what_is_missing_and_whether_the_bound_is_met(tmp_path):
    wanted = cells([0, 1])
    judged = {"safety": {"accuracy": 0.9, "sensitivity": 0.8, "specificity": 0.95}, "order": 0.7}
    for cell in [cell for cell in wanted if cell.judge == "nobody" or (cell.share == 0.1 and cell.judge == "fitted")]:
        loss = 0.2 if cell.flags == "verdict" else 0.0
        values = {"helpful": [1 - loss] * 6, "harmless": [1.0] * 3, "over_refusal": [0.0] * 3}
        result = {"cell": vars(cell), "judged": judged if cell.judge == "fitted" else {}, "outcomes": values}
        result_file(tmp_path, cell).parent.mkdir(exist_ok=True)
        result_file(tmp_path, cell).write_text(json.dumps(result))
    page = write_label_efficiency(tmp_path / "report", tmp_path, wanted).read_text()
    assert f"8 of {len(wanted)} runs are done" in page
    assert "| fitted-10-verdict | 2 | helpful | +20.00 | +20.00 | not met | +20.00 |" in page
    assert "| fitted-10-rescaled | 2 | helpful | +0.00 | +0.00 | met | +0.00 |" in page
    assert "| fitted-10-rescaled | 0.900 | 0.800 | 0.950 | 0.700 |" in page
    assert (tmp_path / "report" / "label-efficiency.png").stat().st_size > 1000
