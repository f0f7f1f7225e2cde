"""The page: self-contained, and a model's text is never anything but text."""

import json
import re
from html.parser import HTMLParser

import pytest

from bfpo.judges.verdict import Verdict
from bfpo.reports.page import write_report
from bfpo.reports.table import format_estimate
from bfpo.safehelp.records import Evaluation, GenerationRecord, RunHeader
from bfpo.safehelp.scores import generation_scores
from bfpo.statistics.intervals import Estimate

NASTY = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "<a href='javascript:alert(1)'>x</a>", "<!--", "]]>", "\u2028\u2029", "{{ 7 * 7 }}", "&lt;b&gt;",
    "<svg onload=alert(1)>",
]  # fmt: skip


def evaluation(name, text="fine"):
    records = [
        GenerationRecord(
            "t", f"{kind}-{n}", 0, kind, text, text, text, text, text, text, 3, False, (Verdict("safe", 1.0),), 0.5,
            answer_kind, text,
        )
        for kind in ("benign", "borderline", "harmful")
        for n, answer_kind in enumerate(["unsafe" if kind == "harmful" else "safe-helpful", "safe-refusal"])
    ]  # fmt: skip
    rates = {
        f"likelihood/{factor}{suffix}": Estimate(0.5, 0.4, 0.6, 100)
        for factor in ("helpful", "harmless", "over_refusal")
        for suffix in ("", "/per_byte")
    }
    header = RunHeader(name, "microworld", decoding={"temperature": 0.7})
    return Evaluation(header, generation_scores(records) | rates, (), records, [])


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.data = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.data.append(data)


def parsed(page):
    elements = Elements()
    elements.feed(page.read_text(encoding="utf-8"))
    return elements


@pytest.mark.parametrize("text", NASTY)
def test_text_from_models_stays_text(tmp_path, text):
    plain = write_report([evaluation("A"), evaluation("B")], tmp_path / "plain", title="Title")
    nasty = write_report(
        [evaluation(text, text), evaluation("B", text)], tmp_path / "nasty", title=text, context={text: text}
    )
    before, after = parsed(plain.page), parsed(nasty.page)
    # matplotlib's drawing differs in coordinates; outside of it the page has the same elements.
    assert [tag for tag in after.tags if tag in ("script", "img", "a", "iframe", "object", "link")] == [
        tag for tag in before.tags if tag in ("script", "img", "a", "iframe", "object", "link")
    ]
    assert not [name for name, _ in after.attributes if name.startswith("on")]
    assert not [value for _, value in after.attributes if value and "javascript:" in value]
    blob = re.search(r'id="answers">(.*?)</script>', nasty.page.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(blob)
    items = json.loads(blob)["items"]
    assert {item["prompt"] for item in items} == {text}
    assert {answer[0] for item in items for answer in item["answers"].values()} == {text}


def test_page_fetches_nothing(tmp_path):
    page = write_report([evaluation("A"), evaluation("B")], tmp_path, title="Title", baseline="A").page
    elements = parsed(page)
    addresses = [value for name, value in elements.attributes if name in ("src", "href", "xlink:href", "action")]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "@import" not in page.read_text(encoding="utf-8")
    assert re.search(r"default-src 'none'", page.read_text(encoding="utf-8"))


def test_every_model_and_figure_is_on_the_page(tmp_path):
    files = write_report([evaluation("Alpha"), evaluation("Beta")], tmp_path, title="Title", baseline="Alpha")
    text = " ".join(parsed(files.page).data)
    for name in ("Alpha", "Beta", "Title", "n = 4", ".50 [.40 .60]"):
        assert name in text
    assert files.pareto.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("estimate", "text"),
    [(Estimate(0.5, 0.456, 0.544, 9), ".50 [.46 .54]"), (Estimate(1.0, 0.9, 1.0, 9), "1.0 [.90 1.0]"),
     (Estimate(0.0, 0.0, 0.05, 9), ".00 [.00 .05]")],
)  # fmt: skip
def test_figures_are_short(estimate, text):
    assert format_estimate(estimate) == text
