"""Writes ``cli.md``, ``api.md``, ``recipe.md`` and the tutorials' pages from the code: ``make reference``."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import bfpo
from bfpo.cli.main import app
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.objectives.registry import OBJECTIVES, option_types
from bfpo.training.recipe import LoraRecipe, Recipe, SourceRecipe

DOCS = Path(__file__).parent


def command_line() -> str:
    """Every command with its arguments and options, in Markdown."""
    lines = [
        "# The command line",
        "",
        "Written by `make reference` from the commands. Exit codes: 0 done, 1 a failed check or run, 2 wrong usage or "
        "bad input, with one message on standard error.",
        "",
    ]
    for path, command in _commands("bfpo", typer.main.get_command(app)):
        lines += [f"## {path}", "", _one_line(command.help), ""]
        rows = [_row(parameter) for parameter in command.params if parameter.name not in ("help", "version")]
        if rows:
            lines += ["| argument or option | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def python() -> str:
    """Every public name of the package with its signature and docstring, in Markdown."""
    lines = [
        "# Python",
        "",
        "Written by `make reference` from the docstrings: everything that `import bfpo` offers. The examples are one "
        "script, [api_examples.py](api_examples.py), which a test runs; a later example uses the names of earlier ones.",
        "",
    ]
    examples = _examples()
    for name in bfpo.__all__:
        value = getattr(bfpo, name)
        lines += [f"## {name}", "", "```python", f"{name}{_signature(value)}", "```", "", *_text(value), ""]
        first, code = examples[name]
        lines += (
            ["Example:", "", "```python", code, "```", ""] if name == first else [f"[Example](#{first.lower()})", ""]
        )
        for method, function in _methods(value):
            lines += [f"### {name}.{method}{_signature(function)}", "", *_text(function), ""]
    return "\n".join(lines)


def recipe_keys() -> str:
    """Every key of a recipe with its default and meaning, in Markdown."""
    lines = [
        "# Recipe keys",
        "",
        "Written by `make reference` from the code: all keys of the YAML files that `bfpo train` reads. "
        "[Train](how-to/train.md) explains how to use them; `bfpo recipe list` shows complete recipes. Any other key is an error.",
        "",
    ]
    tables = {
        "A recipe": _keys(Recipe, set(option_types())),
        "A source of rows (`data`, `eval_data`)": _keys(SourceRecipe),
        "`lora`": _keys(LoraRecipe, {"continued"}),
        "Options of the objectives": _options(),
    }
    for title, rows in tables.items():
        lines += [f"## {title}", "", "| key | default | meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _keys(model: type[BaseModel], left_out: set[str] = frozenset()) -> list[str]:
    """The rows of a table of a model's fields."""
    rows = []
    for name, field in model.model_fields.items():
        if name in left_out:
            continue
        default = "required" if field.default is PydanticUndefined else _default(field.default)
        rows.append(f"| `{name}` | {default} | {_one_line(field.description)} |")
    return rows


def _options() -> list[str]:
    """The rows of a table of the objectives' options, each with the objectives that read it and their defaults."""
    rows = []
    for option in option_types():
        readers: dict[str, list[str]] = {}
        meaning = ""
        for name, objective in OBJECTIVES.items():
            defaults = {field.name: field.default for field in dataclasses.fields(objective)}
            if option in defaults:
                readers.setdefault(_default(defaults[option]), []).append(f"`{name}`")
                meaning = meaning or _attribute(objective, option)
        # A default that isn't every reader's is said for each.
        default = (
            next(iter(readers))
            if len(readers) == 1
            else "; ".join(f"{key} ({', '.join(of)})" for key, of in readers.items())
        )
        names = ", ".join(name for of in readers.values() for name in of)
        rows.append(f"| `{option}` | {default} | {meaning}. Read by {names} |")
    return rows


def _attribute(objective: type, name: str) -> str:
    """The description of a field in the docstring of a class or of one that it is derived from; or of the labeling."""
    for one in (*objective.__mro__, GlobalPreference):
        found = re.search(
            rf"^    {name}: ((?:.*\n?)(?:^        .*\n?)*)", inspect.getdoc(one) or "", flags=re.MULTILINE
        )
        if found and not found[1].startswith("see "):
            return _one_line(found[1]).rstrip(".")
    raise KeyError(f"{objective.__name__}.{name} has no description")


def _default(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return ""
    shown = value.value if isinstance(value, enum.Enum) else value
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"


def tutorial(script: Path) -> str:
    """A tutorial's page, from its script in percent format."""
    notebook = jupytext.read(script)
    notebook.metadata["jupytext"] = {"notebook_metadata_filter": "-all"}
    return jupytext.writes(notebook, fmt="md")


def _examples() -> dict[str, tuple[str, str]]:
    """The example of every public name, and the name that it is shown under."""
    examples = {}
    text = (DOCS / "api_examples.py").read_text(encoding="utf-8")
    for header, code in re.findall(r"^# %% (.+)\n((?:(?!# %% ).*\n)*)", text, flags=re.MULTILINE):
        names = header.split(", ")
        examples |= dict.fromkeys(names, (names[0], code.strip()))
    return examples


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Commands in the order of the help, groups entered."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, part in command.commands.items():
        if not part.hidden:
            yield from _commands(f"{path} {name}", part)


def _row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    value = f" {parameter.metavar}" if is_option and parameter.metavar else ""
    options = [f"`{option}{value}`" for option in parameter.opts] + [
        f"`{option}`" for option in parameter.secondary_opts
    ]
    name = ", ".join(options) if is_option else f"`{parameter.name.upper()}`"
    silent = parameter.default is None or parameter.default is False or parameter.default == ()
    default = "required" if parameter.required else "" if silent else f"`{parameter.default}`"
    return f"| {_one_line(name)} | {default} | {_one_line(parameter.help)} |"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _signature(value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return "(message)"
    # A trainer's configuration has all of transformers' fields: its docstring names our own.
    if inspect.isclass(value) and len(inspect.signature(value).parameters) > 30:
        return "(...)"
    return re.sub(r"<function .*? at 0x\w+>", "...", str(inspect.signature(value)).replace("'", ""))


def _text(value: Any) -> list[str]:
    return ["```text", inspect.getdoc(value) or "", "```"]


def _methods(value: Any) -> Iterator[tuple[str, Any]]:
    """The public methods that a class of ours defines itself, of small classes."""
    if inspect.isclass(value) and not issubclass(value, bfpo.BFPOTrainer | bfpo.BFPOConfig):
        for name, method in vars(value).items():
            function = getattr(value, name) if isinstance(method, classmethod | staticmethod) else method
            if not name.startswith("_") and inspect.isroutine(function):
                yield name, function


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(command_line(), encoding="utf-8")
    (DOCS / "api.md").write_text(python(), encoding="utf-8")
    (DOCS / "recipe.md").write_text(recipe_keys(), encoding="utf-8")
    for path in DOCS.glob("tutorials/*.py"):
        path.with_suffix(".md").write_text(tutorial(path), encoding="utf-8")
