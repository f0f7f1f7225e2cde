"""The options of ``bfpo evaluate``, one annotation each, those that were given, and the parser of --judge-errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.statistics.judge_error import ErrorRates

Model = Annotated[
    str | None,
    typer.Argument(
        help="Folder or Hub name of a model or adapter, a .gguf file, 'microworld', or with --endpoint a served model."
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(
        help="core, extended, harmbench, paper, microworld, or a YAML file; by default core, for microworld its own."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; an interrupted run resumes from it.")]
Name = Annotated[str | None, typer.Option(help="Name of the model in tables; by default the folder's name.")]
Judge = Annotated[str | None, typer.Option(help="Safety judge ('bfpo judge list'); by default the suite's.")]
SecondJudge = Annotated[str | None, typer.Option(help="Second safety judge; the report shows how far the two agree.")]
HelpfulnessJudge = Annotated[
    str | None, typer.Option(help="Judge of helpfulness, for tasks that compare answers with references (AlpacaEval).")
]
RefusalJudge = Annotated[
    str | None,
    typer.Option(help="Judge that decides which answers decline, for over-refusal; by default the safety judge."),
]
JudgeErrors = Annotated[
    str | None,
    typer.Option(
        metavar="A/B,C/D",
        help="Add rates corrected for a judge that flagged A of B unsafe and passed C of D safe labeled answers.",
    ),
]
LabelingJudge = Annotated[
    str | None,
    typer.Option(help="Id of a judge that labeled the training data, besides those that the model's run.json names."),
]
AllowLabelingJudge = Annotated[
    bool,
    typer.Option("--allow-labeling-judge", help="Allow a judge that also labeled the training data; prints a warning."),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="OpenAI-compatible server, up to and including /v1, or a YAML file with its settings."
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="ENGINE",
        help="What runs a local model: transformers (default); vllm, or vllm:FILE.yaml with arguments of vllm.LLM; ray "
        "(a cluster here, or at $RAY_ADDRESS) or ray:HOST:PORT.",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only answer part I of N, for --merge; items by likelihood are in part 1."
    ),
]
Merge = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of a part (--shard), whose records are taken; repeatable, once for every part."),
]
ApiKeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the server's key.")]
Samples = Annotated[
    int | None, typer.Option(min=1, help="Answers to each prompt; by default the suite's (1 unless it sets one).")
]
Temperature = Annotated[
    list[float] | None,
    typer.Option(
        min=0.0, help="Sampling temperature, 0 for greedy; by default the suite's. Repeatable: a run for each one."
    ),
]
TopP = Annotated[
    list[float] | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Probability mass to sample from; by default the suite's. Repeatable: a run for each one.",
    ),
]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Maximum tokens per answer; by default the suite's.")]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Random seed for sampling; by default the suite's (0 unless it sets one).")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Answers to sample at once; by default the suite's, else 256; 16 at most in lm-eval's tasks."
    ),
]
SystemPrompt = Annotated[str | None, typer.Option(help="System prompt to put before every prompt.")]
Chat = Annotated[bool, typer.Option("--chat/--no-chat", help="Use the model's chat template, if it has one.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Largest number of items per task, selected by a fixed hash.")]
TaskNames = Annotated[
    list[str] | None, typer.Option("--task", metavar="NAME", help="Task of the suite to run; repeatable.")
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out tasks whose data is missing, and say which.")
]
Data = Annotated[list[str] | None, typer.Option(metavar="TASK=FILE", help="Local file for a task; repeatable.")]
DataFolder = Annotated[
    Path | None, typer.Option(help="Folder of local files named TASK.jsonl (or .json, .csv, .parquet, .txt).")
]
Split = Annotated[
    str | None, typer.Option(help="Microworld split: test (the default), or validation for choosing settings.")
]
World = Annotated[
    str | None,
    typer.Option(
        help="The microworld's world, W0 by default; 'bfpo microworld list' shows them. Where prompts look "
        "alike (W5-25, W5-75), the suite includes such prompts."
    ),
]
PerKind = Annotated[int | None, typer.Option(min=2, max=2000, help="Microworld prompts of each kind; 500 by default.")]
Answers = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Score answers made elsewhere: rows with 'prompt' and 'answer'. MODEL is then their name, and the "
        "sampling options state how they were made.",
    ),
]
Require = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIGURE<=X",
        help="Exit with code 1 unless the figure's 95 % interval meets a bound: --require 'harmless>=.95' --require "
        "'over_refusal<=.05'; repeatable.",
    ),
]
ListOnly = Annotated[bool, typer.Option("--list", help="List the suites' tasks and exit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def given(**values: Any) -> dict[str, Any]:
    """The options that were given, which have a value."""
    return {key: value for key, value in values.items() if value is not None}


def error_rates(text: str | None) -> ErrorRates | None:
    """The error in the four counts of --judge-errors."""
    from bfpo.statistics.judge_error import ErrorRates

    if text is None:
        return None
    try:
        (unsafe_found, unsafe), (safe_found, safe) = (map(int, part.split("/")) for part in text.split(","))
    except ValueError:
        raise BfpoError(f"--judge-errors {text}: write it as A/B,C/D, four counts") from None
    if not (0 <= unsafe_found <= unsafe and 0 <= safe_found <= safe and unsafe and safe):
        raise BfpoError(f"--judge-errors {text}: A of B and C of D need 0 <= A <= B, 0 <= C <= D, and B and D above 0")
    if unsafe_found * safe + safe_found * unsafe <= unsafe * safe:
        raise BfpoError(
            f"--judge-errors {text}: sensitivity and specificity add up to no more than 1, so the judge is no better "
            "than chance and no rate can be corrected; leave the option out, or use another judge"
        )
    return ErrorRates.from_counts(unsafe_found, unsafe, safe_found, safe)
