"""The quickstart at toy size runs from end to end; its methods differ only in their data and objective."""

import json

import pytest

from bfpo.errors import BfpoError
from bfpo.quickstart import METHODS, OWN_RECIPE, Scale, method_recipe, run_quickstart, sft_recipe, write_data
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
    lines = []
    result = run_quickstart(tmp_path / "q", 0, TOY, lines.append, per_kind=6)
    assert [e.model for e in result.evaluations] == ["base", "SFT", *METHODS]
    for name in ("SFT", *METHODS):
        assert json.loads((tmp_path / "q" / "models" / name / "run.json").read_text())["finished"]
        assert load_recipe(tmp_path / "q" / "recipes" / f"{name}.yaml").recipe.seed == 0
        assert (tmp_path / "q" / "evaluations" / name / "generations.jsonl").exists()
    assert "side by side" in result.report.page.read_text()
    assert result.own_recipe.read_text() == OWN_RECIPE
    assert len(lines) == 1 + 1 + 2 * 5
    with pytest.raises(BfpoError, match="the folder is not empty"):
        run_quickstart(tmp_path / "q", 0, TOY, lines.append)


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
