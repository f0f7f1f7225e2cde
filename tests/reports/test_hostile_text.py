"""Models' text is only data: in no field does any of it run or fetch anything."""

from dataclasses import replace

import pytest

from bfpo.reports.page import build_report
from bfpo.safehelp.records import JudgeUsed
from reports.browser import chromium, opened
from reports.worlds import JUDGES, evaluation

RUN = "window.ran=(window.ran||0)+1"
HOSTILE = (
    f"<script>{RUN};alert(1)</script></script><script>{RUN}</script></style></title></textarea></svg>"
    f"<img src=http://192.0.2.1/x onerror={RUN}><svg onload={RUN}><a href='javascript:{RUN}'>x</a>"
    f"\"><iframe src=javascript:{RUN}></iframe>' onmouseover='{RUN}' style='background:url(http://192.0.2.1/y)' "
    "<!-- --> ]]> --> {{ 7*7 }} {% raw %} ${7*7} $x$ &lt;b&gt; \u2028\u2029 \u202e <base href=http://192.0.2.1/> <meta "
    "http-equiv=refresh content='0;url=http://192.0.2.1/'><link rel=stylesheet href=http://192.0.2.1/z>"
)
# What no XML may hold goes where only the page's JSON carries it.
ODD = HOSTILE + "\x00\x07\ud800"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    judges = tuple(JudgeUsed(HOSTILE, HOSTILE, judge.role) for judge in JUDGES)
    header = {
        "system_prompt": HOSTILE, "command": HOSTILE, "versions": {HOSTILE: HOSTILE}, "decoding": {HOSTILE: HOSTILE},
        "labelling_judge": HOSTILE, "started": HOSTILE, "base_model": HOSTILE, "suite": HOSTILE,
        "model_path": HOSTILE,
    }  # fmt: skip
    runs = []
    for name in (HOSTILE, f"second {HOSTILE}"):
        run = evaluation(name, per_task=12, judges=judges, text=HOSTILE, **header)
        records = [replace(r, prompt=ODD, answer=ODD, attack=f"{r.attack}{ODD}") for r in run.generations]
        tasks = tuple(replace(task, task=HOSTILE) for task in run.tasks if task.task in (HOSTILE, "bbq"))
        choices = [replace(r, task=HOSTILE, prompt=ODD, choices=(ODD, ODD)) for r in run.likelihoods if r.task == "bbq"]
        runs.append(replace(run, generations=records, tasks=tasks, likelihoods=choices))
    folder = tmp_path_factory.mktemp("hostile")
    return build_report(runs, folder, title=HOSTILE, context={HOSTILE: HOSTILE})


def test_nothing_runs_and_nothing_is_fetched(report):
    with chromium() as browser:
        seen = opened(browser, report.page)
        page = seen.page
        for details in page.query_selector_all("details"):
            details.evaluate("box => { box.open = true; }")
        for name in ("set", "category", "attack", "answer", "of", "show"):
            for option in page.query_selector_all(f"select[name={name}] option")[:3]:
                page.select_option(f"select[name={name}]", option.get_attribute("value"), force=True)
            page.select_option(f"select[name={name}]", "", force=True)
        for button in page.query_selector_all(".reveal")[:5]:
            button.click()
        page.hover(".text")
        page.hover(".badge")
        page.fill("input[name=q]", HOSTILE[:40])
        page.wait_for_timeout(200)
        assert page.evaluate("window.ran") is None
        assert seen.dialogs == []
        assert seen.requests == [report.page.as_uri()]
        assert seen.complaints == []
        assert page.evaluate("document.querySelectorAll('img, iframe, base, object, embed, link').length") == 0
        assert page.evaluate("[...document.querySelectorAll('[href]')].every(e => e.getAttribute('href')[0] === '#')")
        assert page.evaluate(
            "[...document.querySelectorAll('*')].every(e => e.getAttributeNames().every(n => !n.startsWith('on')))"
        )
        assert page.inner_text("h1").startswith("<script>window.ran")
        assert "<img src=http" in page.inner_text(".item .prompt")
        assert "{{ 7*7 }} {% raw %} ${7*7} $x$ &lt;b&gt;" in page.inner_text("h1")


def test_a_fragment_is_data_too(report):
    with chromium() as browser:
        fragment = "#answers?q=%3Cimg%20src=x%20onerror=window.ran=1%3E&set=%22%3E&page=-3&__proto__=1&constructor=2"
        seen = opened(browser, report.page, fragment)
        assert seen.page.evaluate("window.ran") is None
        assert seen.complaints == []


def test_plot_files_hold_text_as_text(report):
    from xml.etree import ElementTree

    plots = list(report.plots.glob("*.svg"))
    assert plots
    for path in plots:
        tags = {element.tag.split("}")[1] for element in ElementTree.parse(path).iter() if "}" in element.tag}
        assert not tags & {"script", "a", "image", "foreignObject", "img"}
