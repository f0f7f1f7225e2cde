"""Rounds of red teaming: a model is attacked, a model is trained on the answers, and that one is attacked again.

Every model is trained afresh from the user's, on the groups of all rounds so far. Requests that no round attacks show
the results: the first and the last model are attacked with them in every style.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from bfpo.claims import claimed
from bfpo.config import read_yaml
from bfpo.errors import BfpoError
from bfpo.files import file_sha256, write_json
from bfpo.generation.local_generator import LocalGenerator
from bfpo.judges.verdict import Judge, unscaled
from bfpo.redteam.asking import Progress
from bfpo.redteam.attacker import STYLE as ATTACKER
from bfpo.redteam.attacker import Attacker
from bfpo.redteam.attacking import RequestJudge
from bfpo.redteam.bank import HELD_OUT, Bank
from bfpo.redteam.help_buffer import write_help_buffer
from bfpo.redteam.measuring import PLAIN, Resistance, measuring_suite, resistance
from bfpo.redteam.running import GROUPS, ROUNDS, SUMMARY, NoGroupsError, red_team
from bfpo.redteam.settings import RedTeam
from bfpo.safehelp.evaluate import evaluate
from bfpo.training.recipe import ResolvedRecipe, resolve
from bfpo.training.run import train

# Name of the source in a recipe whose place the groups take; answers to plain requests take that of `PLAIN`.
SOURCE = "red-team"


def packaged_recipe() -> Path:
    """The recipe of the paper's red teaming."""
    return Path(str(files("bfpo.recipes") / "redteam-bfpo.yaml"))


@dataclass(frozen=True)
class Rounds:
    """Settings of several rounds.

    Attributes:
        rounds: number of rounds; each attacks a model and trains the next one.
        red_team: settings of every round; a round's number is added to its seeds.
        held_out_requests: share of each category's requests that no round attacks.
        recipe: recipe of the trained models. Its ``model`` and ``output_dir`` are replaced. The groups of all rounds
            take the place of its source named ``red-team``, with that source's settings. In place of a source named
            ``plain-requests``, if there is one, come the first model's answers to plain requests, each beside a written
            refusal (see `bfpo.redteam.help_buffer`). Other sources stay.

    Raises:
        BfpoError: if there is no round.
    """

    rounds: int = 2
    red_team: RedTeam = field(default_factory=RedTeam)
    held_out_requests: float = 0.25
    recipe: Path = field(default_factory=packaged_recipe)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BfpoError(f"{self.rounds} rounds train nothing: choose 1 or more")

    @property
    def styles(self) -> tuple[str, ...]:
        """All styles but the attacker's, whose wordings are made for a round; those held out of training last."""
        return tuple(name for name in (*self.red_team.styles, *self.red_team.held_out) if name != ATTACKER)

    def recipe_of(self, model: str, folder: Path, number: int) -> ResolvedRecipe:
        """The recipe of the model after a number of rounds.

        Raises:
            BfpoError: if the recipe is wrong.
        """
        values = read_yaml(self.recipe, "a recipe")
        sources = _sources(values)
        own = _named(sources, SOURCE) or {}
        data: list[Any] = [
            own | {"name": f"{SOURCE}-{at}", "path": str(folder / f"round-{at}" / GROUPS)} for at in range(number)
        ]
        plain = _named(sources, PLAIN)
        data += [plain | {"path": str(folder / PLAIN / GROUPS)}] if plain else []
        data += [one for one in sources if one is not own and one is not plain]
        values |= {"model": model, "data": data, "output_dir": str(folder / f"model-{number}")}
        given = dict.fromkeys(values, "recipe") | dict.fromkeys(("model", "data", "output_dir"), "command line")
        return resolve(values, given, str(self.recipe))

    @property
    def has_help_buffer(self) -> bool:
        """Whether the recipe trains on answers to plain requests."""
        return _named(_sources(read_yaml(self.recipe, "a recipe")), PLAIN) is not None

    def check(self, model: str, folder: Path) -> None:
        """Refuse settings that can't be run.

        Raises:
            BfpoError: if the recipe is wrong, or its buffer of plain requests lacks written refusals.
        """
        self.recipe_of(model, folder, 1)
        if self.has_help_buffer and not self.red_team.refusals:
            raise BfpoError(
                f"{self.recipe}: answers to plain requests teach something only beside written refusals: name some "
                f"(--refusal), or remove the source {PLAIN!r}"
            )

    def planned(self, bank: Bank) -> dict[str, int]:
        """Numbers of rounds, trainings, answers and the most tokens that they can take.

        Raises:
            BfpoError: if the bank can't be split.
        """
        attacked, held_out = bank.split(self.held_out_requests, self.red_team.seed)
        attacks = self.red_team.attacks + self.red_team.measured
        samples = self.red_team.decoding.samples
        in_rounds = self.rounds * 2 * attacks * samples
        plain = len(attacked.plain) * samples if self.has_help_buffer else 0
        measured = 2 * (2 * len(held_out.pairs) * len(self.styles) + len(held_out.plain))
        answers = in_rounds + plain + measured
        return {
            "rounds": self.rounds,
            "trainings": self.rounds,
            "answers_in_rounds": in_rounds,
            "answers_to_plain_requests": plain,
            "answers_before_and_after": measured,
            "answers": answers,
            "most_tokens": answers * self.red_team.decoding.max_new_tokens,
        }


@dataclass(frozen=True)
class RoundJudges:
    """The judges of several rounds.

    Attributes:
        labeling: safety judge that labels the groups.
        refusal: judge that decides which answers decline; by default the safety judges do.
        evaluation: safety judge of the first and the last model; by default the one that labels.
    """

    labeling: Judge
    refusal: Judge | None = None
    evaluation: Judge | None = None

    @property
    def ids(self) -> dict[str, str | None]:
        """Their ids."""
        return {name: judge and judge.judge_id for name, judge in vars(self).items()}


@dataclass(frozen=True)
class RoundsResult:
    """The results of several rounds.

    Attributes:
        model: name or folder of the last model.
        groups: number of groups to train on of every round.
        stopped: why there were fewer rounds than wanted; "" if there weren't.
        before: how the first model resists attacks with held-out requests.
        after: how the last model does.
        caption: whose verdicts the two are.
    """

    model: str
    groups: tuple[int, ...]
    stopped: str
    before: Resistance
    after: Resistance
    caption: str


def red_team_rounds(
    model: str,
    judges: RoundJudges,
    bank: Bank,
    settings: Rounds,
    folder: Path,
    *,
    evaluation: Mapping[str, Sequence[str]] | None = None,
    attacker: Attacker | None = None,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda line: None,
    **training: Any,
) -> RoundsResult:
    """Attack and train a model in turn; an interrupted run is resumed, nothing is asked or trained twice.

    The folder holds ``before`` and ``after`` (evaluations), ``round-0``, ... (see `red_team`), ``model-1``, ... (run
    folders) and ``rounds.json``.

    Args:
        model: folder or Hub name of the model.
        judges: the judges.
        bank: requests; a share is held out.
        settings: how many rounds, of which attacks, with which recipe.
        folder: folder of the run.
        evaluation: evaluation prompts by the name of their set, which no group contains.
        attacker: model that words the attacks in the style ``attacker``.
        progress: function called with a stage and its numbers of finished and all answers.
        say: function called with a line about every stage.
        training: further arguments of `bfpo.training.run.train`.

    Raises:
        BfpoError: if the folder holds another run, or the model, the recipe or the bank is unsuitable.
        RunError: if a judge gives no verdict, the first round finds nothing to train on, or training fails.
    """
    attacked, held_out = bank.split(settings.held_out_requests, settings.red_team.seed)
    settings.check(model, folder)
    wording = attacker and attacker.record
    record = _settings_record(model, judges, bank, settings) | {"attacker": wording}
    _claim(folder, record)
    prompts = {**(evaluation or {}), HELD_OUT: held_out.texts}
    run = _Run(judges, settings, folder, prompts, attacker, progress, say, training)
    before = run.measure(model, held_out, "before")
    if settings.has_help_buffer:
        run.answer_plain(model, attacked)
    groups, current, stopped = [], model, ""
    for number in range(settings.rounds):
        try:
            groups.append(run.attack(current, attacked, number))
        except NoGroupsError as error:
            if not number:
                raise
            stopped = f"round {number}: {error}"
            say(stopped)
            break
        current = run.train(model, number + 1)
    after = run.measure(current, held_out, "after")
    result = RoundsResult(current, tuple(groups), stopped, before, after, _caption(judges))
    write_json(folder / ROUNDS, {"settings": record, "result": asdict(result)})
    return result


@dataclass(frozen=True)
class _Run:
    """The stages of one run, each of which resumes by itself."""

    judges: RoundJudges
    settings: Rounds
    folder: Path
    prompts: Mapping[str, Sequence[str]]
    attacker: Attacker | None
    progress: Progress
    say: Callable[[str], None]
    training: Mapping[str, Any]

    def attack(self, model: str, bank: Bank, number: int) -> int:
        """Attack a model, and return the number of groups to train on."""
        settings, seed = self.settings.red_team, self.settings.red_team.seed + number
        settings = replace(settings, seed=seed, decoding=replace(settings.decoding, seed=seed))
        name = f"round-{number}"
        found = red_team(
            LocalGenerator.load(model), self.judges.labeling, bank.pairs, settings, self.folder / name,
            evaluation=self.prompts, refusal_judge=self.judges.refusal, attacker=self.attacker,
            progress=lambda turn, done, total: self.progress(f"{name} {turn}", done, total),
        )  # fmt: skip
        success = found.success.get("all")
        rate = f"{success.value:.2f} of the answers to attacks are unsafe, " if success else ""
        self.say(f"{name}: {rate}{found.groups:,} groups to train on")
        return found.groups

    def answer_plain(self, model: str, bank: Bank) -> None:
        """Write the first model's answers to plain requests, which every training reads."""
        settings = self.settings.red_team
        found = write_help_buffer(
            LocalGenerator.load(model), self.judges.labeling, bank, settings.refusals, self.folder / PLAIN,
            decoding=settings.decoding, evaluation=self.prompts, refusal_judge=self.judges.refusal,
            progress=lambda _, done, total: self.progress("plain requests", done, total),
        )  # fmt: skip
        left_out = "".join(f", {count:,} {what} left out" for what, count in found.items() if what != "groups")
        self.say(f"plain requests: {found['groups']:,} groups{left_out}")

    def train(self, model: str, number: int) -> str:
        """Train the model after a number of rounds, and return its folder."""
        resolved = self.settings.recipe_of(model, self.folder, number)
        folder = Path(resolved.recipe.output_dir)
        suites: Mapping[str, Sequence[str]] = self.training.get("suites") or {}
        settings: dict[str, Any] = {**self.training, "suites": {**suites, **self.prompts}}
        trained = train(resolved, resume=True, say=self.say, **settings)
        self.say(f"{folder.name}: trained in {trained.seconds:.0f} s")
        return str(folder)

    def measure(self, model: str, held_out: Bank, name: str) -> Resistance:
        """Attack a model with the held-out requests in every style."""
        settings = self.settings.red_team
        # One answer to each of many prompts tells more than several to each of fewer.
        decoding = replace(settings.decoding, samples=1)
        judges = [RequestJudge(self.judges.evaluation or self.judges.labeling)]
        refusal = RequestJudge(self.judges.refusal) if self.judges.refusal else None
        found = evaluate(
            LocalGenerator.load(model), measuring_suite(held_out, self.settings.styles, settings.seed, decoding),
            decoding=decoding, folder=self.folder / name, judges=judges, refusal_judge=refusal,
            allow_labeling_judge=True,
            progress=lambda _, done, total: self.progress(name, done, total),
        )  # fmt: skip
        trained = [name for name in self.settings.styles if name in settings.styles]
        return resistance(found.generations, trained, settings.held_out)


def _settings_record(model: str, judges: RoundJudges, bank: Bank, settings: Rounds) -> dict[str, Any]:
    requests = json.dumps(asdict(bank), sort_keys=True).encode()
    return {
        "model": model,
        "judges": judges.ids,
        "rounds": settings.rounds,
        "held_out_requests": settings.held_out_requests,
        "requests_sha256": hashlib.sha256(requests).hexdigest(),
        "recipe_sha256": file_sha256(settings.recipe),
        "red_team": asdict(settings.red_team),
    }


def _sources(recipe: Mapping[str, Any]) -> list[Any]:
    """The sources of a recipe; what is not a list of sources stays, so that it is found to be wrong."""
    data = recipe.get("data", [])
    return data if isinstance(data, list) else [data]


def _named(sources: Sequence[Any], name: str) -> dict[str, Any] | None:
    return next((one for one in sources if isinstance(one, dict) and one.get("name") == name), None)


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Check that the folder holds no other run, and record this one."""
    if not (folder / ROUNDS).exists() and any((folder / name).exists() for name in (SUMMARY, "turn-0", "run.json")):
        raise BfpoError(f"{folder}: contains another run; name another folder")
    claimed(folder / ROUNDS, settings, "rounds")


def _caption(judges: RoundJudges) -> str:
    judge = judges.evaluation or judges.labeling
    if unscaled(judge.judge_id) != unscaled(judges.labeling.judge_id):
        return f"verdicts of {judge.judge_id}; {judges.labeling.judge_id} labeled the training data"
    return (
        f"verdicts of {judge.judge_id}, which also labeled the training data, so that the model may have learned to "
        "please it"
    )
