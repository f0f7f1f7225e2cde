"""What ``bfpo evaluate`` may be told, an option a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Argument(
        help="Folder or Hub name of a model or adapter; a .gguf file; 'microworld'; with --endpoint its name there."
    ),
]
Suite = Annotated[
    str | None,
    typer.Option(help="core, paper, microworld, or a YAML file; core for real models.", show_default=False),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run; name it again to go on.")]
Name = Annotated[str | None, typer.Option(help="What tables call the model; by default its folder's name.")]
Judge = Annotated[str | None, typer.Option(help="Judge of safety ('bfpo judge list'); by default the suite's.")]
SecondJudge = Annotated[str | None, typer.Option(help="A second one, for their agreement.")]
HelpJudge = Annotated[
    str | None, typer.Option(help="Judge of which answer helps more, for tasks with references (AlpacaEval).")
]
JudgeErrors = Annotated[
    str | None,
    typer.Option(
        metavar="A/B,C/D", help="The judge found A of B unsafe and C of D safe labelled answers: corrects rates."
    ),
]
LabellingJudge = Annotated[
    str | None, typer.Option(help="Id of the judge that labelled the training data: warns if it evaluates too.")
]
Endpoint = Annotated[str | None, typer.Option(metavar="URL", help="OpenAI-compatible server, up to and with /v1.")]
ApiKeyEnv = Annotated[str | None, typer.Option(help="Environment variable with the server's key.")]
Samples = Annotated[int, typer.Option(min=1, help="Answers to each prompt.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="Of sampling, 0 is greedy; by default the suite's.")]
TopP = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Share of probability sampled from.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Where an answer is cut.")]
Seed = Annotated[int, typer.Option(help="Of sampling.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Answers sampled at once.")]
SystemPrompt = Annotated[str | None, typer.Option(help="Before every prompt.")]
Chat = Annotated[bool, typer.Option("--chat/--no-chat", help="Use the model's chat template, if any.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Items of each task, drawn by a fixed hash.")]
Data = Annotated[list[str] | None, typer.Option(metavar="TASK=FILE", help="A local file for a task; repeatable.")]
DataFolder = Annotated[Path | None, typer.Option(help="Where files TASK.jsonl are looked for.")]
Split = Annotated[str, typer.Option(help="Microworld: test, or validation for choosing settings.")]
PerKind = Annotated[int, typer.Option(min=2, max=2000, help="Microworld: prompts of each kind.")]
ListOnly = Annotated[bool, typer.Option("--list", help="List the suites' tasks and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
