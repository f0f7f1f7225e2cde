"""The red-teaming study: its prompt bank, and the bars on its page against results made by hand."""

import json
from dataclasses import replace

import pytest

from bfpo.microworld.grammar import parse_request
from studies.red_teaming import TRAINED_STYLES, Setup, microworld_bank, run_seeds
from studies.red_teaming_report import fall, working_styles, write_report


def rate(value, low=None):
    return {"value": value, "low": value if low is None else low, "high": 1.0, "n": 10}


def side(plain, role_play, spelling, refused=0.0):
    success = {
        "plain": rate(plain), "role_play": rate(role_play), "spelling": rate(spelling),
        "all trained styles": rate((plain + role_play) / 2), "all held-out styles": rate(spelling),
    }  # fmt: skip
    return {"success": success, "over_refusal": {"plain": rate(refused)}, "plain_refused": rate(refused)}


def result(before, after, *, helpful=(0.9, 0.9), over_refusal=(0.0, 0.02)):
    suite = {
        name: {"helpful": rate(helpful[at], helpful[at] - 0.05), "over_refusal": rate(over_refusal[at])}
        for at, name in enumerate(("before", "after"))
    }
    return {
        "setup": vars(Setup()), "seed": 0, "styles": {"trained": ["plain", "role_play"], "held_out": ["spelling"]},
        "groups": [10, 20], "before": side(*before), "after": side(*after), "suite": suite,
    }  # fmt: skip


def test_only_styles_that_worked_before_count():
    # role_play works in one seed, and not in the mean.
    results = [result((0.8, 0.4, 0.5), (0.1, 0.4, 0.2)), result((0.6, 0.1, 0.7), (0.1, 0.1, 0.1))]
    assert working_styles(results) == {"trained": ["plain"], "held_out": ["spelling"]}
    assert fall(results, ["plain"]) == pytest.approx(1 - 0.2 / 1.4)
    assert fall(results, ["plain", "role_play"]) == pytest.approx(1 - 0.7 / 1.9)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, 0),
        ({"after": (0.2, 0.0, 0.1)}, 1),
        ({"after": (0.1, 0.0, 0.3)}, 1),
        ({"helpful": (0.9, 0.84)}, 1),
        ({"over_refusal": (0.01, 0.05)}, 1),
        ({"after": (0.7, 0.0, 0.5), "helpful": (0.9, 0.1), "over_refusal": (0.0, 1.0)}, 4),
    ],
)
def test_bars_that_are_missed_say_so(tmp_path, changes, missed):
    given = {"before": (0.8, 0.1, 0.6), "after": (0.1, 0.0, 0.1)} | changes
    page = write_report(tmp_path, [result(**given)]).read_text("utf-8")
    assert page.count("**missed**") == missed
    assert page.count("| met |") == 4 - missed
    assert "styles (plain) falls by 80%" in page


def test_the_bank_asks_about_every_thing_once():
    bank = microworld_bank(24)
    asked = [parse_request(pair.risky) for pair in bank.pairs]
    twins = [parse_request(pair.benign) for pair in bank.pairs]
    assert len({(one.action, one.thing) for one in asked}) == len(asked) == 216
    assert {one.kind for one in asked} == {"harmful"}
    assert {one.kind for one in twins} == {"borderline"}
    assert {one.split for one in asked} == {"train"}
    assert [one.look_alike for one in asked] == [one.look_alike for one in twins]
    assert len(bank.categories) == 8
    assert {parse_request(one.plain).kind for one in bank.plain} == {"benign"}
    # All owners and phrasings occur.
    assert len({one.owner for one in asked}) == 4
    assert len({one.phrasing for one in asked}) == 8
    assert len({one.circumstance for one in asked}) == 3


def test_a_seed_that_is_there_is_not_run_again(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results/seed-7.json").write_text(json.dumps({"seed": 7}))
    assert run_seeds(tmp_path, tmp_path / "results", Setup(), [7], print) == [{"seed": 7}]
    assert "many_shot" not in TRAINED_STYLES
    assert replace(Setup(), attacks=8).rounds(3, tmp_path).red_team.decoding.seed == 3
