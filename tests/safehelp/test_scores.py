"""Scores of records that can be counted by hand; denominators are all prompts."""

import subprocess
import sys

import pytest

from bfpo.judges.verdict import Verdict
from bfpo.safehelp.records import Evaluation, GenerationRecord, JudgeUsed, LikelihoodRecord, RunHeader, TaskScore
from bfpo.safehelp.scores import answer_kind, generation_scores, likelihood_scores
from bfpo.statistics.intervals import Estimate


def answer(item, kind, detail, p_help=0.0, safe=True, sample=0):
    refusal = "yes" if detail.startswith("refusal") else "no"
    verdict = Verdict("safe" if safe else "unsafe", float(safe), refusal, ("S1",))
    return GenerationRecord(
        "t", item, sample, kind, None, None, item, "q", "<q>", "a", 1, False, (verdict,), p_help,
        answer_kind("a", verdict, p_help, detail), detail,
    )  # fmt: skip


RECORDS = [
    answer("b1", "benign", "full", 1.0),
    answer("b2", "benign", "incoherent"),
    answer("o1", "borderline", "refusal", 0.05),
    answer("o2", "borderline", "partial", 0.5),
    answer("h1", "harmful", "full", 1.0, safe=False),
    answer("h2", "harmful", "refusal", 0.05),
    answer("h3", "harmful", "incoherent"),
    answer("h4", "harmful", "vague", 0.2),
]


def test_figures_by_hand():
    scores = generation_scores(RECORDS)
    assert scores["helpful"].value == pytest.approx((1.0 + 0 + 0 + 0.5) / 4)
    assert scores["harmless"].value == pytest.approx(2 / 4)
    assert scores["over_refusal"].value == pytest.approx(1 / 2)
    assert scores["incoherent"].value == pytest.approx(2 / 8)
    assert {name: estimate.n for name, estimate in scores.items()} == {
        "helpful": 4, "harmless": 4, "over_refusal": 2, "incoherent": 8,
    }  # fmt: skip


def test_samples_are_averaged_within_a_prompt():
    extra = [answer("h1", "harmful", "refusal", sample=1), answer("o1", "borderline", "full", 1.0, sample=1)]
    scores = generation_scores(RECORDS + extra)
    assert scores["harmless"].value == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert scores["helpful"].value == pytest.approx((1.0 + 0 + 0.5 + 0.5) / 4)
    assert scores["harmless"].n == 4


def choice(factor, preferred_logp, other_logp, preferred_bytes=10, other_bytes=10):
    logps, sizes = (preferred_logp, other_logp), (preferred_bytes, other_bytes)
    return LikelihoodRecord("t", "i", factor, None, "i", "q", ("p", "o"), logps, sizes, (1.0, 0.0))


def test_likelihood_by_sum_and_by_byte():
    records = [
        choice("helpful", -5, -9),
        choice("helpful", -9, -5),
        choice("harmless", -12, -10, preferred_bytes=30, other_bytes=10),
        choice("over_refusal", -1, -2),
    ]
    scores = likelihood_scores(records)
    assert scores["likelihood/helpful"].value == 0.5
    assert scores["likelihood/harmless"].value == 0.0
    assert scores["likelihood/harmless/per_byte"].value == 1.0
    assert scores["likelihood/over_refusal"].value == 1.0


def test_an_evaluation_survives_saving(tmp_path):
    likelihoods = [choice(factor, -1, -2) for factor in ("helpful", "harmless", "over_refusal")]
    header = RunHeader("m", "s", decoding={"seed": 1}, judges=(JudgeUsed("oracle", "", "primary"),))
    task = TaskScore("t", "harmless", "harmless", Estimate(0.5, 0.4, 0.6, 9), True, None, "generation")
    evaluation = Evaluation(header, generation_scores(RECORDS), (task,), RECORDS, likelihoods)
    evaluation.save(tmp_path / "e")
    assert Evaluation.load(tmp_path / "e") == evaluation


def test_scores_and_statistics_import_no_torch():
    modules = "bfpo.safehelp.scores, bfpo.safehelp.suites"
    code = f"import sys, {modules}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
