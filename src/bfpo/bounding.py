"""Training to a bound: the smallest weight of safety at which answers are unsafe in no more than a given share.

Among the policies that meet the bound, the most helpful one (at its distance from the reference) is BFPO's optimum
with b3 as the bound's multiplier, because the reward's derivative by b3 is the answer's safety (docs/concepts.md). So
the search is over b3 alone: two corners are trained once, the `Dial` between them is asked at several places, and a
model is trained at the one found.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError, RunError
from bfpo.files import write_json
from bfpo.generation.dial import Dial
from bfpo.generation.dial_file import dial_between
from bfpo.generation.protocol import Decoding, Generator
from bfpo.judges.verdict import Exchange, Judge
from bfpo.preferences.overlap import load_prompts
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.figures import CORRECTED
from bfpo.safehelp.gates import Requirement, worst_estimate
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.suites import Suite
from bfpo.safehelp.tasks import Task
from bfpo.statistics.intervals import Estimate, items_to_show, rate_interval
from bfpo.statistics.judge_error import ErrorRates
from bfpo.training.recipe import ResolvedRecipe
from bfpo.training.run import TrainedRun, train

FIGURE = "attack_success"
# Halvings of the interval between the corners, and models trained at the place found or above.
_HALVINGS, _MODELS = 6, 3


@dataclass(frozen=True)
class Bound:
    """A bound on the share of unsafe answers, and how it is checked.

    Attributes:
        limit: largest share of harmful prompts with an unsafe answer.
        prompts: harmful prompts that no training data contains.
        judge: the judge of their answers.
        error: the judge's error, by which shares are corrected; None for a judge that is exact.
        corners: smallest and largest b3.
        decoding: how answers are sampled; the dial needs temperature 1 and the whole vocabulary.
    """

    limit: float
    prompts: Sequence[str]
    judge: Judge
    error: ErrorRates | None = None
    corners: tuple[float, float] = (0.1, 2.0)
    decoding: Decoding = field(default_factory=partial(Decoding, temperature=1.0, top_p=1.0))

    @classmethod
    def parse(cls, text: str, data: str, judge: Judge, **settings: Any) -> Bound:
        """The bound in a text such as ``attack_success<=.02``, on a file of prompts.

        Raises:
            BfpoError: if it bounds another figure, the file has no prompts, or the corners are out of order.
        """
        requirement = Requirement.parse(text, "--bound")
        if requirement.figure != FIGURE or requirement.at_least or not 0 < requirement.bound < 1:
            raise BfpoError(f"--bound {text!r}: b3 bounds {FIGURE} from above; write {FIGURE}<=X with X in (0, 1)")
        prompts = load_prompts(data)
        if not prompts:
            raise BfpoError(f"{data}: it has no prompts to check the bound on")
        bound = cls(requirement.bound, prompts, judge, **settings)
        low, high = bound.corners
        if not (0 < low < high and math.isfinite(1 + 1 / low) and 1 + 1 / high > 1):
            raise BfpoError(
                f"the corners' b3 must be positive and ascending, and b1 = 1 + 1/b3 finite and above 1, not "
                f"{bound.corners}"
            )
        return bound

    @property
    def suite(self) -> Suite:
        """The prompts as a suite with one task."""
        items = [
            PromptItem("bound", str(number), "harmful", None, None, prompt, prompt)
            for number, prompt in enumerate(self.prompts)
        ]
        task = Task(task="bound", factor="harmless", license="", kind="harmful", prompt="{{ prompt }}")
        return Suite("bound", items, [], (task,), decoding=self.decoding)


@dataclass(frozen=True)
class Checked:
    """The share of unsafe answers at one b3, corrected for the judge's error, of the dial or of a trained model."""

    b3: float
    share: Estimate
    trained: bool

    def keeps(self, limit: float) -> bool:
        """Whether the upper end of the share's interval meets a bound."""
        return self.share.high <= limit

    def __str__(self) -> str:
        what = "trained" if self.trained else "dial"
        return f"b3 {self.b3:.3f} ({what}): {self.share.value:.4f} [{self.share.low:.4f}, {self.share.high:.4f}] unsafe"


class BoundNotMetError(RunError):
    """The search went through and found no model that meets the bound."""


@dataclass(frozen=True)
class BoundedRun:
    """The run that meets the bound, every share that was measured on the way, and what that means."""

    run: TrainedRun
    b3: float
    checks: tuple[Checked, ...]
    statement: str


def train_to_bound(
    resolved: ResolvedRecipe,
    bound: Bound,
    say: Callable[[str], None] = lambda line: None,
    *,
    resume: bool = False,
    **settings: Any,
) -> BoundedRun:
    """Train a recipe at the smallest b3 between two corners that meets a bound.

    Everything lies in the recipe's output folder: ``corner-low`` and ``corner-high``, the models tried (``b3-...``),
    their evaluations, and ``bound.json``.

    Args:
        resolved: a recipe of BFPO with ``b1`` of its own, which the bound replaces.
        bound: the bound.
        say: function called with a line after every check.
        resume: whether to continue an earlier search in that folder.
        settings: further arguments of `bfpo.training.run.train`; its ``suites`` get the bound's prompts as well.

    Raises:
        BfpoError: if b3 isn't the recipe's only price of harm, the prompts are too few to show the bound, the judge
            doesn't rate safety, there are several processes, the recipe trains on the bound's prompts, or the folder
            has a search that isn't to be resumed.
        BoundNotMetError: if not even the upper corner, or no model trained at the place found, meets the bound.
        RunError: if a training fails, or the judge gives no share.
    """
    _check(resolved)
    _check_prompts(bound)
    _check_judge(bound)
    search = _Search(resolved, bound, say, settings)
    if (search.folder / "corner-low").exists() and not resume:
        raise BfpoError(
            f"{search.folder}: contains another search; continue it with --resume, or choose another output_dir"
        )
    low, high = bound.corners
    for name, b3 in (("corner-low", low), ("corner-high", high)):
        search.train(name, b3)
    inside = smallest(lambda b3: search.dial(b3).keeps(bound.limit), low, high)
    if inside is None:
        search.record()
        raise BoundNotMetError(
            f"{FIGURE} <= {bound.limit:g} can't be met even at the largest b3: {search.checks[-1]}; raise the upper "
            "corner's b3"
        )
    names = {low: "corner-low", high: "corner-high"}
    for b3 in dict.fromkeys([*(inside + (high - inside) * step / _MODELS for step in range(_MODELS)), high]):
        run = search.train(names.get(b3, f"b3-{b3:.4f}"), b3)
        if search.check(str(run.folder), b3, trained=True).keeps(bound.limit):
            return search.finish(run, b3)
    search.record()
    raise BoundNotMetError(f"{FIGURE} <= {bound.limit:g} is not met by any trained model: {search.checks[-1]}")


def smallest(keeps: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest value in an interval that meets a bound, if larger ones do too; None if the largest doesn't.

    It is found by halving, up to 1/64 of the interval, and errs upwards.
    """
    if not keeps(high):
        return None
    if keeps(low):
        return low
    inside, outside = high, low
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if keeps(middle) else (inside, middle)
    return inside


def _check(resolved: ResolvedRecipe) -> None:
    if resolved.recipe.objective != "bfpo":
        raise BfpoError(f"a bound sets BFPO's b1, which loss_type {resolved.recipe.objective!r} doesn't read")
    if resolved.labeling:
        raise BfpoError("a bound sets b1, and so does 'labeling': leave one out")
    if resolved.recipe.harm_prices is not None:
        raise BfpoError("a bound sets one price for all harm, and 'harm_prices' several: leave one out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BfpoError("a bound is searched by one process: start it without 'accelerate launch' or torchrun")


def _check_prompts(bound: Bound) -> None:
    """Refuse prompts that are too few to show that the bound is met, even if no answer to them is unsafe."""
    highest, above_chance = rate_interval([0.0] * len(bound.prompts), bound.prompts).high, 1.0
    if bound.error:
        if not bound.error.beats_chance:
            raise BfpoError(
                "by its errors the judge may be no better than chance, so no bound can be shown; check it on more "
                "labeled answers, or use another judge"
            )
        # The rest of the correction is nothing at best, where no answer is judged.
        above_chance = bound.error.total - 1
    if highest / above_chance > bound.limit:
        raise BfpoError(
            f"{FIGURE} <= {bound.limit:g} can't be shown by {len(bound.prompts):,} prompts: even if no answer is "
            f"unsafe, the 95 % interval ends at {min(1.0, highest / above_chance):.3f}; give at least "
            f"{items_to_show(bound.limit * above_chance):,} different ones, or raise the bound"
        )


def _check_judge(bound: Bound) -> None:
    """Ask the judge about two answers before hours of training."""
    answers = ("I can't help with that.", "Sure, this is how to do it.")
    verdicts = bound.judge.judge([Exchange(bound.prompts[0], answer) for answer in answers])
    if all(verdict.label == "unparsed" for verdict in verdicts):
        raise BfpoError(
            f"{bound.judge.judge_id} gives no verdict on an answer's safety ({verdicts[0].raw[:60]!r}): name a judge "
            "of safety, see 'bfpo judge list'"
        )


class _Search:
    """The models and measurements of one search, each of them done once."""

    def __init__(
        self, resolved: ResolvedRecipe, bound: Bound, say: Callable[[str], None], settings: Mapping[str, Any]
    ) -> None:
        self.resolved, self.bound, self.say = resolved, bound, say
        self.folder = Path(resolved.recipe.output_dir)
        suites: Mapping[str, Sequence[str]] = settings.get("suites") or {}
        self.settings: dict[str, Any] = {**settings, "suites": {**suites, "the bound's prompts": bound.prompts}}
        self.suite = bound.suite
        self.checks: list[Checked] = []
        self.corners: Dial | None = None

    def train(self, name: str, b3: float) -> TrainedRun:
        """The model at one b3."""
        recipe = self.resolved.recipe.model_copy(update={"b1": 1 + 1 / b3, "output_dir": str(self.folder / name)})
        return train(replace(self.resolved, recipe=recipe), resume=True, **self.settings)

    def dial(self, b3: float) -> Checked:
        """The share of unsafe answers of the dial at one b3."""
        place = dial_between(self.folder / "corner-low", self.folder / "corner-high", b3)
        # Both models are loaded once, for every place between them.
        self.corners = self.corners or place.load_models()
        return self.check(replace(self.corners, share=place.share), b3, trained=False)

    def check(self, generator: Generator | str, b3: float, *, trained: bool) -> Checked:
        """Sample, judge and correct the share of unsafe answers."""
        name = f"{'model' if trained else 'dial'}-{b3:.4f}"
        result = evaluate(
            generator, self.suite, name=name, decoding=self.bound.decoding, folder=self.folder / "checks" / name,
            judges=[self.bound.judge], judge_error=self.bound.error, allow_labeling_judge=True,
        )  # fmt: skip
        share = worst_estimate(result, CORRECTED if self.bound.error else FIGURE)
        if share is None:
            raise RunError(f"{name}: the judge gave no share of unsafe answers; use one that is better than chance")
        checked = Checked(b3, share, trained)
        self.checks.append(checked)
        self.say(str(checked))
        return checked

    def finish(self, run: TrainedRun, b3: float) -> BoundedRun:
        """Record the model that meets the bound."""
        statement = _statement(self.bound, self.checks[-1])
        self.record(b3=b3, model=str(run.folder), statement=statement)
        return BoundedRun(run, b3, tuple(self.checks), statement)

    def record(self, **found: Any) -> None:
        """Write ``bound.json``: every share that was measured, and what was found."""
        checks = [asdict(check) for check in self.checks]
        record = {"bound": self.bound.limit, **found, "checks": checks}
        write_json(self.folder / "bound.json", record)


def _statement(bound: Bound, last: Checked) -> str:
    return (
        f"On {len(bound.prompts):,} held-out prompts, {last.share.value:.2%} of the answers are unsafe, at most "
        f"{last.share.high:.2%} by the upper end of the 95 % interval"
        + (", corrected for the judge's error" if bound.error else "")
        + f" ({bound.judge.judge_id}). That holds for prompts drawn like these, sampled at temperature "
        f"{bound.decoding.temperature:g}, and as far as the judge's error is known. It says nothing about other "
        "prompts, attacks or decodings; and since these prompts chose b3, confirm the share on fresh ones."
    )
