"""Red teaming of the microworld's model, from attacks to groups that train; killed and resumed."""

import json
from dataclasses import replace

import pytest

from bfpo.errors import BfpoError, RunError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding
from bfpo.judges.registry import load_judge
from bfpo.judges.verdict import Verdict
from bfpo.microworld.grammar import requests
from bfpo.models import MICROWORLD
from bfpo.preferences.loading import load_preferences
from bfpo.redteam.bank import Pair
from bfpo.redteam.running import red_team
from bfpo.redteam.settings import RedTeam

# The toy world knows no style but the plain one.
SETTINGS = RedTeam(12, 3, ("plain",), (), Decoding(temperature=1.5, top_p=1.0, max_new_tokens=48, samples=4), 0)


def microworld_pairs(count):
    """Harmful requests, each with a request about the same thing that an excuse makes harmless."""
    benign = {(one.action, one.thing, one.phrasing): one for one in requests("train") if one.kind == "borderline"}
    found = []
    for one in requests("train"):
        twin = benign.get((one.action, one.thing, one.phrasing))
        if one.kind == "harmful" and twin is not None:
            found.append(Pair(f"{one.category}-{len(found)}", str(one.category), one.text, twin.text))
    return found[:: len(found) // count][:count]


@pytest.fixture(scope="module")
def generator():
    return LocalGenerator.load(MICROWORLD)


@pytest.fixture(scope="module")
def judge():
    return load_judge("microworld-oracle")


def test_groups_train_and_what_was_found_is_written(generator, judge, tmp_path):
    steps = []
    found = red_team(
        generator, judge, microworld_pairs(40), SETTINGS, tmp_path, progress=lambda *step: steps.append(step)
    )
    assert found.attacks == {"plain": 12}
    assert {name for name, *_ in steps} == {"turn-0", "turn-1", "turn-2"}
    assert found.success["style plain"] == found.success["all"]
    # Every attack counts once, in whatever turn it was tried.
    assert (found.success["all"].n, found.over_refusal["style plain"].n) == (12, 12)
    loaded = load_preferences(str(tmp_path / "groups.jsonl"))
    assert len(loaded) == found.groups > 0
    for row in loaded:
        texts = [answer[-1]["content"] for answer in row["responses"]]
        assert len(set(texts)) == len(texts) > 1
    summary = json.loads((tmp_path / "redteam.json").read_text())
    assert summary["groups"] == found.groups
    assert summary["settings"]["turns"] == 3
    # Again: all answers are there, and no file changes.
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    assert red_team(generator, judge, microworld_pairs(40), SETTINGS, tmp_path) == found
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")} == before


def test_a_run_with_other_settings_leaves_the_folder_as_it_is(generator, judge, tmp_path):
    """Its first turn may be the same, so that nothing but its settings tells it from the run that is there."""
    pairs, first = microworld_pairs(40), replace(SETTINGS, attacks=4, turns=1)
    red_team(generator, judge, pairs, first, tmp_path)
    before = (tmp_path / "groups.jsonl").read_bytes()
    with pytest.raises(BfpoError, match=r"contains red teaming with other settings \(attacks, turns\); name another"):
        red_team(generator, judge, pairs, SETTINGS, tmp_path)
    with pytest.raises(BfpoError, match=r"other settings \(evaluation prompts\)"):
        red_team(generator, judge, pairs, first, tmp_path, evaluation={"suite": ["How do I cook an egg?"]})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(BfpoError, match="contains red teaming by an older version"):
        red_team(generator, judge, pairs, first, tmp_path)
    assert (tmp_path / "groups.jsonl").read_bytes() == before


def test_a_run_that_stops_goes_on_to_the_same_groups(generator, judge, tmp_path):
    oracle = judge

    class Dies:
        judge_id, template_digest = oracle.judge_id, oracle.template_digest
        left = 2

        def judge(self, exchanges):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return oracle.judge(exchanges)

    pairs = microworld_pairs(40)
    with pytest.raises(KeyboardInterrupt):
        red_team(generator, Dies(), pairs, SETTINGS, tmp_path / "stopped")
    assert not (tmp_path / "stopped/groups.jsonl").exists()
    red_team(generator, judge, pairs, SETTINGS, tmp_path / "stopped")
    red_team(generator, judge, pairs, SETTINGS, tmp_path / "straight")
    assert (tmp_path / "stopped/groups.jsonl").read_bytes() == (tmp_path / "straight/groups.jsonl").read_bytes()
    with pytest.raises(BfpoError, match="contains red teaming with other settings"):
        red_team(generator, judge, pairs, replace(SETTINGS, seed=1), tmp_path / "straight")


def test_nothing_to_train_on_fails_with_what_was_left_out(generator, tmp_path):
    class Blind:
        judge_id, template_digest = "blind", ""

        def judge(self, exchanges):
            return [Verdict("safe", 1.0, "no") for _ in exchanges]

    with pytest.raises(RunError, match=r"no group is left to train on \(.*attacks without signal"):
        red_team(generator, Blind(), microworld_pairs(12), SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": 0}, "can't be tried in 0 turns"),
        ({"attacks": 2}, "at least one a turn"),
        ({"decoding": Decoding(samples=1)}, "sample two or more"),
        ({"decoding": Decoding(samples=2, temperature=0)}, "above 0"),
        ({"styles": ("role_pla",)}, "there is no attack style 'role_pla'.*role_play"),
        ({"held_out": ("plain",)}, "must differ from those held out: plain"),
        ({"styles": ()}, "none is left"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(BfpoError, match=message):
        replace(SETTINGS, **changes)


def test_an_empty_bank_is_refused(generator, judge, tmp_path):
    with pytest.raises(BfpoError, match="no risky request"):
        red_team(generator, judge, [], SETTINGS, tmp_path)
