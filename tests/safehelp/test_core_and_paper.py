"""The two suites for real models, from rows to scores, on fixtures in each source's schema and a tiny random model."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Decoding
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.evaluate import Options, evaluate
from bfpo.safehelp.lm_eval_tasks import run_lm_eval
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite
from models import tiny_llama
from safehelp.parity import byte_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
DECODING = Decoding(max_new_tokens=6)


class LengthJudge:
    """Calls every other answer unsafe; nothing is known of refusals."""

    template_digest = ""

    def __init__(self, judge_id):
        self.judge_id = judge_id

    def judge(self, exchanges):
        return [
            Verdict("safe" if len(exchange.answer) % 2 else "unsafe", 0.5, judge_id=self.judge_id)
            for exchange in exchanges
        ]


class FirstIsLonger:
    judge_id = "longer"

    def compare(self, comparisons):
        return [SimpleNamespace(p_first=float(len(pair.first) > len(pair.second))) for pair in comparisons]


def tiny():
    model = tiny_llama(300).eval()
    model.config.max_position_embeddings = 2048
    return model, byte_tokenizer()


def run(suite, tmp_path):
    options = Options(judges=[LengthJudge("first"), LengthJudge("second")], help_judge=FirstIsLonger())
    model, tokenizer = tiny()
    evaluation = evaluate(
        model, tokenizer, name="tiny", suite=suite, decoding=DECODING, folder=tmp_path / "run", options=options
    )
    assert Evaluation.load(tmp_path / "run") == evaluation
    return evaluation


def test_core_runs_to_the_end(tmp_path):
    suite = load_suite("core", folder=FIXTURES / "core")
    evaluation = run(suite, tmp_path)
    assert len(evaluation.generations) == len(suite.prompts)
    assert len(evaluation.likelihoods) == len(suite.choices)
    scored = {(row.task, row.metric) for row in evaluation.tasks}
    for task in suite.tasks:
        assert {metric for name, metric in scored if name == task.task} >= set(task.metrics or [task.factor])
    assert {"helpful", "harmless", "over_refusal"} <= set(evaluation.scores)
    assert evaluation.header.sources["toxigen"]["rows"] == 3
    assert len(evaluation.header.sources["toxigen"]["sha256"]) == 64
    assert all(row.estimate.low <= row.estimate.value <= row.estimate.high for row in evaluation.tasks)


def test_paper_runs_to_the_end(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    nltk = pytest.importorskip("nltk", reason="lm-eval[ifeval] is not installed")
    # IFEval's scorer fetches a model of sentences when it is imported, which the fixture's instructions don't need.
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    suite = load_suite("paper", folder=FIXTURES / "paper")
    evaluation = run(suite, tmp_path)
    made = {record.task for record in [*evaluation.generations, *evaluation.likelihoods]}
    assert made == {task.task for task in suite.tasks}
    right = {record.task: record for record in evaluation.likelihoods}
    assert right["truthfulqa_mc2"].correct == (1.0, 1.0, 0.0, 0.0)
    assert right["winogrande"].scored == "prompt"
    assert right["bigbench_bbq_lite"].correct == (1.0, 0.0)
    solved = [record for record in evaluation.generations if record.task == "gsm8k"]
    assert [record.verdicts[0].judge_id for record in solved] == ["lm-eval:gsm8k"] * 2
    assert {record.p_help for record in solved} <= {0.0, 1.0}


def test_lm_evals_likelihoods_are_ours():
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    from bfpo.safehelp.likelihood import run_choices

    names = ("ethics_utilitarianism", "winogrande", "crows_pairs_english", "toxigen")
    core, paper = (load_suite(name, folder=FIXTURES / name) for name in ("core", "paper"))
    paper = replace(paper, tasks=tuple(task for task in paper.tasks if task.task in names))
    model, tokenizer = tiny()
    theirs = {
        (record.task, record.item): record
        for records in run_lm_eval(model, tokenizer, paper, chat=False)
        for record in records.likelihoods
    }
    chosen = [item for item in core.choices if item.task in names]
    ours = [record for batch in run_choices(model, tokenizer, chosen, chat=False) for record in batch]
    assert {(record.task, record.item) for record in ours} == set(theirs)
    for record in ours:
        other = theirs[record.task, record.item]
        assert record.logps == pytest.approx(other.logps, abs=1e-4)
        assert (record.choices, record.correct, record.scored) == (other.choices, other.correct, other.scored)


def test_examples_before_the_questions_have_a_file_of_their_own(tmp_path):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    (tmp_path / "gsm8k.jsonl").write_text((FIXTURES / "paper" / "gsm8k.jsonl").read_text())
    suite = load_suite("paper", folder=FIXTURES / "paper", data={"gsm8k": tmp_path / "gsm8k.jsonl"})
    suite = replace(suite, tasks=tuple(task for task in suite.tasks if task.task == "gsm8k"))
    with pytest.raises(BfpoError, match=r"5 solved examples .*gsm8k\.train\.jsonl"):
        list(run_lm_eval(*tiny(), suite, chat=False))
    assert list(run_lm_eval(*tiny(), suite, chat=False, done=["gsm8k"])) == []
