"""Red teaming of an unaligned microworld model in two rounds, without human labels: ``make study-redteam``.

The model is the bundled one, which no preference ever trained: it answers two in three harmful requests. A judge that
errs on a tenth of its answers labels them; an exact one measures.
Attack styles are the package's, written in words that this model's pretraining never contained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bfpo.files import write_text
from bfpo.generation.protocol import Decoding
from bfpo.judges.registry import load_judge
from bfpo.microworld.grammar import Request, requests
from bfpo.microworld.vocabulary import EXCUSES, REFUSALS
from bfpo.redteam.bank import Bank, Pair, PlainRequest
from bfpo.redteam.settings import RedTeam
from bfpo.redteam.styles import HELD_OUT_STYLES, STYLES
from bfpo.rounds import RoundJudges, Rounds, red_team_rounds
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite

MODEL = "microworld"
LABELER, EVALUATOR = "microworld-oracle:0.1,0.1,{seed}", "microworld-oracle"
# Conversations of many_shot are longer than the 256 tokens that the model was pretrained for.
TRAINED_STYLES = tuple(name for name in STYLES if name not in (*HELD_OUT_STYLES, "many_shot"))
FIGURES = ("helpful", "harmless", "over_refusal", "incoherent")
PER_KIND = 150


@dataclass(frozen=True)
class Setup:
    """Settings of the study.

    Attributes:
        attacks: number of attacks of a round.
        turns: number of turns of a round.
        samples: number of answers to each prompt.
        plain: number of plain requests.
        beta: BFPO's beta.
        learning_rate: peak learning rate.
        epochs: number of epochs of each training.
        level: weight of the level's anchor.
        buffer_ratio: groups of the model's own answers to plain requests for each group of attacks and twins.
    """

    attacks: int = 200
    turns: int = 4
    samples: int = 4
    plain: int = 160
    beta: float = 0.1
    learning_rate: float = 2e-4
    epochs: float = 6
    level: float = 4.0
    buffer_ratio: float = 1 / 7

    def rounds(self, seed: int, recipe: Path) -> Rounds:
        """Settings of two rounds."""
        decoding = Decoding(samples=self.samples, max_new_tokens=64, seed=seed)
        attacks = RedTeam(self.attacks, self.turns, TRAINED_STYLES, HELD_OUT_STYLES, decoding, seed, refusals=REFUSALS)
        return Rounds(2, attacks, recipe=recipe)

    def recipe(self, seed: int) -> dict[str, Any]:
        """The recipe of the trained models."""
        buffer = [{"name": "plain-requests", "path": "", "role": "buffer"}] if self.buffer_ratio else []
        ratio = {"buffer_ratio": self.buffer_ratio} if self.buffer_ratio else {}
        return ratio | {
            "stage": "preference", "model": "", "output_dir": "", "data": [{"name": "red-team", "path": ""}, *buffer],
            "loss_type": "bfpo", "beta": self.beta, "level": self.level, "batch_size": 16,
            "learning_rate": self.learning_rate, "num_train_epochs": self.epochs, "max_length": 256,
            "micro_batch_tokens": 4096, "seed": seed,
        }  # fmt: skip


def microworld_bank(plain: int) -> Bank:
    """Harmful requests, one for every harmful action on a thing, each with the same request and an excuse.

    No two requests of the bank are about the same action and thing, so those held out are new in both rounds.

    Args:
        plain: number of plain requests.
    """
    harmful: dict[tuple[str, str], list[Request]] = {}
    for request in requests("train"):
        if request.kind == "harmful":
            harmful.setdefault((request.action.verb, request.thing.noun), []).append(request)
    pairs: list[Pair] = []
    for number, own in enumerate(harmful.values()):
        # A stride that shares no factor with the numbers of owners, circumstances and phrasings visits all of them.
        risky = own[37 * number % len(own)]
        twin = replace(risky, circumstance=EXCUSES[number % len(EXCUSES)])
        pairs.append(Pair(f"pair-{number}", str(risky.category), risky.text, twin.text))
    benign = [one for one in requests("train") if one.kind == "benign"]
    chosen = benign[:: len(benign) // plain][:plain]
    return Bank(tuple(pairs), tuple(PlainRequest(f"plain-{at}", "plain", one.text) for at, one in enumerate(chosen)))


def run_seed(folder: Path, setup: Setup, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One run: two rounds, and the suite before and after."""
    path = folder / "redteam.yaml"
    write_text(path, yaml.safe_dump(setup.recipe(seed)))
    judges = RoundJudges(load_judge(LABELER.format(seed=seed)), evaluation=load_judge(EVALUATOR))
    found = red_team_rounds(
        MODEL, judges, microworld_bank(setup.plain), setup.rounds(seed, path), folder / "rounds", say=say
    )
    suites = {name: _suite(folder, name, model, seed) for name, model in (("before", MODEL), ("after", found.model))}
    styles = {"trained": TRAINED_STYLES, "held_out": HELD_OUT_STYLES}
    result = {"setup": asdict(setup), "seed": seed, "styles": styles, **json.loads(json.dumps(asdict(found)))}
    del result["model"]
    return result | {
        "suite": {name: {figure: asdict(own.scores[figure]) for figure in FIGURES} for name, own in suites.items()}
    }


def _suite(folder: Path, name: str, model: Path | str, seed: int) -> Evaluation:
    suite = load_suite("microworld", per_kind=PER_KIND)
    return evaluate(
        model, suite, name=name, decoding=replace(suite.decoding, seed=seed), folder=folder / f"suite-{name}"
    )


def run_seeds(
    output: Path, results: Path, setup: Setup, seeds: Sequence[int], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The results of all seeds; each is run once, and kept as JSON."""
    found: list[dict[str, Any]] = []
    for seed in seeds:
        path = results / f"seed-{seed}.json"
        if not path.exists():
            result = run_seed(output / f"seed-{seed}", setup, seed, say)
            write_text(path, json.dumps(result, indent=2) + "\n")
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found
