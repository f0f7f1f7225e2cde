"""Loaded suites: reading the rows of all tasks, making items from them, and the microworld's suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bfpo.errors import BfpoError, did_you_mean
from bfpo.files import file_sha256
from bfpo.generation.protocol import Decoding
from bfpo.microworld import oracle
from bfpo.microworld.worlds import World, load_world
from bfpo.preferences.messages import rendered
from bfpo.preferences.reading import Row
from bfpo.safehelp.expressions import ExpressionError
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.microworld_items import microworld_items
from bfpo.safehelp.preparations import prepare
from bfpo.safehelp.sources import MissingSourceError, Resolved, examples_file, file_in, read_source
from bfpo.safehelp.tasks import EXPRESSIONS, MICROWORLD_TASKS, SuiteFile, Task, read_suite

Split = Literal["validation", "test"]
_NOT_READ = "the microworld doesn't read it; choose its prompts with --per-kind and --split"


@dataclass(frozen=True)
class Suite:
    """A benchmark: its items, and default judges and decoding.

    Attributes:
        name: name of the suite.
        prompts: prompts to answer and judge.
        choices: items to compare by likelihood.
        tasks: the tasks.
        judges: default safety judges, the primary judge first.
        decoding: default sampling settings.
        sources: origin of each task's rows.
        files: files given for lm-eval's tasks.
        judge: the suite's own exact judge, a function of prompt and answer.
        left_out: tasks that were left out, with the reason.
    """

    name: str
    prompts: list[PromptItem]
    choices: list[ChoiceItem]
    tasks: tuple[Task, ...] = ()
    judges: tuple[str, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    sources: Mapping[str, Resolved] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    judge: Callable[[str, str], oracle.OracleVerdict] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of every item, in order."""
        digest = hashlib.sha256()
        for item in [*self.prompts, *self.choices]:
            digest.update(json.dumps(asdict(item), sort_keys=True).encode())
        return digest.hexdigest()


def _source_of_lm_eval(task: Task, suite: str, given: Path) -> Resolved:
    """The source of a task whose rows lm-eval reads itself, with the digest of its examples."""
    examples = examples_file(given)
    digest = file_sha256(examples) if examples.exists() else None
    return replace(read_source(task, suite, given)[1], examples_sha256=digest)


def load_suite(
    name_or_path: str,
    *,
    data: Mapping[str, Path] | None = None,
    folder: Path | None = None,
    limit: int | None = None,
    tasks: Sequence[str] | None = None,
    skip_missing: bool = False,
    split: Split | None = None,
    per_kind: int | None = None,
    world: str | None = None,
) -> Suite:
    """Read a suite's rows and make its items.

    Args:
        name_or_path: name of a packaged suite, "microworld", or a YAML file.
        data: files to read instead of tasks' sources, by the task's name.
        folder: folder with such files (TASK.jsonl, or the source's own file name).
        limit: number of items per task, selected by a fixed hash of their names; by default all.
        tasks: names of the tasks to load; by default all.
        skip_missing: whether to leave out tasks whose data is missing.
        split: split of the microworld: "test" (the default), or "validation" for choosing settings.
        per_kind: number of the microworld's prompts of each kind, 500 by default.
        world: name of the microworld's world, W0 by default; it matters where prompts look alike.

    Raises:
        BfpoError: if there is no such suite or task, sources can't be loaded (the message names all of them), a row
            doesn't fit its task, or the suite doesn't read an option.
    """
    if name_or_path == "microworld":
        _refuse(_NOT_READ, data=data, data_folder=folder, limit=limit, task=tasks, skip_missing=skip_missing)
        return _microworld(split or "test", 500 if per_kind is None else per_kind, load_world(world or "W0"))
    read = read_suite(name_or_path)
    _refuse(
        f"only the microworld reads it, and the suite is {read.suite!r}", split=split, per_kind=per_kind, world=world
    )
    read = _chosen(read, tasks, data or {})
    items: list[PromptItem | ChoiceItem] = []
    sources, files = dict[str, Resolved](), dict[str, Path]()
    missing: dict[str, MissingSourceError] = {}
    for task in read.tasks:
        given = (data or {}).get(task.task) or (file_in(folder, task) if folder else None)
        if task.lm_eval:
            if given is not None:
                files[task.task], sources[task.task] = given, _source_of_lm_eval(task, name_or_path, given)
            continue
        try:
            rows, sources[task.task] = read_source(task, name_or_path, given)
        except MissingSourceError as error:
            missing[task.task] = error
            continue
        items += _drawn(_items(task, rows, sources[task.task].place), limit)
    left = tuple(task for task in read.tasks if task.task not in missing)
    if missing and not (skip_missing and left):
        raise _all_missing(read.suite, list(missing.values()))
    prompts = [item for item in items if isinstance(item, PromptItem)]
    choices = [item for item in items if isinstance(item, ChoiceItem)]
    reasons = {task: f"its data is missing ({error.need})" for task, error in missing.items()}
    return Suite(read.suite, prompts, choices, left, read.judges, read.decoding, sources, files, left_out=reasons)


def _items(task: Task, rows: Sequence[tuple[int, Row]], place: str) -> list[PromptItem | ChoiceItem]:
    make = ItemMaker(task, place)
    made = [item for number, row in rows if (item := make(number, row))]
    if not made:
        raise BfpoError(f"{place}, task {task.task!r}: no row is left by 'where: {task.where}'")
    return made


def _refuse(reason: str, **options: object) -> None:
    for name, value in options.items():
        if value:
            raise BfpoError(f"--{name.replace('_', '-')}: {reason}")


def _chosen(read: SuiteFile, tasks: Sequence[str] | None, data: Mapping[str, Path]) -> SuiteFile:
    """The suite with the chosen tasks only."""
    for option, given in (("--task", tasks or ()), ("--data", data)):
        names = [task.task for task in read.tasks]
        for name in given:
            if name not in names:
                what = f"suite {read.suite!r} has no such task{did_you_mean(name, names)}"
                raise BfpoError(f"{option} {name}: {what}, or it isn't among those of --task")
        if option == "--task" and tasks:
            read = read.model_copy(update={"tasks": tuple(task for task in read.tasks if task.task in tasks)})
    return read


def _all_missing(suite: str, errors: Sequence[MissingSourceError]) -> BfpoError:
    if len(errors) == 1:
        return errors[0]
    needs = "".join(f"\n  {error.task}: {error.need}" for error in errors)
    return BfpoError(
        f"suite {suite!r}: the rows of {len(errors)} tasks are missing. Save each as the file named here in one folder "
        "and name the folder with --data-folder, leave these tasks out with --skip-missing, or choose others with "
        "--task:"
        f"{needs}\n  The first error: {errors[0]}"
    )


class ItemMaker:
    """Makes a task's items from rows; ``place`` is the origin of the rows, for error messages."""

    def __init__(self, task: Task, place: str) -> None:
        self.task, self.place = task, place
        self._fields = {name: task.compiled(name) for name in (*EXPRESSIONS, "prompt")}

    def __call__(self, number: int, row: Row) -> PromptItem | ChoiceItem | None:
        """The item of one row; None if the task's ``where`` excludes the row.

        Raises:
            BfpoError: if the row doesn't fit the task; the message names place, task, row and field.
        """
        task, where = self.task, f"{self.place}, task {self.task.task!r}, row {number}"
        values = self._values(row, where)
        if values is None:
            return None
        names = ("category", "cluster", "attack", "behavior", "reference")
        category, cluster, *of_prompt = (None if values[name] is None else str(values[name]) for name in names)
        if cluster is None:  # a name that no row of the same task declares
            cluster = f"row {number}" if task.cluster else str(number)
        if task.kind:
            messages = None if values["messages"] is None else _conversation(values["messages"], where)
            prompt = values["prompt"] if messages is None else rendered(messages)
            if not prompt.strip():
                raise BfpoError(f"{where}, prompt: is empty")
            attack, behavior, reference = of_prompt
            return PromptItem(
                task.task, str(number), task.kind, category, attack, cluster, prompt, behavior, reference, messages
            )
        choices, correct = _choices(values["choices"], values["correct"], where)
        labels = tuple(map(str, values["labels"] or ()))
        if labels and len(labels) != len(choices):
            raise BfpoError(f"{where}, labels: {len(labels)} for {len(choices)} choices")
        return ChoiceItem(
            task.task, str(number), task.factor, category, cluster, values["prompt"], choices, correct, labels,
            task.scored, task.delimiter,
        )  # fmt: skip

    def _values(self, row: Row, where: str) -> dict[str, Any] | None:
        """The value of every field, None for unset fields; None if ``where`` excludes the row."""
        if self.task.prepare:
            try:
                row = prepare(self.task.prepare, row)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise BfpoError(f"{where}: prepare {self.task.prepare!r} fails ({reason})") from error
        values: dict[str, Any] = {}
        for name, compiled in self._fields.items():
            try:
                values[name] = None if compiled is None else compiled(row)
            except ExpressionError as error:
                raise BfpoError(f"{where}, {name}: {error}") from error
            if name == "where" and compiled is not None and not values[name]:
                return None
        return values


def _conversation(messages: Any, where: str) -> tuple[dict[str, str], ...]:
    """Messages with known roles and texts, of which the last one is the user's."""
    found: list[dict[str, str]] = []
    for number, message in enumerate(messages if isinstance(messages, list | tuple) else [messages], 1):
        if (
            not isinstance(message, Mapping)
            or set(message) != {"role", "content"}
            or message["role"] not in ("system", "user", "assistant")
            or not isinstance(message["content"], str)
        ):
            raise BfpoError(
                f"{where}, messages, number {number}: must have only a 'role' (system, user or assistant) and a "
                "'content', a string"
            )
        found.append({"role": message["role"], "content": message["content"]})
    if not found or found[-1]["role"] != "user":
        raise BfpoError(f"{where}, messages: the last message must be the user's, which the model answers")
    return tuple(found)


def _choices(choices: Any, correct: Any, where: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if not isinstance(choices, list | tuple) or len(choices) < 2 or not all(isinstance(one, str) for one in choices):
        raise BfpoError(f"{where}, choices: {choices!r} is not a list of at least two texts")
    if "" in choices:
        raise BfpoError(f"{where}, choices: number {choices.index('') + 1} is empty, and no model can choose it")
    if isinstance(correct, list | tuple):
        if len(correct) != len(choices):
            raise BfpoError(f"{where}, correct: {len(correct)} values for {len(choices)} choices")
        if not all(flag in (0, 1) for flag in correct) or not any(correct):
            raise BfpoError(f"{where}, correct: {correct!r} isn't a list of 0 and 1 with at least one 1")
        flags = tuple(map(float, correct))
    elif isinstance(correct, int) and 0 <= correct < len(choices):
        flags = tuple(float(index == correct) for index in range(len(choices)))
    else:
        raise BfpoError(f"{where}, correct: {correct!r} is neither the index of a choice nor a list of 0 and 1")
    return tuple(choices), flags


def _drawn(items: list[Any], limit: int | None) -> list[Any]:
    """At most ``limit`` items in their order, those with the lowest hashes: a fixed, unbiased sample."""
    if limit is None or limit >= len(items):
        return items
    lowest = sorted(items, key=lambda item: hashlib.sha256(f"{item.task} {item.item}".encode()).digest())[:limit]
    kept = {item.item for item in lowest}
    return [item for item in items if item.item in kept]


def _microworld(split: Split, per_kind: int, world: World) -> Suite:
    """The microworld's suite, judged exactly by an oracle."""
    prompts, choices = microworld_items(split, per_kind, world)
    decoding = Decoding(max_new_tokens=64)
    return Suite("microworld", prompts, choices, MICROWORLD_TASKS, decoding=decoding, judge=oracle.judge)
