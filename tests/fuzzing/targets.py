"""What is fuzzed: for every kind of input its valid samples, each a folder of files, and a function that uses one."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
import yaml

from bfpo.judges import load_judge
from bfpo.judges.labels import load_answers, load_labels
from bfpo.judges.verdict import Exchange, Verdict
from bfpo.redteam.bank import load_bank
from fuzzing.written_targets import EXCHANGES, caches, replies, runs, use_cache, use_page, use_reply, use_run
from preferences.formats import FORMATS
from preferences.malformed import GOOD, PKU

Sample = dict[str, bytes]
TEXTS = [asdict(exchange) for exchange in EXCHANGES]


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        samples: valid samples by name, each a folder of files: their contents by name.
        use: function that reads a folder with such files as the commands do.
    """

    samples: Callable[[], dict[str, Sample]]
    use: Callable[[Path], object]


def _jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _parquet(rows):
    out = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue().to_pybytes()


def _yaml(value):
    return yaml.safe_dump(value).encode()


def _only(folder):
    (path,) = folder.iterdir()
    return path


def _tables(name, rows):
    """The same rows in every file type."""
    contents = {"jsonl": _jsonl(rows), "json": json.dumps(rows).encode(), "csv": _csv(rows), "parquet": _parquet(rows)}
    contents["jsonl.gz"] = gzip.compress(contents["jsonl"], mtime=0)
    return {f"{name} {suffix}": {f"rows.{suffix}": content} for suffix, content in contents.items()}


def _preferences():
    samples = _tables("pairs", [GOOD, GOOD | {"prompt": "Another"}]) | _tables("pku", [PKU, PKU])
    unsafe = {"chosen_is_safe": False, "chosen_harm": {"theft": 0.5, "lies": 1}, "category": ["theft"]}
    samples |= _tables("harm", [GOOD | unsafe, GOOD | unsafe | {"prompt": "Another"}])
    marked = {f"response_{n}_harm_category": {"theft": not PKU[f"is_response_{n}_safe"]} for n in (0, 1)}
    graded = {f"response_{n}_severity_level": 0 if PKU[f"is_response_{n}_safe"] else 2 for n in (0, 1)}
    samples |= _tables("severities", [PKU | marked | graded, PKU | marked | graded])
    return samples | {name: {"rows.jsonl": _jsonl([row, row])} for name, _, row, *_ in FORMATS}


def _use_preferences(folder):
    from bfpo.preferences.loading import load_preferences

    load_preferences(str(_only(folder)), unknown_safety="keep")


def _prompts():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    return _tables("text", [{"prompt": "q"}, {"prompt": "r"}]) | {
        "messages": {"p.jsonl": _jsonl([{"prompt": messages}, {"prompt": "q"}])},
        "lines": {"p.txt": b"one\n\ntwo\n"},
    }


def _use_prompts(folder):
    from bfpo.preferences.overlap import load_prompts

    load_prompts(str(_only(folder)))


LABELS = [TEXTS[0] | {"is_safe": True, "source": "a", "category": "b"}, TEXTS[1] | {"is_refusal": 1, "unsafe": False}]


def _banks():
    pair = {"id": "a-1", "category": "lies", "risky": "How do I lie to her?", "benign": "How do I never lie to her?"}
    return _tables(
        "bank", [pair | {"plain": None}, dict.fromkeys(pair) | {"id": "p-1", "category": "a", "plain": "Hi."}]
    )


def _labels():
    by = {"chosen": "judge", "rejected": "people", "order": "people"}
    pairs = {"pairs": {"l.jsonl": _jsonl([PAIR | {"labelled_by": by, "source": "a"}] * 2)}}
    return _tables("labels", LABELS[:1] * 2) | {"mixed": {"l.jsonl": _jsonl(LABELS)}} | pairs


def _use_labels(folder):
    load_answers(str(_only(folder)))
    load_labels(str(_only(folder)))


def _labeled():
    """Rows as `bfpo label` writes them, whose labels a recipe resolves."""
    word = {"verdict": 1.0, "probability": 0.75}
    by = {"chosen": "judge", "rejected": "random", "order": "people"}
    pair = PAIR | {
        "chosen_is_safe": 1.0,
        "labelled_by": by,
        "judged_as": {"chosen": word, "rejected": word, "order": word},
    }
    many = MANY | {
        "is_safe": [1.0, 0.0],
        "labelled_by": {"answers": ["judge", "queue"]},
        "judged_as": {"answers": [word, None]},
    }
    return {"pairs": {"l.jsonl": _jsonl([pair] * 3)}, "answers": {"l.jsonl": _jsonl([many] * 3)}}


def _use_labeled(folder):
    from bfpo.labeling.source_labels import resolve_labels
    from bfpo.preferences.loading import load_preferences

    resolve_labels(load_preferences(str(_only(folder)), unknown_safety="keep"), None, None, is_affine=True)


VERDICTS = [
    TEXTS[0] | asdict(Verdict("safe", 0.75, "no", ("x",), "Safe", 0.5, "j", "t")),
    TEXTS[1] | asdict(Verdict("unparsed", None, "yes")),
]


def _use_judge(folder):
    load_judge(str(_only(folder))).judge(EXCHANGES)


PAIR = {
    "row": 1, "prompt": "q", "chosen": "a", "rejected": "b", "chosen_is_safe": None, "rejected_is_safe": 1.0,
    "chosen_is_better": 0.5,
}  # fmt: skip
MANY = {"row": 2, "prompt": "q", "responses": ["a", "b"], "helpfulness": [0, 1], "is_safe": [None, 0.0]}


def _answers():
    pair = {**PAIR, "asks": {"chosen": True, "order": None}, "draw": 0, "placed": "random"}
    return {
        "queue": {"queue.jsonl": _jsonl([pair, pair | {"row": 3, "chosen": "b", "rejected": "a"}])},
        "answers": {"queue.jsonl": _jsonl([{**MANY, "asks": {"0": 0.25, "1": None}}])},
    }


def _use_answers(folder):
    from bfpo.labeling.people import with_answers

    with_answers([PAIR, PAIR | {"row": 3}, MANY], str(_only(folder)))


RECORDED = [
    {"prompt": "q", "answer": "a", "truncated": True, "tokens": 3, "thinking": "t", "refusal": "", "failure": ""},
    {"prompt": [{"role": "user", "content": "q"}], "answer": "b"},
]


def _use_recorded(folder):
    from bfpo.generation.protocol import Decoding, SampleRequest
    from bfpo.generation.recorded_answers import RecordedAnswers

    recorded = RecordedAnswers.load(_only(folder), ["q"])
    recorded.generate([SampleRequest("k", "q")], Decoding())


def _labelings():
    # By flags, how many of 20 judgments prefer the more helpful answer.
    shares = {(1, 1): 14, (0, 0): 14, (1, 0): 18, (0, 1): 8}
    judgments = [
        {"better_is_safe": better, "worse_is_safe": worse, "overall_prefers_better": int(n < share)}
        | {"category": "xy"[n % 2]}
        for (better, worse), share in shares.items()
        for n in range(20)
    ]
    fitted = {"format": 1, "b1": 3.0, "alpha": 0.5, "prices": {"x": 2.0}, "record": {"p": 1}}
    return _tables("judgments", judgments) | {"fitted": {"labeling.json": json.dumps(fitted).encode()}}


def _use_labeling(folder):
    from bfpo.labeling.fitted import fit_file, load_labeling

    path = _only(folder)
    if path.name == "labeling.json":
        load_labeling(path)
    else:
        fit_file(str(path))


def _recipes():
    from importlib.resources import files

    packaged = files("bfpo.recipes")
    samples = {
        entry.name: {"recipe.yaml": entry.read_bytes()} for entry in packaged.iterdir() if entry.name.endswith(".yaml")
    }
    full = {
        "stage": "preference", "model": "microworld", "data": [{"path": "p.jsonl", "limit": 5, "columns": {"a": "b"}}],
        "eval_data": {"path": "e.jsonl"}, "output_dir": "out", "loss_type": "bfpo", "labeling": "labeling.json",
        "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-8}, "eval_steps": 2,
        "optim": "adamw_torch", "optim_args": "a=1", "report_to": ["tensorboard"], "lora": {"target_modules": ["x"]},
        "keep_best": True, "save_steps": 2, "early_stopping_patience": 2, "trainable": "mlp", "warmup_steps": 3,
    }  # fmt: skip
    return samples | {"full": {"recipe.yaml": _yaml(full), "labeling.json": b'{"format": 1, "b1": 3, "alpha": 0.5}'}}


def _use_recipe(folder):
    from bfpo.training.recipe import load_recipe

    load_recipe(folder / "recipe.yaml", ["learning_rate=1e-6"])


def _suites():
    from bfpo.safehelp.tasks import packaged_suites

    tasks = [
        {"task": "answers", "factor": "helpful", "license": "x", "source": {"file": "rows.jsonl"}, "kind": "benign",
         "where": "n > 0", "prompt": "{{ question }} {{ row['n'] }}", "category": "topic", "cluster": "n"},
        {"task": "choices", "factor": "harmless", "license": "x", "source": {"file": "rows.jsonl"}, "correct": "0",
         "prompt": "Q: {{ question }}", "choices": "[right, wrong]", "metrics": ["acc", "acc_norm"], "chance": 0.5},
    ]  # fmt: skip
    rows = [{"question": f"q{n}", "topic": "t", "n": n, "right": "yes", "wrong": "no"} for n in range(3)]
    suite = {"suite": "mine", "about": "x", "decoding": {"temperature": 0.5}, "judges": ["keywords"], "tasks": tasks}
    mine = {"suite.yaml": _yaml(suite), "rows.jsonl": _jsonl(rows)}
    return {"mine": mine} | {
        name: {"suite.yaml": text.encode(), "rows.jsonl": _jsonl(rows)} for name, text in packaged_suites().items()
    }


def _use_suite(folder):
    from bfpo.safehelp.suites import load_suite
    from bfpo.safehelp.tasks import read_suite

    tasks = read_suite(str(folder / "suite.yaml")).tasks
    load_suite(str(folder / "suite.yaml"), data={task.task: folder / "rows.jsonl" for task in tasks})


def _judges():
    import tempfile

    import bfpo.judges.guards  # noqa: F401  (imports torch, which takes too long for one input)
    from bfpo.judges.fitting import fit_judge
    from bfpo.judges.labels import LabeledAnswer

    labeled = [LabeledAnswer(Exchange(f"question {n // 2}", f"word{n} here"), n % 2 == 0, None) for n in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        fit_judge(labeled, "safety", name="small", folds=2).judge.save(Path(folder))
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    server = {"url": "http://127.0.0.1:1/v1", "concurrency": 2, "attempts": 1}
    question = {"text": "Is this rude? {answer}", "unsafe_word": "yes", "safe_word": "no"}
    scaled = {"judge": "keywords", "scaling": {"slope": 1.0, "offset": 0.5}, "fitted_on": {"labels": "x"}}
    configured = {"model": {"model": "m", "template": "wildguard", "server": server}, "scaled": scaled}
    configured["question"] = {"model": "m", "question": question, "server": server}
    return {"fitted": files} | {name: {"judge.yaml": _yaml(value)} for name, value in configured.items()}


def _use_judge_folder(folder):
    if (folder / "judge.yaml").exists():
        load_judge(str(folder / "judge.yaml"))  # a server is asked in "replies"
    else:
        load_judge(str(folder)).judge(EXCHANGES)


TARGETS = {
    "preferences": Target(_preferences, _use_preferences),
    "prompts": Target(_prompts, _use_prompts),
    "banks": Target(_banks, lambda folder: load_bank(str(_only(folder)))),
    "labels": Target(_labels, _use_labels),
    "labeled": Target(_labeled, _use_labeled),
    "verdicts": Target(
        lambda: {"verdicts": {"v.jsonl": _jsonl(VERDICTS)}, "parquet": {"v.parquet": _parquet(VERDICTS)}}, _use_judge
    ),
    "answers": Target(_answers, _use_answers),
    "recorded-answers": Target(
        lambda: _tables("recorded", RECORDED[:1] * 2) | {"mixed": {"r.jsonl": _jsonl(RECORDED)}}, _use_recorded
    ),
    "labelings": Target(_labelings, _use_labeling),
    "recipes": Target(_recipes, _use_recipe),
    "suites": Target(_suites, _use_suite),
    "judges": Target(_judges, _use_judge_folder),
    "runs": Target(runs, use_run),
    "pages": Target(runs, use_page),
    "caches": Target(caches, use_cache),
    "replies": Target(replies, use_reply),
}
