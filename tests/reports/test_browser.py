"""The answers' browser in a real Chromium: filters, hidden harm, permalinks, export, keys, widths, fonts, colors."""

import base64
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest

from bfpo.judges.verdict import Verdict
from bfpo.reports.page import build_report
from reports.browser import chromium, opened
from reports.worlds import world

LONGEST = """[...document.querySelectorAll(".item")].map(
  (item) => Math.max(...[...item.querySelectorAll(".text")].map((text) => text.textContent.length)))"""
ALL_HIDDEN = """[...document.querySelectorAll(".answer")].every(
  (answer) => !answer.querySelector("[data-kind=unsafe]") || answer.querySelector(".blurred")?.inert)"""
TABLES_HAVE_HEADS = """[...document.querySelectorAll("table")].every(
  (table) => table.caption && table.querySelector("th[scope=col]") && table.querySelector("th[scope=row]"))"""
# WCAG 2.2's contrast of every visible text with what lies behind it; those below 4.5 come back.
CONTRAST = """() => {
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, at) => sum + w * linear(c[at] / 255), 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("h1,h2,h3,h4,p,li,dt,dd,th,td,small,summary,label,button,span,a")) {
    if (!e.textContent.trim() || !e.checkVisibility() || e.closest("[inert], .skip, :disabled")) continue;
    const both = [luminance(numbers(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    if (ratio < 4.5) found.push(`${e.tagName} ${e.className} ${e.textContent.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""
# Elements of which something shows beyond the window's right edge, unless a box of theirs scrolls or clips.
SPILLS = """(chosen) => [...document.querySelectorAll(chosen)].filter((element) => {
  if (element.matches("svg g, svg g *:not(text)")) return false;
  const box = element.getBoundingClientRect();
  if (!element.checkVisibility() || box.width === 0 || box.right <= innerWidth + 1) return false;
  return !element.parentElement.closest(".scroll, .blurred, pre");
}).map((element) => `${element.tagName} ${element.className} ${element.textContent.slice(0, 40)}`)"""
# What of the headline table has to be scrolled for: cells or text beyond the table's box, or the box beyond the window.
HEADLINE_SPILLS = """() => {
  const box = document.querySelector("header .scroll");
  const right = Math.min(innerWidth, box.getBoundingClientRect().right) + 1;
  const range = document.createRange();
  const reaches = (cell) => { range.selectNodeContents(cell); return range.getBoundingClientRect().right; };
  const cells = [...box.querySelectorAll("caption, th, td")].filter((cell) => cell.checkVisibility());
  const spilled = cells.filter((cell) => Math.max(cell.getBoundingClientRect().right, reaches(cell)) > right);
  if (box.scrollWidth > box.clientWidth) spilled.push(box);
  return spilled.map((element) => element.textContent);
}"""
# Matplotlib's own files, so that no test depends on the fonts of a machine; the second number scales all widths.
# DejaVu Sans is about 15 % wider than Arial and Liberation Sans, 7 % wider than Noto Sans.
FONTS = {
    "as wide as Arial": ("DejaVuSans.ttf", 87),
    "as wide as Noto Sans": ("DejaVuSans.ttf", 93),
    "DejaVu Sans": ("DejaVuSans.ttf", 100),
    "DejaVu Sans Mono": ("DejaVuSansMono.ttf", 100),
    "very wide": ("DejaVuSans-Bold.ttf", 135),
}
LONG = "an-organization/a-model-with-quite-a-long-name-7b-instruct-v0.3"


@pytest.fixture(scope="module")
def runs():
    return world(("SFT", "BFPO", LONG), per_task=60)


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    return build_report(runs, tmp_path_factory.mktemp("browser"), title="A title").page


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser, report):
    seen = opened(browser, report, accept_downloads=True)
    yield seen.page
    assert seen.complaints == []
    seen.page.context.close()


def font_style(file, percent):
    """CSS that sets everything in one font, whatever is installed."""
    data = base64.b64encode((Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file).read_bytes()).decode()
    face = f"font-family: Brought; src: url(data:font/ttf;base64,{data}); size-adjust: {percent}%; font-weight: 1 999"
    return f"@font-face {{ {face}; }} * {{ font-family: Brought !important; }}"


def count(page):
    return int(page.inner_text("#count").split(" of ")[0].replace(",", ""))


def kinds(run):
    return {record.item: record.answer_kind for record in run.generations}


def test_filters_find_what_the_records_hold(page, runs):
    records = runs[0].generations
    assert count(page) == len(records)
    page.select_option("[name=set]", label="HarmBench")
    assert count(page) == 60
    page.select_option("[name=category]", label="cybercrime")
    wanted = sum(record.category == "cybercrime" for record in records)
    assert count(page) == wanted
    page.select_option("[name=attack]", label="prefix")
    assert count(page) == sum(record.category == "cybercrime" and record.attack == "prefix" for record in records)
    page.click("#all")
    page.select_option("[name=answer]", label="incoherent")
    page.select_option("[name=of]", label="BFPO")
    assert count(page) == sum(kind == "incoherent" for kind in kinds(runs[1]).values())


def test_flips_from_safe_to_unsafe(page, runs):
    safe = ("safe-helpful", "safe-refusal", "partial")
    first, second = kinds(runs[0]), kinds(runs[1])
    assert not page.is_visible("[name=from]")
    page.select_option("[name=show]", "flips")
    assert count(page) == sum(first[item] in safe and second[item] == "unsafe" for item in first)
    page.select_option("[name=from]", label="BFPO")
    page.select_option("[name=to]", label="SFT")
    assert count(page) == sum(second[item] in safe and first[item] == "unsafe" for item in first)
    assert count(page) > 3


def test_disagreements_of_the_judges(page, runs):
    differ = {r.item for run in runs for r in run.generations if r.verdicts[0].label != r.verdicts[1].label}
    page.select_option("[name=show]", "disagree")
    assert count(page) == len(differ) > 0
    assert page.locator(".item").first.locator("summary.differ").count() > 0


def test_search_reads_prompts_and_answers_of_every_model(page, runs):
    record = runs[2].generations[7]
    page.fill("[name=q]", record.answer[5:40].upper())
    assert count(page) == 1
    assert page.inner_text(".prompt") == record.prompt
    page.fill("[name=q]", "no such text")
    assert count(page) == 0


def test_pages_turn_and_the_longest_come_first(page):
    first = page.inner_text(".item >> nth=0 >> .prompt")
    assert page.is_disabled("#previous")
    page.click("#next")
    assert page.inner_text(".item >> nth=0 >> .prompt") != first
    assert "page 2 of" in page.inner_text("#count")
    page.select_option("[name=sort]", "longest")
    lengths = page.evaluate(LONGEST)
    assert lengths == sorted(lengths, reverse=True)


def test_harmful_text_is_hidden_until_asked_for(page):
    page.select_option("[name=answer]", label="unsafe")
    assert page.locator(".reveal").count() > 0
    assert page.evaluate(ALL_HIDDEN)
    hidden = page.locator(".veil").first
    assert "blur" in hidden.locator(".blurred").evaluate("box => getComputedStyle(box).filter")
    text = hidden.locator(".text").evaluate("box => box.textContent")
    hidden.locator(".reveal").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == text
    page.check("#revealed")
    assert page.locator(".reveal").count() == 0


SAFE, UNSAFE, UNSURE, LOST = (
    Verdict(label, None, judge_id="a") for label in ("safe", "unsafe", "controversial", "unparsed")
)


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("harmful", {"verdicts": (SAFE, UNSAFE), "answer_kind": "safe-helpful"}, "judged unsafe"),
        ("borderline", {"verdicts": (LOST, UNSURE), "answer_kind": "unjudged"}, "judged unsafe"),
        ("borderline", {"verdicts": (LOST,), "answer_kind": "unjudged"}, "of unknown safety"),
        ("benign", {"verdicts": (), "answer_kind": "unjudged"}, None),
        ("benign", {"verdicts": (UNSAFE,), "answer_kind": "unsafe"}, "judged unsafe"),
        ("borderline", {"verdicts": (LOST, SAFE), "answer_kind": "unjudged"}, None),
        ("harmful", {"verdicts": (LOST,), "answer": "", "answer_kind": "incoherent"}, None),
        ("harmful", {"verdicts": (), "answer": "", "failure": "HTTP 500", "answer_kind": "unanswered"}, None),
    ],
)
def test_text_is_hidden_if_any_judge_finds_it_unsafe_or_none_could_read_it(
    browser, runs, tmp_path, kind, changes, reason
):
    run = runs[0]
    record = replace(next(record for record in run.generations if record.kind == kind), item="first", **changes)
    report = build_report([replace(run, generations=[record, *run.generations])], tmp_path / "report").page
    seen = opened(browser, report)
    shown = seen.page.locator("[aria-label=first]")
    assert shown.locator(".text").count() == 1
    buttons = shown.locator(".reveal").all_inner_texts()
    assert buttons == ([f"Show answer {reason} ({len(record.answer)} characters)"] if reason else [])
    seen.page.context.close()


@pytest.mark.usefixtures("without_plots")
def test_text_is_written_in_its_own_direction(browser, runs, tmp_path):
    """A Hebrew text reads from the right, also where it begins with a mark, and an English one from the left."""
    hebrew, run = "1. \u05e9\u05dc\u05d5\u05dd, world!", runs[0]
    verdict = replace(SAFE, raw=hebrew)
    record = replace(
        run.generations[0], item="first", prompt=hebrew, answer=hebrew, thinking=hebrew, verdicts=(verdict,)
    )
    report = build_report([replace(run, generations=[record, *run.generations])], tmp_path / "report").page
    seen = opened(browser, report)
    first, second = seen.page.locator(".item").all()[:2]
    for summary in first.locator("summary").all():
        summary.click()
    direction = "elements => elements.map(element => getComputedStyle(element).direction)"
    # What a click opens is written a moment later.
    first.locator(".prompt, .text, pre").nth(3).wait_for()
    assert first.locator(".prompt, .text, pre").evaluate_all(direction) == ["rtl"] * 4
    assert set(first.locator("h4, .facts").evaluate_all(direction)) == {"ltr"}
    assert second.locator(".prompt, .text").evaluate_all(direction) == ["ltr"] * 2
    seen.page.context.close()


def test_addresses_bring_back_the_selection(browser, report, page):
    page.select_option("[name=set]", label="XSTest")
    page.fill("[name=q]", "placeholder question 1")
    found, address = count(page), page.evaluate("location.hash")
    again = opened(browser, report, address).page
    assert count(again) == found
    assert again.input_value("[name=q]") == "placeholder question 1"
    again.click(".permalink >> nth=0")
    again.wait_for_function("document.getElementById('count').textContent.startsWith('1 of')")
    again.context.close()


def test_export_is_the_selection(page, runs):
    page.select_option("[name=set]", label="HarmBench")
    with page.expect_download() as waiting:
        page.click("#export")
    rows = [json.loads(line) for line in waiting.value.path().read_text().splitlines()]
    wanted = {
        (run.model, r.item, r.answer, r.answer_kind) for run in runs for r in run.generations if r.task == "HarmBench"
    }
    assert {(row["model"], row["item"], row["answer"], row["answer_kind"]) for row in rows} == wanted
    assert {verdict["judge_id"] for row in rows for verdict in row["verdicts"]} == {
        "guard-small@1f3a",
        "guard-large@77bc",
    }


def test_everything_is_reached_by_keys_with_a_visible_focus(page):
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.name || document.activeElement.className"
            )
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"skip", "theme", "q", "show", "revealed", "export", "permalink"} <= reached


@pytest.mark.parametrize("font", FONTS)
def test_page_fits_any_font_at_any_width(browser, report, font):
    page = opened(browser, report, bypass_csp=True).page
    page.add_style_tag(content=font_style(*FONTS[font]))
    page.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    page.evaluate("document.fonts.ready")
    assert page.evaluate("[...document.fonts].map(font => font.status)") == ["loaded"]
    for width in (320, 360, 390, 768, 1200, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        assert page.evaluate(SPILLS, "body *") == [], (font, width)
        assert page.evaluate(HEADLINE_SPILLS) == [], (font, width)
        assert page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth") <= 0
    page.context.close()


def test_a_headline_table_too_wide_is_noticed(browser, report):
    page = opened(browser, report, viewport={"width": 390, "height": 844}).page
    page.add_style_tag(content=".scroll table { display: table; width: 120%; }")
    assert len(page.evaluate(HEADLINE_SPILLS)) > 0
    page.add_style_tag(
        content=".scroll { overflow: visible; } .sentences { white-space: nowrap; overflow-wrap: normal; }"
    )
    assert len(page.evaluate(SPILLS, ".sentences *")) > 0
    assert page.evaluate("document.scrollingElement.scrollWidth") > 390
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser, report, scheme):
    seen = opened(browser, report, color_scheme=scheme)
    assert seen.page.evaluate(CONTRAST) == []
    before = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    seen.page.click("#theme")
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert seen.page.evaluate(CONTRAST) == []
    seen.page.context.close()


def test_print_leaves_the_browser_out(browser, report):
    seen = opened(browser, report)
    seen.page.emulate_media(media="print")
    assert not seen.page.is_visible("#answers")
    assert seen.page.is_visible("#headline svg")
    seen.page.context.close()


def test_structure_for_screen_readers(page):
    assert page.evaluate(
        "['header', 'nav', 'main', 'footer'].every(tag => document.querySelectorAll(`.frame > ${tag}`).length === 1)"
    )
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate(TABLES_HAVE_HEADS)
    assert page.evaluate(
        "[...document.querySelectorAll('[role=img]')].every(i => i.getAttribute('aria-label').length > 40)"
    )
    assert page.evaluate("[...document.querySelectorAll('select, input')].every(c => c.labels.length === 1)")


@pytest.mark.usefixtures("without_plots")
def test_thinking_is_shown_when_it_is_opened(browser, runs, tmp_path):
    run, *_ = runs
    thinks = replace(run.generations[0], thinking="<b>Let me see.</b>")
    report = build_report([replace(run, generations=[thinks, *run.generations[1:]])], tmp_path / "report").page
    seen = opened(browser, report, f"#item={thinks.task}/{thinks.item}")
    box = seen.page.locator("details", has_text="thinking (not judged")
    assert box.locator("pre").count() == 0
    box.locator("summary").click()
    assert box.locator("pre").text_content() == "<b>Let me see.</b>"
    seen.page.context.close()


@pytest.mark.usefixtures("without_plots")
def test_the_verdict_of_the_judge_of_refusals_is_shown_with_the_others(browser, runs, tmp_path):
    run, *_ = runs
    first = replace(run.generations[0], refusal_verdict=Verdict("unparsed", None, "yes", judge_id="<i>keywords</i>"))
    report = build_report([replace(run, generations=[first, *run.generations[1:]])], tmp_path / "report").page
    seen = opened(browser, report, f"#item={first.task}/{first.item}")
    box = seen.page.locator("details.verdicts").first
    box.locator("summary").click()
    assert box.locator("li").last.text_content() == "<i>keywords</i>: refusal"
    seen.page.context.close()
