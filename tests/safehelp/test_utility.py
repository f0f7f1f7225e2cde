"""U of a run in each world, and severity-weighted harm, by hand and from evaluations of models with known answers."""

import random
from dataclasses import dataclass, field, replace

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Completion, Generator, ModelIdentity
from bfpo.microworld.answers import AnswerKind, write_answer
from bfpo.microworld.grammar import parse_request
from bfpo.microworld.oracle import PARTIAL_HARM
from bfpo.microworld.worlds import WORLDS
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import ANSWER_FIGURES, items_of
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite
from bfpo.safehelp.utility import utility


@dataclass(frozen=True)
class Answers(Generator):
    """Answers every prompt with the kind that a rule chooses for what the prompt says."""

    kinds: dict = field(default_factory=dict)

    @property
    def identity(self):
        return ModelIdentity("made-up", "0")

    def generate(self, batch, decoding):
        found = []
        for asked in batch:
            request = parse_request(asked.prompt)
            kind = self.kinds.get(request.category, self.kinds.get(request.kind, AnswerKind.FULL))
            kind = kind if request.kind == "harmful" else self.kinds.get(request.kind, AnswerKind.FULL)
            found.append(Completion(write_answer(request, kind, random.Random(asked.seed)), False))
        return found


def evaluated(kinds, world="W0", per_kind=60):
    suite = load_suite("microworld", per_kind=per_kind, world=world)
    return evaluate(Answers(kinds), replace(suite, choices=[], tasks=suite.tasks[:1]), name="made-up")


@pytest.mark.parametrize(
    ("kind", "severity", "harmless"),
    [(AnswerKind.FULL, 1, 0), (AnswerKind.PARTIAL, PARTIAL_HARM, 0), (AnswerKind.REFUSAL, 0, 1)],
)
def test_graded_harm_counts_in_part(kind, severity, harmless):
    result = evaluated({"harmful": kind})
    harm = next(score for score in result.tasks if score.metric == "severity_weighted_harm")
    assert harm.estimate.value == pytest.approx(severity)
    assert not harm.higher_is_better
    assert utility(result.generations, WORLDS["W0"]) == pytest.approx((1 + harmless) / 2)
    assert utility(result.generations, WORLDS["W4"]) == pytest.approx((1 + 1 - severity) / 2)


def test_prices_weigh_the_help_of_harm_against_it():
    dear = {name for name, price in WORLDS["W6"].prices.items() if price > 1}
    careful = evaluated({"harmful": AnswerKind.FULL} | dict.fromkeys(dear, AnswerKind.REFUSAL)).generations
    harmful = [record for record in careful if record.kind == "harmful"]
    refused = sum(record.category in dear for record in harmful)
    expected = (120 + (60 - refused) * (1 - 0.3)) / 180
    assert utility(careful, WORLDS["W6"]) == pytest.approx(expected)
    wild, meek = (evaluated({"harmful": kind}).generations for kind in (AnswerKind.FULL, AnswerKind.REFUSAL))
    assert utility(wild, WORLDS["W6"]) == pytest.approx((180 - 0.3 * (60 - refused) - 3 * refused) / 180)
    assert utility(meek, WORLDS["W6"]) == pytest.approx(120 / 180)
    assert utility(wild, WORLDS["W6"]) < utility(meek, WORLDS["W6"]) < utility(careful, WORLDS["W6"])


@pytest.mark.parametrize(("world", "harmful"), [("W5-25", 0.25), ("W5-75", 0.75)])
def test_no_rule_tells_look_alikes_apart(world, harmful):
    """To comply with look-alikes costs h of the harmless share; to refuse them, half of 1 - h of the helpful one."""

    def says(record):
        return parse_request(record.prompt)

    comply = evaluated({"harmful": AnswerKind.FULL}, world, 80).generations
    refuse = evaluated({"harmful": AnswerKind.REFUSAL}, world, 80).generations
    alike = [record for record in comply if says(record).kind == "harmful" and not says(record).circumstance]
    assert len(alike) == 80
    assert sum(record.answer_kind == "unsafe" for record in alike) == 80 * harmful
    # Whoever refuses whatever looks harmful also refuses excused look-alikes.
    assert utility(refuse, WORLDS[world]) == pytest.approx((1 - (1 - harmful) / 2 + 1) / 2)
    assert utility(comply, WORLDS[world]) == pytest.approx(0.5)


def test_harm_is_in_the_records_and_read_back(tmp_path):
    result = evaluated({"harmful": AnswerKind.PARTIAL}, per_kind=10)
    result.save(tmp_path / "run")
    read = Evaluation.load(tmp_path / "run").generations
    assert read == result.generations
    assert {tuple(record.harm.values()) for record in read} == {(), (PARTIAL_HARM,)}


def test_without_an_exact_judge_there_is_no_severity():
    records = [replace(record, harm=None) for record in evaluated({}, per_kind=5).generations]
    assert items_of(records, ANSWER_FIGURES["severity_weighted_harm"]).estimate() is None
    for world in ("W4", "W6"):
        with pytest.raises(BfpoError, match="harm was not measured"):
            utility(records, WORLDS[world])
    with pytest.raises(BfpoError, match="have no harmless"):
        utility([record for record in records if record.kind == "benign"], WORLDS["W0"])
