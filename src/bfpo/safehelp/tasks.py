"""A task as data: where its rows are, how a row becomes an item, and how its score is to be read."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from bfpo.config import Closed, validated
from bfpo.errors import BfpoError, did_you_mean
from bfpo.safehelp.expressions import Expression, ExpressionError, Template
from bfpo.safehelp.figures import HEADLINE
from bfpo.safehelp.items import FACTORS, Factor, Kind, Scored
from bfpo.safehelp.metrics import METRICS
from bfpo.safehelp.preparations import PREPARATIONS

JudgeKind = Literal["safety", "pairwise"]
Runner = Literal["generation", "likelihood", "lm-eval"]


class Source(Closed):
    """Where the rows are: a data set of the Hub, one file of it, or a file on disk (``file`` without ``hub``).

    ``revision`` is a commit; without one the run records what the name resolved to. A file on disk is looked for
    beside the suite's own file; ``sha256`` is checked wherever the file comes from.
    """

    hub: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    file: str | None = None
    sha256: str | None = None


class Task(Closed):
    """One entry of a suite. ``prompt`` is a Jinja template over the row's columns, every other field of the second
    group a Jinja expression; all are evaluated in a sandbox.

    Attributes:
        task: its name.
        factor: what it measures.
        licence: of the data.
        source: where the rows are; nothing for a task of lm-eval's, which knows.
        note: what a reader of the score must know.
        weight: in the aggregate of its factor.

        prepare: name of a function that adds columns to a row first (`bfpo.safehelp.preparations`).
        where: which rows are asked; all by default.
        prompt: the text that is asked.
        category: kind of item.
        cluster: what items share; the item itself by default.

        kind: benign, borderline or harmful; with it the task is answered and judged.
        attack: how the prompt is disguised.
        behavior: what a harmful answer would do, for judges that are told.
        reference: the answer to compare with, for a pairwise judge.
        judge: what judges it.

        choices: a list of texts; with them the task is one of log-likelihoods.
        correct: number of the right choice, or a list of 0 and 1.
        labels: a word for every choice.
        scored: whether the choices are scored given the prompt, or the prompt given each choice.
        delimiter: between the two, left out after a chat template.
        metrics: what is computed; the first is the task's own figure.
        chance: what guessing scores on the first.

        lm_eval: name of lm-eval's own task, asked by lm-eval itself.
    """

    task: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    factor: Factor
    licence: str
    source: Source | None = None
    note: str | None = None
    weight: float = Field(default=1.0, gt=0)

    prepare: str | None = None
    where: str | None = None
    prompt: str | None = None
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
        """What runs it."""
        if self.lm_eval:
            return "lm-eval"
        return "likelihood" if self.choices else "generation"

    @property
    def higher_is_better(self) -> bool:
        """Direction of the task's own figure; lm-eval's tasks here all measure something wanted."""
        if self.metrics and self.metrics[0] in METRICS:
            return METRICS[self.metrics[0]].higher_is_better
        return HEADLINE[self.factor].higher_is_better

    def compiled(self, field: str) -> Template | Expression | None:
        """The template or expression of a field, if it is set.

        Raises:
            ExpressionError: if it is none.
        """
        source = getattr(self, field)
        return None if source is None else (Template if field == "prompt" else Expression)(source)


EXPRESSIONS = ("where", "category", "cluster", "attack", "behavior", "reference", "choices", "correct", "labels")
_ONLY_ASKED = ("kind", "attack", "behavior", "reference")
_ONLY_CHOSEN = ("choices", "correct", "labels", "metrics")


class Decoding(Closed):
    """How a suite samples answers, unless the command says otherwise."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 256


class SuiteFile(Closed):
    """A suite as it is written down.

    Attributes:
        suite: its name.
        about: one sentence.
        judges: what judges answers by default, the primary judge first.
        decoding: how answers are sampled by default.
        tasks: entries, or ``SUITE/TASK`` for one of a packaged suite.
    """

    suite: str
    about: str
    judges: tuple[str, ...] = ()
    decoding: Decoding = Decoding()
    tasks: tuple[Task | str, ...] = Field(min_length=1)


def packaged_suites() -> dict[str, str]:
    """The text of every packaged suite of tasks, by name."""
    entries = (entry for entry in files("bfpo.safehelp.packaged").iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in entries}


def read_suite(name_or_path: str) -> SuiteFile:
    """Read a packaged suite or a file of one's own.

    Returns:
        The suite, with every entry written out.

    Raises:
        BfpoError: if there is none of that name, or anything in it is wrong; the message names file, task and field.
    """
    packaged = packaged_suites()
    if name_or_path.endswith((".yaml", ".yml")):
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except OSError as error:
            raise BfpoError(f"{name_or_path}: can't be read ({error.strerror})") from error
    elif name_or_path in packaged:
        text = packaged[name_or_path]
    else:
        raise BfpoError(
            f"no suite {name_or_path!r}{did_you_mean(name_or_path, [*packaged, 'microworld'])}: there are "
            f"{', '.join(sorted([*packaged, 'microworld']))}, or name a .yaml file of your own"
        )
    return parse_suite(text, name_or_path)


def parse_suite(text: str, where: str) -> SuiteFile:
    """A suite from its text, checked; see `read_suite`."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BfpoError(f"{where}: no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise BfpoError(f"{where}: holds a {type(values).__name__}; write 'suite', 'about' and 'tasks'")
    written = values.get("tasks")
    entries = written if isinstance(written, list) else []
    tasks = tuple(
        entry if isinstance(entry, str) else _task(entry, number, where) for number, entry in enumerate(entries)
    )
    head = {key: value for key, value in values.items() if key != "tasks"}
    read = tuple(_included(task, where) if isinstance(task, str) else task for task in tasks)
    suite = validated(SuiteFile, {**head, "tasks": read}, where)
    names = [task.task for task in tasks_of(suite)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BfpoError(f"{where}: two tasks are called {twice[0]!r}; give each a name of its own")
    return suite


def tasks_of(suite: SuiteFile) -> list[Task]:
    """The entries of a suite that was read."""
    return [task for task in suite.tasks if isinstance(task, Task)]


def list_tasks(suite: str | None = None) -> list[dict[str, Any]]:
    """A row for every task, of one suite or of all packaged ones, for a table.

    Raises:
        BfpoError: if there is no such suite.
    """
    rows = []
    for name in [suite] if suite else [*sorted(packaged_suites()), "microworld"]:
        if name == "microworld":
            rows += [_row("microworld", task) for task in MICROWORLD_TASKS]
        else:
            read = read_suite(name)
            rows += [_row(read.suite, task) for task in tasks_of(read)]
    return rows


# The embedded world's items are made by code (`bfpo.safehelp.suites.microworld`): the entries say how to read them.
MICROWORLD_TASKS = (
    Task(task="microworld", factor="helpful", licence="Apache-2.0", note="all three factors, judged exactly"),
    *(
        Task(
            task=f"microworld_{factor}", factor=factor, licence="Apache-2.0", prompt="{{ prompt }}",
            choices="[right, other]", correct="0", metrics=("acc", "acc_bytes"), chance=0.5,
        )
        for factor in FACTORS
    ),
)  # fmt: skip


def _row(suite: str, task: Task) -> dict[str, Any]:
    source = task.source or Source()
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
        "licence": task.licence,
        "note": task.note,
    }


def _task(values: Any, number: int, where: str) -> Task:
    name = values.get("task") if isinstance(values, dict) else None
    place = f"{where}, task {name!r}" if name else f"{where}, task number {number + 1}"
    if not isinstance(values, dict):
        raise BfpoError(f"{place}: is a {type(values).__name__}; write an entry, or SUITE/TASK for a packaged one")
    task = validated(Task, values, place)
    for problem in _problems(task):
        raise BfpoError(f"{place}: {problem}")
    return task


def _problems(task: Task) -> Iterable[str]:
    """What contradicts what."""
    if task.lm_eval:
        allowed = ("task", "factor", "licence", "note", "weight", "metrics", "chance", "lm_eval", "source")
        for field in sorted(task.model_fields_set - set(allowed)):
            yield f"{field}: lm-eval's task {task.lm_eval!r} brings its own; leave it out"
        return
    if task.source is None:
        yield "the key 'source' is missing"
    elif not (task.source.hub or task.source.file):
        yield "source: name 'hub' (and 'split', or 'file'), or 'file'"
    elif task.source.hub and bool(task.source.split) == bool(task.source.file):
        yield "source: a data set of the Hub needs either 'split' or 'file'"
    if task.prompt is None:
        yield "the key 'prompt' is missing"
    if bool(task.kind) == bool(task.choices):
        yield "give either 'kind' (the prompt is answered and judged) or 'choices' (their likelihoods are compared)"
    for field in _ONLY_CHOSEN if task.kind else _ONLY_ASKED:
        if field in task.model_fields_set:
            yield f"{field}: has no meaning for a task with {'kind' if task.kind else 'choices'!r}; leave it out"
    if task.choices and not task.metrics:
        yield "the key 'metrics' is missing"
    for name in task.metrics:
        if name not in METRICS:
            yield f"metrics: no metric {name!r}{did_you_mean(name, METRICS)}; there are {', '.join(sorted(METRICS))}"
    if task.prepare is not None and task.prepare not in PREPARATIONS:
        known = ", ".join(PREPARATIONS)
        yield f"prepare: no function {task.prepare!r}{did_you_mean(task.prepare, PREPARATIONS)}; there are {known}"
    if (task.judge == "pairwise") != (task.reference is not None):
        yield "a pairwise judge needs 'reference', the answer to compare with, and only it reads one"
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
    known = {entry.task: entry for entry in tasks_of(parse_suite(packaged[suite], suite))}
    if task not in known:
        raise BfpoError(f"{where}: suite {suite!r} has no task {task!r}{did_you_mean(task, known)}")
    return known[task]
