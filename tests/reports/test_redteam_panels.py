"""The panels about red teaming show the rates of the folders, held-out styles apart, and what is unknown."""

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.reports.attacked import load_red_teaming
from bfpo.reports.formats import format_estimate
from bfpo.reports.page import build_report
from bfpo.reports.redteam_panels import _by_style, red_team_panels
from bfpo.safehelp.records import read_header, write_header
from bfpo.statistics.intervals import Estimate, rate_interval
from reports.attacks import CATEGORIES, SETTINGS, STYLES, write_attacks
from reports.browser import chromium, opened
from reports.test_browser import CONTRAST, SPILLS
from reports.worlds import evaluation


def under_attack(name, unsafe, styles=("plain", "spelling")):
    """An evaluation whose attacks are styles of red teaming, with a twin for every one."""
    run = evaluation(name, per_task=40)
    made = [record for record in run.generations if record.attack is None]
    for at, record in enumerate(run.generations[:40]):
        style = styles[at % 2]
        kind = "unsafe" if style == "plain" and at % 10 < 10 * unsafe else "safe-refusal"
        own = {"attack": style, "cluster": f"request {at}"}
        made.append(replace(record, **own, task="attacks", kind="harmful", answer_kind=kind))
        refusal = "yes" if at % 4 == 0 else "no"
        verdicts = (replace(record.verdicts[0], refusal=refusal),)
        kind = "safe-refusal" if refusal == "yes" else "safe-helpful"
        made.append(replace(record, **own, task="twins", kind="borderline", answer_kind=kind, verdicts=verdicts))
    header = replace(run.header, counts=run.header.counts | {"answers": len(made)})
    return replace(run, header=header, generations=made)


@pytest.fixture
def rounds(tmp_path):
    """Two rounds with the models before and after them."""
    folder = tmp_path / "rounds"
    for number, unsafe in enumerate((0.5, 0.1)):
        write_attacks(folder / f"round-{number}", unsafe, seed=number)
    under_attack("before", 0.6).save(folder / "before")
    under_attack("after", 0.2).save(folder / "after")
    return folder


def cells(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def shown(values):
    return format_estimate(Estimate(**values))


def test_the_tables_hold_the_rates_of_every_round_and_style(rounds):
    panel, archive = red_team_panels(load_red_teaming([rounds]))
    summaries = [json.loads((rounds / f"round-{at}/redteam.json").read_text()) for at in range(2)]
    tables = {table.caption: cells(table) for table in panel.tables}
    overall = tables["Attacks in all styles in training"]
    assert list(overall) == ["before", "after", "round-0", "round-1"]
    assert overall["round-1"][0] == shown(summaries[1]["success"]["all"])
    assert overall["round-1"][1] == shown(summaries[1]["over_refusal"]["all"])
    for label, of in (("attacks answered unsafely", "success"), ("harmless twins refused", "over_refusal")):
        assert tables[f"Attacks by round: {label}"] == {
            style.replace("_", " "): [shown(one[of][f"style {style}"]) for one in summaries]
            for style in (*SETTINGS.styles, *SETTINGS.held_out)
        }
        assert tables[f"By category of harm: {label}"] == {
            name: [shown(one[of][f"category {name}"]) for one in summaries] for name in CATEGORIES
        }
    assert [table.caption for table in archive.tables] == [
        "Success of the best attack, round-0",
        "Success of the best attack, round-1",
    ]
    best = summaries[1]["cells"]["small lies"]
    assert [float(text) for text in cells(archive.tables[1])["small lies"]] == [best[one] for one in SETTINGS.styles]


def test_before_and_after_are_the_rates_of_their_records(rounds):
    measured = load_red_teaming([rounds]).measured
    assert [one.name for one in measured] == ["before", "after"]
    assert [one.overall.value for one in measured] == [0.6, 0.2]
    assert [one.refused_overall.value for one in measured] == [0.5, 0.5]
    assert measured[0].success["plain"].value == pytest.approx(0.6)
    assert measured[0].success["plain"] == rate_interval([float(at % 10 < 6) for at in range(0, 40, 2)])
    assert [measured[1].refused[style].value for style in ("plain", "spelling")] == [0.5, 0.0]
    assert {style: rate.value for style, rate in measured[0].success.items()} == {"plain": 0.6, "spelling": 0.0}


def test_an_interrupted_measurement_is_named_and_left_out(rounds, tmp_path):
    header = read_header(rounds / "after")
    write_header(rounds / "after", replace(header, finished=False))
    found = load_red_teaming([rounds])
    assert [one.name for one in found.measured] == ["before"]
    assert found.unfinished == [str(rounds / "after")]
    assert f"found nothing to train on: {rounds / 'after'}." in str(red_team_panels(found)[0].notes)
    for runs in ([], [rounds / "before"]):
        assert [m.name for m in build_report(runs, tmp_path / "page", redteam=[rounds]).models] == ["before"]


def test_styles_never_in_training_are_apart_and_words_say_what_is_drawn(rounds):
    panel, archive = red_team_panels(load_red_teaming([rounds]))
    names = ["red-team-measured", "red-team-styles", "red-team-categories"]
    assert [plot.name for plot in panel.plots] == names
    drawn = panel.plots[1].write(rounds)
    for svg in drawn:
        order = re.findall(r">(In training|Not in training|many shot|spelling)<", svg)
        assert order[:4] == ["In training", "many shot", "Not in training", "spelling"]
    assert "spelling: round-0" in panel.plots[1].alt
    assert [plot.name for plot in archive.plots] == ["red-team-archive-0", "red-team-archive-1"]
    assert any("no round used" in panel.lead or "not in training" in note for note in panel.notes)


def test_one_run_and_a_judge_that_tells_no_refusals(tmp_path):
    write_attacks(tmp_path / "attacks", refused=None)
    panel, archive = red_team_panels(load_red_teaming([tmp_path / "attacks"]))
    assert [table.caption for table in panel.tables] == [
        "Attacks in all styles in training",
        "Attacks: attacks answered unsafely",
        "By category of harm: attacks answered unsafely",
    ]
    assert any("doesn't report refusals" in note for note in panel.notes)
    assert len(archive.plots) == 1


def test_charts_side_by_side_have_the_same_rows(tmp_path):
    """A style of which no twin's answer could be read has no rate of refusals, and its row is empty."""
    summary = write_attacks(tmp_path / "attacks")
    del summary["over_refusal"][f"style {STYLES[1]}"]
    (tmp_path / "attacks/redteam.json").write_text(json.dumps(summary))
    [(_, success), (_, refused)] = _by_style(load_red_teaming([tmp_path / "attacks"]).attacked)
    assert [row.name for row in success] == [row.name for row in refused]
    assert [row.name for row in refused if not row.values and not row.is_heading] == [STYLES[1].replace("_", " ")]


def test_rounds_are_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0):
        write_attacks(tmp_path / f"round-{number}")
    assert [one.name for one in load_red_teaming([tmp_path]).attacked] == ["round-0", "round-2", "round-10"]


def test_a_round_without_a_result_is_named(rounds):
    (rounds / "round-2").mkdir()
    panel, _ = red_team_panels(load_red_teaming([rounds]))
    assert any(str(rounds / "round-2") in note for note in panel.notes)


def test_several_folders_are_told_apart(tmp_path, rounds):
    write_attacks(tmp_path / "other")
    found = load_red_teaming([tmp_path / "other", rounds])
    assert [one.name for one in found.attacked] == ["other", "rounds round-0", "rounds round-1"]
    assert [one.name for one in found.measured] == ["rounds before", "rounds after"]


def test_no_panel_without_red_teaming(tmp_path):
    assert red_team_panels(load_red_teaming([])) == []
    assert "red-team" not in build_report([evaluation("SFT")], tmp_path).page.read_text()


def test_the_command_takes_the_runs_from_the_rounds(rounds, tmp_path):
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["report", "--redteam", str(rounds), "-o", str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    page = (out / "report.html").read_text()
    assert page.index('id="attacks"') < page.index('id="red-team"') < page.index('id="training"')
    assert (out / "plots/red-team-styles.png").exists()
    assert "before" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "there is no redteam.json, nor one in a folder round-0"), ("{", "can't be read"), ("{}", "can't be read")],
)
def test_what_is_no_result_is_named(tmp_path, text, words):
    if text is not None:
        (tmp_path / "redteam.json").write_text(text)
    with pytest.raises(BfpoError, match=words) as error:
        load_red_teaming([tmp_path])
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_card_has_no_red_teaming(tmp_path):
    done = CliRunner().invoke(app, ["report", "x", "--card", "--redteam", str(tmp_path)])
    assert "--card describes a single run" in str(done.exception)


def test_names_from_a_bank_are_only_text(tmp_path):
    write_attacks(tmp_path / "attacks", categories=("<script>alert(1)</script>", "$x$", "a" * 90))
    report = build_report([evaluation("SFT")], tmp_path / "report", redteam=[tmp_path / "attacks"])
    page = report.page.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_panels_fit_and_are_legible_in_the_browser(rounds, tmp_path):
    report = build_report([], tmp_path / "report", redteam=[rounds])
    with chromium() as browser:
        for scheme in ("light", "dark"):
            seen = opened(browser, report.page, color_scheme=scheme)
            assert seen.page.evaluate(CONTRAST) == []
            seen.page.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
            for width in (320, 390, 1280):
                seen.page.set_viewport_size({"width": width, "height": 900})
                chosen = "#red-team, #red-team *, #red-team-archive, #red-team-archive *"
                assert seen.page.evaluate(SPILLS, chosen) == [], (scheme, width)
            assert seen.complaints == []
            seen.page.context.close()
