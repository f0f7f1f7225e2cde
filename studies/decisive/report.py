"""The page of the decisive study: registered claims, a table for every world, and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bfpo.files import write_text
from bfpo.statistics.intervals import Estimate, mean_interval
from studies.decisive.jobs import SFT, Job
from studies.decisive.methods import ALL_WORLDS, METHODS, TUNED
from studies.decisive.planning import TEST_SEEDS, Results, chosen, near, tuned_methods

WORLD_NAMES = {
    "W0": "exact labels",
    "W2": "30 % of the\nflags wrong",
    "W3": "a lenient\njudge",
    "W4": "both unsafe,\ngraded harm",
    "W5-25": "look-alikes,\n25 % harmful",
    "W5-75": "look-alikes,\n75 % harmful",
    "W6": "prices by\ncategory",
}
COLUMNS = ("U", "helpful", "harmless", "over_refusal", "incoherent", "kl")


@dataclass(frozen=True)
class Claim:
    """A registered claim about a difference in a figure, by the lower end of its interval over paired seeds.

    Of the claims with one number that are ``either``, one is enough.
    """

    number: int
    world: str
    method: str
    rival: str
    above: float | None
    predicted: str
    figure: str = "U"
    either: bool = False


CLAIMS = (
    Claim(1, "W2", "BFPO", "DPO-safe-first", 0.1, "holds"),
    Claim(2, "W2", "BFPO", "rDPO-safe-first", 0.0, "holds"),
    Claim(3, "W3", "BFPO", "BFPO-verdict", 0.0, "holds"),
    Claim(4, "W4", "BFPO", "DPO-safe-first", 0.0, "holds"),
    Claim(5, "W6", "BFPO-prices", "BFPO-common-price", 0.0, "holds"),
    Claim(5, "W6", "BFPO-prices", "BFPO", 0.0, "holds"),
    Claim(6, "W0", "BFPO", "DPO-safe-first", None, "a tie"),
    Claim(7, "W5-25", "BFPO", "DPO-safe-first", None, "a loss"),
    Claim(8, "W5-75", "BFPO", "DPO-safe-first", None, "a tie or a small win"),
    Claim(9, "W2", "BFPO", "IPO-safe-first", 0.0, "holds"),
    Claim(9, "W2", "IPO-safe-first", "DPO-safe-first", 0.0, "holds"),
    Claim(10, "W2", "BFPO", "BFPO-no-buffer", 0.0, "holds, or the next", "helpful", either=True),
    Claim(10, "W2", "BFPO-no-buffer", "BFPO", 0.0, "holds, or the one before", "over_refusal", either=True),
    Claim(11, "W0", "BFPO-no-level", "BFPO", 0.0, "holds", "incoherent"),
    Claim(11, "W0", "DPO-safe-first-no-level", "DPO-safe-first", 0.0, "holds", "incoherent"),
    Claim(12, "W2", "BFPO", "BFPO-alpha-0", 0.0, "holds", "harmless"),
    Claim(13, "W2", "BFPO", "BFPO-beta-half", None, "a small win"),
    Claim(13, "W2", "BFPO", "BFPO-beta-double", None, "a small win"),
    Claim(14, "W2", "BFPO", "BFPO-down-proj", None, "a tie or a small win"),
    Claim(15, "W2", "BFPO", "BFPO-2-answers", None, "a small win", "helpful"),
    Claim(16, "W2", "BFPO-8-answers", "BFPO", None, "a tie", "helpful"),
)


_NOTHING_TO_WEIGH = (
    "in W6 every harmful prompt can be declined and every other one answered, so that no harm has to be weighed "
    "against help: the default reaches U .664 of the .667 that are possible (help counts on two thirds of the "
    "prompts). Prices can only cost something then: those of 3 ask for six times the log-ratio of the default's 1/2, "
    "and the model moves farther and answers fewer prompts coherently. The prediction overlooked this."
)
_NO_SAFETY_LEFT = (
    "the safe-first order itself has lost the safety. Where one answer is safe and one isn't, the unsafe one is called "
    "the more helpful in 95 % of these pairs, and with 30 % wrong flags the order puts it first in every second pair "
    "(.49 to .51, seeds 0 to 2, before people's tenth), so that no loss on these orders can recover what is safe. Both "
    "rivals answer at most .04 of the harmful prompts harmlessly, and there is nothing between them and BFPO."
)
ONE_ERROR = (
    "rDPO's loss has one share of wrong orders for all pairs. It was given that of the safe-first order by judged "
    "flags in people's sample (.29 in W2, seeds 0 and 1). But the tenth of the set that people labeled is right, and "
    "so are the orders of the buffer, half of every step. An error for each source would suit rDPO better, as BFPO's "
    "unbiased flags have it, and BFPO's lead over it would be smaller."
)
# Why a claim failed, by its number and methods.
REASONS = {
    (5, "BFPO-prices", "BFPO-common-price"): _NOTHING_TO_WEIGH,
    (5, "BFPO-prices", "BFPO"): _NOTHING_TO_WEIGH,
    (9, "IPO-safe-first", "DPO-safe-first"): _NO_SAFETY_LEFT,
}
# What the ablations of claims 13 to 16 show.
ABLATIONS = (
    "Half of beta was predicted to lose a little, and its mean U is above that of the tuned beta; twice as much is "
    "clearly worse. The search went along one axis after the other: beta at the level's first weight, .1, where "
    "beta .05 answered a fifth to a quarter of W0's prompts incoherently, and the level afterwards. At the level "
    "that was chosen, .4, beta .05 is coherent (.026 incoherent in W2), and the search didn't come back to it. So "
    "BFPO's figures in W2 are below what its settings can reach; no other point was tried on test seeds. With "
    "`down_proj` alone, at ten times the learning rate, 60 steps don't make W2's harmful prompts safe, against the "
    "prediction. The number of answers to each prompt of the helpfulness set makes no difference to help, as "
    "predicted for eight; for two, six pairs in place of one were predicted to help a little."
)
# Why rivals are ahead of BFPO where they are.
AHEAD = (
    "DPO-mix doesn't weigh helpfulness against safety in the safety set: the answer judged safe is first, and of two "
    "judged unsafe the less helpful one. Since the unsafe answer of a mixed pair is nearly always the more helpful one "
    "in these worlds, this puts the safe one first in .79 of W2's mixed pairs (the safe-first order: .5). SafeDPO asks "
    "for 10/beta more in log-ratio wherever the safe answer is first. Both move twice as far from the start as BFPO in "
    "W2, which weighs a flag at the default b3 = 1/2. In W5-25 DPO-mix declines half of the harmless look-alikes, and "
    "SafeDPO two fifths; help falls to .71 and .78, and U, the mean of help and harmlessness, still rises. DPO-S, too, "
    "orders by safety alone. DPO-H and additive, whose pairs are ordered by help, answer every harmful prompt in W0 "
    "and W2."
)

Figures = Mapping[str, float]


def figures_of(world: str, method: str, results: Results, *, at_equal_distance: bool = False) -> list[Figures]:
    """The figures of a method's test runs in a world, by seed; empty until all seeds have run."""
    select = near if at_equal_distance else chosen
    point = (0.0, 0.0, 0.0) if method == SFT else select(method, results)
    jobs = [Job(world, method, *(point or (-1.0, -1.0, -1.0)), seed, "test") for seed in TEST_SEEDS[world]]
    return [results[job]["figures"] for job in jobs] if all(job in results for job in jobs) else []


def paired(
    world: str, method: str, rival: str, results: Results, figure: str = "U", *, at_equal_distance: bool = False
) -> Estimate | None:
    """A method's figure minus a rival's over paired seeds; None until both have run."""
    ours, theirs = (figures_of(world, name, results, at_equal_distance=at_equal_distance) for name in (method, rival))
    if not (ours and theirs):
        return None
    return mean_interval([one[figure] - other[figure] for one, other in zip(ours, theirs, strict=True)])


def difference(claim: Claim, results: Results, *, at_equal_distance: bool = False) -> Estimate | None:
    """The difference that a claim is about; None until both methods have run."""
    return paired(claim.world, claim.method, claim.rival, results, claim.figure, at_equal_distance=at_equal_distance)


def at_equal_distance(claim: Claim, results: Results) -> str:
    """The difference at the points whose distance from the start is nearest to BFPO's, with both distances.

    As registered, in W0 and W2 alone, whose distances the tuning measures; and for methods with settings of their own.
    """
    if claim.world not in TUNED or any(METHODS[name].tuned_as for name in (claim.method, claim.rival)):
        return ""
    found = difference(claim, results, at_equal_distance=True)
    if found is None:
        return "not run"
    verdict = verdict_of(claim, found)
    distances = [
        mean_interval([one["kl"] for one in figures_of(claim.world, name, results, at_equal_distance=True)]).value
        for name in (claim.method, claim.rival)
    ]
    kl = " and ".join(f"{distance:.2f}" for distance in distances)
    return f"{shown(found, sign=True)}{f' **{verdict}**' * bool(verdict)} (KL {kl})"


def write_report(folder: Path, results: Results) -> Path:
    """Write ``decisive.md`` with its figure; runs that are missing are said to be."""
    undone = sum(len(TEST_SEEDS[world]) for name, method in METHODS.items() for world in method.worlds
                 if not figures_of(world, name, results))  # fmt: skip
    lines = [
        "# BFPO and its rivals where labels err, both answers are unsafe, or harm has prices",
        "",
        "Does BFPO give users more than its rivals do where labels err, where both answers are unsafe, and where harm "
        "has prices?",
        "",
        f"**{_answer(results, undone)}**",
        "",
        "![U of every method in every world](decisive.png)",
        "",
        *_claims(results),
        *_settings(results),
    ]
    for world in ALL_WORLDS:
        lines += _world(world, results)
    lines += [
        "## To run it again",
        "",
        "Made by `make study-decisive` (a day of one core; resumable). Its plan and predictions "
        "(`studies/decisive/plan.md`) were committed before any run with test seeds.",
    ]
    path = folder / "decisive.md"
    write_text(path, "\n".join(lines) + "\n")
    _plot(folder / "decisive.png", results)
    return path


def verdict_of(claim: Claim, found: Estimate | None) -> str:
    """Whether the difference is above the claim's bound; empty for a claim without one."""
    if found is None or claim.above is None:
        return ""
    return "holds" if found.low > claim.above else "fails"


def _answer(results: Results, undone: int) -> str:
    bounded = [claim for claim in CLAIMS if claim.above is not None]
    found: dict[tuple[int, Claim | None], list[str]] = {}
    for claim in bounded:
        key = (claim.number, None if claim.either else claim)
        found.setdefault(key, []).append(verdict_of(claim, difference(claim, results)))
    verdicts = ["holds" if "holds" in own else "" if "" in own else "fails" for own in found.values()]
    start = f"Not finished: {undone:,} test runs are missing, and the" if undone else "The"
    return (
        f"{start} tally of the {len(verdicts)} claims with a bound is {verdicts.count('holds')} confirmed, "
        f"{verdicts.count('fails')} refuted and {verdicts.count('')} untested (each method at its best setting)."
    )


def _claims(results: Results) -> list[str]:
    lines = ["## What was predicted, and what came", "",
             "Differences with 95 % intervals over paired seeds (Student's t). *At equal distance*: at the points of "
             "the two grids whose distance from the start is nearest to BFPO's, with the distances in nats.", "",
             "| # | world | difference | predicted | at each one's best | at equal distance |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    reasons: dict[tuple[int, str], list[str]] = {}
    for claim in CLAIMS:
        found = difference(claim, results)
        verdict = verdict_of(claim, found)
        cells = [f"{shown(found, sign=True)}{f' **{verdict}**' * bool(verdict)}" if found else "not run"]
        cells.append(at_equal_distance(claim, results))
        bound = "" if claim.above is None else f" > {claim.above:g}"
        what = f"{claim.figure}: {claim.method} - {claim.rival}{bound}"
        lines.append(f"| {claim.number} | {claim.world} | {what} | {claim.predicted} | {' | '.join(cells)} |")
        reason = REASONS.get((claim.number, claim.method, claim.rival))
        if reason and any("fails" in cell for cell in cells):
            reasons.setdefault((claim.number, reason), []).append(f"{claim.method} against {claim.rival}")
    for (number, reason), pairs in reasons.items():
        lines += ["", f"Why claim {number} fails, {' and '.join(pairs)}: {reason}"]
    if figures_of("W2", "rDPO-safe-first", results):
        lines += ["", f"On claim 2: {ONE_ERROR}"]
    if all(figures_of("W2", name, results) for name in ("BFPO-beta-half", "BFPO-down-proj", "BFPO-8-answers")):
        lines += ["", f"Claims 13 to 16: {ABLATIONS}"]
    return [*lines, *_ahead(results), ""]


def _ahead(results: Results) -> list[str]:
    """The methods whose mean U is above BFPO's, with the difference."""
    found: list[str] = []
    for world in ALL_WORLDS:
        for name, method in METHODS.items():
            if world in method.worlds and name != "BFPO":
                ahead = paired(world, name, "BFPO", results)
                if ahead and ahead.value > 0:
                    found.append(f"- {world}: {name} {shown(ahead, sign=True)}")
    return ["", "Mean U above BFPO's, each method at its best:", "", *found, "", AHEAD] if found else []


def _settings(results: Results) -> list[str]:
    lines = ["## Settings", "", "Chosen on validation prompts of W0 and W2, two seeds.", "",
             "| method | learning rate | beta | level | what it is |", "|---|---|---|---|---|"]  # fmt: skip
    for name in tuned_methods():
        point = chosen(name, results)
        shown = " | ".join(f"{value:g}" for value in point) if point else "not tuned yet | | "
        lines.append(f"| {name} | {shown} | {METHODS[name].summary} |")
    return [*lines, ""]


def _world(world: str, results: Results) -> list[str]:
    names = [SFT, *(name for name, method in METHODS.items() if world in method.worlds)]
    rows = [(name, figures) for name in names if (figures := figures_of(world, name, results))]
    if not rows:
        return []
    lines = [f"## {world}", "", f"| method | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in rows:
        cells = [shown(mean_interval([one[key] for one in figures])) if key in figures[0] else "" for key in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def shown(estimate: Estimate, *, sign: bool = False) -> str:
    """An estimate with its interval, if wanted with signs."""
    form = "+.3f" if sign else ".3f"
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _plot(path: Path, results: Results) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = [name for name, method in METHODS.items() if method.worlds == ALL_WORLDS]
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    for at, name in enumerate(names):
        points = [
            (place, [one["U"] for one in figures_of(world, name, results)]) for place, world in enumerate(ALL_WORLDS)
        ]
        points = [(place + (at - (len(names) - 1) / 2) * 0.12, values) for place, values in points if values]
        if points:
            places, values = [place for place, _ in points], [float(np.mean(own)) for _, own in points]
            spread = [_half_width(own) for _, own in points]
            color, marker, size = ("black", "D", 9) if name == "BFPO" else (None, "o", 6)
            axes.errorbar(
                places, values, spread, linestyle="", label=name, capsize=2, color=color, marker=marker, markersize=size
            )
    for border in range(1, len(ALL_WORLDS)):
        axes.axvline(border - 0.5, color="#dddddd", linewidth=1)
    axes.set_xticks(range(len(ALL_WORLDS)), [f"{world}\n{WORLD_NAMES[world]}" for world in ALL_WORLDS])
    axes.set(ylabel="U: helpful and harmless (W6: at most .667)", xlim=(-0.5, len(ALL_WORLDS) - 0.5))
    axes.set_title("What the user gets in every world (mean over seeds, 95 % interval)")
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=9, ncols=len(names), loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _half_width(values: Sequence[float]) -> float:
    found = mean_interval(values)
    return (found.high - found.low) / 2
