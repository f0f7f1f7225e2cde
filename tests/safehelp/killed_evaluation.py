"""Run an evaluation in processes that kill themselves (SIGKILL) at named moments; a script of test_interrupted_runs.py.

Usage: killed_evaluation.py stub|model FOLDER MOMENT NUMBER [MOMENT NUMBER]..., where one process after another goes on
with the run and dies at the NUMBER-th time its moment comes; "in a record" writes only NUMBER bytes of the next batch
of records and dies. Prints how each ended and how long the file of records then was.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

from bfpo.generation.protocol import Completion
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.generation import run_prompts
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.journal import Journal
from bfpo.safehelp.judging import Judging
from bfpo.safehelp.records import GENERATIONS, read_generations
from bfpo.safehelp.suites import Suite, load_suite

KINDS = ("benign", "borderline", "harmful")


class StubGenerator:
    """Answers that depend on seed and prompt alone, as a model's do; no torch, so that a process starts at once."""

    def render(self, prompt):
        return f"<{prompt}>"

    def plan(self, asked):
        return [asked[start : start + 5] for start in range(0, len(asked), 5)]

    def answer(self, batch):
        texts = [hashlib.sha256(f"{one.seed(0)} {one.prompt}".encode()).hexdigest() for one in batch]
        return [Completion(f'{text} \u2028 "quoted" ä\n' * (1 + int(text[0], 16)), text[1] == "0", 7) for text in texts]


class StubJudge:
    judge_id, template_digest = "stub", "t"

    def judge(self, exchanges):
        labels = ["safe" if exchange.answer[0] < "a" else "unsafe" for exchange in exchanges]
        return [Verdict(label, 0.25, categories=("S1",), raw=label, judge_id="stub") for label in labels]


def stub_run(folder):
    items = [PromptItem("t", f"{n}", KINDS[n % 3], None, None, f"{n // 2}", f"question {n}") for n in range(60)]
    suite = Suite("stub", items, [])
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / GENERATIONS, read_generations)
    run_prompts(StubGenerator(), Judging(suite, [StubJudge()]), items, 2, journal)
    return journal.records()


def model_run(folder):
    """The embedded model on a few prompts of its world."""
    from bfpo.generation.sampling import Decoding
    from bfpo.models import load_model, load_tokenizer
    from bfpo.safehelp.evaluate import evaluate

    return evaluate(
        load_model("microworld"),
        load_tokenizer("microworld"),
        name="m",
        suite=load_suite("microworld", per_kind=3),
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
    owner, name = {"before an answer": (StubGenerator, "answer"), "before a verdict": (Judging, "judge"),
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


def kill(kind, folder, moment, number):
    """Go on with the run in a process of its own, forked so that imports are paid once, until it kills itself."""
    process = os.fork()
    if process == 0:
        die_at(moment, number)
        (stub_run if kind == "stub" else model_run)(folder)
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    file = folder / GENERATIONS
    content = file.read_bytes() if file.exists() else b""
    return [os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, len(content), content.endswith(b"\n")]


if __name__ == "__main__":
    which, place, *moments = sys.argv[1:]
    if which == "model":
        import bfpo.engine.reference_cache  # noqa: F401
        import bfpo.generation.sampling  # noqa: F401
        import bfpo.safehelp.likelihood  # noqa: F401  (once, before the forks)
    pairs = zip(moments[::2], map(int, moments[1::2]), strict=True)
    print(json.dumps([kill(which, Path(place), moment, number) for moment, number in pairs]))
