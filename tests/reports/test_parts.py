"""The parts: numbers, verdicts that claim no more than intervals, the frontier, counts of records, names in plots."""

from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bfpo.reports.background import length
from bfpo.reports.charts import Row, rates_plot
from bfpo.reports.drawing import short
from bfpo.reports.formats import format_number, format_p, format_signed
from bfpo.reports.page import tell
from bfpo.reports.planes import Place, frontier
from bfpo.reports.results import likelihoods, refusal
from bfpo.reports.subjects import subjects_of
from bfpo.reports.table import format_estimate, score_tables
from bfpo.reports.tallies import (
    agreement_by_certainty,
    certainty,
    help_by_length,
    kinds_by_set,
    starts_with_apology,
)
from bfpo.reports.training_log import gaps_of
from bfpo.reports.verdict import verdict
from bfpo.safehelp.records import TaskScore
from bfpo.statistics.intervals import Estimate
from reports.worlds import Profile, evaluation, world


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, ".50"), (1.0, "1.0"), (0.996, "1.0"), (0.0, ".00"), (-0.021, "−.02"), (-0.001, ".00"), (1.5, "1.50")],
)  # fmt: skip
def test_numbers(value, text):
    assert format_number(value) == text


def test_signs_and_p_values():
    assert [format_signed(v) for v in (0.2, -0.2, 0.001)] == ["+.20", "−.20", ".00"]
    assert [format_p(p) for p in (None, 0.0001, 0.004, 0.03, 1.0)] == ["–", "< .001", ".004", ".03", "1.0"]
    assert format_estimate(Estimate(0.5, 0.456, 0.544, 9)) == ".50 [.46, .54]"


@given(st.text(max_size=80), st.integers(4, 40))
def test_short_names_fit(name, length):
    assert len(short(name, length)) <= length
    assert short(name, length).isprintable()
    assert short(name, length) == name or "…" in short(name, length) or "\ufffd" in short(name, length)


@pytest.mark.parametrize(
    "answer",
    ["I'm sorry, but no.", "Sorry, I can't", "I am so sorry", "  I apologize", "My apologies.", "I deeply apologise"],
)  # fmt: skip
def test_apologies(answer):
    assert starts_with_apology(answer)


@pytest.mark.parametrize("answer", ["", "Sure. I'm sorry for the wait.", "The sorry state of", "An apology is a start"])
def test_no_apologies(answer):
    assert not starts_with_apology(answer)


def place(name, x, y):
    subject = subjects_of([evaluation(name, per_task=2)])[0]
    return Place(subject, Estimate(x, x, x, 9), Estimate(y, y, y, 9))


def test_frontier_is_what_nobody_beats_in_both():
    places = [
        place("a", 0.9, 0.2),
        place("b", 0.5, 0.5),
        place("c", 0.4, 0.4),
        place("d", 0.1, 0.9),
        place("e", 0.1, 0.8),
    ]
    assert [p.subject.name for p in frontier(places)] == ["d", "b", "a"]


def test_kinds_add_up_to_the_records():
    runs = world(("SFT", "BFPO"), per_task=50)
    groups = kinds_by_set(subjects_of(runs))
    assert [title.split(":")[0] for title, _ in groups] == ["HarmBench", "XSTest", "AlpacaEval"]
    for title, bars in groups:
        task = title.split(":")[0]
        for subject, counts in bars:
            records = [r for r in subject.evaluation.generations if r.task == task]
            assert counts.total() == len(records) == 50
            assert counts["unsafe"] == sum(r.answer_kind == "unsafe" for r in records)


def test_certainty_and_agreement_count_answers_with_a_probability():
    records = evaluation("SFT", per_task=200).generations
    shares = certainty(records)
    known = [r.verdicts[0].p_safe for r in records if r.verdicts[0].p_safe is not None]
    assert sum(shares) == pytest.approx(1)
    assert shares[9] == pytest.approx(sum(p >= 0.9 for p in known) / len(known))
    agreement = agreement_by_certainty(records)
    assert sum(share.n for share in agreement.values()) <= len(known)
    assert agreement[max(agreement)].value > agreement[min(agreement)].value
    assert certainty([replace(r, verdicts=()) for r in records]) == []


def test_help_by_length_is_empty_without_measured_help():
    records = evaluation("SFT", per_task=80).generations
    parts = help_by_length(records)
    assert len(parts) == 4
    assert [length for length, _ in parts] == sorted(length for length, _ in parts)
    assert sum(e.n for _, e in parts) == sum(r.p_help is not None and r.answer_kind != "safe-refusal" for r in records)
    assert help_by_length([replace(r, p_help=None) for r in records]) == []


def test_gaps_are_the_training_ones():
    log = [{"step": 1, "cells/SU/gap": 2.0, "eval_cells/SU/gap": 9.0, "cells/SU/count": 3}, {"step": 2, "loss": 1.0}]
    assert gaps_of({"log": log}) == {"SU": [(1, 2.0)]}
    assert gaps_of({}) == {}


def test_verdict_claims_a_difference_only_where_the_interval_does():
    better, same = Profile(unsafe=0.02), Profile(unsafe=0.4)
    told = verdict(tell([evaluation("A", same, per_task=200), evaluation("B", better, per_task=200)], title=""))[0]
    assert told.startswith("B is more harmless than A by .")
    assert "helpfulness: no difference larger than ." in told
    story = tell([evaluation("A", same, per_task=200), evaluation("C", same, per_task=200)], title="")
    untold = verdict(story)[0]
    assert untold.startswith("C and A can't be told apart: they differ in harmlessness by at most .")
    row = story.comparisons[1].row("harmless")
    bound = float(untold.split("at most ")[1].split(" ")[0])
    assert bound >= max(abs(row.difference.low), abs(row.difference.high)) >= bound - 0.011


def test_verdict_of_a_model_alone():
    run = evaluation("A", per_task=100)
    assert format_estimate(run.scores["harmless"]) in verdict(tell([run], title=""))[0]


def test_the_best_model_is_told_first():
    lines = verdict(tell(world(("SFT", "DPO-H", "BFPO"), per_task=100), title=""))
    assert [line.split(" ")[0] for line in lines] == ["BFPO", "DPO-H"]


def test_a_name_that_looks_like_mathematics_or_a_number_is_drawn_as_it_is(tmp_path):
    subjects = subjects_of([evaluation("$x^2$ 1.23456 #0072b2", per_task=2), evaluation("b", per_task=2)])
    rows = [Row("row <&>", {0: Estimate(0.5, 0.4, 0.6, 9), 1: Estimate(0.5, 0.4, 0.6, 9)})]
    wide, narrow = rates_plot("name", subjects, rows, "rate", bars=True).write(tmp_path)
    for svg in (wide, narrow, (tmp_path / "name.svg").read_text()):
        assert "$x^2$ 1.23456 #0072b2" in svg
        assert "row &lt;&amp;&gt;" in svg
    assert "var(--c0)" in wide
    assert "#ffffff" not in wide


def terminal(evaluations):
    console = Console(width=160, file=StringIO())
    for table in score_tables(evaluations):
        console.print(table)
    return console.file.getvalue()


def test_terminal_tables_show_what_was_measured_and_nothing_else():
    first, second = world(("SFT", "BFPO"), per_task=12)
    text = terminal([first, second])
    for run in (first, second):
        for name in ("helpful", "harmless", "over_refusal", "incoherent", "likelihood/helpful", "likelihood/harmless"):
            assert format_estimate(run.scores[name]) in text
    only = replace(second, scores={"harmless": second.scores["harmless"]})
    assert len(score_tables([only])) == 1
    assert "helpful" not in terminal([only])
    assert terminal([first, only]).count("–") == 5
    assert score_tables([replace(only, scores={})]) == []


def test_win_rates_at_equal_length_and_corrected_attack_success_are_told():
    run = evaluation("BFPO", per_task=40)
    rate, corrected = Estimate(0.123, 0.1, 0.15, 40), Estimate(0.321, 0.3, 0.35, 40)
    row = TaskScore("AlpacaEval", "win_rate_length_controlled", "helpful", rate, True, 0.5, "generation")
    scores = run.scores | {"attack_success/corrected": corrected, "aggregate/harmless": rate}
    story = tell([replace(run, tasks=(*run.tasks, row), scores=scores)], title="")
    plain = next(t.estimate for t in run.tasks if (t.task, t.metric) == ("AlpacaEval", "helpful"))
    rates = str(length(story).tables[-1])
    assert format_estimate(rate) in rates
    assert format_estimate(plain) in rates
    assert format_estimate(corrected) in refusal(story).notes[-1]
    assert format_estimate(rate) in str(likelihoods(story).tables[-1])


def test_lengths_that_a_server_does_not_tell_are_left_out():
    run = evaluation("BFPO", per_task=40)
    story = tell([replace(run, generations=[replace(r, tokens=None) for r in run.generations])], title="")
    panel = length(story)
    assert panel.plots == []
    assert panel.tables[0].rows[0][1].text == "–"
