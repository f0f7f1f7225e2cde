"""The page shows the runs' results, is one file, and gives a reason for every panel without data."""

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Verdict
from bfpo.reports import diagnostic_panels, provenance, result_panels, summary
from bfpo.reports.formats import format_estimate
from bfpo.reports.packed_answers import answers_of
from bfpo.reports.page import build_report
from bfpo.reports.report import prepare_report, report_models
from bfpo.safehelp.figures import HEADLINE
from bfpo.safehelp.records import JudgeUsed
from reports.worlds import JUDGES, evaluation, world


class Elements(HTMLParser):
    VOID = frozenset(("meta", "br", "input", "link"))

    def __init__(self):
        super().__init__()
        self.attributes, self.text, self.open, self.unclosed = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    elements = Elements()
    elements.feed(page.read_text(encoding="utf-8"))
    return elements


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    runs = world(("SFT", "BFPO"), per_task=80)
    return runs, build_report(runs, tmp_path_factory.mktemp("two"))


def test_page_is_one_file_that_loads_nothing(two):
    _, report = two
    html, elements = report.page.read_text(), parsed(report.page)
    loads = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    assert all(value.startswith("#") for _, name, value in elements.attributes if name in loads)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert elements.unclosed == []
    assert elements.open == []


def test_identifiers_are_unique_and_references_lead_somewhere(two):
    _, report = two
    attributes = parsed(report.page).attributes
    identifiers = [value for _, name, value in attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    referred = {value[1:] for _, name, value in attributes if name in ("href", "xlink:href")}
    referred |= {word for _, name, value in attributes if name == "aria-labelledby" for word in value.split()}
    assert referred <= set(identifiers)


def test_every_headline_figure_is_on_the_page(two):
    runs, report = two
    text = " ".join(parsed(report.page).text).replace("\u00a0", " ")
    for run in runs:
        for name in HEADLINE:
            assert format_estimate(run.scores[name]) in text
    for word in ("guard-small@1f3a", "bfpo evaluate BFPO", "temperature 0.7", "5e5e5e5e5e5e", "25 min"):
        assert word in text


def test_every_plot_is_written_as_png_and_svg_and_has_words(two):
    _, report = two
    names = {path.stem for path in report.plots.iterdir()}
    assert names == {
        "headline", "headline-likelihood", "refusal", "answer-kinds", "categories-harmful", "categories-borderline",
        "attacks", "likelihoods", "judges", "length",
    }  # fmt: skip
    for name in names:
        assert (report.plots / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<text" in (report.plots / f"{name}.svg").read_text()
    labels = [value for tag, name, value in parsed(report.page).attributes if (tag, name) == ("div", "aria-label")]
    assert sum("SFT" in label and "BFPO" in label for label in labels) >= len(names) - 1


def test_answers_travel_whole(two):
    runs, report = two
    blob = re.search(r'id="packed">([^<]*)</script>', report.page.read_text())[1]
    data = json.loads(zlib.decompress(base64.b64decode(blob)))
    assert data["models"] == ["SFT", "BFPO"]
    unpacked = {
        (data["models"][at], item[1], sample[0], data["answerKinds"][sample[1]])
        for item in data["items"]
        for at, samples in enumerate(item[6])
        for sample in samples
    }
    assert unpacked == {(run.model, r.item, r.answer, r.answer_kind) for run in runs for r in run.generations}


def test_panels_without_data_say_why(tmp_path):
    run = evaluation("BFPO", per_task=30, likelihoods=False, judges=())
    plain = replace(run, generations=[replace(r, category=None, attack=None, verdicts=()) for r in run.generations])
    report = build_report([plain], tmp_path)
    text = " ".join(" ".join(parsed(report.page).text).split())
    for reason in (
        "there is only one run on this page", "have no categories", "use no attacks",
        "have no tasks measured by likelihood", "no model's folder contains the log of a training run",
        "there was no second judge",
    ):  # fmt: skip
        assert reason in text
    assert not (report.plots / "attacks.png").exists()


def test_a_run_of_likelihoods_alone_is_a_page_too(tmp_path):
    run = evaluation("BFPO", per_task=4)
    scores = {name: value for name, value in run.scores.items() if name.startswith("likelihood/")}
    tasks = tuple(task for task in run.tasks if task.kind == "likelihood")
    page = build_report([replace(run, generations=[], scores=scores, tasks=tasks)], tmp_path).page
    text = " ".join(" ".join(parsed(page).text).split())
    assert "no answers were sampled" in text
    assert "no run on this page sampled answers" in text
    assert 'id="packed"' not in page.read_text()


def test_runs_that_differ_in_their_judge_are_shown_but_not_compared(tmp_path):
    first, second = world(("SFT", "BFPO"), per_task=20)
    other = replace(second, header=replace(second.header, judges=second.header.judges[:1]))
    report = prepare_report([first, other], tmp_path)
    assert report.comparisons == {}
    reason = "BFPO can't be compared with SFT: their judges or the judges"
    assert summary.sentences(report)[0].startswith(reason)
    assert result_panels.differences(report).absent.startswith(reason)
    assert len(result_panels.headline(report).plots) == 2
    assert format_estimate(other.scores["harmless"]) in str(summary.scoreboard(report.models))


def test_equal_models_are_better_in_neither_figure():
    run = evaluation("SFT", per_task=40)
    (table,) = result_panels.headline(prepare_report([run, run], Path())).tables
    assert [cell.text for cell in table.head] == ["model", "better in both", "worse in both", "neither"]
    assert [cell.text for cell in table.rows[0][1:]] == ["< .01", "< .01", "> .99"]


def test_figures_that_do_not_vary_have_crosses_instead_of_a_region_without_extent():
    run = evaluation("SFT", per_task=40, likelihoods=False)
    whole = result_panels.headline(prepare_report([run], Path())).lead
    assert "Shaded areas are joint" in whole
    assert "Crosses" not in whole
    safe = [replace(r, answer_kind="safe-refusal") if r.kind == "harmful" else r for r in run.generations]
    lead = result_panels.headline(prepare_report([replace(run, generations=safe)], Path())).lead
    assert "Shaded" not in lead
    assert "Crosses are 95 % intervals of each figure." in lead


def test_thirty_models_have_thirty_looks():
    models = report_models([evaluation(f"m{at}", per_task=1, likelihoods=False) for at in range(31)])
    assert len({(model.color, model.marker) for model in models}) == 31


def test_training_is_read_from_the_models_folder(tmp_path):
    log = [{"step": step, "cells/SU/gap": 2.0 - step / 10, "cells/UU/gap": 0.5} for step in range(0, 20, 5)]
    (tmp_path / "run.json").write_text(json.dumps({"config": {}, "log": log}))
    run = evaluation("BFPO", per_task=20, model_path=str(tmp_path))
    panel = diagnostic_panels.training(prepare_report([run], tmp_path))
    assert [plot.name for plot in panel.plots] == ["training-gap"]
    assert "2.00 → .50" in str(panel.tables)
    assert "BFPO, only chosen safe: from 2.00 to .50" in panel.plots[0].alt
    panel.plots[0].write(tmp_path)
    assert (tmp_path / "training-gap.png").exists()


@pytest.mark.parametrize(
    ("evaluations", "baseline", "message"),
    [([], None, "at least one evaluation"), (["BFPO"], "BFPQ", r"no evaluation of a model 'BFPQ' \(did you mean")],
)  # fmt: skip
def test_wrong_requests_are_refused(evaluations, baseline, message, tmp_path):
    with pytest.raises(BfpoError, match=message):
        build_report([evaluation(name, per_task=4) for name in evaluations], tmp_path, baseline=baseline)


@pytest.mark.usefixtures("without_plots")
def test_two_runs_of_one_name_get_different_names(tmp_path):
    report = prepare_report([evaluation("BFPO", per_task=4), evaluation("BFPO", per_task=4)], tmp_path, baseline=1)
    assert [(model.name, model.is_baseline) for model in report.models] == [("BFPO", False), ("BFPO (2)", True)]


@pytest.mark.usefixtures("without_plots")
def test_a_report_reads_folders_and_finds_the_baseline_by_folder_or_name(tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder, run in zip(folders, world(("SFT", "BFPO"), per_task=4), strict=True):
        run.save(folder)
    by_folder = build_report(folders, tmp_path / "report", baseline=folders[1])
    assert (by_folder.baseline.name, by_folder.page) == ("BFPO", tmp_path / "report" / "report.html")
    assert by_folder.page.exists()
    assert by_folder.plots.is_dir()
    by_name = build_report([str(folder) for folder in folders], str(tmp_path / "again"), baseline="BFPO")
    assert by_name.baseline.name == "BFPO"
    assert by_name.page.read_text().count("BFPO") == by_folder.page.read_text().count("BFPO")


def test_a_new_headline_figure_reaches_the_page_without_another_change(monkeypatch):
    run = evaluation("BFPO", per_task=4)
    new = replace(HEADLINE["helpful"], name="brevity", label="brief", higher_is_better=False)
    monkeypatch.setitem(HEADLINE, "brevity", new)
    run = replace(run, scores=run.scores | {"brevity": run.scores["helpful"]})
    head = summary.scoreboard(prepare_report([run], Path()).models).head[-1]
    assert (head.text, head.note) == ("brief", f"lower is better, n = {run.scores['helpful'].n}")


@pytest.mark.usefixtures("without_plots")
def test_verdicts_on_refusals_and_a_servers_tokens_are_on_the_page(tmp_path):
    run = evaluation("BFPO", per_task=8)
    first, *rest = run.generations
    judged = replace(first, refusal_verdict=Verdict("unparsed", None, "yes", raw="p .9", judge_id="refusals"))
    header = replace(run.header, counts={**run.header.counts, "completion_tokens": 12345, "unanswered": 0}, cost=0.0185)
    page = build_report([replace(run, generations=[judged, *rest], header=header)], tmp_path).page
    data = json.loads(
        zlib.decompress(base64.b64decode(re.search(r'id="packed">([^<]*)</script>', page.read_text())[1]))
    )
    (sample,) = (item[6][0][0] for item in data["items"] if item[1] == first.item)
    assert sample[7:] == ["", ["refusals", data["refusals"].index("yes"), "p .9"]]
    text = " ".join(parsed(page).text)
    assert "completion tokens" in text
    assert "12,345" in text
    assert "0.0185" in text
    assert "unanswered" not in [cell.text for cell in provenance.runs(report_models([run])).head]


def test_answers_stand_under_their_own_prompt_and_judge():
    first, second = world(("SFT", "BFPO"), per_task=8)
    own = replace(second.generations[0], prompt="Another prompt of the same number?")
    other = [replace(v, judge_id=f"other {at}") for at, v in enumerate(own.verdicts, 1)]
    own = replace(own, verdicts=tuple(other))
    second = replace(second, generations=[own, *second.generations[1:]])
    data = answers_of(report_models([first, second]))
    assert data["judges"] == [[judge.judge_id for judge in JUDGES], ["other 1", "other 2"]]
    shown = [(item[5], [[sample[0] for sample in samples] for samples in item[6]]) for item in data["items"]]
    old = first.generations[0]
    assert shown[0] == (old.prompt, [[old.answer], []])
    assert shown[-1] == (own.prompt, [[], [own.answer]])
    assert len(shown) == len(first.generations) + 1


def test_reliability_is_of_the_baselines_judges_alone():
    first, second, third = world(("SFT", "BFPO", "DPO"), per_task=30)
    lone = (JudgeUsed("guard-other", "", "primary"),)
    header = replace(second.header, judges=lone)
    judged = [replace(r, verdicts=(Verdict("safe", 0.55, judge_id="guard-other"),)) for r in second.generations]
    both = diagnostic_panels.judges(prepare_report([first, third], Path()))
    with_other = diagnostic_panels.judges(
        prepare_report([first, replace(second, header=header, generations=judged), third], Path())
    )
    assert [plot.alt for plot in with_other.plots] == [plot.alt for plot in both.plots]
    assert with_other.notes[-1] == "Without BFPO: other judges than those of SFT, or other templates."
    assert with_other.notes[:-1] == both.notes
    blind = [replace(r, verdicts=()) for r in first.generations]
    blind = replace(first, generations=blind, header=replace(first.header, judges=()))
    absent = diagnostic_panels.judges(prepare_report([blind, third], Path())).absent
    assert absent.endswith("Without DPO: other judges than those of SFT, or other templates")


def test_a_judge_of_zeros_and_ones_is_called_exact_only_if_it_is_the_oracle():
    def lead(judge):
        used = (JudgeUsed(judge, "", "primary"), JudgeUsed("helper", "", "helpfulness"))
        run = evaluation("BFPO", per_task=8, judges=(used[0],))
        sure = [replace(r, verdicts=(Verdict("safe", 1.0, judge_id=judge),)) for r in run.generations]
        run = replace(run, generations=sure, header=replace(run.header, judges=used))
        return diagnostic_panels.judges(prepare_report([run], Path())).lead

    assert lead("microworld-oracle") == "The judge is the microworld's oracle, which is exact."
    assert lead("people").startswith(
        "The judge gave only probabilities of 0 and 1, which show nothing about its errors"
    )


@pytest.mark.usefixtures("without_plots")
def test_thinking_travels_apart_from_the_answer_and_missing_answers_have_their_reason(tmp_path):
    run = evaluation("BFPO", per_task=30)
    thinks, refused, failed, *rest = run.generations
    changed = [
        replace(thinks, thinking="Let me see."),
        replace(refused, answer="", refusal="HTTP 400: filtered", answer_kind="provider-refusal"),
        replace(failed, answer="", failure="HTTP 400: too long", answer_kind="unanswered"),
    ]
    page = build_report([replace(run, generations=[*changed, *rest])], tmp_path / "report").page.read_text()
    data = json.loads(zlib.decompress(base64.b64decode(re.search(r'id="packed">([^<]*)</script>', page)[1])))
    samples = {item[1]: item[6][0][0] for item in data["items"]}
    assert samples[thinks.item][0] == thinks.answer
    assert samples[thinks.item][7:] == ["Let me see."]
    assert samples[refused.item][:1] + samples[refused.item][7:] == ["[HTTP 400: filtered]"]
    assert samples[failed.item][0] == "[HTTP 400: too long]"
    assert "declined by the provider's filter" in page.replace("&#39;", "'")


def test_what_is_to_be_read_with_care_in_several_runs_is_said_once(monkeypatch):
    models = report_models([evaluation(name, per_task=8) for name in ("base", "SFT", "BFPO")])
    found = {"base": ["Few.", "Cut."], "SFT": ["Few.", "Cut.", "Odd."], "BFPO": ["Few."]}
    monkeypatch.setattr(provenance, "run_cautions", lambda run: found[run.model])
    told = provenance.cautions(models)
    assert told[:3] == ["all models: Few.", "base, SFT: Cut.", "SFT: Odd."]
    monkeypatch.setattr(provenance, "run_cautions", lambda run: ["Few."])
    assert provenance.cautions(models[:1])[0] == "base: Few."
