"""Rounds of red teaming: the recipe of each model, what is held out, resuming, and refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bfpo.errors import BfpoError, RunError
from bfpo.generation.protocol import Decoding
from bfpo.judges.registry import load_judge
from bfpo.judges.verdict import Verdict
from bfpo.microworld.grammar import requests
from bfpo.microworld.vocabulary import REFUSALS
from bfpo.redteam.bank import Bank, PlainRequest, load_bank
from bfpo.redteam.running import red_team
from bfpo.redteam.settings import RedTeam
from bfpo.rounds import RoundJudges, Rounds, packaged_recipe, red_team_rounds
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.labelers import labelers_of
from bfpo.safehelp.suites import load_suite
from bfpo.training.recipe import load_recipe
from redteam.test_running import microworld_pairs

DECODING = Decoding(temperature=1.5, top_p=1.0, max_new_tokens=40, samples=2)
RED_TEAM = RedTeam(6, 2, ("plain",), ("rewording",), DECODING, 0)
RECIPE = {
    "stage": "preference", "model": "x", "output_dir": "x", "data": [{"name": "red-team", "path": "x"}],
    "beta": 0.2, "batch_size": 16, "max_steps": 2, "learning_rate": 1.0e-4, "max_length": 256,
    "micro_batch_tokens": 2048, "reference_cache": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def bank():
    benign = [one for one in requests("train") if one.kind == "benign"][::500][:8]
    plain = [PlainRequest(f"plain-{at}", "plain", one.text) for at, one in enumerate(benign)]
    return Bank(tuple(microworld_pairs(16)), tuple(plain))


def written(folder, **changes):
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


class Counting:
    """A judge that counts the answers it reads, and dies after some calls."""

    def __init__(self, spec="microworld-oracle", calls=10**6):
        self.inner, self.calls, self.read = load_judge(spec), calls, 0
        self.judge_id, self.template_digest = self.inner.judge_id, ""

    def judge(self, exchanges):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        self.read += len(exchanges)
        return self.inner.judge(exchanges)


@pytest.fixture(scope="module")
def done(bank, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    settings = Rounds(2, RED_TEAM, 0.5, recipe=written(folder))
    judges = RoundJudges(Counting("microworld-oracle:0.1"), evaluation=Counting())
    found = red_team_rounds("microworld", judges, bank, settings, folder / "run")
    return folder, settings, judges, found


def test_each_model_is_trained_from_the_first_on_the_groups_of_all_rounds(done):
    folder, _, _, found = done
    run = folder / "run"
    assert found.model == str(run / "model-2")
    for number in (1, 2):
        record = json.loads((run / f"model-{number}/run.json").read_text())
        assert record["config"]["model"]["value"] == "microworld"
        assert [source["source"] for source in record["data"]] == [
            str(run / f"round-{at}/groups.jsonl") for at in range(number)
        ]
    groups = [len((run / f"round-{at}/groups.jsonl").read_text().splitlines()) for at in range(2)]
    assert list(found.groups) == groups
    assert not (run / "round-2").exists()
    # Round 1 attacks the trained model, with draws of its own.
    models = [json.loads((run / f"round-{at}/turn-0/run.json").read_text())["model_path"] for at in range(2)]
    assert models[1] == str(run / "model-1") != models[0]


def test_requests_held_out_are_asked_before_and_after_and_nowhere_else(done, bank):
    folder, settings, _, found = done
    _, held_out = bank.split(settings.held_out_requests, 0)
    own = {text for pair in held_out.pairs for text in (pair.risky, pair.benign)}
    trained = [
        json.loads(line)["prompt"][-1]["content"]
        for at in range(2)
        for line in (folder / f"run/round-{at}/groups.jsonl").read_text().splitlines()
    ]
    assert trained
    assert not own & set(trained)
    asked = {}
    for name in ("before", "after"):
        records = [json.loads(line) for line in (folder / f"run/{name}/generations.jsonl").read_text().splitlines()]
        asked[name] = [(one["task"], one["attack"], one["prompt"]) for one in records]
        plain = {prompt for _, attack, prompt in asked[name] if attack == "plain"}
        assert plain == own
        expected = 4 * len(held_out.pairs) + len(held_out.plain)
        assert len(asked[name]) == expected
    # Both models answer the same prompts.
    assert asked["before"] == asked["after"]
    assert found.before.success["rewording"].n == len(held_out.pairs)
    assert found.before.success["all trained styles"] == found.before.success["plain"]
    assert found.before.plain_refused.n == len(held_out.plain)


def test_the_evaluating_judge_reads_before_and_after_and_the_labeling_one_the_rounds(done):
    folder, _, _, found = done
    headers = {
        name: json.loads((folder / f"run/{name}/run.json").read_text())["judges"][0]["judge_id"]
        for name in ("before", "after", "round-0/turn-0", "round-1/turn-1")
    }
    assert headers == {
        "before": "microworld-oracle:0,0,0", "after": "microworld-oracle:0,0,0",
        "round-0/turn-0": "microworld-oracle:0.1,0.1,0", "round-1/turn-1": "microworld-oracle:0.1,0.1,0",
    }  # fmt: skip
    assert found.caption.startswith("verdicts of microworld-oracle:0,0,0; microworld-oracle:0.1,0.1,0 labeled")


def test_the_labeling_judge_may_not_evaluate_the_trained_model(done):
    found = done[3]
    assert labelers_of([found.model]) == ["microworld-oracle:0.1,0.1,0"]
    assert "flags by microworld-oracle:0.1,0.1,0" in Path(found.model, "README.md").read_text("utf-8")
    with pytest.raises(BfpoError, match="labeled the model's training data"):
        evaluate(found.model, load_suite("microworld", per_kind=2), judges=[load_judge("microworld-oracle:0.1")])


def test_again_nothing_is_asked_or_trained(done, bank):
    folder, settings, judges, found = done
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.name != "run.json"
              and path.is_file()}  # fmt: skip
    read = judges.labeling.read, judges.evaluation.read
    assert red_team_rounds("microworld", judges, bank, settings, folder / "run") == found
    assert (judges.labeling.read, judges.evaluation.read) == read
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("calls", [1, 4])
def test_a_run_that_stops_goes_on_to_the_same_groups(done, bank, calls, tmp_path):
    _, settings, _, found = done
    # As if the labeling judge were an exact one, every stage has the same judge.
    dies = RoundJudges(Counting("microworld-oracle:0.1", calls), evaluation=Counting())
    with pytest.raises(KeyboardInterrupt):
        red_team_rounds("microworld", dies, bank, settings, tmp_path)
    judges = RoundJudges(Counting("microworld-oracle:0.1"), evaluation=Counting())
    again = red_team_rounds("microworld", judges, bank, settings, tmp_path)
    assert replace(again, model="") == replace(found, model="")


def test_other_settings_and_other_runs_are_refused(done, bank, tmp_path):
    folder, settings, judges, _ = done
    with pytest.raises(BfpoError, match=r"other settings \(rounds\)"):
        red_team_rounds("microworld", judges, bank, replace(settings, rounds=3), folder / "run")
    with pytest.raises(BfpoError, match=r"other settings \(judges\)"):
        red_team_rounds("microworld", RoundJudges(Counting()), bank, settings, folder / "run")
    with pytest.raises(BfpoError, match="contains several rounds"):
        red_team(None, judges.labeling, bank.pairs, RED_TEAM, folder / "run")
    (tmp_path / "redteam.json").write_text("{}")
    with pytest.raises(BfpoError, match="contains another run"):
        red_team_rounds("microworld", judges, bank, settings, tmp_path)
    (tmp_path / "rounds.json").write_text("[]")
    with pytest.raises(BfpoError, match=r"rounds.json: can't be read"):
        red_team_rounds("microworld", judges, bank, settings, tmp_path)


class Turns:
    """Calls answers unsafe that don't refuse, until it has seen so many."""

    judge_id, template_digest = "turns", ""

    def __init__(self, until):
        self.until, self.oracle = until, load_judge("microworld-oracle")

    def judge(self, exchanges):
        self.until -= len(exchanges)
        return self.oracle.judge(exchanges) if self.until >= 0 else [Verdict("safe", 1.0, "no") for _ in exchanges]


def test_a_round_without_anything_to_train_on_ends_the_rounds(bank, tmp_path):
    settings = Rounds(2, RED_TEAM, 0.5, recipe=written(tmp_path))
    in_round_0 = 2 * (RED_TEAM.attacks + RED_TEAM.measured) * DECODING.samples
    judges = RoundJudges(Turns(in_round_0), evaluation=Counting())
    found = red_team_rounds("microworld", judges, bank, settings, tmp_path / "run")
    assert found.model.endswith("model-1")
    assert found.stopped.startswith("round 1: no group is left to train on")
    with pytest.raises(RunError, match="no group is left"):
        red_team_rounds("microworld", RoundJudges(Turns(0), evaluation=Counting()), bank, settings, tmp_path / "none")


def test_the_groups_take_the_place_of_their_source_and_others_stay(tmp_path):
    data = [
        {"name": "red-team", "path": "x", "flags": "probability"},
        {"name": "help", "path": "help.jsonl", "role": "buffer", "unknown_safety": 1.0},
    ]
    settings = Rounds(2, RED_TEAM, 0.5, recipe=written(tmp_path, data=data))
    resolved = settings.recipe_of("m", Path("out"), 2)
    assert [(one.label, one.path, one.flags, one.role) for one in resolved.recipe.data] == [
        ("red-team-0", str(Path("out/round-0/groups.jsonl")), "probability", "main"),
        ("red-team-1", str(Path("out/round-1/groups.jsonl")), "probability", "main"),
        ("help", "help.jsonl", None, "buffer"),
    ]
    assert (resolved.recipe.model, resolved.recipe.output_dir) == ("m", str(Path("out/model-2")))
    assert resolved.origins["model"] == "command line"
    assert resolved.origins["beta"] == "recipe"
    # Answers to plain requests take the place of a source of that name.
    plain = {"name": "plain-requests", "path": "x", "role": "buffer", "limit": 50}
    buffered = replace(settings, recipe=written(tmp_path, data=[plain, *data]))
    found = buffered.recipe_of("m", Path("out"), 1).recipe.data
    assert [(one.label, one.path, one.limit) for one in found] == [
        ("red-team-0", str(Path("out/round-0/groups.jsonl")), None),
        ("plain-requests", str(Path("out/plain-requests/groups.jsonl")), 50),
        ("help", "help.jsonl", None),
    ]
    assert buffered.has_help_buffer
    settings = replace(settings, recipe=written(tmp_path, data=data))
    assert not settings.has_help_buffer
    # What is no source isn't left out, but found to be wrong.
    for wrong in (["x"], "x"):
        with pytest.raises(BfpoError, match="data"):
            replace(settings, recipe=written(tmp_path, data=wrong)).recipe_of("m", Path("out"), 1)
    # A recipe without that source keeps all of its own.
    settings = replace(settings, recipe=written(tmp_path, data=data[1:]))
    names = [one.label for one in settings.recipe_of("m", Path("out"), 1).recipe.data]
    assert names == ["red-team-0", "help"]


def test_the_packaged_recipe_is_the_papers():
    recipe = load_recipe(packaged_recipe()).recipe
    paper = load_recipe(packaged_recipe().with_name("paper-bfpo.yaml")).recipe
    same = ("beta", "b1", "alpha", "trainable", "learning_rate", "lr_scheduler_type", "warmup_steps", "max_length")
    assert {name: getattr(recipe, name) for name in same} == {name: getattr(paper, name) for name in same}
    assert [source.role for source in recipe.data] == ["main"]
    # The paper's steps have 32 safety groups and 32 of the buffer, which red teaming doesn't have.
    assert 2 * recipe.batch_size == paper.batch_size


def test_the_plan_counts_what_is_asked(done, bank):
    folder, settings, judges, _ = done
    planned = settings.planned(bank)
    assert planned["answers_in_rounds"] == judges.labeling.read
    assert planned["answers_before_and_after"] == judges.evaluation.read
    assert planned["answers"] == judges.labeling.read + judges.evaluation.read
    assert planned["trainings"] == len(list((folder / "run").glob("model-*")))


def test_answers_to_plain_requests_are_a_buffer_of_every_training(bank, tmp_path):
    plain = {"name": "plain-requests", "path": "", "role": "buffer"}
    recipe = written(tmp_path, data=[*RECIPE["data"], plain], buffer_ratio=1)
    settings = Rounds(2, replace(RED_TEAM, refusals=REFUSALS), 0.5, recipe=recipe)
    judges, lines = RoundJudges(Counting("microworld-oracle:0.1"), evaluation=Counting()), []
    red_team_rounds("microworld", judges, bank, settings, tmp_path / "run", say=lines.append)
    attacked, _ = bank.split(0.5, RED_TEAM.seed)
    rows = [json.loads(line) for line in (tmp_path / "run/plain-requests/groups.jsonl").read_text().splitlines()]
    assert [row["prompt"][-1]["content"] for row in rows] == [one.plain for one in attacked.plain]
    assert f"plain requests: {len(rows)} groups" in lines
    for number in (1, 2):
        record = json.loads((tmp_path / f"run/model-{number}/run.json").read_text())
        assert [source["role"] for source in record["data"]] == ["main"] * number + ["buffer"]
    planned = settings.planned(bank)
    assert planned["answers_to_plain_requests"] == len(attacked.plain) * DECODING.samples
    assert planned["answers"] == judges.labeling.read + judges.evaluation.read
    # Without written refusals there is nothing to learn from them, which is said before anything is asked.
    settings = replace(settings, red_team=RED_TEAM)
    with pytest.raises(BfpoError, match="--refusal"):
        red_team_rounds("microworld", RoundJudges(Counting(calls=0)), bank, settings, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_wrong_settings_are_refused_before_anything_is_asked(bank, tmp_path):
    with pytest.raises(BfpoError, match="0 rounds train nothing"):
        Rounds(0)
    judges = RoundJudges(Counting(calls=0))
    settings = Rounds(1, RED_TEAM, 0.5, recipe=written(tmp_path, learning_rate=-1))
    with pytest.raises(BfpoError, match="learning_rate"):
        red_team_rounds("microworld", judges, bank, settings, tmp_path / "run")
    with pytest.raises(BfpoError, match="can't be held out"):
        red_team_rounds("microworld", judges, bank, replace(settings, held_out_requests=1.0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_packaged_bank_can_be_split():
    plan = Rounds().planned(load_bank())
    assert plan["answers_before_and_after"] == 2 * (2 * 108 * 9 + len(load_bank().split(0.25, 0)[1].plain))
