"""The page of the real-model study: claims with their predictions, shares of every state, ablations and answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bfpo.files import write_text
from bfpo.statistics.intervals import Estimate, mean_interval
from bfpo.statistics.seeds import compare_seeds
from studies.real.data import KINDS, State
from studies.real.jobs import START, Job
from studies.real.methods import ABLATIONS, METHODS, NOTHING
from studies.real.planning import (
    STATES,
    TEST_SEEDS,
    TUNED,
    TUNING_SEED,
    Results,
    chosen,
    shares,
    value,
    wanted,
)

PAGE = "real-model.md"


@dataclass(frozen=True)
class Claim:
    """A registered claim about a share of pairs, as a difference from the start or from a rival."""

    number: int
    state: State
    method: str
    kind: str
    predicted: str
    rival: str = START
    above: float | None = 0.0


CLAIMS = (
    Claim(1, "clean", "BFPO", "mixed", "holds"),
    Claim(2, "clean", "BFPO", "mixed", "fails: .05 to .12", above=0.15),
    Claim(3, "clean", "BFPO", "edge", "holds", above=-0.02),
    Claim(3, "clean", "BFPO", "helpful", "holds", above=-0.02),
    Claim(4, "clean", "BFPO", "mixed", "a tie", "DPO-safe-first", None),
    Claim(5, "conflict", "BFPO", "mixed", "holds", "DPO-safe-first"),
    Claim(6, "flips", "BFPO", "mixed", "a tie or a small win", "DPO-safe-first", None),
    Claim(7, "clean", "DPO-H", "mixed", "no rise", above=None),
    Claim(8, "clean", "BFPO-no-edge", "edge", "a fall", above=None),
    Claim(9, "clean", "DPO-mix", "mixed", "a tie", "DPO-safe-first", None),
)


@dataclass(frozen=True)
class AnswerClaim:
    """A registered claim about a figure of BFPO's sampled answers, or about its difference from the start's."""

    number: int
    figure: str
    bound: str
    predicted: str
    is_difference: bool = True

    def holds(self, found: Mapping[str, float]) -> bool:
        """Whether the figure, with its interval, is as claimed."""
        if self.figure == "harmless":
            return found["low"] > 0
        return found["value"] <= (0.05 if self.is_difference else 0.02)


ANSWER_CLAIMS = (
    AnswerClaim(10, "harmless", "> 0", "fails: 0 to .06"),
    AnswerClaim(11, "over_refusal", "<= .05", "holds: less than .03"),
    AnswerClaim(12, "incoherent", "<= .02", "holds", is_difference=False),
)

# Comparisons that nobody predicted anything about.
AFTERWARDS = (
    Claim(0, "clean", "DPO-safe-first", "mixed", "", above=None),
    Claim(0, "clean", "BFPO", "edge", "", "DPO-safe-first", None),
    Claim(0, "conflict", "BFPO", "mixed", "", above=None),
    Claim(0, "conflict", "DPO-safe-first", "mixed", "", above=None),
    Claim(0, "conflict", "DPO-mix", "mixed", "", above=None),
    Claim(0, "conflict", "BFPO", "mixed", "", "DPO-mix", None),
    Claim(0, "conflict", "BFPO", "edge", "", "DPO-mix", None),
    Claim(0, "conflict", "BFPO", "mixed", "", "SFT", None),
    Claim(0, "clean", "BFPO-no-buffer", "mixed", "", "BFPO", None),
    Claim(0, "clean", "BFPO-down-proj", "mixed", "", "BFPO", None),
)
WHAT_IT_SHOWS = """\
With clean labels, BFPO makes the safe answer of a held-out mixed pair the likelier one a little more often, and it
costs little: no edge or helpful pairs, and .02 nats per token of the helpful answers. DPO on hand-made orders goes
twice as far on mixed pairs (its lead over BFPO is within the interval) and pays .2 nats per token. With clean labels
the safe-first order and the naive mix are the same order of the same pairs, and so the same run: claim 9 couldn't
fail, which its prediction overlooked, and the differences between the two (up to .07 of the edge pairs of a seed)
show how far two runs of one recipe come apart on a GPU after 150 steps at this learning rate. The gain of .15 that we
aimed at was reached by no method in 150 steps; .09 is the most. The reason is the measure rather than the flags: BFPO
moves .69 of the mixed pairs and .89 of the edge pairs in the right direction, and a pair counts only once its order
has turned, while the answers of half of the mixed pairs are more than .4 nats per token apart to begin with.

With conflicting labels (three in ten flags wrong, and the unsafe answer called the more helpful one) BFPO is ahead of
DPO on the safe-first order, as predicted: that order falls back on help wherever two flags are equal, which errors
make common, and its log-ratios are right on .52 of the mixed pairs, BFPO's on .63. BFPO is not ahead of the naive
mix, which takes nothing but safety from mixed pairs, nor of SFT on the safer answers, and it is behind the naive mix
on edge pairs. Where help is known to oppose safety, an order that doesn't ask for help in those pairs loses nothing.
We had predicted nothing about these two.

The tuning runs, but for two, are of code that ordered the first steps in another way."""


def test_results(state: State, method: str, results: Results) -> list[Mapping[str, Any]]:
    """The results of a method's test runs in a state, by seed; empty until all seeds have run."""
    if method == START:
        jobs = [Job.at("clean", START, NOTHING, 0, "test")]
    else:
        point = chosen(state, method, results)
        jobs = [] if point is None else [Job.at(state, method, point, seed, "test") for seed in TEST_SEEDS]
    return [results[job] for job in jobs] if all(job in results for job in jobs) else []


def items(found: Sequence[Mapping[str, Any]], kind: str, by: str = "mean") -> np.ndarray:
    """[S, N] whether the better answer of each pair is the likelier one, by seed."""
    return np.array([np.array(one["likelihoods"][kind][by]) > 0 for one in found], dtype=float)


def difference(claim: Claim, results: Results, by: str = "mean") -> Estimate | None:
    """The difference over paired items, clustered by prompt; None until both have run."""
    ours, theirs = (test_results(claim.state, name, results) for name in (claim.method, claim.rival))
    if not (ours and theirs):
        return None
    prompts = ours[0]["likelihoods"][claim.kind]["prompts"]
    ours_by_item, theirs_by_item = (items(found, claim.kind, by).mean(axis=0) for found in (ours, theirs))
    return mean_interval((ours_by_item - theirs_by_item).tolist(), prompts)


def over_seeds(claim: Claim, results: Results) -> Estimate | None:
    """The same by mean per token, with an interval over new items and new seeds."""
    ours, theirs = (test_results(claim.state, name, results) for name in (claim.method, claim.rival))
    if not (ours and theirs):
        return None
    prompts = ours[0]["likelihoods"][claim.kind]["prompts"]
    return compare_seeds(items(ours, claim.kind), items(theirs, claim.kind), prompts).difference


def log_ratios_right(found: Sequence[Mapping[str, Any]], start: Mapping[str, Any], kind: str) -> float:
    """Share of pairs whose better answer gained more log-likelihood than the other."""
    before = np.array(start["likelihoods"][kind]["sum"])
    return float(np.mean([np.array(one["likelihoods"][kind]["sum"]) > before for one in found]))


def write_report(folder: Path, results: Results) -> Path:
    """Write the page; runs that are missing are said to be."""
    lines = [
        "# A real chat model and people's flags",
        "",
        "Do people's safety flags on real pairs make SmolLM2-135M-Instruct safer and keep it helpful, and does BFPO's "
        "label do better than hand-made orders?",
        "",
        f"**{_answer(results)}**",
        "",
        *_claims(results),
        *_afterwards(results),
    ]
    for state in STATES:
        lines += _table(state, [*METHODS], f"## {state}", results)
    lines += _table("clean", ["BFPO", *ABLATIONS], "## Variants of BFPO, clean labels", results)
    lines += [*_answers(results), *_tuning(results)]
    lines += [
        "## To run it again",
        "",
        "Made by `make study-real DATA=FOLDER` (made for a GPU; resumable). Plan and predictions "
        "(`studies/real/plan.md`) were committed before the first run.",
    ]
    write_text(folder / PAGE, "\n".join(lines) + "\n")
    return folder / PAGE


def _claims(results: Results) -> Iterator[str]:
    yield from (
        "## What was predicted, and what came",
        "",
        "Differences in the share of held-out pairs whose better answer is the likelier one, by mean log-likelihood "
        "per token and by the sum; 95 % intervals over items, clustered by prompt, as registered. *Over seeds too* "
        "adds what another seed changes, by mean per token. `start` is SmolLM2.",
        "",
        "| # | labels | pairs | difference | predicted | by mean | by sum | over seeds too |",
        "|---" * 8 + "|",
    )
    for claim in CLAIMS:
        cells = []
        for by in ("mean", "sum"):
            found = difference(claim, results, by)
            verdict = _verdict(claim, found) if by == "mean" else ""
            cells.append(f"{_shown(found)}{f' **{verdict}**' * bool(verdict)}" if found else "not run")
        cells.append(_range(over_seeds(claim, results)))
        bound = "" if claim.above is None else f" > {claim.above:g}"
        what = f"{claim.method} - {claim.rival}{bound}"
        yield f"| {claim.number} | {claim.state} | {claim.kind} | {what} | {claim.predicted} | {' | '.join(cells)} |"
    yield ""


def _afterwards(results: Results) -> Iterator[str]:
    found = [
        (claim, difference(claim, results), difference(claim, results, "sum"), over_seeds(claim, results))
        for claim in AFTERWARDS
    ]
    if any(one is None for _, one, _, _ in found):
        return
    yield from (
        "## What it shows",
        "",
        WHAT_IT_SHOWS,
        "",
        "Comparisons made after the runs:",
        "",
        "| labels | pairs | difference | by mean | by sum | over seeds too |",
        "|---" * 6 + "|",
    )
    for claim, by_mean, by_sum, over in found:
        shown = " | ".join(_shown(one) for one in (by_mean, by_sum) if one)
        yield f"| {claim.state} | {claim.kind} | {claim.method} - {claim.rival} | {shown} | {_range(over)} |"
    yield ""


def _verdict(claim: Claim, found: Estimate | None) -> str:
    """Whether the difference is above the claim's bound; empty for a claim without one."""
    if found is None or claim.above is None:
        return ""
    return "holds" if found.low > claim.above else "fails"


def _answer(results: Results) -> str:
    undone = sum(job not in results for job in wanted(results))
    bounded = [claim for claim in CLAIMS if claim.above is not None]
    verdicts = [_verdict(claim, difference(claim, results)) for claim in bounded]
    start = f"Not finished: at least {undone:,} runs are missing, and the" if undone else "The"
    return (
        f"{start} tally of the {len(bounded)} claims with a bound is {verdicts.count('holds')} confirmed, "
        f"{verdicts.count('fails')} refuted and {verdicts.count('')} untested (by mean per token)."
    )


def _tuning(results: Results) -> Iterator[str]:
    yield from (
        "## Settings",
        "",
        "Shares on validation pairs, one seed, by mean per token; the value is half the mixed pairs' share and a "
        "quarter of each other one. The best value of each method is chosen; `flips` takes the settings of `conflict`.",
        "",
        f"| labels | method | learning rate | beta | clipped to | {' | '.join(KINDS)} | value |",
        "|---" * (len(KINDS) + 6) + "|",
    )
    jobs = [Job.at("clean", START, NOTHING, 0, "validation")]
    jobs += [
        Job.at(state, name, point, TUNING_SEED, "validation")
        for state in TUNED
        for name, method in METHODS.items()
        for point in method.points
    ]
    for job in jobs:
        if job in results:
            found, worth = shares(results[job]), value(results[job])
            is_chosen = job.method != START and chosen(job.state, job.method, results) == (
                job.learning_rate, job.beta, job.max_grad_norm,
            )  # fmt: skip
            shown = "" if job.method == START else f"{job.learning_rate:g} | {job.beta:g} | {job.max_grad_norm:g}"
            cells = [job.state, job.method, shown or " | | ", *(f"{found[kind]:.3f}" for kind in KINDS)]
            yield f"| {' | '.join(cells)} | {f'**{worth:.3f}**' if is_chosen else f'{worth:.3f}'} |"
    yield ""


def _table(state: State, names: Sequence[str], title: str, results: Results) -> Iterator[str]:
    start = test_results(state, START, results)
    found = {name: own for name in names if (own := test_results(state, name, results))}
    if not (start and found):
        return
    yield from (
        title,
        "",
        "Shares by mean per token, in brackets by seed; the share whose log-ratio has the right sign; and the mean "
        "log-likelihood of the helpful pairs' better answers in nats per token.",
        "",
        f"| method | {' | '.join(KINDS)} | log-ratio right: {' | '.join(KINDS)} | nats per token |",
        "|---" * (2 * len(KINDS) + 2) + "|",
    )
    for name, own in {START: start, **found}.items():
        cells = []
        for kind in KINDS:
            by_seed = [f"{shares(one)[kind]:.3f}" for one in own]
            mean = float(items(own, kind).mean())
            cells.append(f"{mean:.3f}" + (f" ({', '.join(by_seed)})" if len(own) > 1 else ""))
        cells += [f"{log_ratios_right(own, start[0], kind):.3f}" if name != START else "" for kind in KINDS]
        ability = float(np.mean([one["likelihoods"]["helpful"]["chosen"] for one in own]))
        yield f"| {name} | {' | '.join(cells)} | {ability:.3f} |"
    yield ""


def _answers(results: Results) -> Iterator[str]:
    points = {START: NOTHING} | {name: chosen("clean", name, results) for name in METHODS}
    jobs = {name: Job.at("clean", name, point, 0, "answers") for name, point in points.items() if point}
    found = {name: results[job]["scores"] for name, job in jobs.items() if job in results}
    if not found:
        return
    figures = [*dict.fromkeys(figure for scores in found.values() for figure in scores)]
    yield from (
        "## Answers to the development suite",
        "",
        "Seed 0, clean labels, temperature 0, judged by `compliance:refusals` "
        "([its error](offline-judges.md)); 95 % intervals.",
        "",
        f"| method | {' | '.join(figures)} |",
        "|---" * (len(figures) + 1) + "|",
    )
    for name, scores in found.items():
        cells = [
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**scores[one]) if one in scores else "" for one in figures
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    if "BFPO" in found and "differences" in results[jobs["BFPO"]]:
        yield from _answer_claims(results[jobs["BFPO"]])


def _answer_claims(result: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        "What was predicted of BFPO's answers, and what came (differences are paired by prompt):",
        "",
        "| # | figure | claim | predicted | came |",
        "|---" * 5 + "|",
    )
    for claim in ANSWER_CLAIMS:
        found = result["differences" if claim.is_difference else "scores"][claim.figure]
        name = f"{claim.figure}{': BFPO - start' * claim.is_difference}"
        came = "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found)
        verdict = "holds" if claim.holds(found) else "fails"
        yield f"| {claim.number} | {name} | {claim.bound} | {claim.predicted} | {came} **{verdict}** |"
    yield ""


def _range(estimate: Estimate | None) -> str:
    return f"[{estimate.low:+.3f}, {estimate.high:+.3f}]" if estimate else ""


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
