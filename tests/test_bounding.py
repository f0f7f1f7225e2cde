"""Training to a bound: the search, and whole searches with tiny models and judges whose verdicts are known."""

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.bounding import Bound, BoundNotMetError, Checked, _Search, smallest, train_to_bound
from bfpo.errors import BfpoError
from bfpo.generation.protocol import Decoding
from bfpo.judges.verdict import Verdict
from bfpo.statistics.intervals import Estimate, wilson
from bfpo.statistics.judge_error import ErrorRates, corrected_rate
from bfpo.training.recipe import load_recipe
from bfpo.training.run import TrainedRun
from training.tiny_runs import write_material, write_recipe


@dataclass
class SetJudge:
    """Calls an answer unsafe if it contains one of these words."""

    words: tuple[str, ...]
    judge_id: str = "set"
    template_digest: str = ""

    def judge(self, exchanges):
        return [
            Verdict("unsafe" if any(word in one.answer.split() for word in self.words) else "safe", None, "no")
            for one in exchanges
        ]


@given(st.floats(0.01, 0.99), st.floats(0.0, 0.005), st.floats(1.0, 3.0))
def test_the_smallest_place_is_found_from_above(where, low, high):
    found = smallest(lambda b3: b3 >= where, low, high)
    assert where <= found <= where + (high - low) / 64 + 1e-12


def test_the_ends_decide_first():
    asked = []
    assert smallest(lambda b3: bool(asked.append(b3)), 0.1, 2.0) is None
    assert asked == [2.0]
    assert smallest(lambda b3: True, 0.1, 2.0) == 0.1


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bound")
    write_material(folder)
    (folder / "prompts.txt").write_text("".join(f"w1 w2 w{number}\n" for number in range(40)))
    return folder


def recipe(folder, name, **changes):
    return load_recipe(write_recipe(folder, name, **changes))


def bound(folder, text, judge, **settings):
    decoding = Decoding(1.0, 1.0, max_new_tokens=4)
    return Bound.parse(text, str(folder / "prompts.txt"), judge, decoding=decoding, **settings)


def test_a_bound_that_every_model_keeps_takes_the_lower_corner(material):
    lines = []
    found = train_to_bound(recipe(material, "kept"), bound(material, "attack_success<=.2", SetJudge(())), lines.append)
    # Of 40 answers none is unsafe: Wilson's upper end is 3.84/43.84.
    assert [(check.b3, check.trained, check.share.value) for check in found.checks] == [
        (2.0, False, 0.0), (0.1, False, 0.0), (0.1, True, 0.0),
    ]  # fmt: skip
    assert found.checks[-1].share.high == pytest.approx(0.0876, abs=1e-4)
    assert "at most 8.76% by the upper end" in found.statement
    assert lines == [str(check) for check in found.checks]
    record = json.loads((material / "kept" / "bound.json").read_text())
    # The corner was trained already.
    assert record["model"] == str(material / "kept" / "corner-low")
    assert not [*(material / "kept").glob("b3-*")]
    trained = json.loads((material / "kept" / "corner-low" / "run.json").read_text())
    assert trained["objective"]["b1"] == pytest.approx(11)


def test_a_search_goes_on_where_it_stopped(material):
    arguments = recipe(material, "again"), bound(material, "attack_success<=.2", SetJudge(()))
    first = train_to_bound(*arguments)
    weights = material / "again" / "corner-low" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    with pytest.raises(BfpoError, match="contains another search; continue it with --resume"):
        train_to_bound(*arguments)
    again = train_to_bound(*arguments, resume=True)
    assert again.checks == first.checks
    assert weights.stat().st_mtime_ns == written


def test_the_upper_corner_is_the_last_model_to_be_checked(material, monkeypatch):
    """The dial meets the bound from b3 1 on, and of the trained models none but the upper corner."""
    trained = []

    def check(search, generator, b3, *, trained):
        share = Estimate(*(0.0, 0.0, 0.0, 1) if (b3 >= 1 and not trained) or b3 >= 1.9 else (1.0, 1.0, 1.0, 1))
        search.checks.append(Checked(b3, share, trained))
        return search.checks[-1]

    def train(search, name, b3):
        trained.append(name)
        return TrainedRun(search.folder / name, {}, 0.0)

    monkeypatch.setattr(_Search, "train", train)
    monkeypatch.setattr(_Search, "dial", lambda search, b3: check(search, None, b3, trained=False))
    monkeypatch.setattr(_Search, "check", check)
    found = train_to_bound(recipe(material, "upper"), bound(material, "attack_success<=.2", SetJudge(())))
    assert found.run.folder.name == "corner-high"
    assert found.b3 == 2.0
    assert trained[:2] == ["corner-low", "corner-high"]
    assert [name.split("-")[0] for name in trained[2:]] == ["b3", "b3", "b3", "corner"]


def test_a_bound_that_no_model_keeps_is_a_failed_run(material):
    every = SetJudge(tuple(f"w{number}" for number in range(60)))
    with pytest.raises(BoundNotMetError, match=r"<= 0\.2 can't be met .* b3 2\.000 \(dial\): .*raise"):
        train_to_bound(recipe(material, "never"), bound(material, "attack_success<=.2", every))
    record = json.loads((material / "never" / "bound.json").read_text())
    assert "model" not in record
    assert [check["b3"] for check in record["checks"]] == [2.0]


def test_shares_are_corrected_for_the_judges_error(material):
    """A judge with false alarms of 5 in 100 sees no unsafe answer: the share is 0, and less certain."""
    error = ErrorRates.from_counts(90, 100, 95, 100)
    wanted = bound(material, "attack_success<=.5", SetJudge(()), error=error)
    found = train_to_bound(recipe(material, "corrected"), wanted)
    # Of 40 answers none was called unsafe; the empty ones were not judged, so the judge can't have erred on them.
    [answers] = (material / "corrected").glob("checks/model-*/generations.jsonl")
    read = sum(bool(json.loads(line)["answer"].strip()) for line in answers.read_text().splitlines())
    assert read >= 35
    assert found.checks[-1].share == corrected_rate(wilson(0, 40), error, read / 40)
    assert found.checks[-1].share.high != wilson(0, 40).high
    assert "corrected for the judge's error" in found.statement


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harmless>=.9", "b3 bounds attack_success from above"),
        ("attack_success>=.9", "b3 bounds attack_success from above"),
        ("attack_success<=1", "b3 bounds attack_success from above"),
        ("attack_sucess<=.1", "--bound 'attack_sucess<=.1': no figure .*did you mean"),
    ],
)
def test_other_bounds_are_refused(material, text, message):
    with pytest.raises(BfpoError, match=message):
        bound(material, text, SetJudge(()))


def test_what_b3_cannot_bound_is_refused(material, monkeypatch):
    wanted = bound(material, "attack_success<=.2", SetJudge(()))
    with pytest.raises(BfpoError, match="loss_type 'dpo' doesn't read"):
        train_to_bound(recipe(material, "dpo", loss_type="dpo"), wanted)
    with pytest.raises(BfpoError, match="'harm_prices' several"):
        train_to_bound(recipe(material, "prices", harm_prices={"default": 1.0}), wanted)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BfpoError, match="searched by one process"):
        train_to_bound(recipe(material, "two"), wanted)
    with pytest.raises(BfpoError, match="positive and ascending"):
        bound(material, "attack_success<=.2", SetJudge(()), corners=(1.0, 0.5))


def test_prompts_too_few_for_the_bound_are_refused_before_training(material):
    """Of n answers without an unsafe one the interval ends at z^2/(n + z^2): .0876 for 40, and .05 from 73 on."""
    errors = {"error": ErrorRates.from_counts(90, 100, 95, 100)}
    for limit, settings, ends, needed in ((0.05, {}, ".088", 73), (0.1, errors, ".103", 42)):
        wanted = bound(material, f"attack_success<={limit}", SetJudge(()), **settings)
        message = f"<= {limit} can't be shown by 40 prompts: .* ends at 0{ends}; give at least {needed} different"
        with pytest.raises(BfpoError, match=message):
            train_to_bound(recipe(material, "few"), wanted)
    with pytest.raises(BfpoError, match=r"can't be shown by 80 prompts: .* ends at 0\.088"):
        # Each twice shows no more.
        train_to_bound(recipe(material, "few"), replace(bound(material, "attack_success<=.05", SetJudge(())),
                                                        prompts=2 * wanted.prompts))  # fmt: skip
    unsure = bound(material, "attack_success<=.9", SetJudge(()), error=ErrorRates.from_counts(3, 5, 3, 5))
    with pytest.raises(BfpoError, match="the judge may be no better than chance"):
        train_to_bound(recipe(material, "few"), unsure)
    assert not (material / "few").exists()


def test_prompts_that_are_trained_on_are_refused(material):
    rows = [json.loads(line) for line in (material / "pairs.jsonl").read_text().splitlines()]
    long = " ".join(f"w{number}" for number in range(30))
    (material / "long.jsonl").write_text("".join(json.dumps(row | {"prompt": long}) + "\n" for row in rows))
    (material / "leaked.txt").write_text(long + "\n" + (material / "prompts.txt").read_text())
    wanted = Bound.parse("attack_success<=.2", str(material / "leaked.txt"), SetJudge(()))
    with pytest.raises(BfpoError, match="the bound's prompts"):
        train_to_bound(recipe(material, "leak", data=[{"path": str(material / "long.jsonl")}]), wanted)


def test_a_judge_without_verdicts_is_refused_before_training(material):
    class Silent(SetJudge):
        def judge(self, exchanges):
            return [Verdict("unparsed", None, raw="no word on safety") for _ in exchanges]

    with pytest.raises(BfpoError, match=r"set gives no verdict on an answer's safety .'no word on safety'."):
        train_to_bound(recipe(material, "silent"), bound(material, "attack_success<=.2", Silent(())))
    assert not (material / "silent").exists()
