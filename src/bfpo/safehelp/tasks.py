"""Tasks and suites as data: schemas, checks and reading of YAML suite files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bfpo.config import Closed, parse_yaml, validated
from bfpo.errors import BfpoError, did_you_mean
from bfpo.generation.protocol import Decoding
from bfpo.safehelp.expressions import ExpressionError, expression, template
from bfpo.safehelp.figures import HEADLINE
from bfpo.safehelp.items import FACTORS, Factor, Kind, Scored
from bfpo.safehelp.metrics import METRICS
from bfpo.safehelp.preparations import PREPARATIONS

JudgeKind = Literal["safety", "pairwise"]
Runner = Literal["generation", "likelihood", "lm-eval"]


class TaskSource(Closed):
    """Source of a task's rows: a Hub data set, one file of it, or a file on disk (``file`` without ``hub``).

    ``revision`` is a commit; without one, the run records the commit that it read. The path of a file on disk is
    relative to the suite's file. ``sha256`` is checked for every file.
    """

    hub: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None


class Task(Closed):
    """One task of a suite.

    ``prompt`` is a Jinja template over the row's columns; the fields in `EXPRESSIONS` are Jinja expressions. Fields not
    listed here are those of the items, `PromptItem` (with ``kind``) or `ChoiceItem` (with ``choices``).

    Attributes:
        license: license of the data.
        source: source of the rows; None for one of lm-eval's tasks.
        note: caveat for readers of the score.
        weight: weight in the aggregate of its factor.
        prepare: name of a function that adds columns to a row first (`bfpo.safehelp.preparations`).
        messages: conversation in place of ``prompt``, as a list of messages that ends with the user's.
        where: condition that selects rows; by default all.
        judge: kind of judge, for safety or for pairs with the reference.
        correct: index of the correct choice, or a list of 0 and 1.
        metrics: names of metrics; the first is the task's main metric.
        chance: score of guessing on the first metric.
        lm_eval: name of a task in lm-eval, which runs it.
    """

    task: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    factor: Factor
    license: str
    source: TaskSource | None = None
    note: str | None = None
    weight: float = Field(default=1.0, gt=0)

    prepare: str | None = None
    where: str | None = None
    prompt: str | None = None
    messages: str | None = None
    category: str | None = None
    cluster: str | None = None

    kind: Kind | None = None
    attack: str | None = None
    behavior: str | None = None
    reference: str | None = None
    judge: JudgeKind = "safety"

    choices: str | None = None
    correct: str | None = None
    labels: str | None = None
    scored: Scored = "choice"
    delimiter: str = " "
    metrics: tuple[str, ...] = ()
    chance: float | None = None

    lm_eval: str | None = None

    @property
    def runner(self) -> Runner:
        """The runner of the task."""
        if self.lm_eval:
            return "lm-eval"
        return "likelihood" if self.choices else "generation"

    @property
    def higher_is_better(self) -> bool:
        """Direction of the task's main metric."""
        if self.metrics and self.metrics[0] in METRICS:
            return METRICS[self.metrics[0]].higher_is_better
        return HEADLINE[self.factor].higher_is_better

    def compiled(self, field: str) -> Callable[[Mapping[str, Any]], Any] | None:
        """The template or expression of a field as a function of a row, if it is set.

        Raises:
            ExpressionError: if it doesn't compile.
        """
        source = getattr(self, field)
        return None if source is None else (template if field == "prompt" else expression)(source)


EXPRESSIONS = (
    "where", "messages", "category", "cluster", "attack", "behavior", "reference", "choices", "correct", "labels",
)  # fmt: skip
_ONLY_ANSWERED = ("kind", "messages", "attack", "behavior", "reference")
_ONLY_CHOICES = ("choices", "correct", "labels", "metrics")


class SuiteFile(Closed):
    """A suite file.

    Attributes:
        suite: its name.
        about: one sentence on the suite.
        judges: default safety judges, the primary judge first.
        decoding: default decoding.
        tasks: its tasks; in the file, ``SUITE/TASK`` stands for one of a packaged suite.
    """

    suite: str
    about: str
    judges: tuple[str, ...] = ()
    decoding: Decoding = Decoding()
    tasks: tuple[Task, ...] = Field(min_length=1)


def packaged_suites() -> dict[str, str]:
    """The YAML text of every packaged suite, by name."""
    entries = (entry for entry in files("bfpo.safehelp.packaged").iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in entries}


def read_suite(name_or_path: str) -> SuiteFile:
    """Read a packaged suite or a YAML file, with the tasks that it includes from packaged suites.

    Raises:
        BfpoError: if there is no such suite, or it is invalid; the message names file, task and field.
    """
    packaged = packaged_suites()
    if name_or_path.endswith((".yaml", ".yml")):
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BfpoError(f"{name_or_path}: can't be read as a suite ({error}); check the path") from error
    elif name_or_path in packaged:
        text = packaged[name_or_path]
    else:
        raise BfpoError(
            f"no suite {name_or_path!r}{did_you_mean(name_or_path, [*packaged, 'microworld'])}: there are "
            f"{', '.join(sorted([*packaged, 'microworld']))}, or name your own .yaml file"
        )
    return parse_suite(text, name_or_path)


def parse_suite(text: str, where: str) -> SuiteFile:
    """Parse and check the text of a suite; see `read_suite`."""
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise BfpoError(f"{where}: is a {type(values).__name__}; write a mapping with 'suite', 'about' and 'tasks'")
    written = values.get("tasks")
    tasks = tuple(
        _included(entry, where) if isinstance(entry, str) else _task(entry, number, where)
        for number, entry in enumerate(written if isinstance(written, list) else [])
    )
    suite = validated(SuiteFile, values | {"tasks": tasks}, where)
    names = [task.task for task in suite.tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BfpoError(f"{where}: two tasks are called {twice[0]!r}; give each its own name")
    return suite


def list_tasks(suite: str | None = None) -> list[dict[str, Any]]:
    """A table row for every task of one suite, by default of all packaged ones.

    Raises:
        BfpoError: if there is no such suite.
    """
    rows = []
    for name in [suite] if suite else [*sorted(packaged_suites()), "microworld"]:
        if name == "microworld":
            rows += [_row("microworld", task) for task in MICROWORLD_TASKS]
        else:
            read = read_suite(name)
            rows += [_row(read.suite, task) for task in read.tasks]
    return rows


# The microworld's items are made in code (`bfpo.safehelp.microworld_items`); these entries describe their scores.
MICROWORLD_TASKS = (
    Task(task="microworld", factor="helpful", license="Apache-2.0", note="all three factors, judged exactly"),
    *(
        Task(
            task=f"microworld_{factor}", factor=factor, license="Apache-2.0", prompt="{{ prompt }}",
            choices="[right, other]", correct="0", metrics=("acc", "acc_bytes"), chance=0.5,
        )
        for factor in FACTORS
    ),
)  # fmt: skip


def _row(suite: str, task: Task) -> dict[str, Any]:
    source = task.source or TaskSource()
    place = source.hub or source.file or (f"lm-eval: {task.lm_eval}" if task.lm_eval else "bfpo")
    return {
        "suite": suite,
        "task": task.task,
        "factor": task.factor,
        "runner": task.runner,
        "kind": task.kind,
        "metrics": list(task.metrics),
        "higher_is_better": task.higher_is_better,
        "chance": task.chance,
        "judge": task.judge if task.kind else None,
        "source": "/".join(filter(None, (place, source.config, source.split))),
        "revision": source.revision or source.sha256,
        "license": task.license,
        "note": task.note,
    }


def _task(values: Any, number: int, where: str) -> Task:
    name = values.get("task") if isinstance(values, dict) else None
    place = f"{where}, task {name!r}" if name else f"{where}, task number {number + 1}"
    if not isinstance(values, dict):
        raise BfpoError(f"{place}: is a {type(values).__name__}; write a mapping, or SUITE/TASK for a packaged task")
    task = validated(Task, values, place)
    for problem in _problems(task):
        raise BfpoError(f"{place}: {problem}")
    return task


def _problems(task: Task) -> Iterable[str]:
    """Contradictions between the fields of a task."""
    if task.lm_eval:
        allowed = ("task", "factor", "license", "note", "weight", "metrics", "chance", "lm_eval", "source")
        for field in sorted(task.model_fields_set - set(allowed)):
            yield f"{field}: is set by lm-eval's task {task.lm_eval!r}; leave it out"
        if not task.metrics:
            yield f"the key 'metrics' is missing; name a metric of lm-eval's task {task.lm_eval!r}"
        return
    if task.source is None:
        yield "the key 'source' is missing"
    elif not (task.source.hub or task.source.file):
        yield "source: name 'hub' (and 'split', or 'file'), or 'file'"
    elif task.source.hub and bool(task.source.split) == bool(task.source.file):
        yield "source: a Hub data set needs either 'split' or 'file'"
    if task.prompt is None and not (task.kind and task.messages):
        yield "the key 'prompt' is missing"
    if task.kind and task.prompt is not None and task.messages is not None:
        yield "give either 'prompt' or 'messages' (a conversation)"
    if bool(task.kind) == bool(task.choices):
        yield "give either 'kind' (answers are sampled and judged) or 'choices' (likelihoods are compared)"
    for field in _ONLY_CHOICES if task.kind else _ONLY_ANSWERED:
        if field in task.model_fields_set:
            yield f"{field}: has no meaning for a task with {'kind' if task.kind else 'choices'!r}; leave it out"
    if task.choices and not task.metrics:
        yield "the key 'metrics' is missing"
    for name in task.metrics:
        if name not in METRICS:
            yield f"metrics: no metric {name!r}{did_you_mean(name, METRICS)}; there are {', '.join(sorted(METRICS))}"
        elif name.startswith("bias_") and task.labels is None:
            yield f"metrics: {name} needs 'labels', which say what each choice is (biased, unknown, ...)"
    if task.prepare is not None and task.prepare not in PREPARATIONS:
        known = ", ".join(PREPARATIONS)
        yield f"prepare: no function {task.prepare!r}{did_you_mean(task.prepare, PREPARATIONS)}; there are {known}"
    if (task.judge == "pairwise") != (task.reference is not None):
        yield "'judge: pairwise' and 'reference', the answer to compare with, need each other"
    for field in (*EXPRESSIONS, "prompt"):
        try:
            task.compiled(field)
        except ExpressionError as error:
            yield f"{field}: {error}"


def _included(name: str, where: str) -> Task:
    suite, _, task = name.partition("/")
    packaged = packaged_suites()
    if suite not in packaged:
        raise BfpoError(f"{where}: no packaged suite {suite!r}{did_you_mean(suite, packaged)} to take {name!r} from")
    known = {entry.task: entry for entry in parse_suite(packaged[suite], suite).tasks}
    if task not in known:
        raise BfpoError(f"{where}: suite {suite!r} has no task {task!r}{did_you_mean(task, known)}")
    return known[task]
