"""Parts of reports: numbers, sentences that claim no more than intervals do, the frontier, counts, names in plots."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bfpo.cli.compare import _cells
from bfpo.reports.breakdowns import (
    agreement_by_certainty,
    certainty,
    gaps_of,
    help_by_length,
    kinds_by_set,
    mean_tokens,
    starts_with_apology,
)
from bfpo.reports.charts import ChartRow, rates_plot
from bfpo.reports.diagnostic_panels import length
from bfpo.reports.drawing import short
from bfpo.reports.formats import format_estimate, format_number, format_p, format_signed
from bfpo.reports.report import prepare_report, report_models
from bfpo.reports.result_panels import attacks, categories, differences, likelihoods, refusal
from bfpo.reports.scatter import Point, frontier
from bfpo.reports.summary import scoreboard, sentences
from bfpo.reports.terminal import score_tables
from bfpo.safehelp.records import TaskScore
from bfpo.statistics.intervals import Estimate, rate_interval, wilson
from reports.worlds import Profile, evaluation, partly_rated, world


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, ".50"), (1.0, "1.0"), (0.996, "1.0"), (0.0, ".00"), (-0.021, "−.02"), (-0.001, ".00"), (1.5, "1.50")],
)  # fmt: skip
def test_numbers(value, text):
    assert format_number(value) == text


def test_signs_and_p_values():
    assert [format_signed(v) for v in (0.2, -0.2, 0.001)] == ["+.20", "−.20", ".00"]
    assert [format_p(p) for p in (None, 0.0001, 0.004, 0.03, 1.0)] == ["–", "< .001", ".004", ".03", "1.0"]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((0.5, 0.456, 0.544), ".50 [.46, .54]"),
        ((0.0034, -0.0034, 0.0101), "+.003 [−.003, +.010]"),
        ((0.006, 0.0004, 0.012), "+.0060 [+.0004, +.0120]"),
        ((0.02, 0.0, 0.06), "+.02 [.00, +.06]"),
        ((0.0, 0.0, 0.0), ".00 [.00, .00]"),
    ],
)  # fmt: skip
def test_intervals_have_enough_digits_to_see_on_which_side_of_0_they_end(estimate, text):
    found = Estimate(*estimate, 9)
    assert format_estimate(found, signed=not text.startswith(".50")) == text
    assert format_estimate(found) == text.replace("+", "")


def test_terminal_and_page_write_a_difference_the_same_way():
    report = prepared(*world(("SFT", "BFPO"), per_task=60))
    assert report.comparisons[1].row("harmless").discordant[0] != report.comparisons[1].row("harmless").discordant[1]
    rows = [row for row in report.comparisons[1].rows if row.task == "all" and row.group is None]
    for row, shown in zip(rows, differences(report).tables[0].rows, strict=True):
        _, difference, _, adjusted_p, discordant, detectable, n = _cells(row)
        assert f"{shown[1].text} {shown[1].note}" == difference
        assert [cell.text for cell in shown[3:]] == [n, discordant or "–", detectable]
        assert shown[2].text == adjusted_p


def test_prompts_without_a_rating_are_counted_beside_those_with_one():
    runs = [partly_rated(run, 12) for run in world(("SFT", "BFPO"), per_task=20)]
    by_task = differences(prepared(*runs)).tables[1]
    prompts = {row[0].text: row[3].text for row in by_task.rows}
    assert prompts["HarmBench, severity-weighted harm"] == "12 of 20 rated"
    assert {text for name, text in prompts.items() if "severity" not in name and "HarmBench" in name} == {"20"}


@given(st.text(max_size=80), st.integers(4, 40))
def test_short_names_fit(name, length):
    assert len(short(name, length)) <= length
    assert short(name, length).isprintable()
    assert short(name, length) == name or "…" in short(name, length) or "\ufffd" in short(name, length)


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (("a", "a", "a (2)"), ["a", "a (3)", "a (2)"]),
        (("a (2)", "a", "a", "a"), ["a (2)", "a", "a (3)", "a (4)"]),
        (("a", "a", "a (2)", "a (2)"), ["a", "a (3)", "a (2)", "a (2) (2)"]),
        (("a\u202e", "a\u2067"), ["a\ufffd", "a\ufffd (2)"]),
    ],
)
def test_names_of_models_are_unique_printable_and_their_own_where_they_can_be(names, unique):
    run = evaluation("a", per_task=1, likelihoods=False)
    runs = [replace(run, header=replace(run.header, model=name)) for name in names]
    assert [model.name for model in report_models(runs)] == unique


@pytest.mark.parametrize(
    "answer",
    ["I'm sorry, but no.", "Sorry, I can't", "I am so sorry", "  I apologize", "My apologies.", "I deeply apologise"],
)  # fmt: skip
def test_apologies(answer):
    assert starts_with_apology(answer)


@pytest.mark.parametrize("answer", ["", "Sure. I'm sorry for the wait.", "The sorry state of", "An apology is a start"])
def test_no_apologies(answer):
    assert not starts_with_apology(answer)


def point(name, x, y):
    model = report_models([evaluation(name, per_task=2)])[0]
    return Point(model, Estimate(x, x, x, 9), Estimate(y, y, y, 9))


def test_frontier_is_what_nobody_beats_in_both():
    points = [
        point("a", 0.9, 0.2),
        point("b", 0.5, 0.5),
        point("c", 0.4, 0.4),
        point("d", 0.1, 0.9),
        point("e", 0.1, 0.8),
    ]
    assert [p.model.name for p in frontier(points)] == ["d", "b", "a"]


def test_kinds_add_up_to_the_records():
    runs = world(("SFT", "BFPO"), per_task=50)
    groups = kinds_by_set(report_models(runs))
    assert [title.split(":")[0] for title, _ in groups] == ["HarmBench", "XSTest", "AlpacaEval"]
    for title, bars in groups:
        task = title.split(":")[0]
        for model, counts in bars:
            records = [r for r in model.evaluation.generations if r.task == task]
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


def test_equal_lengths_are_split_without_a_look_at_the_outcome():
    records = evaluation("SFT", per_task=400).generations
    helped = sorted((r for r in records if r.p_help), key=lambda record: record.p_help)
    # Almost all answers have the same length, and they come in the order of their help.
    cut = [replace(record, tokens=64 if at % 100 else 60 + at // 100 % 4) for at, record in enumerate(helped)]
    values = [estimate.value for _, estimate in help_by_length(cut)]
    assert max(values) - min(values) < 0.1


def test_gaps_are_the_training_ones():
    log = [{"step": 1, "cells/SU/gap": 2.0, "eval_cells/SU/gap": 9.0, "cells/SU/count": 3}, {"step": 2, "loss": 1.0}]
    assert gaps_of({"log": log}) == {"SU": [(1, 2.0)]}
    assert gaps_of({}) == {}


def prepared(*runs):
    return prepare_report(runs, Path())


def test_a_sentence_claims_a_difference_only_where_the_interval_does():
    better, same = Profile(unsafe=0.02), Profile(unsafe=0.4)
    runs = evaluation("A", same, per_task=200), evaluation("B", better, per_task=200)
    report = prepared(*runs)
    clear = sentences(report)[0]
    difference = format_estimate(report.comparisons[1].row("harmless").difference, signed=True)
    assert clear.startswith(
        f"Compared with A, B is safer (harmless {difference}, p < .001). B and A can't be told apart "
    )
    unclear = sentences(report := prepared(runs[0], evaluation("C", same, per_task=200)))[0]
    assert unclear.startswith("C and A can't be told apart in harmlessness (at most .")
    assert unclear.count("at most") == 3
    row = report.comparisons[1].row("harmless")
    bound = float(unclear.split("at most ")[1].split(" ")[0])
    assert bound >= max(abs(row.difference.low), abs(row.difference.high)) >= bound - 0.011


def test_over_refusal_counts_in_the_headline_and_in_the_order():
    """A model that is as safe but refuses far more comes last, and is never called better."""
    base, careful, refuser = Profile(0.4, 0.05), Profile(0.02, 0.05), Profile(0.02, 0.9)
    runs = [
        evaluation(name, profile, per_task=200) for name, profile in zip("ABC", (base, refuser, careful), strict=True)
    ]
    first, second = sentences(prepared(*runs))
    assert first.startswith("Compared with A, C is safer (harmless +")
    assert second.startswith("Compared with A, B is safer (harmless +")
    assert ") but is less helpful (helpful −" in second
    assert ") and refuses more borderline prompts (over-refusal +" in second
    assert " it " not in f"{first} {second}".lower()


def test_what_was_not_measured_is_said():
    def without(run, name):
        records = [replace(r, p_help=None, kind="harmful") if r.kind == "borderline" else r for r in run.generations]
        return replace(run, generations=records, scores={k: v for k, v in run.scores.items() if k != name})

    runs = [without(evaluation(name, per_task=40), "over_refusal") for name in "AB"]
    assert sentences(prepared(*runs))[0].endswith(" Over-refusal was not compared.")
    assert sentences(prepared(runs[0]))[0].endswith(" Over-refusal was not measured.")


def test_the_sentence_about_a_single_model():
    run = evaluation("A", per_task=100)
    assert format_estimate(run.scores["harmless"]) in sentences(prepared(run))[0]


def test_the_best_model_comes_first():
    lines = sentences(prepared(*world(("SFT", "DPO-H", "BFPO"), per_task=100)))
    assert [line.split(", ")[1].split(" ")[0] for line in lines] == ["BFPO", "DPO-H"]


def test_a_name_that_looks_like_mathematics_or_a_number_is_drawn_as_it_is(tmp_path):
    models = report_models([evaluation("$x^2$ 1.23456 #0072b2", per_task=2), evaluation("b", per_task=2)])
    rows = [ChartRow("row <&>", {0: Estimate(0.5, 0.4, 0.6, 9), 1: Estimate(0.5, 0.4, 0.6, 9)})]
    wide, narrow = rates_plot("name", models, rows, "rate", bars=True).write(tmp_path)
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


def test_tables_of_runs_of_other_sizes_and_suites_say_so():
    """The heading had the largest number, and the first one's suite, for all."""
    big, small = (evaluation(name, per_task=size) for name, size in (("big", 40), ("small", 12)))
    small = replace(small, header=replace(small.header, suite="another"))
    text = terminal([big, small])
    assert "(fixture, another)" in text
    assert text.count("n = 40") > 1 < text.count("n = 12")
    table = scoreboard(prepare_report([big, small], Path()).models)
    assert {cell.note for cell in table.rows[1][1:]} == {"n = 12", "n = 24", "n = 36"}
    assert "suite fixture, another" in table.caption


def test_win_rates_at_equal_length_and_corrected_attack_success_are_shown():
    run = evaluation("BFPO", per_task=40)
    rate, corrected = Estimate(0.123, 0.1, 0.15, 40), Estimate(0.321, 0.3, 0.35, 40)
    row = TaskScore("AlpacaEval", "win_rate_length_controlled", "helpful", rate, True, 0.5, "generation")
    scores = run.scores | {"attack_success/corrected": corrected, "aggregate/harmless": rate}
    report = prepared(replace(run, tasks=(*run.tasks, row), scores=scores))
    plain = next(t.estimate for t in run.tasks if (t.task, t.metric) == ("AlpacaEval", "helpful"))
    rates = str(length(report).tables[-1])
    assert format_estimate(rate) in rates
    assert format_estimate(plain) in rates
    assert format_estimate(corrected) in refusal(report).notes[-1]
    assert format_estimate(rate) in str(likelihoods(report).tables[-1])


def test_lengths_that_a_server_does_not_report_are_left_out():
    run = evaluation("BFPO", per_task=40)
    report = prepared(replace(run, generations=[replace(r, tokens=None) for r in run.generations]))
    panel = length(report)
    assert panel.plots == []
    assert panel.tables[0].rows[0][1].text == "–"


def test_nonsense_earns_no_star_beside_attack_success():
    """Answers that turn from safe to incoherent are less harmless, and no attack succeeds more or less often."""
    base, other = world(("SFT", "SFT"), per_task=300)

    def turned(run, name, before, after):
        records = [replace(r, answer_kind=after) if r.answer_kind == before else r for r in run.generations]
        return replace(run, header=replace(run.header, model=name), generations=records)

    def stars(report):
        cells = [
            [cell.text for row in panel.tables[0].rows for cell in row]
            for panel in (categories(report), attacks(report))
        ]
        return [any("*" in text for text in texts) for texts in cells]

    nonsense = turned(other, "nonsense", "safe-refusal", "incoherent")
    report = prepared(base, nonsense)
    assert report.comparisons[1].row("harmless").adjusted_p < 0.001
    assert stars(report) == [False, False]
    # The other way round: as many are harmless, and more attacks succeed.
    report = prepared(nonsense, turned(nonsense, "worse", "incoherent", "unsafe"))
    assert report.comparisons[1].row("harmless").difference.value == 0
    assert stars(report) == [True, True]


def test_intervals_of_diagnostics_are_over_clusters():
    """Ten answers to each of twenty prompts are twenty independent ones."""
    records = evaluation("SFT", per_task=80).generations
    few = [
        replace(record, task="t", cluster=str(at % 20), prompt=str(at % 20), sample=at // 20, tokens=10 + at % 20,
                p_help=(at % 20) / 19, answer_kind="safe-helpful", verdicts=record.verdicts[:1] * 2)
        for at, record in enumerate(records[:200])
    ]  # fmt: skip
    one = [record for record in few if record.sample == 0]
    same = mean_tokens(one), mean_tokens(few)
    assert same[1].high - same[1].low == pytest.approx(same[0].high - same[0].low, rel=0.05)
    (_, first), *_ = help_by_length(few)
    # Of the quarter with the shortest answers five prompts are left, and t with four degrees of freedom.
    shortest = [record for record in few if int(record.cluster) < 5]
    expected = rate_interval([r.p_help for r in shortest], [r.cluster for r in shortest])
    assert (first.low, first.high, first.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 50)
    judged = [
        replace(record, verdicts=tuple(replace(v, label="safe" if int(record.cluster) % 2 else "unsafe", p_safe=0.95)
                                       for v in record.verdicts))
        for record in few
    ]  # fmt: skip
    (share,) = agreement_by_certainty(judged).values()
    assert (share.value, share.n) == (0.5, 200)
    assert share.high - share.low > 2 * (wilson(100, 200).high - wilson(100, 200).low)
