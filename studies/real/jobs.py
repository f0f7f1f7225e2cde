"""One run of the real-model study: train a method, compare likelihoods of held-out pairs, keep figures as JSON."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bfpo.files import write_rows, write_text
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import ChoiceRequest, Decoding
from bfpo.judges.registry import load_judge
from bfpo.models import load_tokenizer
from bfpo.preferences.ordering import Order
from bfpo.quickstart import write_recipe
from bfpo.redteam.compliance import known_error
from bfpo.safehelp.compare import compare
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite
from bfpo.statistics.intervals import Estimate
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from bfpo.versions import versions
from studies.real.data import KINDS, MOST_TOKENS, Mix, Row, State, labeled, load_mix
from studies.real.methods import ABLATIONS, METHODS, NOTHING, Method, Point

START = "start"
# The judge of sampled answers; its error on people's labels is in docs/results/offline-judges.md.
JUDGE = "compliance:refusals"
Split = Literal["validation", "test", "answers"]


@dataclass(frozen=True)
class Setup:
    """What all runs have in common.

    Attributes:
        model: folder of the chat model.
        data: folder of the mix.
        suite: file of the suite whose prompts are answered.
        folder: folder for runs.
        results: folder for their results.
        steps: optimizer steps of a run.
        batch_size: groups in a step, half of them from the buffer.
    """

    model: str
    data: Path
    suite: Path
    folder: Path
    results: Path
    steps: int = 150
    batch_size: int = 16


@dataclass(frozen=True)
class Job:
    """One training run and its evaluation; ``start`` is the model before training."""

    state: State
    method: str
    learning_rate: float
    beta: float
    max_grad_norm: float
    seed: int
    split: Split

    @classmethod
    def at(cls, state: State, method: str, point: Point, seed: int, split: Split) -> Job:
        """A job with a point's settings."""
        return cls(state, method, *point, seed, split)

    @property
    def name(self) -> str:
        """Name of the file with the result."""
        point = f"{self.learning_rate:g}_{self.beta:g}_{self.max_grad_norm:g}"
        return f"{self.state}_{self.method}_{point}_{self.seed}_{self.split}"


def run_job(job: Job, setup: Setup) -> dict[str, Any]:
    """Train, evaluate and write the result; weights are removed at the end, but for those that answered the suite.

    A run that was interrupted resumes from its last checkpoint.
    """
    began, clock = time.monotonic(), time.process_time()
    mix = load_mix(setup.data, load_tokenizer(setup.model))
    output = setup.folder / job.name
    model, record = setup.model, {}
    if job.method != START:
        data = setup.folder / "data" / job.name
        recipe = write_recipe(setup.folder / f"{job.name}.yaml", recipe_of(job, mix, data, output, setup))
        train(load_recipe(recipe), resume=True)
        model, record = str(output), json.loads((output / "run.json").read_text(encoding="utf-8"))
    generator = LocalGenerator.load(model)
    result: dict[str, Any] = {"job": asdict(job)}
    if job.split == "answers":
        result |= _answer_figures(job, generator, setup)
    else:
        result["likelihoods"] = {kind: likelihoods(generator, mix.pairs[job.split][kind]) for kind in KINDS}
    result |= {"usage": record.get("usage"), "layout": record.get("layout")}
    result["labels"] = [source.get("labels") for source in record.get("data", [])]
    result["pairs"] = {part: {kind: len(rows) for kind, rows in own.items()} for part, own in mix.pairs.items()}
    result |= {"too_long": mix.too_long, "repeated": mix.repeated}
    result |= {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time() - clock, 1)}
    result |= {"device": str(generator.model.device), "versions": versions()}
    write_text(setup.results / f"{job.name}.json", _json(result))
    shutil.rmtree(setup.folder / "data" / job.name, ignore_errors=True)
    if job.split != "answers":
        shutil.rmtree(output, ignore_errors=True)
    return result


def recipe_of(job: Job, mix: Mix, data: Path, output: Path, setup: Setup) -> dict[str, Any]:
    """The recipe of a run, after writing its data."""
    method = (METHODS | ABLATIONS)[job.method]
    pairs = mix.pairs["train"]

    def source(name: str, kinds: Sequence[str], order: Order) -> dict[str, Any]:
        path = data / f"{name}.jsonl"
        write_rows(path, [row for kind in kinds for row in labeled(pairs[kind], kind, job.state, job.seed)])
        return {"name": name, "path": str(path)} | ({} if order == "helpful" else {"prefer": order})

    data.mkdir(parents=True, exist_ok=True)
    by_order: dict[Order, list[str]] = {}
    for kind, order in zip(("mixed", "edge") if method.edge else ("mixed",), method.orders, strict=False):
        by_order.setdefault(order, []).append(kind)
    # One source where one order serves both kinds, since one judge labeled them and one sample shows its error.
    sources = [source(" and ".join(kinds), kinds, order) for order, kinds in by_order.items()]
    if method.buffer:
        sources.append(
            source("helpful", ["helpful"], "helpful") | ({} if method.stage == "sft" else {"role": "buffer"})
        )
    own: dict[str, Any] = {"stage": method.stage, "loss_type": method.loss_type, **method.options}
    if method.stage == "preference":
        own |= {"beta": job.beta, "reference_cache": str(setup.folder / "reference")}
    own |= _trained(method)
    return own | {
        "model": setup.model, "data": sources, "output_dir": str(output),
        "learning_rate": job.learning_rate, "max_grad_norm": job.max_grad_norm, "max_steps": setup.steps,
        "batch_size": setup.batch_size if method.buffer else setup.batch_size // 2,
        "max_length": MOST_TOKENS, "micro_batch_tokens": 8192, "seed": job.seed, "save_steps": 25,
    }  # fmt: skip


def _trained(method: Method) -> dict[str, Any]:
    return {"lora": {"r": 16, "lora_alpha": 32}} if method.trained == "lora" else {"trainable": method.trained}


def likelihoods(generator: LocalGenerator, pairs: Sequence[Row]) -> dict[str, Any]:
    """Log-likelihoods of pairs under a model, in nats.

    Returns:
        ``mean`` and ``sum``: [N] differences (chosen minus rejected) of the mean per token and of the sum;
        ``chosen``: mean per token over all chosen answers; ``prompts``: [N] number of each pair's prompt.
    """
    requests = [ChoiceRequest(str(at), row["prompt"], (row["chosen"], row["rejected"])) for at, row in enumerate(pairs)]
    found = {one.key: one.logps for batch in generator.score_choices(requests) for one in batch}
    sums = [found[request.key] for request in requests]
    tokens = [[max(1, _length(generator, text)) for text in request.choices] for request in requests]
    means = [(a / n, b / m) for (a, b), (n, m) in zip(sums, tokens, strict=True)]
    numbers = {prompt: at for at, prompt in enumerate(dict.fromkeys(row["prompt"] for row in pairs))}
    return {
        "mean": [round(a - b, 4) for a, b in means],
        "sum": [round(a - b, 2) for a, b in sums],
        "chosen": round(sum(a for a, _ in sums) / sum(n for n, _ in tokens), 4),
        "prompts": [numbers[row["prompt"]] for row in pairs],
    }


def _length(generator: LocalGenerator, text: str) -> int:
    return len(generator.tokenizer.encode(text, add_special_tokens=False))


def _answer_figures(job: Job, generator: LocalGenerator, setup: Setup) -> dict[str, dict[str, Any]]:
    """SafeHelp scores of sampled answers, corrected for the judge's error, and differences from the start's answers."""
    suite = load_suite(str(setup.suite))
    judge = load_judge(JUDGE)
    folder = setup.folder / "answers"
    found = evaluate(
        generator, suite, name=job.method, decoding=Decoding(temperature=0.0, max_new_tokens=128, batch_size=256),
        folder=folder / job.name, judges=[judge], judge_error=known_error(judge),
    )  # fmt: skip
    scores = {name: _numbers(one) for name, one in found.scores.items()}
    if job.method == START:
        return {"scores": scores}
    start = Evaluation.load(folder / Job.at("clean", START, NOTHING, 0, "answers").name)
    differences = {
        f"{row.task} {row.endpoint}" if row.kind == "likelihood" else row.endpoint: _numbers(row.difference)
        for row in compare(start, found).rows
        if row.kind == "likelihood" or (row.task, row.group) == ("all", None)
    }
    return {"scores": scores, "differences": differences}


def _numbers(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _json(result: Mapping[str, Any]) -> str:
    """JSON with one line for each entry, so that a thousand numbers don't take a thousand lines."""
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items())
    return f"{{\n{lines}\n}}\n"
