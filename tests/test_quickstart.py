"""The quickstart at toy size runs from end to end; its methods differ only in their data and objective."""

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bfpo import quickstart
from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.quickstart import METHODS, OWN_RECIPE, Scale, method_recipe, sft_recipe, write_data
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
        "DPO": [("safety", "safe_first"), ("helpful", "helpful")],
    }
    assert Recipe(**sft_recipe(tmp_path, tmp_path, tmp_path, TOY, 3)).data[1].prefer == "safer"
    chat_only = Recipe(**sft_recipe(tmp_path, tmp_path, tmp_path, TOY, 3, chat_only=True))
    assert [source.label for source in chat_only.data] == ["chat"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """``bfpo quickstart --seed 3`` at toy size: its folder, what it printed, and its result."""
    folder, whole, results = tmp_path_factory.mktemp("toy") / "q", quickstart.run_quickstart, []

    def at_toy_size(folder, seed, scale, progress):
        assert scale == Scale()
        results.append(whole(folder, seed, TOY, progress, per_kind=6))
        return results[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "run_quickstart", at_toy_size)
        done = CliRunner().invoke(app, ["quickstart", "-o", str(folder), "--seed", "3"])
    assert done.exit_code == 0, (done.output, done.exception)
    return folder, done.output, results[0]


def test_quickstart_leaves_page_models_records_and_recipes(toy):
    folder, printed, result = toy
    assert [e.model for e in result.evaluations] == ["base", "SFT", *METHODS]
    for name in ("SFT", *METHODS):
        assert json.loads((folder / "models" / name / "run.json").read_text())["finished"]
        assert load_recipe(folder / "recipes" / f"{name}.yaml").recipe.seed == 3
        assert (folder / "evaluations" / name / "generations.jsonl").exists()
        assert f"{name}: trained {1 if name == 'SFT' else 2} steps" in printed
    assert "side by side" in result.report.page.read_text()
    assert result.own_recipe.read_text() == OWN_RECIPE
    assert OWN_RECIPE in printed
    assert f"bfpo train {result.own_recipe} --plan" in " ".join(printed.split())


def test_quickstart_replaces_an_earlier_one_only_on_request(toy, tmp_path, monkeypatch):
    folder = tmp_path / "q"
    shutil.copytree(toy[0], folder)
    command = [sys.executable, "-m", "bfpo", "quickstart", "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "holds an earlier quickstart; replace it with --fresh" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert (folder / "data" / "chat.jsonl").exists()
    (folder / "data" / ".safety.jsonl.0123.partial").touch()
    seen = []
    monkeypatch.setattr(quickstart, "run_quickstart", lambda folder, *rest: seen.append(listed(folder)) or toy[2])
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert fresh(link).exit_code == 0
    assert seen == [[]]
    assert link.is_symlink()


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fresh(folder, *more):
    return CliRunner().invoke(app, ["quickstart", "-o", str(folder), "--fresh", *more])


@pytest.mark.parametrize("mine", ["mine.txt", "models/mine/model.safetensors", "data/mine.jsonl", "your-model.yaml"])
def test_fresh_removes_nothing_where_something_is_the_users(toy, tmp_path, monkeypatch, mine):
    folder = tmp_path / "q"
    shutil.copytree(toy[0], folder)
    (folder / mine).parent.mkdir(exist_ok=True)
    (folder / mine).write_text("model: mine\n")
    before = listed(folder)
    monkeypatch.chdir(folder)
    for given in (folder, "."):
        error = fresh(given).exception
        assert isinstance(error, BfpoError)
        assert f"{mine}: no quickstart wrote this, or it was changed since" in str(error)
        assert listed(folder) == before


def test_fresh_removes_nothing_for_a_model_that_does_not_exist(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("quickstart.json", "report.html"):
        (folder / name).write_text("{}")
    assert isinstance(fresh(folder, "--model", str(tmp_path / "typo")).exception, BfpoError)
    assert len(list(folder.iterdir())) == 2


def test_fresh_leaves_a_linked_folder_alone(toy, tmp_path):
    folder, disk = tmp_path / "q", tmp_path / "disk"
    shutil.copytree(toy[0], folder)
    (folder / "models").rename(disk)
    (folder / "models").symlink_to(disk)
    assert "no quickstart wrote this" in str(fresh(folder).exception)
    assert (disk / "SFT" / "run.json").exists()


@pytest.mark.parametrize("more", [(), ("--model", "gone")])
def test_a_folder_of_something_else_and_a_file_are_refused_first(tmp_path, more):
    data = tmp_path / "q" / "data"
    data.mkdir(parents=True)
    (data / "chat.jsonl").touch()
    (tmp_path / "afile").touch()
    for command in (["quickstart", "-o", str(data.parent)], ["quickstart", "-o", str(data.parent), "--fresh"]):
        error = CliRunner().invoke(app, [*command, *more]).exception
        assert isinstance(error, BfpoError)
        assert "without quickstart.json of an earlier quickstart; name another folder" in str(error)
        assert (data / "chat.jsonl").exists()
        error = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "afile"), *more]).exception
        assert isinstance(error, BfpoError)
        assert "afile: this is a file" in str(error)


def test_json_has_every_score_and_the_page(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart, "run_quickstart", lambda folder, seed, scale, say: say("a stage") or toy[2])
    done = CliRunner().invoke(app, ["quickstart", "-o", str(tmp_path / "q"), "--json"])
    found = json.loads(done.stdout)
    assert set(found["scores"]) == {one.model for one in toy[2].evaluations}
    for one in toy[2].evaluations:
        assert found["scores"][one.model]["harmless"]["value"] == one.scores["harmless"].value
    assert found["report"] == str(toy[2].report.page)
    assert "a stage" in done.stderr


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
