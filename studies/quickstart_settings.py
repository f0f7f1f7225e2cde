"""Settings of the real quickstart, tried on requests held out of its training: what is learned and what is lost."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from bfpo.files import write_json
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import ChoiceRequest, Decoding, SampleRequest
from bfpo.judges.registry import load_judge
from bfpo.judges.verdict import Exchange
from bfpo.quickstart import RECORD, write_recipe
from bfpo.real_quickstart import HELD_OUT_REFUSALS, LABELING, SFT
from bfpo.redteam.bank import Bank, load_bank
from bfpo.redteam.running import GROUPS
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train

HELD_OUT_PAIRS, HELD_OUT_PLAIN = 70, 20
DECODING = Decoding(temperature=0.0, max_new_tokens=32, batch_size=64)


@dataclass(frozen=True)
class Trial:
    """Changes of the quickstart's recipes: of SFT's, and of the method's that continues it."""

    sft: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    name: str = "BFPO"


TRIALS: Mapping[str, Trial] = {
    "shipped": Trial(),
    "slower": Trial({"learning_rate": 3e-4}, {"learning_rate": 3e-4}),
    "slower SFT": Trial({"learning_rate": 3e-4}),
}


def run_trial(run: Path, model: str, folder: Path, name: str) -> dict[str, Any]:
    """Train and measure one trial on the groups of a quickstart; resumable.

    Args:
        run: folder of the quickstart.
        model: the chat model that it began with.
        folder: folder of the trials, which share the models that their settings share.
        name: name in `TRIALS`.
    """
    trial = TRIALS[name]
    held_out = _held_out(run)
    for part in ("red-team", "plain"):
        _write_rest(run / part / GROUPS, folder / "data" / f"{part}.jsonl", held_out)
    sft = _trained(run, folder, SFT, model, trial.sft)
    method = _trained(run, folder, trial.name, str(sft), trial.method)
    start = LocalGenerator.load(model)
    answers = _answers(start, held_out)
    figures = {"start": _figures(start, held_out, answers)}
    figures |= {path.name: _figures(LocalGenerator.load(path), held_out, answers) for path in (sft, method)}
    write_json(folder / f"{name}.json", figures)
    return figures


def _held_out(run: Path) -> Bank:
    """Training requests of the quickstart that the trials don't train on."""
    seed = json.loads((run / RECORD).read_text(encoding="utf-8"))["settings"]["seed"]
    training, _ = load_bank().split(0.25, seed)
    rng = random.Random(100)
    return Bank(tuple(rng.sample(training.pairs, HELD_OUT_PAIRS)), tuple(rng.sample(training.plain, HELD_OUT_PLAIN)))


def _write_rest(groups: Path, rest: Path, held_out: Bank) -> None:
    texts = set(held_out.texts)
    lines = groups.read_text(encoding="utf-8").splitlines(keepends=True)
    rest.parent.mkdir(parents=True, exist_ok=True)
    kept = [line for line in lines if json.loads(line)["prompt"][-1]["content"] not in texts]
    rest.write_text("".join(kept), encoding="utf-8")


def _trained(run: Path, folder: Path, name: str, model: str, changes: Mapping[str, Any]) -> Path:
    """Folder of a model, named after its start and what differs from the quickstart's recipe."""
    recipe = yaml.safe_load((run / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    changed = [name, *(f"{key}={value}" for key, value in changes.items())]
    output = folder / "models" / " ".join(([] if name == SFT else [Path(model).name]) + changed)
    for source in recipe["data"]:
        source["path"] = str(folder / "data" / f"{source['name']}.jsonl")
    recipe |= {**changes, "model": model, "output_dir": str(output)}
    if "reference_cache" in recipe:
        recipe["reference_cache"] = str(folder / "reference")
    train(load_recipe(write_recipe(folder / "recipes" / f"{output.name}.yaml", recipe)), resume=True)
    return output


def _answers(generator: LocalGenerator, bank: Bank) -> dict[str, str]:
    """The likeliest answer to every request of a bank."""
    requests = [SampleRequest(text, text, 0) for text in bank.texts]
    batches = generator.plan(requests, DECODING)
    return {
        request.key: answer.text
        for batch in batches
        for request, answer in zip(batch, generator.generate(batch, DECODING), strict=True)
    }


def _figures(generator: LocalGenerator, bank: Bank, start_answers: Mapping[str, str]) -> dict[str, float]:
    """Shares of requests that are declined, and likelihoods in nats per byte."""
    answers = _answers(generator, bank)
    kinds: dict[str, Sequence[str]] = {
        "risky": [pair.risky for pair in bank.pairs],
        "twins": [pair.benign for pair in bank.pairs],
        "plain": [one.plain for one in bank.plain],
    }
    judge = load_judge(LABELING)
    verdicts = {kind: judge.judge([Exchange(text, answers[text]) for text in texts]) for kind, texts in kinds.items()}
    declined = {kind: fmean(verdict.refusal == "yes" for verdict in found) for kind, found in verdicts.items()}
    benign = [*kinds["twins"], *kinds["plain"]]
    own = [ChoiceRequest(text, text, (start_answers[text], HELD_OUT_REFUSALS[0])) for text in benign]
    tokenizer = copy.copy(generator.tokenizer)
    tokenizer.chat_template = None
    texts = [ChoiceRequest(pair.id, "", (pair.risky, pair.benign)) for pair in bank.pairs]
    return {f"declined {kind}": share for kind, share in declined.items()} | {
        "start's benign answers": _nats_per_byte(generator, own, 1),
        "plain text": _nats_per_byte(replace(generator, tokenizer=tokenizer), texts, 2),
    }


def _nats_per_byte(generator: LocalGenerator, requests: Sequence[ChoiceRequest], counted: int) -> float:
    """Mean log-likelihood per byte of the first ``counted`` choices of every request."""
    choices = {request.key: request.choices for request in requests}
    scored = [one for batch in generator.score_choices(requests) for one in batch]
    nats = sum(sum(one.logps[:counted]) for one in scored)
    return nats / sum(len(text.encode()) for one in scored for text in choices[one.key][:counted])
