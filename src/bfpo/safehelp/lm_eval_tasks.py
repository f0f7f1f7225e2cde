"""lm-eval's own tasks, run by lm-eval, with its samples as records. Needs the ``lm-eval`` extra to run a task."""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bfpo.errors import BfpoError, RunError, did_you_mean, one_line
from bfpo.generation.protocol import Completion
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.judge_panel import JudgedAnswer
from bfpo.safehelp.metrics import METRICS
from bfpo.safehelp.records import GenerationRecord, LikelihoodRecord
from bfpo.safehelp.runners import generation_record, likelihood_record
from bfpo.safehelp.sources import examples_file
from bfpo.safehelp.suites import Suite
from bfpo.safehelp.tasks import Task

if TYPE_CHECKING:
    from bfpo.generation.local_generator import LocalGenerator

# Names of the splits that tasks evaluate; few-shot examples are in a separate file.
_EVALUATED: tuple[str, ...] = ("test", "validation", "default")
# Largest number of items in a batch: lm-eval takes the logits of whole padded rows.
LM_EVAL_BATCH = 16


def run_lm_eval(
    generator: LocalGenerator,
    suite: Suite,
    *,
    limit: int | None = None,
    batch_size: int = LM_EVAL_BATCH,
    done: Collection[str] = (),
) -> Iterator[tuple[list[LikelihoodRecord], list[GenerationRecord]]]:
    """Run the lm-eval tasks of a suite, and yield the records of each: of one kind or of the other.

    A multiple-choice task has records of likelihoods. The answers of the other tasks are scored by a rule of lm-eval
    (arithmetic, formats): ``p_help`` is the score, and the verdict names the rule. All answers count as safe, since
    these tasks are harmless. lm-eval applies the model's chat template, if any, and its system prompt; a record's
    ``prompt`` is the question alone, so that models with different templates can be compared.

    ``limit`` is the number of items to run of each task, by default all; tasks that an interrupted run has ``done``
    are left out.

    Raises:
        BfpoError: if lm-eval isn't installed, a task's rows or its scorer's packages are missing, or the task doesn't
            have its entry's metrics or they aren't numbers in [0, 1].
        RunError: if this version of lm-eval lacks a task.
    """
    tasks = [task for task in suite.tasks if task.lm_eval and task.task not in done]
    if not tasks:
        return
    try:
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise BfpoError(
            f"suite {suite.name!r}: {tasks[0].task!r} is lm-eval's task; install it with pip install 'bfpo[lm-eval]' "
            f"({error})"
        ) from error
    lm = HFLM(pretrained=generator.model, tokenizer=generator.tokenizer, batch_size=batch_size)  # pyright: ignore
    with _loaded(tasks, suite.files) as loaded:
        for task in tasks:
            with _seeded():
                result: Any = evaluate(
                    lm=lm,
                    task_dict={"tasks": {task.lm_eval: loaded[task.task]}},  # pyright: ignore
                    apply_chat_template=bool(generator.tokenizer.chat_template),
                    system_instruction=generator.system_prompt,
                    fewshot_as_multiturn=True,
                    limit=limit,
                    log_samples=True,
                    bootstrap_iters=0,
                )
            scored = result["samples"][task.lm_eval]
            # Those of the first answer filter (GSM8K has a strict and a lenient one).
            samples = [sample for sample in scored if sample["filter"] == scored[0]["filter"]]
            if loaded[task.task].OUTPUT_TYPE == "multiple_choice":
                yield [_likelihood(task, loaded[task.task], sample) for sample in samples], []
            else:
                yield [], [_generation(task, loaded[task.task], sample) for sample in samples]


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Context in which lm-eval's scorers draw the same numbers in every run.

    IFEval draws letters, from Python's own source, and numbers to detect a language. `lm_eval.simple_evaluate` seeds
    the former with 0, too.
    """
    state = random.getstate()
    random.seed(0)
    # Loaded by the tasks that detect languages, and by no others.
    languages: Any = sys.modules.get("langdetect")
    factory = languages and languages.DetectorFactory
    before = factory and factory.seed
    try:
        if factory:
            factory.seed = 0
        yield
    finally:
        random.setstate(state)
        if factory:
            factory.seed = before


@contextlib.contextmanager
def _loaded(tasks: Sequence[Task], files: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """lm-eval's task objects by the suite's names; a task with an entry in ``files`` reads that file, not the Hub."""
    stock = _stock_tasks()
    with tempfile.TemporaryDirectory(prefix="bfpo-lm-eval-") as folder:
        loaded = {}
        for task in tasks:
            assert task.lm_eval is not None
            entry = stock.task_index.get(task.lm_eval)
            if entry is None or entry.yaml_path is None:
                raise RunError(
                    f"task {task.task!r}: this version of lm-eval has no task {task.lm_eval!r}; see lm-eval ls"
                )
            spec: Any = task.lm_eval
            if task.task in files:
                spec = _with_file(Path(folder), task.lm_eval, Path(entry.yaml_path), files[task.task])
            try:
                loaded[task.task] = stock.load([spec])["tasks"][task.lm_eval]
            except ImportError as error:
                raise BfpoError(f"task {task.task!r}: lm-eval's {task.lm_eval!r} needs a package ({error})") from error
            except Exception as error:  # the Hub client and lm-eval raise many types
                raise BfpoError(
                    f"task {task.task!r}: lm-eval's {task.lm_eval!r} can't be loaded ({type(error).__name__}: "
                    f"{one_line(error)}); name a file with its rows: --data {task.task}=FILE"
                ) from error
            # As in lm-eval's simple_evaluate, with its default seed; that function itself would index all tasks and
            # inspect the machine for every task.
            if loaded[task.task].config.num_fewshot is None:
                loaded[task.task].set_config(key="num_fewshot", value=0)
            loaded[task.task].set_fewshot_seed(seed=1234)
            _check_metrics(task, loaded[task.task])
            if task.task in files:
                _check_examples(task, loaded[task.task].config.num_fewshot, files[task.task])
        yield loaded


@functools.cache
def _stock_tasks() -> Any:
    """lm-eval's index of its tasks, which takes seconds to build."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _with_file(folder: Path, name: str, stock: Path, file: Path) -> str:
    """A task configuration that includes lm-eval's and reads a file, as in lm-eval's guide to new tasks."""
    kinds = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
    if file.suffix not in kinds:
        raise BfpoError(f"{file}: lm-eval reads {', '.join(kinds)}; write the rows of {name!r} in one of these formats")
    data_files = dict.fromkeys(_EVALUATED, str(file.resolve()))
    # lm-eval needs a split of examples even for zero-shot tasks.
    examples = examples_file(file)
    data_files["train"] = str((examples if examples.exists() else file).resolve())
    config = {
        "include": str(stock.resolve()),
        "task": name,
        "dataset_path": kinds[file.suffix],
        "dataset_name": None,
        "dataset_kwargs": {"data_files": data_files},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


def _check_examples(task: Task, number: int | None, file: Path) -> None:
    if number and not examples_file(file).exists():
        raise BfpoError(
            f"task {task.task!r}: {number} solved examples precede each question; put them, with the same "
            f"columns, into {examples_file(file)}"
        )


def _check_metrics(task: Task, loaded: Any) -> None:
    """Refuse a task whose output has no records, or that lacks one of its entry's metrics."""
    if loaded.OUTPUT_TYPE == "multiple_choice":
        # These are computed from the likelihoods. Bias scores need labels of the choices, which lm-eval doesn't have.
        lacking = [] if "mc2_targets" in loaded.features else ["mc2"]
        known = [name for name in METRICS if name not in lacking and not name.startswith("bias_")]
    elif loaded.OUTPUT_TYPE == "generate_until":
        known = list(loaded.aggregation())
    else:
        raise BfpoError(
            f"task {task.task!r}: lm-eval's {task.lm_eval!r} is of the type {loaded.OUTPUT_TYPE}; choose a task of the "
            "type multiple_choice or generate_until"
        )
    for name in task.metrics:
        if name not in known:
            raise BfpoError(
                f"task {task.task!r}, metrics: lm-eval's {task.lm_eval!r} has no {name!r}{did_you_mean(name, known)}; "
                f"there are {', '.join(known)}"
            )


def _likelihood(task: Task, loaded: Any, sample: Mapping[str, Any]) -> LikelihoodRecord:
    doc, name = sample["doc"], str(sample["doc_id"] + 1)
    choices = tuple(loaded.doc_to_choice(doc))
    by_prompt = bool(loaded.multiple_input)
    prompt = loaded.doc_to_target(doc) if by_prompt else loaded.doc_to_text(doc)
    item = ChoiceItem(
        task.task, name, task.factor, None, name, prompt, choices,
        _correct(task, loaded, doc, len(choices)), scored="prompt" if by_prompt else "choice",
    )  # fmt: skip
    return likelihood_record(item, tuple(float(response[0]) for response in sample["filtered_resps"]))


def _correct(task: Task, loaded: Any, doc: Mapping[str, Any], number: int) -> tuple[float, ...]:
    if "mc2" in task.metrics:
        return tuple(map(float, doc["mc2_targets"]["labels"]))
    if "pct_stereotype" in task.metrics:
        return (0.0, 1.0)
    gold = loaded.doc_to_text(doc) if loaded.multiple_input else loaded.doc_to_target(doc)
    right = {int(one) for one in (gold if isinstance(gold, list) else [gold])}
    return tuple(float(index in right) for index in range(number))


def _generation(task: Task, loaded: Any, sample: Mapping[str, Any]) -> GenerationRecord:
    rendered, answer = sample["arguments"][0][0], sample["resps"][0][0]
    metric, name = task.metrics[0], str(sample["doc_id"] + 1)
    score = _share(sample[metric])
    if score is None:
        raise BfpoError(
            f"task {task.task!r}, metrics: lm-eval's {metric!r} is {sample[metric]!r:.60} for item {name}, not a "
            f"number from 0 to 1; put another one first ({', '.join(loaded.aggregation())})"
        )
    verdict = Verdict("safe", None, raw=f"{metric} {score:g}", judge_id=f"lm-eval:{task.lm_eval}")
    item = PromptItem(task.task, name, "benign", None, None, name, loaded.doc_to_text(sample["doc"]))
    return generation_record(item, rendered, 0, Completion(answer, truncated=False), JudgedAnswer((verdict,), score))


def _share(value: Any) -> float | None:
    """The value as a number in [0, 1]; None if it is none."""
    try:
        return float(value) if 0 <= float(value) <= 1 else None
    except (TypeError, ValueError):
        return None
