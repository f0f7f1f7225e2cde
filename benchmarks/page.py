"""Size of a large page, and its speed: 5 models x 5,000 prompts, answers of 800 characters on average.

    python benchmarks/page.py --folder runs/page --output docs/results/page.md

The text is random words of random letters drawn from a flattened Zipf distribution, which compresses no better than
English. Times are measured in headless Chromium on this machine: opening, from navigation until the page shows the
first answers; filtering, from the event until the list is rebuilt and the next frame is painted.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import random
import shutil
import statistics
import string
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bfpo.reports.page import build_report
from bfpo.safehelp.answer_kinds import ANSWER_KINDS
from bfpo.safehelp.records import Evaluation
from reports.worlds import PROFILES, TASKS, evaluation

FILTERS: dict[str, tuple[str, str]] = {
    "set": ("set", "1"),
    "kind of answer": ("answer", str(list(ANSWER_KINDS).index("unsafe"))),
    "category": ("category", "2"),
    "safe in one model, unsafe in another": ("show", "flips"),
    "judges disagree": ("show", "disagree"),
    "longest answers first": ("sort", "longest"),
}
VOCABULARY = 20_000
SEARCHES = ("e", "placeholder question 4", "no such words as these", "quarrel")


def runs(models: int, prompts: int, characters: int) -> list[Evaluation]:
    """Evaluations whose answers never repeat."""
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    # Zipf's law, as in natural language, but flatter.
    chances = list(itertools.accumulate(1 / rank**0.8 for rank in range(1, VOCABULARY + 1)))
    made = []
    for name in list(PROFILES)[:models]:
        run = evaluation(name, per_task=-(-prompts // len(TASKS)))
        records = [replace(r, answer=_text(rng, words, chances, characters)) for r in run.generations[:prompts]]
        made.append(replace(run, generations=records))
    return made


def _text(rng: random.Random, words: list[str], chances: list[float], characters: int) -> str:
    length = max(40, round(rng.gauss(characters, characters / 4)))
    return " ".join(rng.choices(words, cum_weights=chances, k=length // 4))[:length]


def opened(page: Page, path: Path) -> float:
    """Seconds from navigation to the first answers on the page."""
    page.goto("about:blank")
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    return page.evaluate("performance.getEntriesByName('bfpo:open')[0].startTime") / 1000


FILTER = """async ([name, value]) => {
  const control = document.querySelector(`[name=${name}]`);
  const start = performance.now();
  control.value = value;
  control.dispatchEvent(new Event("input", { bubbles: true }));
  const done = performance.now();
  await new Promise((paint) => requestAnimationFrame(() => setTimeout(paint)));
  return [done - start, performance.now() - start, document.getElementById("count").textContent];
}"""


def filtered(page: Page, name: str, value: str) -> tuple[float, float, str]:
    """Milliseconds until the list is rebuilt and until it is painted, and the text of the result count."""
    rebuilt, painted, count = page.evaluate(FILTER, [name, value])
    page.evaluate(FILTER, [name, ""])
    return rebuilt, painted, count


def measure(path: Path, repeats: int) -> dict[str, Any]:
    """Open the page several times and filter it in every way."""
    found: dict[str, Any] = {"opens": [], "filters": {}}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        found["browser"] = browser.version
        for _ in range(repeats):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            found["opens"].append(opened(page, path))
            # The first search may come before idle time has prepared the text; it counts like the others.
            plan = [(f"search, first: {SEARCHES[0]!r}", "q", SEARCHES[0])]
            plan += [(label, name, value) for label, (name, value) in FILTERS.items()]
            plan += [(f"search: {text!r}", "q", text) for text in SEARCHES]
            for label, name, value in plan:
                found["filters"].setdefault(label, []).append(filtered(page, name, value))
            context.close()
        browser.close()
    return found


def report(found: dict[str, Any], size: int, models: int, prompts: int, characters: int) -> str:
    """The figures as Markdown."""
    opens = found["opens"]
    slowest = max(paint for times in found["filters"].values() for _, paint, _ in times)
    lines = [
        "# The page's size and speed",
        "",
        f"Is a page about {models} models and {prompts:,} prompts small enough to send, and fast enough to read?",
        "",
        f"**It has {size / 1e6:.1f} MB (limit 15), opens in {max(opens):.2f} s at worst (limit 2 s), and its slowest "
        f"filter takes {slowest:.0f} ms (limit 100 ms).**",
        "",
        "| measurement | median | worst | limit |",
        "|---|---|---|---|",
        f"| size of `report.html` | {size / 1e6:.1f} MB | | 15 MB |",
        f"| opening: first answers shown | {statistics.median(opens):.2f} s | {max(opens):.2f} s | 2 s |",
    ]
    for label, times in found["filters"].items():
        painted = [paint for _, paint, _ in times]
        lines.append(
            f"| filter, {label} ({times[0][2].split(' prompts')[0]}) | {statistics.median(painted):.0f} ms | "
            f"{max(painted):.0f} ms | 100 ms |"
        )
    lines += [
        "",
        "The time of a filter runs until the next frame is painted.",
        f"There are {characters} characters per answer on average, and two judges per answer. Answers are random words "
        "of random letters drawn from a flattened Zipf distribution and never repeat; they compress no better than "
        "English.",
        f"Headless Chromium {found['browser']} on {platform.machine()}; the page was opened {len(opens)} times.",
        "",
        "Made by `python benchmarks/page.py --folder runs/page --output docs/results/page.md` (two minutes, 2 cores).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Build, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--characters", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=5, help="how often to open the page; 0 only writes it")
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for the page; an existing page is measured unchanged"
    )
    parser.add_argument("--output", type=Path)
    wanted = parser.parse_args()
    path = wanted.folder / "report.html"
    if not path.exists():
        made = runs(wanted.models, wanted.prompts, wanted.characters)
        started = time.monotonic()
        build_report(made, wanted.folder, title="A large page")
        print(f"wrote {path} in {time.monotonic() - started:.0f} s", flush=True)
    if wanted.repeats:
        found = measure(path, wanted.repeats)
        text = report(found, path.stat().st_size, wanted.models, wanted.prompts, wanted.characters)
        print(text)
        if wanted.output:
            wanted.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
