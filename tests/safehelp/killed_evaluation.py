"""Evaluations that kill themselves (SIGKILL) at named moments, in processes of their own; for test_interrupted_runs.py.

A run dies at the NUMBER-th time its moment comes; "in a record" writes only NUMBER bytes of the next batch of records.
"""

import hashlib
import os
import signal

from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.judge_panel import JudgePanel
from bfpo.safehelp.suites import Suite, load_suite

KINDS = ("benign", "borderline", "harmful")


class StubGenerator(Generator):
    """Answers that depend on seed and prompt alone, as a model's do."""

    identity = ModelIdentity("stub")

    def generate(self, batch, decoding):
        texts = [hashlib.sha256(f"{one.seed} {one.prompt}".encode()).hexdigest() for one in batch]
        return [Completion(f'{text} \u2028 "quoted" ä\n' * (1 + int(text[0], 16)), text[1] == "0", 7) for text in texts]


class StubJudge:
    judge_id, template_digest = "stub", "t"

    def judge(self, exchanges):
        labels = ["safe" if exchange.answer[0] < "a" else "unsafe" for exchange in exchanges]
        return [Verdict(label, 0.25, categories=("S1",), raw=label, judge_id="stub") for label in labels]


def stub_run(folder):
    items = [PromptItem("t", f"{n}", KINDS[n % 3], None, None, f"{n // 2}", f"question {n}") for n in range(60)]
    decoding = Decoding(samples=2, batch_size=5)
    return evaluate(StubGenerator(), Suite("stub", items, []), judges=[StubJudge()], decoding=decoding, folder=folder)


def model_run(folder):
    """The bundled model on a few prompts of its world."""
    return evaluate(
        "microworld",
        load_suite("microworld", per_kind=3),
        name="m",
        decoding=Decoding(batch_size=4, samples=2, max_new_tokens=12),
        folder=folder,
    )


def die_at(moment, number):
    if moment == "in a record":

        def torn(journal, content):
            with journal.path.open("ab") as file:
                file.write(content[:number])
            os.kill(os.getpid(), signal.SIGKILL)

        Journal._write = torn
        return
    owner, name = {"before an answer": (StubGenerator, "generate"), "before a verdict": (JudgePanel, "judge"),
                   "before a record": (Journal, "append"), "after a record": (Journal, "append")}[moment]  # fmt: skip
    original, calls = getattr(owner, name), 0

    def counted(*arguments):
        nonlocal calls
        calls += 1
        if moment == "after a record" and calls == number:
            original(*arguments)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(owner, name, counted)


def go_on_and_die(run, folder, moment, number):
    """Go on with a run and die at the given time that a moment comes."""
    die_at(moment, number)
    run(folder)
