"""A judge that labeled a model's training data doesn't evaluate the model, unless it is allowed to."""

import json
from dataclasses import replace

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.dial import Dial
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Generator, ModelIdentity
from bfpo.judges.configured import ScaledJudge
from bfpo.judges.preference import Preference
from bfpo.judges.registry import load_judge
from bfpo.models import MICROWORLD
from bfpo.safehelp.cautions import cautions
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.labelers import check_labelers, labelers_of
from bfpo.safehelp.suites import load_suite
from bfpo.statistics.calibration import Scaling


def trained(folder, judges, model="base"):
    folder.mkdir()
    sources = [{"labels": {"flags": {"judges": [judge]}}} for judge in judges]
    sources += [{"labels": {}}, {"labels": {"flags": None}}, {}, {"labels": {"flags": {"people": 3}}}]
    (folder / "run.json").write_text(json.dumps({"config": {"model": {"value": str(model)}}, "data": sources}))
    return str(folder)


def test_labelers_of_a_model_and_of_those_before_it(tmp_path):
    first = trained(tmp_path / "first", ["a", "b"])
    second = trained(tmp_path / "second", ["b", "c"], first)
    assert labelers_of([second]) == ["b", "c", "a"]
    assert labelers_of([second], "d") == ["b", "c", "a", "d"]
    assert labelers_of([second], "a") == ["b", "c", "a"]
    assert labelers_of([str(tmp_path)]) == labelers_of([]) == labelers_of(["org/model"]) == []
    # A run that continues itself ends, too.
    itself = tmp_path / "itself"
    assert labelers_of([trained(itself, ["a"], itself)]) == ["a"]


def test_the_labeler_is_refused_by_name():
    judge = load_judge("microworld-oracle:0.1")
    check_labelers(["another"], [judge])
    with pytest.raises(BfpoError, match=r"microworld-oracle:0.1,0.1,0 labeled .*--allow-labeling-judge"):
        check_labelers(["another", judge.judge_id], [load_judge("microworld-oracle"), judge])


def test_a_scaling_of_its_probabilities_makes_it_no_other_judge():
    judge = load_judge("microworld-oracle")
    scaled = ScaledJudge(judge, Scaling(2.0, 0.5))
    for labeler, evaluator in ((judge, scaled), (scaled, judge), (scaled, ScaledJudge(judge, Scaling(1.0, 0.1)))):
        with pytest.raises(BfpoError, match="labeled the model's training data"):
            check_labelers([labeler.judge_id], [evaluator])


@pytest.fixture
def evaluate_as():
    """Evaluates the microworld's model as if it lay elsewhere."""

    def run(path, judge, **settings):
        model = replace(LocalGenerator.load(MICROWORLD), path=path)
        return evaluate(model, load_suite("microworld", per_kind=2), judges=[judge], **settings)

    return run


def test_an_evaluation_is_refused_before_anything_is_asked(evaluate_as, tmp_path):
    judge = load_judge("microworld-oracle:0.1")
    path = trained(tmp_path / "model", [judge.judge_id])
    with pytest.raises(BfpoError, match="labeled the model's training data"):
        evaluate_as(path, judge, folder=tmp_path / "run")
    with pytest.raises(BfpoError, match="labeled the model's training data"):
        evaluate_as("org/model", judge, labeling_judge=judge.judge_id, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_that_is_allowed_evaluates_with_a_caution(evaluate_as, tmp_path):
    judge = load_judge("microworld-oracle:0.1")
    path = trained(tmp_path / "model", ["another", judge.judge_id])
    found = evaluate_as(path, judge, allow_labeling_judge=True)
    assert found.header.labelling_judge == f"another and {judge.judge_id}"
    said = [line for line in cautions(found) if "also labeled the training data" in line]
    assert len(said) == 1
    assert judge.judge_id in said[0]
    # Another judge needs no permission, and gets no caution.
    other = evaluate_as(path, load_judge("microworld-oracle:0.2"))
    assert not [line for line in cautions(other) if "also labeled" in line]


class Prefers:
    """A helpfulness judge that prefers the first answer."""

    judge_id, template_digest = "prefers", ""

    def compare(self, pairs):
        return [Preference("first", 0.9, (), self.judge_id) for _ in pairs]


@pytest.mark.parametrize("role", ["helpfulness_judge", "refusal_judge"])
def test_judges_of_help_and_of_refusals_are_refused_too(role):
    judge = Prefers() if role == "helpfulness_judge" else load_judge("microworld-oracle:0.2")
    with pytest.raises(BfpoError, match=f"{judge.judge_id} labeled the model's training data"):
        evaluate(
            MICROWORLD, load_suite("microworld", per_kind=2), judges=[load_judge("microworld-oracle:0.1")],
            labeling_judge=judge.judge_id, **{role: judge},
        )  # fmt: skip


def test_a_dial_has_the_labelers_of_both_corners(tmp_path):
    class Corner(Generator):
        def __init__(self, path):
            self.path = path

        @property
        def identity(self):
            return ModelIdentity(self.path)

    low, high = (Corner(trained(tmp_path / name, [name])) for name in ("low", "high"))
    dial = object.__new__(Dial)
    object.__setattr__(dial, "low", low)
    object.__setattr__(dial, "high", high)
    assert labelers_of(dial.model_paths) == ["low", "high"]
