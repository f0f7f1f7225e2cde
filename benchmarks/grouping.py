"""Speed of training on pairs and on the same pairs grouped by prompt: one epoch of the microworld's safety set.

Needs ../shared/data (public samples that are not part of the repository), to count what recurs in real sets.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import datasets

from bfpo import BFPOConfig, BFPOTrainer, load_preferences
from bfpo.files import write_text
from bfpo.microworld.data import safety_set
from bfpo.models import MICROWORLD, load_model, load_tokenizer
from bfpo.preferences.grouping import group_by_prompt, with_equal_pairs
from bfpo.preferences.loading import convert
from bfpo.preferences.reading import dataset_source
from bfpo.quickstart import Scale
from bfpo.quiet import quiet_libraries
from bfpo.training.training_data import Blend, TrainingSource

ROUNDS = 3
INTRODUCTION = """# Pairs grouped by prompt

How much faster is training on pairs that are grouped by prompt?

**{answer}**
"""
COLUMNS = ("data", "pairs per prompt", "answers", "grouped", "largest group", "seconds", "grouped", "ratio")
END = f"""
One epoch of {Scale.safety:,} pairs of the microworld's safety set, in steps of about 64 pairs; CPU seconds of one
process, medians of {ROUNDS} rounds. Where equal answers have equal labels, the mean loss is the same
(`tests/preferences/test_grouping.py`).

The ratio is the median over the rounds, with the smallest and largest. The microworld's own safety set hardly repeats a
prompt, so grouping gains nothing there. The other row has as many pairs, of fewer prompts.
"""
ROOT = Path(__file__).resolve().parents[1]
REAL = {
    "PKU-SafeRLHF, mixed pairs": "pku_safety_pairs_dev.jsonl",
    "XSTest, pairs of models' answers": "xstest_pairs_safety_helpfulness_dev.jsonl",
}
RENAMED = {"chosen_safe": "chosen_is_safe", "rejected_safe": "rejected_is_safe"}
REAL_COLUMNS = ("set", "pairs", "groups", "answers", "grouped", "largest group", "averaged flags", "words, ratio")
REAL_INTRODUCTION = """
In real sets, prompts and answers recur: here in pairs of PKU-SafeRLHF (arXiv 2406.15513) and XSTest (arXiv 2308.01263),
public samples that are not part of the repository. The last column is the number of words that go through the model for
the pairs (each prompt once for its two answers), divided by that for the groups.
"""


def pairs_of(prompts: int | None) -> datasets.Dataset:
    """Pairs of the safety set, or as many of the prompts that come first in a larger set."""
    if prompts is None:
        made = list(safety_set(Scale.safety, 0))
    else:
        large = list(safety_set(40 * Scale.safety, 0))
        common = {prompt for prompt, _ in Counter(row["prompt"] for row in large).most_common(prompts)}
        made = [row for row in large if row["prompt"] in common][: Scale.safety]
    return convert(dataset_source("safety", datasets.Dataset.from_list(made)))[0]


def epoch_seconds(rows: datasets.Dataset, pairs_per_row: float) -> float:
    """CPU seconds of one epoch, in steps of about 64 pairs; the reference is scored before."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = BFPOConfig(
            output_dir=folder, num_train_epochs=1, global_batch_size=max(1, round(64 / pairs_per_row)), max_length=128,
            micro_batch_tokens=2048, save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True,
            report_to="none",
        )  # fmt: skip
        model, tokenizer = load_model(MICROWORLD), load_tokenizer(MICROWORLD)
        trainer = BFPOTrainer(model, arguments, Blend([TrainingSource(rows)]), processing_class=tokenizer)
        started = time.process_time()
        trainer.train()
        return time.process_time() - started


def measured(name: str, prompts: int | None) -> str:
    """A line of the table."""
    rows = pairs_of(prompts)
    grouped, counts = group_by_prompt(rows)
    [grouped] = with_equal_pairs([grouped])
    density = counts.pairs / counts.groups
    rounds = [(epoch_seconds(rows, 1.0), epoch_seconds(grouped, density)) for _ in range(ROUNDS)]
    pairs, groups = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratios = sorted(one / other for one, other in rounds)
    cells = [
        name, f"{density:.2f}", f"{2 * counts.pairs:,}", f"{counts.answers:,}", str(counts.largest), f"{pairs:.1f}",
        f"{groups:.1f}", f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def words(text: object) -> int:
    """Number of words of a text."""
    return len(str(text).split())


def real_sets(files: Mapping[str, Path]) -> str:
    """How many words go through the model in real sets."""
    lines = [f"| {' | '.join(REAL_COLUMNS)} |", "|---" * len(REAL_COLUMNS) + "|"]
    for name, path in files.items():
        rows = load_preferences(str(path), columns=RENAMED if "pku" in path.name else None)
        grouped, counts = group_by_prompt(rows)
        before = sum(words(row[part]) for row in rows for part in ("prompt", "chosen", "rejected"))  # pyright: ignore
        after = sum(words(row["prompt"]) + sum(map(words, row["responses"])) for row in grouped)  # pyright: ignore
        cells = [
            name, f"{counts.pairs:,}", f"{counts.groups:,}", f"{2 * counts.pairs:,}", f"{counts.answers:,}",
            str(counts.largest), str(counts.averaged), f"{before / after:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([REAL_INTRODUCTION, *lines, ""])


def page(table: list[str], real: str) -> str:
    """The page: the table of seconds, and the part about real sets."""
    rows = [line.strip("| ").split(" | ") for line in table[2:]]
    speeds = [f"{ratio} times as fast on {name} ({density} pairs per prompt)" for name, density, *_, ratio in rows]
    fewer = [line.strip("| ").split(" | ")[-1] for line in real.splitlines()[-len(REAL) :]]
    answer = (
        f"Grouped, an epoch is {' and '.join(speeds)}; in pairs of real sets, the words that go through the model are "
        f"{' and '.join(fewer)} times fewer."
    )
    made = "\nMade by `python benchmarks/grouping.py` (two minutes, 1 core).\n"
    return "\n".join([INTRODUCTION.format(answer=answer), *table, END]) + real + made


def main() -> None:
    """Measure, print and write docs/results/grouping.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the samples")
    folder = parser.parse_args().data / "derived"
    files = {name: folder / path for name, path in REAL.items()}
    missing = [str(path) for path in files.values() if not path.exists()]
    if missing:
        # The page would lose a table.
        raise SystemExit(f"no samples to count in, name their folder with --data: {', '.join(missing)}")
    quiet_libraries()
    wanted = {"the safety set": None, "320 prompts": 320}
    table = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    table += [measured(name, prompts) for name, prompts in wanted.items()]
    text = page(table, real_sets(files))
    print(text)
    write_text(ROOT / "docs" / "results" / "grouping.md", text)


if __name__ == "__main__":
    main()
