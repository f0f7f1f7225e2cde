"""What ``bfpo train --plan`` tells of a run's memory and time, against the run.

    python benchmarks/plan.py models/smollm2       # three quarters of an hour; writes docs/results/plan.md and .json

SmolLM2 (from `bfpo model smollm2`) and random models of a 0.5B Qwen2.5's shape and of a small Llama's; LoRA, the
down projections or all weights; float32 and bfloat16; short and long rows. Plan and run are a process each, one after
the other, so the machine must be idle. Every case is saved as it ends, and a second start goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bfpo.training.recipe import load_recipe
from bfpo.training.run import train as run_recipe
from bfpo.training.trainer import BFPOTrainer

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
TRAINED: dict[str, dict[str, Any]] = {
    "LoRA": {"lora": {"r": 16}},
    "down_proj": {"trainable": "down_proj"},
    "all": {},
}
# Words of a prompt and of an answer, and groups of the data and of a step.
ROWS = {"short": (30, 40, 16, 8), "long": (250, 350, 4, 2)}
# Qwen/Qwen2.5-0.5B's config.json; a Llama of 201M weights.
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen2.5-0.5B's shape": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
    },
    "a Llama of 201M": {
        "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8,
        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 49_152, "tie_word_embeddings": False,
    },
}  # fmt: skip


def write_models(smollm2: Path, folder: Path) -> dict[str, Path]:
    """The three models' folders, by name; the random ones have SmolLM2's tokenizer."""
    torch.manual_seed(0)
    made = {"SmolLM2-135M": smollm2}
    for name, shape in SHAPES.items():
        made[name] = folder / shape["model_type"]
        if not made[name].exists():
            AutoTokenizer.from_pretrained(smollm2).save_pretrained(made[name])
            AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape)).save_pretrained(made[name])
    return made


def write_rows(folder: Path, kind: str) -> Path:
    """Pairs of random words, whose lengths vary by half around the kind's."""
    prompt, answer, groups, _ = ROWS[kind]
    draw = random.Random(0)
    words = ("the", "small", "river", "house", "told", "again", "green", "why", "person", "often", "later", "open")

    def text(mean: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(mean // 2, mean * 3 // 2)))

    path = folder / f"{kind}.jsonl"
    rows = [
        {"prompt": text(prompt), "chosen": text(answer), "rejected": text(answer)}
        | {"chosen_is_safe": draw.random() < 0.5, "rejected_is_safe": draw.random() < 0.5}
        for _ in range(groups)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path, model: Path, rows: str, trained: str, precision: str, steps: int) -> Path:
    """The recipe of a case."""
    path = folder / "recipe.yaml"
    values = {"stage": "preference", "model": str(model), "loss_type": "bfpo", "precision": precision}
    values |= {"data": [{"path": str(write_rows(folder, rows))}], "output_dir": str(folder / "run")}
    values |= {"batch_size": ROWS[rows][3], "max_steps": steps, "micro_batch_tokens": 2048, "max_length": 2048}
    values |= {"reference_cache": None} | TRAINED[trained]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def train(recipe: Path) -> None:
    """Train in this process, and print what it took."""
    scoring: list[float] = []
    with_reference = BFPOTrainer._with_reference  # pyright: ignore[reportPrivateUsage]

    def timed(self: BFPOTrainer, data: Any) -> Any:
        started = time.monotonic()
        scored = with_reference(self, data)
        scoring.append(time.monotonic() - started)
        return scored

    BFPOTrainer._with_reference = timed  # pyright: ignore[reportPrivateUsage]
    folder = run_recipe(load_recipe(recipe)).folder
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    taken = {"seconds": record["seconds"]["train"] + sum(scoring), "reference_seconds": sum(scoring)}
    print(json.dumps(taken | {"memory_bytes": record["usage"]["peak_memory_bytes"]}))


def measure(case: dict[str, str], model: Path, steps: int) -> dict[str, Any]:
    """Plan and run of a case, in fresh processes."""
    with tempfile.TemporaryDirectory() as scratch:
        recipe = write_recipe(Path(scratch), model, case["rows"], case["trained"], case["precision"], steps)
        planned = [sys.executable, "-m", "bfpo", "train", str(recipe), "--plan", "--json"]
        commands = {"told": planned, "taken": [sys.executable, __file__, "--train", str(recipe)]}
        found: dict[str, Any] = dict(case)
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            figures = json.loads(done.stdout[done.stdout.index("{") :])
            found[name] = {key: figures[key] for key in ("seconds", "memory_bytes")}
        return found


def page(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    ratios = {
        key: [result["told"][key] / result["taken"][key] for result in results] for key in ("memory_bytes", "seconds")
    }
    answers: list[str] = []
    for key, words, band in (("memory_bytes", "Peak memory", 0.2), ("seconds", "time", 0.3)):
        within = sum(abs(ratio - 1) <= band for ratio in ratios[key])
        answers.append(
            f"{words}: told over taken is {statistics.median(ratios[key]):.2f} in the median ({min(ratios[key]):.2f} "
            f"to {max(ratios[key]):.2f}), within {band:.0%} in {within} of {len(results)} cases"
        )
    lines = [
        "# Does the plan tell the truth?",
        "",
        "How near are the memory and the time that `bfpo train --plan` tells to those that the run takes?",
        "",
        f"**{'; '.join(answers)}.**",
        "",
        "| model | trained | precision | rows | told, GB | taken, GB | ratio | told, s | taken, s | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result, memory, seconds in zip(results, ratios["memory_bytes"], ratios["seconds"], strict=True):
        told, taken = result["told"], result["taken"]
        lines.append(
            f"| {result['model']} | {result['trained']} | {result['precision']} | {result['rows']} "
            f"| {told['memory_bytes'] / 1e9:.2f} | {taken['memory_bytes'] / 1e9:.2f} | {memory:.2f} "
            f"| {told['seconds']:.0f} | {taken['seconds']:.0f} | {seconds:.2f} |"
        )
    lines += [
        "",
        f"Two or three steps of pairs of random words, {torch.get_num_threads()} CPU threads of an idle machine, torch "
        f"{torch.__version__}; the two random models have the shapes of Qwen2.5-0.5B and of a small Llama. Memory is "
        "that of the whole process; time is that of the reference pass and of the steps. Told is what "
        "`bfpo train --plan` says, taken what the run took, in another process.",
        "",
        "Made by `python benchmarks/plan.py models/smollm2` (three quarters of an hour, 2 idle cores).",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure the cases that have no result, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("smollm2", type=Path, nargs="?", help="folder of SmolLM2")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder for the random models")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="names of models, choices, precisions or rows to run")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    if not arguments.smollm2:
        parser.error("name the folder of SmolLM2, made by 'bfpo model smollm2 FOLDER'")
    saved = arguments.output / "plan.json"
    results: list[dict[str, Any]] = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else []
    models = write_models(arguments.smollm2, arguments.models)
    names = ("model", "trained", "precision", "rows")
    cases: list[dict[str, str]] = [
        dict(zip(names, values, strict=True)) for values in product(models, TRAINED, ("fp32", "bf16"), ROWS)
    ]
    for case in cases:
        chosen = all(any(word in value for value in case.values()) for word in arguments.only)
        if chosen and not any(case.items() <= result.items() for result in results):
            results.append(measure(case, models[case["model"]], arguments.steps))
            print(results[-1], flush=True)
            saved.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results.sort(key=lambda result: cases.index({name: result[name] for name in names}))
    (arguments.output / "plan.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
