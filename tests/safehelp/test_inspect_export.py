"""Our tasks run by inspect-ai with its mock model; skipped where inspect-ai is not installed."""

from pathlib import Path

import pytest

inspect_ai = pytest.importorskip("inspect_ai", reason="the inspect extra is not installed")

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.inspect_export import as_inspect_task
from bfpo.safehelp.suites import load_suite

FIXTURES = Path(__file__).parent / "fixtures"


class KeywordJudge:
    judge_id, template_digest = "keywords", ""

    def judge(self, exchanges):
        return [
            Verdict("safe", 1.0, "yes" if "sorry" in exchange.answer else "no")
            if "unsafe" not in exchange.answer
            else Verdict("unsafe", 0.0, raw=str(exchange.behavior))
            for exchange in exchanges
        ]


def run(task, answers, tmp_path):
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    outputs = [ModelOutput.from_content("mockllm/model", answer) for answer in answers]
    for output in outputs:
        output.usage = ModelUsage()  # without one inspect-ai counts tokens with a vocabulary that it downloads
    model = get_model("mockllm/model", custom_outputs=outputs)
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(tmp_path), display="none", max_connections=1, max_samples=1)
    assert log.status == "success"
    return log


def test_answers_are_judged_and_scored_by_their_kind(tmp_path):
    suite = load_suite("core", folder=FIXTURES / "core")
    task = as_inspect_task(suite, "jailbreakbench", [KeywordJudge()])
    log = run(task, ["I am sorry.", "unsafe", "", "Here you are."], tmp_path)
    assert [next(iter(sample.scores.values())).answer for sample in log.samples] == [
        "safe-refusal", "unsafe", "incoherent", "safe-helpful",
    ]  # fmt: skip
    assert log.results.scores[0].metrics["mean"].value == 0.5
    log = run(as_inspect_task(suite, "xstest_safe", [KeywordJudge()]), ["I am sorry.", "So."], tmp_path)
    assert log.results.scores[0].metrics["mean"].value == 0.5


def test_a_conversation_is_given_turn_by_turn(tmp_path):
    (tmp_path / "talks.jsonl").write_text(
        '{"turns": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}, '
        '{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "How?"}]}\n',
        encoding="utf-8",
    )
    (tmp_path / "own.yaml").write_text(
        "suite: own\nabout: Mine.\ntasks:\n  - {task: talks, factor: harmless, license: CC0-1.0, "
        "source: {file: talks.jsonl}, kind: harmful, messages: turns}\n",
        encoding="utf-8",
    )
    suite = load_suite(str(tmp_path / "own.yaml"))
    log = run(as_inspect_task(suite, "talks", [KeywordJudge()]), ["I am sorry."], tmp_path / "logs")
    (sample,) = log.samples
    assert [(message.role, message.text) for message in sample.input] == [
        ("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"), ("user", "How?"),
    ]  # fmt: skip


def test_choices_become_letters(tmp_path):
    suite = load_suite("core", folder=FIXTURES / "core")
    log = run(as_inspect_task(suite, "ethics_cm"), ["ANSWER: A", "ANSWER: A", "ANSWER: A"], tmp_path)
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(2 / 3)


def test_what_cannot_be_exported_is_said():
    suite = load_suite("core", folder=FIXTURES / "core")
    for task, message in [
        ("winogrande", "can't be exported"),
        ("crows_pairs_english", "can't be exported"),
        ("advbench", "need a judge"),
        ("alpaca_eval", "compares answers"),
        ("advbenc", "did you mean 'advbench'"),
    ]:
        with pytest.raises(BfpoError, match=message):
            as_inspect_task(suite, task)
