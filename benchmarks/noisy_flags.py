"""What becomes of judged flags, in a tabular world: ``python benchmarks/noisy_flags.py``.

One benign and one harmful prompt with four kinds of answers each; a policy is trained on pairs by the closed form of
BFPO's regression: at the beta that gives it a KL divergence of .3 nats from the uniform reference, and at the beta
where true flags of the same pairs have that divergence. A judge errs at rates of its own; people label a tenth of the
answers at random. U is the mean of the help on the benign and the harmlessness on the harmful prompt. Seeded; writes
docs/results/noisy-flags.md (five minutes, one core).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import rel_entr, softmax

from bfpo.errors import BfpoError
from bfpo.files import write_text
from bfpo.labeling.calibrating import calibrated
from bfpo.labeling.flags import Flags, LabeledAnswers, resolve_flags
from bfpo.objectives.bfpo import GlobalPreference

PAGE = Path(__file__).parents[1] / "docs" / "results" / "noisy-flags.md"
KL, PEOPLE = 0.3, 0.1
# Help of the four kinds of answers, and whether they are safe: all are on the benign prompt.
HELP = np.array([[1.0, 0.7, 0.4, 0.0], [0.9, 0.6, 0.3, 0.1]])
SAFE = np.array([[1.0, 1, 1, 1], [0.0, 0, 1, 1]])
# Shares of safe and of unsafe answers that the judge gets wrong; a kind of harm that it never finds.
JUDGES: dict[str, tuple[tuple[float, float], int | None]] = {
    "no errors": ((0.0, 0.0), None),
    "20 % of each": ((0.2, 0.2), None),
    "30 % of each": ((0.3, 0.3), None),
    "10 % of safe, 40 % of unsafe (lenient)": ((0.1, 0.4), None),
    "40 % of safe, 10 % of unsafe (strict)": ((0.4, 0.1), None),
    "10 % of each, never finds one of two harms": ((0.1, 0.1), 1),
}
ARMS: tuple[Flags | None, ...] = (None, "verdict", "probability", "unbiased", "doubly_robust")


def utilities(
    pairs: int, seed: Sequence[int], error: tuple[float, float], missed: int | None, flags: Flags | None
) -> tuple[float, float]:
    """U of two policies trained on so many pairs: at a KL divergence of .3, and at the beta of true flags."""
    random = np.random.default_rng([*seed, pairs])
    prompt = random.integers(0, 2, pairs)
    kinds = np.array([random.choice(4, 2, replace=False) for _ in range(pairs)])
    truth = SAFE[prompt[:, None], kinds].ravel()
    wrong = random.random(2 * pairs) < np.where(truth == 1, *error)
    verdicts = np.where(wrong, 1 - truth, truth)
    if missed is not None:
        verdicts = np.where((truth == 0) & (kinds.ravel() == missed), 1.0, verdicts)
    is_people = np.repeat(random.permutation(pairs) < PEOPLE * pairs, 2)
    names = [f"p{number // 2}" for number in range(2 * pairs)]
    p = calibrated(0.98 * verdicts[:, None] + 0.01, truth, is_people, compress(names, is_people))
    answers = LabeledAnswers(
        np.where(is_people, truth, verdicts),
        ["random" if own else "judge" for own in is_people],
        verdicts,
        p,
        names,
    )
    made, _ = resolve_flags(answers, flags, is_affine=True)
    rewards, true = (fitted(prompt, kinds, own.reshape(-1, 2)) for own in (made, truth))
    return utility(rewards, beta_at(rewards, KL)), utility(rewards, beta_at(true, KL))


def fitted(prompt: np.ndarray, kinds: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """[2, 4] the rewards that minimize the squared distances of the pairs' margins to G."""
    helps = HELP[prompt[:, None], kinds]
    labeling = GlobalPreference()
    first = (helps[:, 0] > helps[:, 1]).astype(float)
    label = labeling.target(*torch.from_numpy(np.stack([flags[:, 0], flags[:, 1], first]))).numpy()
    rewards = np.zeros((2, 4))
    for number in range(2):
        own = prompt == number
        design = np.eye(4)[kinds[own, 0]] - np.eye(4)[kinds[own, 1]]
        rewards[number] = np.linalg.lstsq(design, label[own], rcond=None)[0]
    return rewards


def policy(rewards: np.ndarray, beta: float) -> np.ndarray:
    """[2, 4] the uniform reference, tilted."""
    return softmax(rewards / beta, axis=1)


def beta_at(rewards: np.ndarray, divergence: float) -> float:
    """The beta of the policy with that KL divergence from the uniform reference."""

    def excess(log_beta: float) -> float:
        chosen = policy(rewards, math.exp(log_beta))
        return float(rel_entr(chosen, 0.25).sum(1).mean()) - divergence

    return math.exp(brentq(excess, -8, 8))  # pyright: ignore[reportArgumentType]


def utility(rewards: np.ndarray, beta: float) -> float:
    """U of the policy."""
    benign, harmful = policy(rewards, beta)
    return float((benign @ HELP[0] + harmful @ SAFE[1]) / 2)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="number of sets of pairs")
    seeds = parser.parse_args().seeds
    tables: list[list[str]] = [[], []]
    for number, (name, (error, missed)) in enumerate(JUDGES.items()):
        for pairs in (4000, 1000):
            cells = [_cells(pairs, number, error, missed, flags, seeds) for flags in ARMS]
            for table, own in zip(tables, zip(*cells, strict=True), strict=True):
                table.append(f"| {name} | {pairs:,} | {' | '.join(own)} |")
    write_text(PAGE, page(tables, seeds))
    print(PAGE.read_text(encoding="utf-8"))


def _cells(
    pairs: int, number: int, error: tuple[float, float], missed: int | None, flags: Flags | None, seeds: int
) -> list[str]:
    """The means of both figures over the sets."""
    found = []
    for seed in range(seeds):
        try:
            found.append(utilities(pairs, (seed, number), error, missed, flags))
        except BfpoError:
            continue
    values = np.array(found)
    spread = values.std(0, ddof=1) / np.sqrt(len(values))
    mark = "" if len(found) == seeds else "*"
    return [f"{mean:.3f} ({own:.3f}){mark}" for mean, own in zip(values.mean(0), spread, strict=True)]


def _lowest(blind: bool, rows: Sequence[str]) -> str:
    """Each arm's lowest U over the judges that never find a kind of harm, or over those that find them all."""
    cells = [row.split(" | ")[2:] for row in rows]
    chosen = [
        own for own, row in zip(cells, rows, strict=True) if (JUDGES[row[2:].split(" | ")[0]][1] is None) != blind
    ]
    lowest = [min(float(cell.split()[0]) for cell in column) for column in zip(*chosen, strict=True)]
    names = (f"`{arm}`" if arm else "the default" for arm in ARMS)
    return ", ".join(
        f"{value:.3f} with {name}" for value, name in sorted(zip(lowest, names, strict=True), reverse=True)
    )


def page(tables: list[list[str]], seeds: int) -> str:
    """The page."""
    head = [
        "| judge's errors | pairs | default | `verdict` | `probability` | `unbiased` | `doubly_robust` |",
        "|---|---|---|---|---|---|---|",
    ]
    lines = [
        "# Flags that err, in a tabular world",
        "",
        "What should a recipe's `flags` make of a judge's flags, if the judge errs?",
        "",
        f"**At equal divergence U is at least {_lowest(blind=False, rows=tables[0])} where the judge finds every kind "
        f"of harm, and at least {_lowest(blind=True, rows=tables[0])} where it never finds one.**",
        "",
        "## At a KL divergence of .3 nats",
        "",
        "Every arm has a beta of its own.",
        "",
        *head,
        *tables[0],
        "",
        "## At one beta",
        "",
        "The beta at which true flags of the same pairs have that divergence: what a recipe gets that keeps its beta.",
        "",
        *head,
        *tables[1],
    ]
    if any("*" in row for table in tables for row in table):
        refused = (
            "*: some sets were refused, because the people's sample doesn't show that the judge is better than chance."
        )
        lines += ["", refused]
    lines += [
        "",
        "## To run it again",
        "",
        f"Made by `python benchmarks/noisy_flags.py` (five minutes, 1 core): mean U of {seeds} sets of pairs (standard "
        "error in brackets). People label a tenth of the answers at random. U is the mean of the help on a benign and "
        "the harmlessness on a harmful prompt.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
