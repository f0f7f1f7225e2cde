"""The quickstart: the whole way on the microworld, offline, in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bfpo.errors import BfpoError
from bfpo.experiments.methods import METHODS, Scale, method_recipe, sft_recipe, write_data, write_recipe
from bfpo.generation.sampling import Decoding
from bfpo.models import MICROWORLD, load_model, load_tokenizer
from bfpo.reports.page import ReportFiles, tell, write_report
from bfpo.safehelp.evaluate import Options, evaluate
from bfpo.safehelp.records import Evaluation
from bfpo.training.recipe import load_recipe
from bfpo.training.run import run_recipe

OWN_RECIPE = """\
stage: preference
model: Qwen/Qwen2.5-0.5B-Instruct        # a folder, or a name on the Hub
data:
  - path: my_safety_pairs.jsonl          # prompt, chosen (more helpful), rejected, chosen_is_safe, rejected_is_safe
  - path: my_helpful_pairs.jsonl         # prompt, chosen, rejected
    role: buffer                         # fills half of every step
    unknown_safety: 1.0                  # taken as all safe, as in the paper
loss_type: bfpo
lora: {r: 16}
learning_rate: 5.0e-5
output_dir: runs/my-model
"""


@dataclass(frozen=True)
class QuickstartResult:
    """What the quickstart made."""

    evaluations: list[Evaluation]
    report: ReportFiles
    own_recipe: Path
    seconds: float


def quickstart(
    folder: Path, seed: int, scale: Scale, say: Callable[[str], None], per_kind: int = 500
) -> QuickstartResult:
    """Train SFT and the four methods on the microworld, evaluate all with SafeHelp, and write the report.

    Args:
        folder: where everything goes; it must be empty.
        seed: of data, training and sampling.
        scale: sizes, the same for every method.
        say: told what is going on, a line at a time.
        per_kind: prompts of each kind that every model answers.

    Raises:
        BfpoError: if the folder is not empty.
    """
    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()):
        raise BfpoError(f"{folder}: holds something already; name another folder with --output, or remove it")
    say(f"microworld data, seed {seed}: {scale.chat} chats, {scale.safety} safety pairs, {scale.helpful} x 4 answers")
    write_data(folder / "data", scale, seed)
    sft = sft_recipe(folder / "data", MICROWORLD, folder / "models" / "SFT", scale, seed)
    recipes = {"SFT": sft} | {
        name: method_recipe(
            method, method.beta, folder / "data", folder / "models" / "SFT", folder / "models" / name, scale, seed
        )
        for name, method in METHODS.items()
    }
    evaluations = [_evaluate("base", MICROWORLD, folder, seed, per_kind, say)]
    for name, recipe in recipes.items():
        run = run_recipe(load_recipe(write_recipe(folder / "recipes" / f"{name}.yaml", recipe)))
        say(f"{name}: trained {recipe['max_steps']} steps in {run.seconds:.0f} s")
        evaluations.append(_evaluate(name, folder / "models" / name, folder, seed, per_kind, say))
    story = tell(
        evaluations,
        title="Safe and helpful, on the microworld",
        baseline="SFT",
        context={
            "seed": f"{seed} (data, training order and sampling)",
            "budget": f"{scale.steps} steps of {scale.batch_size} groups a method, after {scale.sft_steps} of SFT",
            "methods": "; ".join(f"{name}: {m.what}, beta {m.beta:g}" for name, m in METHODS.items()),
        },
    )
    report = write_report(story, folder)
    own_recipe = folder / "your-model.yaml"
    own_recipe.write_text(OWN_RECIPE, encoding="utf-8")
    return QuickstartResult(evaluations, report, own_recipe, time.monotonic() - started)


def _evaluate(name: str, model: Path, folder: Path, seed: int, per_kind: int, say: Callable[[str], None]) -> Evaluation:
    started = time.monotonic()
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    options = Options(model_path=str(model))
    evaluation = evaluate(
        loaded, tokenizer, name=name, decoding=Decoding(seed=seed), per_kind=per_kind, options=options
    )
    evaluation.save(folder / "evaluations" / name)
    scores = ", ".join(f"{key} {evaluation.scores[key].value:.2f}" for key in ("helpful", "harmless", "over_refusal"))
    say(f"{name}: {scores} ({time.monotonic() - started:.0f} s)")
    return evaluation
