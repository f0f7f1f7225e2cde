"""Answers of a server come while earlier ones are judged, and a run that ends between two batches loses no other."""

import json
import time

import pytest

from bfpo.errors import RunError
from bfpo.generation.endpoint_generator import EndpointGenerator
from bfpo.generation.protocol import Decoding
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.records import GENERATIONS, read_generations
from bfpo.safehelp.suites import Suite
from safehelp.killed_evaluation import StubJudge
from support.mock_server import completion, serving

ITEMS = [PromptItem("t", f"{n}", "harmful", None, None, f"{n}", f"question {n}") for n in range(24)]


class WaitingJudge(StubJudge):
    """Judges a batch once the server was asked for more than the batches so far; fails after some batches."""

    def __init__(self, server, batches=99):
        self.server, self.batches, self.seen = server, batches, 0
        self.asked = []

    def judge(self, exchanges):
        self.batches -= 1
        if self.batches < 0:
            raise RunError("the judge is tired")
        self.seen += len(exchanges)
        deadline = time.monotonic() + 5
        while len(self.server.log) <= self.seen < len(ITEMS) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.asked.append(len(self.server.log))
        return super().judge(exchanges)


def echoed(body, attempt):
    return 200, {}, completion(f"to {body['messages'][-1]['content']}")


def questions(server):
    return [body["messages"][-1]["content"] for _, body in server.log]


def run(server, judge, folder):
    generator = EndpointGenerator.connect(server.url, "m", concurrency=3)
    decoding = Decoding(batch_size=4, max_new_tokens=8)
    return evaluate(generator, Suite("stub", ITEMS, []), judges=[judge], decoding=decoding, folder=folder)


def test_a_server_answers_the_next_batch_while_one_is_judged(tmp_path):
    with serving(echoed) as server:
        judge = WaitingJudge(server)
        found = run(server, judge, tmp_path / "run")
    assert len(judge.asked) == 6
    assert all(asked > 4 * (batch + 1) for batch, asked in enumerate(judge.asked[:-1]))
    assert sorted(questions(server)) == sorted(item.prompt for item in ITEMS)
    # Each answer belongs to its prompt.
    assert all(record.answer == f"to {record.prompt}" for record in found.generations)


def test_a_run_that_failed_asks_for_what_is_missing_and_no_more(tmp_path):
    with serving(echoed) as server:
        with pytest.raises(RunError, match="tired"):
            run(server, WaitingJudge(server, batches=2), tmp_path / "run")
        kept = {record.prompt for record in read_generations(tmp_path / "run" / GENERATIONS)}
        assert len(kept) == 8
        server.log.clear()
        run(server, StubJudge(), tmp_path / "run")
        assert sorted(questions(server)) == sorted(item.prompt for item in ITEMS if item.prompt not in kept)
        run(server, StubJudge(), tmp_path / "whole")
    records = [
        [json.loads(line) for line in (tmp_path / name / GENERATIONS).read_text().splitlines()]
        for name in ("run", "whole")
    ]
    assert records[0] == records[1]
