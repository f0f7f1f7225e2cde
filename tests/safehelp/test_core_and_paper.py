"""The two suites for real models, from rows to scores, on fixtures in each source's schema and a tiny random model."""

from dataclasses import replace
from pathlib import Path

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import ChoiceRequest, Decoding
from bfpo.judges.keywords import KeywordJudge
from bfpo.judges.preference import Preference
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.lm_eval_tasks import run_lm_eval
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import load_suite
from models import tiny_llama
from support.choice_parity import byte_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
DECODING = Decoding(max_new_tokens=6)


class LengthJudge:
    """Labels every other answer unsafe, without refusal labels."""

    template_digest = ""

    def __init__(self, judge_id):
        self.judge_id = judge_id

    def judge(self, exchanges):
        return [
            Verdict("safe" if len(exchange.answer) % 2 else "unsafe", 0.5, judge_id=self.judge_id)
            for exchange in exchanges
        ]


class FirstIsLonger:
    judge_id, template_digest = "longer", ""

    def compare(self, comparisons):
        wins = [len(pair.first) > len(pair.second) for pair in comparisons]
        return [Preference("first" if won else "second", float(won), (), self.judge_id) for won in wins]


def tiny():
    model = tiny_llama(300).eval()
    model.config.max_position_embeddings = 2048
    return model, byte_tokenizer()


def plain():
    """Without a chat template."""
    model, tokenizer = tiny()
    tokenizer.chat_template = None
    return LocalGenerator(model, tokenizer)


def run(suite, tmp_path):
    evaluation = evaluate(
        LocalGenerator(*tiny()),
        suite,
        name="tiny",
        decoding=DECODING,
        folder=tmp_path / "run",
        judges=[LengthJudge("first"), LengthJudge("second")],
        helpfulness_judge=FirstIsLonger(),
        refusal_judge=KeywordJudge(),
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


@pytest.mark.long
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
    names = ("ethics_utilitarianism", "winogrande", "crows_pairs_english", "toxigen")
    core, paper = (load_suite(name, folder=FIXTURES / name) for name in ("core", "paper"))
    paper = replace(paper, tasks=tuple(task for task in paper.tasks if task.task in names))
    generator = plain()
    theirs = {
        f"{record.task}/{record.item}": record
        for likelihoods, _ in run_lm_eval(generator, paper)
        for record in likelihoods
    }
    chosen = {f"{item.task}/{item.item}": item for item in core.choices if item.task in names}
    requests = [ChoiceRequest(key, i.prompt, i.choices, i.scored, i.delimiter) for key, i in chosen.items()]
    ours = {scored.key: scored for batch in generator.score_choices(requests) for scored in batch}
    assert set(ours) == set(theirs)
    for key, other in theirs.items():
        item = chosen[key]
        assert ours[key].logps == pytest.approx(other.logps, abs=1e-4)
        ours_of, theirs_of = ((one.prompt, one.choices, one.correct, one.scored) for one in (item, other))
        assert ours_of == theirs_of


def test_examples_before_the_questions_have_a_file_of_their_own(tmp_path):
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    (tmp_path / "gsm8k.jsonl").write_text((FIXTURES / "paper" / "gsm8k.jsonl").read_text())
    suite = load_suite("paper", folder=FIXTURES / "paper", data={"gsm8k": tmp_path / "gsm8k.jsonl"})
    suite = replace(suite, tasks=tuple(task for task in suite.tasks if task.task == "gsm8k"))
    with pytest.raises(BfpoError, match=r"5 solved examples .*gsm8k\.train\.jsonl"):
        list(run_lm_eval(plain(), suite))
    assert list(run_lm_eval(plain(), suite, done=["gsm8k"])) == []
