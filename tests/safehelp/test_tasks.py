"""Suites as data: packaged suites, errors in custom ones, and sources of rows."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import yaml

from bfpo.errors import BfpoError
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.suites import load_suite
from bfpo.safehelp.tasks import list_tasks, packaged_suites, parse_suite, read_suite
from safehelp.own_suites import CHOICES, PROMPTS, put, written

FIXTURES = Path(__file__).parent / "fixtures"


def test_the_packaged_suites_have_what_they_promise():
    core = {task.task: task for task in read_suite("core").tasks}
    assert {name.partition("_")[0] for name in core} >= {
        "truthfulqa", "bbq", "crows", "ethics", "winogrande", "toxigen", "harmbench", "advbench", "strongreject",
        "jailbreakbench", "simple", "xstest", "or", "alpaca",
    }  # fmt: skip
    paper = {task.task: task for task in read_suite("paper").tasks}
    assert {task.lm_eval for task in paper.values()} >= {
        "truthfulqa_mc2", "truthfulqa_gen", "crows_pairs_english", "ethics_cm", "ethics_justice", "ethics_deontology",
        "ethics_utilitarianism", "ethics_virtue", "toxigen", "winogrande", "bigbench_hhh_alignment_multiple_choice",
        "bigbench_fact_checker_multiple_choice", "bigbench_moral_permissibility_multiple_choice",
        "bigbench_bbq_lite_json_multiple_choice", "bigbench_known_unknowns_multiple_choice",
        "bigbench_simple_ethical_questions_multiple_choice", "ifeval", "gsm8k",
    }  # fmt: skip
    assert {"advbench", "alert", "alert_adversarial", "beaver", "realtoxicityprompts_challenge"} <= set(paper)
    assert paper["alpaca_eval"] == core["alpaca_eval"]
    assert {task.factor for task in core.values()} == {"helpful", "harmless", "over_refusal"}


def test_every_packaged_task_makes_items_of_rows_in_its_sources_schema():
    suite = load_suite("core", folder=FIXTURES / "core")
    made = {item.task for item in [*suite.prompts, *suite.choices]}
    assert made == {task.task for task in suite.tasks}
    by_task = {item.task: item for item in suite.choices}
    assert by_task["winogrande"].scored == "prompt"
    assert by_task["winogrande"].choices == ("Ana thanked Eva because Ana", "Ana thanked Eva because Eva")
    assert by_task["truthfulqa_mc2"].correct == (1.0, 1.0, 0.0, 0.0)
    assert len(by_task["bbq_ambiguous"].choices) == len(by_task["bbq_ambiguous"].labels) == 12
    assert {item.prompt for item in suite.choices if item.task == "crows_pairs_english"} == {""}
    paper = load_suite("paper", folder=FIXTURES / "paper")
    prompts = {item.task: item for item in paper.prompts}
    assert set(prompts) == {task.task for task in paper.tasks if not task.lm_eval}
    assert set(paper.files) == {task.task for task in paper.tasks if task.lm_eval}
    assert prompts["alert_adversarial"].prompt == "Placeholder for a harmful request, number 4."
    assert prompts["alert_adversarial"].attack == "jailbreaking"
    assert prompts["advbench"].prompt.endswith("number 4.. ")
    assert len([item for item in paper.prompts if item.task == "realtoxicityprompts_challenge"]) == 3


def test_the_larger_sets_are_read_as_their_loaders_read_them():
    suite = load_suite("extended", folder=FIXTURES / "extended")
    made = [(item.task, item.kind, item.prompt.rpartition(" ")[2], item.attack) for item in suite.prompts]
    assert made == [
        ("jailbreakbench_benign", "borderline", "1.", None), ("jailbreakbench_benign", "borderline", "2.", None),
        ("coconot_contrast", "borderline", "3.", None), ("coconot_contrast", "borderline", "4.", None),
        ("wildguardtest_benign", "borderline", "5.", None),
        ("wildguardtest_harmful", "harmful", "6.", "adversarial"), ("wildguardtest_harmful", "harmful", "7.", None),
        ("sorry_bench", "harmful", "9.", None), ("sorry_bench", "harmful", "10.", None),
    ]  # fmt: skip
    harmbench = load_suite("harmbench", folder=FIXTURES / "core")
    assert (harmbench.decoding.temperature, harmbench.decoding.max_new_tokens) == (0.0, 512)


@pytest.mark.parametrize(
    ("task", "name", "text"),
    [
        ("advbench", "harmful_behaviors.csv", "goal,target\nPlaceholder 1,Sure\nPlaceholder 2,Sure\n"),
        (
            "simple_safety_tests", "SST.csv",
            "id,harm_area,category,prompts_final\n1,Scams,x,Placeholder 1\n2,Scams,y,Placeholder 2\n",
        ),
    ],
)  # fmt: skip
def test_files_are_read_as_their_authors_publish_them(tmp_path, task, name, text):
    (tmp_path / name).write_text(text)
    suite = load_suite("core", tasks=[task], data={task: tmp_path / name})
    assert [item.prompt for item in suite.prompts] == ["Placeholder 1", "Placeholder 2"]


TURNS = [
    {"role": "user", "content": "Whose door is it?"},
    {"role": "assistant", "content": "Mine."},
    {"role": "user", "content": "How do I open it?"},
]


def test_a_prompt_may_be_a_conversation(tmp_path):
    task = {key: value for key, value in PROMPTS.items() if key != "prompt"} | {"messages": "turns"}
    (tmp_path / "my.yaml").write_text(written(task))
    put(tmp_path, "doors.jsonl", [{"turns": TURNS}])
    (item,) = load_suite(str(tmp_path / "my.yaml")).prompts
    assert item.prompt == "user: Whose door is it?\n\nassistant: Mine.\n\nuser: How do I open it?"
    assert list(item.request) == TURNS
    for turns, message in (
        (TURNS[:2], "row 1, messages: the last message must be the user's"),
        ([], "row 1, messages: the last message must be the user's"),
        ([{"role": "tool", "content": "x"}], "row 1, messages, number 1: must have only a 'role'"),
        ([TURNS[0] | {"tool_calls": []}], "row 1, messages, number 1: must have only a 'role'"),
        ("text", "row 1, messages, number 1: must have only a 'role'"),
    ):
        put(tmp_path, "doors.jsonl", [{"turns": turns}])
        with pytest.raises(BfpoError) as caught:
            load_suite(str(tmp_path / "my.yaml"))
        assert message in str(caught.value)
    for wrong, message in (
        (PROMPTS | {"messages": "turns"}, "give either 'prompt' or 'messages'"),
        ({k: v for k, v in CHOICES.items() if k != "prompt"} | {"messages": "turns"}, "the key 'prompt' is missing"),
        (CHOICES | {"messages": "turns"}, "messages: has no meaning for a task with 'choices'"),
    ):
        with pytest.raises(BfpoError, match=message):
            parse_suite(written(wrong), "my.yaml")


def test_likelihood_prompts_are_lm_evals(lm_eval_configs):
    suite = load_suite("core", folder=FIXTURES / "core")
    rows = {
        name: [json.loads(line) for line in (FIXTURES / "core" / f"{name}.jsonl").open()] for name in lm_eval_configs
    }
    for name, config in lm_eval_configs.items():
        for item, row in zip([item for item in suite.choices if item.task == name], rows[name], strict=True):
            assert item.prompt == config.text(row), name
            assert list(item.choices) == config.choices(row), name
            if config.target is not None:
                assert item.correct[config.target(row)] == 1.0, name


@pytest.fixture
def lm_eval_configs():
    """lm-eval's own templates of the tasks that are pure templates."""
    lm_eval = pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    from types import SimpleNamespace

    from lm_eval.utils import apply_template

    folder = Path(lm_eval.__file__).parent / "tasks"
    paths = {
        "truthfulqa_mc2": "truthfulqa/truthfulqa_mc1.yaml",
        "ethics_cm": "hendrycks_ethics/commonsense.yaml",
        "ethics_justice": "hendrycks_ethics/justice.yaml",
        "ethics_deontology": "hendrycks_ethics/deontology.yaml",
        "ethics_virtue": "hendrycks_ethics/virtue.yaml",
        "toxigen": "toxigen/toxigen.yaml",
    }

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: None)
    configs = {}
    for name, path in paths.items():
        config = yaml.load((folder / path).read_text(encoding="utf-8"), Loader)
        if "include" in config:
            config = (
                yaml.load((folder / path).with_name(config["include"]).read_text(encoding="utf-8"), Loader) | config
            )
        offered = (lambda row: row["mc2_targets"]["choices"]) if name == "truthfulqa_mc2" else None
        configs[name] = SimpleNamespace(
            text=lambda row, config=config: apply_template(config["doc_to_text"], row),
            choices=offered or (lambda row, config=config: config["doc_to_choice"]),
            target=(lambda row: row["label"]) if config.get("doc_to_target") == "label" else None,
        )
    return configs


def test_a_suite_of_ones_own_is_a_yaml_and_a_jsonl(tmp_path):
    (tmp_path / "my.yaml").write_text(
        written(CHOICES, PROMPTS | {"category": "row['kind of door']"}, "core/xstest_safe")
    )
    put(tmp_path, "colors.jsonl", [{"thing": f"door {n}", "right": "red", "wrong": "loud"} for n in range(3)])
    put(tmp_path, "doors.jsonl", [{"question": "How do I open my door?", "kind of door": "oak"}])
    put(tmp_path, "xs.jsonl", [json.loads(line) for line in (FIXTURES / "core" / "XSTest.jsonl").open()])
    suite = load_suite(str(tmp_path / "my.yaml"), data={"xstest_safe": tmp_path / "xs.jsonl"})
    assert suite.choices[1] == ChoiceItem(
        "colors", "2", "helpful", None, "2", "What color is door 1?", ("red", "loud"), (1.0, 0.0)
    )
    assert suite.prompts[0] == PromptItem(
        "doors", "1", "borderline", "oak", None, "1", "How do I open my door?"
    )  # fmt: skip
    assert [item.cluster for item in suite.prompts[1:]] == ["kill", "shoot"]
    digest = hashlib.sha256((tmp_path / "colors.jsonl").read_bytes()).hexdigest()
    assert (suite.sources["colors"].sha256, suite.sources["colors"].rows) == (digest, 3)
    assert suite.digest == load_suite(str(tmp_path / "my.yaml"), data={"xstest_safe": tmp_path / "xs.jsonl"}).digest


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet"])
def test_rows_of_every_kind_of_file(tmp_path, suffix):
    (tmp_path / "my.yaml").write_text(written(PROMPTS))
    rows = [{"question": 'Who said "open, door"?', "n": 1}, {"question": "Why?\nBecause", "n": 2}]
    path = tmp_path / f"doors{suffix}"
    if suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        put(tmp_path, path.name, rows)
    else:
        frame = pandas.DataFrame(rows)
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    suite = load_suite(str(tmp_path / "my.yaml"), data={"doors": path})
    assert [item.prompt for item in suite.prompts] == [row["question"] for row in rows]
    assert load_suite(str(tmp_path / "my.yaml"), folder=tmp_path).prompts == suite.prompts


def test_a_limit_draws_the_same_items_from_everywhere(tmp_path):
    (tmp_path / "my.yaml").write_text(written(PROMPTS))
    put(tmp_path, "doors.jsonl", [{"question": f"Door {n}?"} for n in range(400)])
    drawn = [int(item.item) for item in load_suite(str(tmp_path / "my.yaml"), limit=100).prompts]
    assert drawn == sorted(drawn)
    assert len(drawn) == 100
    assert 130 < sum(drawn) / 100 < 270
    fewer = [int(item.item) for item in load_suite(str(tmp_path / "my.yaml"), limit=50).prompts]
    assert set(fewer) < set(drawn)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (CHOICES | {"choises": "x"}, "task 'colors': unknown key 'choises' (did you mean 'choices'?)"),
        (CHOICES | {"factor": "harmful"}, "task 'colors': factor: input should be 'helpful', 'harmless' or"),
        (CHOICES | {"source": {"hubb": "a/b"}}, "unknown key 'source.hubb' (did you mean 'hub'?)"),
        (CHOICES | {"source": {"hub": "a/b"}}, "needs either 'split' or 'file'"),
        (CHOICES | {"source": {}}, "source: name 'hub'"),
        (CHOICES | {"kind": "benign"}, "give either 'kind'"),
        (CHOICES | {"metrics": []}, "the key 'metrics' is missing"),
        (CHOICES | {"metrics": ["accc"]}, "no metric 'accc' (did you mean 'acc'?)"),
        (CHOICES | {"prepare": "bbqq"}, "prepare: no function 'bbqq' (did you mean 'bbq'?)"),
        (CHOICES | {"reference": "right"}, "reference: has no meaning for a task with 'choices'"),
        (CHOICES | {"correct": "1 +"}, "correct: no Jinja expression"),
        (CHOICES | {"metrics": ["bias_disambiguated"]}, "metrics: bias_disambiguated needs 'labels'"),
        (CHOICES | {"prompt": "{{ thing"}, "prompt: no Jinja template"),
        (PROMPTS | {"judge": "pairwise"}, "'judge: pairwise' and 'reference'"),
        (PROMPTS | {"labels": "[]"}, "labels: has no meaning for a task with 'kind'"),
        ({"task": "x", "factor": "helpful"}, "the key 'license' is missing"),
        (
            {"task": "g", "factor": "helpful", "license": "MIT", "lm_eval": "gsm8k", "prompt": "q"},
            "prompt: is set by lm-eval's task",
        ),
        (
            {"task": "g", "factor": "helpful", "license": "MIT", "lm_eval": "gsm8k"},
            "task 'g': the key 'metrics' is missing; name a metric of lm-eval's task 'gsm8k'",
        ),
        ("core/xstest", "suite 'core' has no task 'xstest'"),
        ("cores/xstest_safe", "no packaged suite 'cores' (did you mean 'core'?)"),
        (7, "task number 1: is a int"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_with_file_task_and_field(task, message):
    with pytest.raises(BfpoError) as caught:
        parse_suite(written(task), "my.yaml")
    assert str(caught.value).startswith("my.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suite: [", "not valid YAML"),
        ("- a", "is a list; write a mapping"),
        ("suite: s\nabout: a\ntasks: []", "tasks: tuple should have at least 1 item"),
        (written(CHOICES, CHOICES), "two tasks are called 'colors'"),
        (written(CHOICES, judge="x"), "unknown key 'judge' (did you mean 'judges'?)"),
        (written(CHOICES, decoding={"temperatur": 1}), "did you mean 'temperature'?"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said(text, message):
    with pytest.raises(BfpoError, match=r"^my\.yaml") as caught:
        parse_suite(text, "my.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "row", "message"),
    [
        ({}, {"thing": "a", "right": "b"}, "row 1, choices: 'wrong' is undefined; the row has thing, right"),
        ({"prompt": "{{ thin }}"}, {"thing": "a", "right": "b", "wrong": "c"}, "row 1, prompt: 'thin' is undefined"),
        (
            {"choices": "right"},
            {"thing": "a", "right": "b", "wrong": "c"},
            "row 1, choices: 'b' is not a list of at least",
        ),
        ({"correct": "2"}, {"thing": "a", "right": "b", "wrong": "c"}, "row 1, correct: 2 is neither"),
        ({"correct": "[1]"}, {"thing": "a", "right": "b", "wrong": "c"}, "row 1, correct: 1 values for 2 choices"),
        (
            {"correct": "[none, 1]"},
            {"thing": "a", "right": "b", "wrong": "c"},
            "row 1, correct: [None, 1] isn't a list",
        ),
        ({"correct": "[0, 0]"}, {"thing": "a", "right": "b", "wrong": "c"}, "with at least one 1"),
        ({}, {"thing": "a", "right": "", "wrong": "c"}, "row 1, choices: number 1 is empty"),
        ({"labels": "['x']"}, {"thing": "a", "right": "b", "wrong": "c"}, "row 1, labels: 1 for 2 choices"),
        (
            {"prepare": "bbq"},
            {"thing": "a", "right": "b", "wrong": "c"},
            "row 1: prepare 'bbq' fails (KeyError: 'ans0')",
        ),
        (
            {"where": "thing == 'b'"},
            {"thing": "a", "right": "b", "wrong": "c"},
            "no row is left by 'where: thing == 'b'",
        ),
        (
            {"correct": "thing.__class__"},
            {"thing": "a", "right": "b", "wrong": "c"},
            "row 1, correct: access to attribute",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, change, row, message):
    (tmp_path / "my.yaml").write_text(written(CHOICES | change))
    put(tmp_path, "colors.jsonl", [row])
    with pytest.raises(BfpoError) as caught:
        load_suite(str(tmp_path / "my.yaml"))
    assert "task 'colors'" in str(caught.value)
    assert message in str(caught.value)


def test_the_list_shows_every_task_with_its_direction():
    rows = list_tasks()
    assert {row["suite"] for row in rows} == {*packaged_suites(), "microworld"}
    by_name = {(row["suite"], row["task"]): row for row in rows}
    assert by_name["core", "bbq_ambiguous"]["higher_is_better"] is False
    assert by_name["core", "xstest_safe"]["higher_is_better"] is False
    assert by_name["core", "crows_pairs_english"]["higher_is_better"] is True
    assert by_name["core", "xstest_safe"]["revision"] == "f1d713187c61b6ae64e602d74f0b3d812cc2e8e8"
    assert by_name["core", "alpaca_eval"]["judge"] == "pairwise"
    assert by_name["paper", "gsm8k"]["runner"] == "lm-eval"
    assert json.loads(json.dumps(rows)) == rows
    assert {row["suite"] for row in list_tasks("paper")} == {"paper"}
    with pytest.raises(BfpoError, match="did you mean 'core'"):
        list_tasks("cor")


def test_the_microworlds_items_are_fixed_distinct_and_never_from_training():
    suite, again = load_suite("microworld", per_kind=100), load_suite("microworld", per_kind=100)
    assert (suite.prompts, suite.choices) == (again.prompts, again.choices)
    assert len({item.prompt for item in suite.prompts}) == 300
    validation = load_suite("microworld", split="validation", per_kind=100)
    assert not {item.prompt for item in suite.prompts} & {item.prompt for item in validation.prompts}
    assert suite.judge is not None
    for item in suite.choices:
        right, other = (suite.judge(item.prompt, text) for text in item.choices)
        if item.factor == "harmless":
            assert right.is_safe
            assert not other.is_safe
        else:
            assert right.p_help > other.p_help
    with pytest.raises(BfpoError, match="did you mean 'microworld'"):
        load_suite("micro-world")


def test_reading_suites_imports_neither_torch_nor_transformers_nor_lm_eval():
    modules = (
        "bfpo.safehelp, bfpo.safehelp.tasks, bfpo.safehelp.suites, bfpo.safehelp.metrics, bfpo.safehelp.lm_eval_tasks"
    )
    code = f"import sys, {modules}\nfrom bfpo.safehelp.tasks import list_tasks\nlist_tasks()\n"
    code += "assert not {'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_of_suites_has_every_task():
    page = (Path(__file__).resolve().parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    for row in list_tasks():
        section = page.partition(f"\n## {row['suite']}\n")[2].partition("\n## ")[0]
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {row['task']} |")]
        assert line.endswith(f"| {row['license']} |")
        assert row["source"].removeprefix("lm-eval: ") in line
        assert not row["revision"] or row["revision"][:8] in line
        assert not row["note"] or row["note"] in section
