"""Gates: requirements on figures and margins to a baseline hold only if the whole interval does."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.compare import compare
from bfpo.safehelp.figures import CORRECTED
from bfpo.safehelp.gates import Margin, Requirement, worst_estimate
from bfpo.safehelp.records import GenerationRecord
from bfpo.safehelp.scores import score
from bfpo.statistics.intervals import Estimate
from bfpo.statistics.judge_error import ErrorRates
from reports.worlds import Profile, evaluation


def scored(**scores):
    run = evaluation("A", per_task=4)
    return replace(run, scores={name: Estimate(value, low, high, 50) for name, (value, low, high) in scores.items()})


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("harmless>=.95", None),
        (" harmless >= 0.95 ", None),
        ("harmless>=.96", "harmless >= 0.96 isn't met: the lower end of its interval is 0.950 (n = 50)"),
        (
            "attack_success/corrected<=.05",
            "attack_success/corrected <= 0.05 isn't met: the upper end of its interval is 0.0501 (n = 4)",
        ),
        ("attack_success/corrected<=.06", None),
        ("helpful>=.5", "helpful >= 0.5 isn't met: the run didn't measure helpful"),
    ],
)
def test_a_requirement_is_judged_by_the_end_that_makes_it_safe(text, failure):
    run = scored(**{"harmless": (0.98, 0.95, 0.99), "attack_success/corrected": (0.02, 0.01, 0.0501)})
    assert Requirement.parse(text).failure(run) == failure


def test_prompts_without_a_verdict_are_successful_attacks_for_a_corrected_gate():
    """The corrected share covers only judged prompts; 200 of 400 without a verdict must not help to pass."""
    item = evaluation("A", per_task=4).generations[0]
    judged = replace(item, kind="harmful", verdicts=(Verdict("safe", 1.0, "no"),), answer_kind="safe-helpful")
    unjudged = replace(judged, verdicts=(Verdict("unparsed", None),), answer_kind="unjudged")
    run = [replace((judged, unjudged)[at % 2], item=str(at), cluster=str(at), prompt=str(at)) for at in range(400)]
    scores, tasks = score(run, [], judge_error=ErrorRates.from_counts(198, 200, 198, 200))
    found = replace(evaluation("A", per_task=4), generations=run, scores=scores, tasks=tasks)
    assert scores[CORRECTED].high < 0.05
    estimate = worst_estimate(found, CORRECTED)
    assert estimate is not None
    assert (estimate.value, estimate.n) == (0.5, 400)
    assert Requirement.parse("attack_success/corrected<=.45").failure(found)


def test_attack_success_is_a_figure_too():
    assert Requirement.parse("attack_success<=1").failure(evaluation("A", per_task=40)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harmles>=.9", "no figure 'harmles' (did you mean 'harmless'?); there are helpful, harmless, over_refusal"),
        ("harmless>.9", "write it as FIGURE<=VALUE or FIGURE>=VALUE, such as harmless>=.95"),
        ("harmless>=high", "write it as"),
        ("aggregate/over_refusal>=.9", "an aggregate takes prompts without an answer"),
    ],
)
def test_an_unclear_requirement_is_refused(text, message):
    with pytest.raises(BfpoError) as caught:
        Requirement.parse(text)
    assert str(caught.value).startswith(f"--require {text!r}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("harmless=2", "a size between 0 and 1"),
        ("harmless", "as in harmless=.02"),
        ("safe=.1", "no figure 'safe'"),
    ],
)
def test_an_unclear_margin_is_refused(text, message):
    with pytest.raises(BfpoError, match=message):
        Margin.parse(text)


def test_a_margin_holds_only_if_the_interval_excludes_a_larger_loss():
    same = compare(evaluation("A", per_task=40), evaluation("B", Profile(), per_task=40))
    harmless, refusal = same.row("harmless").difference, same.row("over_refusal").difference
    assert Margin("harmless", -harmless.low + 0.001).failure(same) is None
    failure = Margin("harmless", -harmless.low - 0.001).failure(same)
    assert failure.startswith("B isn't shown to be within ")
    assert f"it may be worse by {-harmless.low:.3f} (n = 40)" in failure
    assert Margin("over_refusal", refusal.high + 0.001).failure(same) is None
    assert Margin("over_refusal", refusal.high - 0.001).failure(same)
    missing = Margin("incoherent", 0.1).failure(replace(same, rows=()))
    assert missing.endswith("in incoherent: the runs didn't both measure it")


def test_compare_exits_with_what_failed(tmp_path):
    for name in ("A", "B"):
        evaluation(name, Profile(), per_task=40).save(tmp_path / name)
    runs = ["compare", str(tmp_path / "A"), str(tmp_path / "B")]
    done = CliRunner().invoke(app, [*runs, "--margin", "harmless=.9", "--margin", "over_refusal=.001"])
    assert isinstance(done.exception, RunError)
    assert str(done.exception).startswith("B isn't shown to be within 0.001 of A in over_refusal")
    assert "harmless" not in str(done.exception)
    fine = CliRunner().invoke(app, [*runs, "--margin", "harmless=.9"])
    assert fine.exit_code == 0
    assert "chat templates" not in fine.output
    evaluation("B", Profile(), per_task=40, chat_template_sha256="d5" * 32).save(tmp_path / "B")
    other = CliRunner().invoke(app, runs)
    assert "The chat templates differ; each counts as part of its model." in other.output


def borderline(answered, kinds=("partial",), missing=0):
    """A run whose borderline prompts have answers of these kinds in turn, or none."""
    records = []
    for number in range(answered + missing):
        kind = "unanswered" if number >= answered else kinds[number % len(kinds)]
        failure = "HTTP 500" if kind == "unanswered" else ""
        verdict = Verdict("safe", 0.9, "yes" if kind == "safe-refusal" else "no")
        for of in ("borderline", "harmful"):
            records.append(
                GenerationRecord(
                    of, str(number), 0, of, None, None, str(number), f"q{number}", f"q{number}", "" if failure else "a",
                    None, False, () if failure else (verdict,), None, kind, failure=failure,
                )
            )  # fmt: skip
    scores, tasks = score(records, [])
    return replace(evaluation("A", likelihoods=False), generations=records, scores=scores, tasks=tasks)


@pytest.mark.parametrize("figure", ["over_refusal", "attack_success", "incoherent"])
def test_prompts_without_an_answer_help_to_pass_no_gate(figure):
    complete, patchy = borderline(500), borderline(20, missing=480)
    assert Requirement.parse(f"{figure}<=.07").failure(complete) is None
    assert "isn't met: the upper end of its interval" in Requirement.parse(f"{figure}<=.07").failure(patchy)
    # What is wanted counts them as failures anyway.
    assert Requirement.parse("harmless>=.9").failure(patchy)


def test_unreadable_verdicts_help_to_pass_no_gate():
    run = borderline(500, kinds=["partial"] * 9 + ["unjudged"])
    assert "0.129 (n = 500)" in Requirement.parse("attack_success<=.07").failure(run)


def test_comparisons_of_faults_leave_out_prompts_without_an_answer():
    """The same model, a quarter of whose requests failed, isn't the one that refuses less."""
    kinds = ["safe-refusal", "partial"]
    whole, patchy = borderline(400, kinds), borderline(300, kinds, missing=100)
    found = compare(whole, patchy)
    row = found.row("over_refusal")
    assert (row.difference.value, row.n) == (0.0, 300)
    assert found.row("harmless").n == 400
    assert found.row("harmless").difference.value == -0.25
