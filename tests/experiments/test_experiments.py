"""The quickstart at toy size runs from end to end; the study chooses and summarises as it says."""

import json
from dataclasses import asdict, replace

import pytest

from bfpo.errors import BfpoError
from bfpo.experiments.methods import METHODS, Scale, method_recipe, sft_recipe, write_data
from bfpo.experiments.quickstart import OWN_RECIPE, quickstart
from bfpo.experiments.study import FIGURES, Job, chosen_betas, run_study, summary
from bfpo.experiments.study_report import write_study
from bfpo.training.recipe import Recipe, load_recipe

TOY = Scale(chat=12, safety=24, helpful=8, sft_steps=1, steps=2, batch_size=8)


def test_methods_differ_only_in_what_they_learn_from(tmp_path):
    recipes = {
        name: Recipe(**method_recipe(method, 0.1, tmp_path, tmp_path, tmp_path / name, TOY, 3))
        for name, method in METHODS.items()
    }
    budgets = {(r.max_steps, r.batch_size, r.learning_rate, r.seed, r.model) for r in recipes.values()}
    assert len(budgets) == 1
    assert {name: [(s.label, s.prefer) for s in r.data] for name, r in recipes.items()} == {
        "BFPO": [("safety", "helpful"), ("helpful", "helpful")],
        "DPO-H": [("safety", "helpful"), ("helpful", "helpful")],
        "DPO-S": [("safety", "safer")],
        "DPO": [("safety", "safer_then_helpful"), ("helpful", "helpful")],
    }
    assert Recipe(**sft_recipe(tmp_path, tmp_path, tmp_path, TOY, 3)).data[1].prefer == "safer"


def test_quickstart_leaves_page_models_records_and_recipes(tmp_path):
    said = []
    result = quickstart(tmp_path / "q", 0, TOY, said.append, per_kind=6)
    assert [e.model for e in result.evaluations] == ["base", "SFT", *METHODS]
    for name in ("SFT", *METHODS):
        assert json.loads((tmp_path / "q" / "models" / name / "run.json").read_text())["finished"]
        assert load_recipe(tmp_path / "q" / "recipes" / f"{name}.yaml").recipe.seed == 0
        assert (tmp_path / "q" / "evaluations" / name / "generations.jsonl").exists()
    assert "side by side" in result.report.page.read_text()
    assert result.own_recipe.read_text() == OWN_RECIPE
    assert len(said) == 1 + 1 + 2 * 5
    with pytest.raises(BfpoError, match="holds something already"):
        quickstart(tmp_path / "q", 0, TOY, said.append)


def test_own_recipe_is_valid(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN_RECIPE)
    assert load_recipe(path).recipe.data[1].unknown_safety == 1.0


def test_same_seed_same_data(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_data(tmp_path / name, TOY, seed)
    for file in ("chat.jsonl", "safety.jsonl", "helpful.jsonl"):
        a, b, c = ((tmp_path / name / file).read_text() for name in "abc")
        assert a == b != c


def test_a_study_does_not_mix_scales(tmp_path):
    (tmp_path / "scale.json").write_text(json.dumps(asdict(Scale())))
    with pytest.raises(BfpoError, match="runs of another scale"):
        run_study(tmp_path, TOY, [0, 1], 1, print)


def figures(helpful, harmless):
    return dict(zip(FIGURES, (helpful, harmless, 0.0, 0.0), strict=True)) | {"U": (helpful + harmless) / 2}


def test_betas_are_chosen_by_u_and_differences_paired(tmp_path):
    selection = {
        Job(method, beta, 0, "validation"): figures(0.8, 0.5 + (beta == chosen) * 0.1)
        for method, chosen in zip(METHODS, (0.1, 0.2, 0.4, 0.05), strict=True)
        for beta in (0.05, 0.1, 0.2, 0.4)
    }
    betas = chosen_betas(selection)
    assert betas == {"BFPO": 0.1, "DPO-H": 0.2, "DPO-S": 0.4, "DPO": 0.05}
    final = {Job("SFT", None, seed, "test"): figures(0.9 + 0.01 * seed, 0.2) for seed in (0, 1)}
    for method, gain in zip(METHODS, (0.30, 0.0, 0.1, 0.25), strict=True):
        for seed in (0, 1):
            final[Job(method, betas[method], seed, "test")] = figures(0.8 + 0.1 * seed, 0.5 + gain)
    made = summary(replace(TOY), [0, 1], betas, selection, final)
    assert made["best_rival"] == "DPO"
    difference = made["differences"]["U, BFPO - DPO"]
    assert difference["value"] == pytest.approx(0.025)
    # Both vary alike over the seeds, so the paired difference does not vary at all.
    assert difference["high"] - difference["low"] == pytest.approx(0, abs=1e-9)
    page = write_study(tmp_path, made).read_text()
    assert "| BFPO | 0.1 |" in page
    assert (tmp_path / "study-quick.png").exists()
    assert json.loads((tmp_path / "study-quick.json").read_text())["betas"] == betas
