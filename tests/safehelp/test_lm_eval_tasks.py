"""lm-eval's tasks as records: prompts without a template, and metrics that are checked before and after a run."""

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding
from bfpo.safehelp.compare import compare, why_incomparable
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.lm_eval_tasks import _generation, _seeded, run_lm_eval
from bfpo.safehelp.suites import Suite, load_suite
from bfpo.safehelp.tasks import Task
from models import tiny_llama
from support.choice_parity import byte_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("winogrande", "toxigen", "gsm8k")


def generator(template):
    model, tokenizer = tiny_llama(300).eval(), byte_tokenizer()
    model.config.max_position_embeddings = 2048
    tokenizer.chat_template = template(tokenizer.chat_template)
    return LocalGenerator(model, tokenizer)


def test_models_with_other_templates_read_the_same_prompts():
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    paper = load_suite("paper", folder=FIXTURES / "paper")
    suite = replace(paper, tasks=tuple(task for task in paper.tasks if task.task in NAMES), prompts=[])
    templates = (lambda text: text, lambda text: text.replace("[assistant]", "<model>"), lambda text: None)
    settings = {"name": "m", "decoding": Decoding(max_new_tokens=4), "limit": 2}
    first, *others = (evaluate(generator(template), suite, **settings) for template in templates)
    assert {record.task for record in [*first.generations, *first.likelihoods]} == set(NAMES)
    asked = "Question: Ana has 2 pears and eats one. How many are left?\nAnswer:"
    for run, ending in zip((first, *others), ("[assistant] ", "<model> ", "Answer:"), strict=True):
        assert run.generations[0].prompt == asked
        assert run.generations[0].rendered.endswith(ending)
        assert asked in run.generations[0].rendered
        assert why_incomparable(first, run) is None
    assert {row.task for row in compare(first, others[0]).rows} >= {"winogrande", "toxigen"}


@pytest.mark.parametrize(("asked", "used"), [(2, 2), (256, 16)])
def test_batches_are_no_larger_than_asked_for_nor_than_whole_logits_allow(asked, used, monkeypatch):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    from lm_eval.models import huggingface

    made = []

    class Recorded(huggingface.HFLM):
        def __init__(self, *arguments, **options):
            made.append(options["batch_size"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(huggingface, "HFLM", Recorded)
    paper = load_suite("paper", folder=FIXTURES / "paper")
    suite = replace(paper, tasks=tuple(task for task in paper.tasks if task.task == "winogrande"), prompts=[])
    decoding = Decoding(max_new_tokens=4, batch_size=asked)
    evaluate(generator(lambda text: text), suite, name="m", decoding=decoding, limit=2)
    assert made == [used]


def test_scorers_draw_the_same_numbers_in_every_run_and_leave_no_trace():
    langdetect = pytest.importorskip("langdetect", reason="the lm-eval extra is not installed")
    before = langdetect.DetectorFactory.seed, random.getstate()

    def drawn():
        return str(langdetect.detect_langs("Otec matka syn.")), random.random()

    def seeded():
        with _seeded():
            return drawn()

    assert len({language for language, _ in (drawn() for _ in range(12))}) > 1
    random.setstate(before[1])
    assert len({seeded() for _ in range(12)}) == 1
    assert (langdetect.DetectorFactory.seed, random.getstate()) == before


def entry(**fields):
    return Task(**({"task": "t", "factor": "helpful", "license": "MIT", "lm_eval": "gsm8k"} | fields))


@pytest.mark.parametrize(
    ("lm_eval", "metric", "file", "message"),
    [
        ("gsm8k", "exact_mach", "gsm8k", "'gsm8k' has no 'exact_mach' (did you mean 'exact_match'?); there are exact"),
        ("toxigen", "acuracy", "toxigen", "has no 'acuracy' (did you mean 'acc'?); there are acc, acc_bytes,"),
        ("toxigen", "mc2", "toxigen", "lm-eval's 'toxigen' has no 'mc2'"),
        ("toxigen", "bias_ambiguous", "toxigen", "lm-eval's 'toxigen' has no 'bias_ambiguous'"),
        ("lambada_openai", "acc", None, "lm-eval's 'lambada_openai' is of the type loglikelihood; choose"),
    ],
)  # fmt: skip
def test_metrics_are_checked_before_any_task_runs(tmp_path, monkeypatch, lm_eval, metric, file, message):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    monkeypatch.setattr("lm_eval.evaluator.evaluate", None)
    rows = (FIXTURES / "paper" / f"{file}.jsonl").read_text() if file else '{"text": "a red door"}\n'
    (tmp_path / "t.jsonl").write_text(rows)
    task = entry(lm_eval=lm_eval, metrics=(metric,))
    suite = Suite("s", [], [], (task,), files={"t": tmp_path / "t.jsonl"})
    with pytest.raises(BfpoError) as caught:
        list(run_lm_eval(generator(lambda text: text), suite))
    assert str(caught.value).startswith("task 't'")
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [34.5, -0.1, float("nan"), ("reference", "answer"), [True, False], None])
def test_a_metric_that_is_no_share_is_refused(value):
    """An interval would clip it to [0, 1] without a word, as it did with BLEU."""
    loaded = SimpleNamespace(doc_to_text=lambda doc: doc["q"], aggregation=lambda: {"bleu_max": None, "bleu_acc": None})
    sample = {"doc_id": 6, "doc": {"q": "Why?"}, "arguments": [("<user> Why?",)], "resps": [["So."]], "bleu_max": value}
    with pytest.raises(BfpoError, match=r"^task 't', metrics: lm-eval's 'bleu_max' is .* for item 7, .*bleu_acc"):
        _generation(entry(metrics=("bleu_max",)), loaded, sample)
    record = _generation(entry(metrics=("bleu_max",)), loaded, sample | {"bleu_max": 1})
    assert (record.prompt, record.rendered, record.p_help) == ("Why?", "<user> Why?", 1.0)
