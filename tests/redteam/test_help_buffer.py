"""The buffer of help: a model's own answers to plain requests, beside written refusals."""

import json
from dataclasses import replace

import pytest

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding
from bfpo.judges.registry import load_judge
from bfpo.microworld.grammar import requests
from bfpo.microworld.vocabulary import REFUSALS
from bfpo.preferences.loading import load_preferences
from bfpo.redteam.bank import Bank, PlainRequest
from bfpo.redteam.help_buffer import write_help_buffer

DECODING = Decoding(max_new_tokens=40, samples=2)
TEXTS = [one.text for one in requests("train") if one.kind == "benign"][::500][:6]
BANK = Bank((), tuple(PlainRequest(f"plain-{at}", "plain", text) for at, text in enumerate(TEXTS)))


class Reads:
    """The exact judge, which counts what it reads."""

    judge_id, template_digest = "reads", ""

    def __init__(self):
        self.inner, self.read = load_judge("microworld-oracle"), 0

    def judge(self, exchanges):
        self.read += len(exchanges)
        return self.inner.judge(exchanges)


@pytest.fixture(scope="module")
def model():
    return LocalGenerator.load("microworld")


def write(model, folder, bank=BANK, refusals=REFUSALS, **options):
    own = {"judge": Reads(), "decoding": DECODING, "evaluation": {}} | options
    return write_help_buffer(model, bank=bank, refusals=refusals, folder=folder, **own)


def test_every_request_has_its_answers_and_a_refusal_that_helps_nobody(model, tmp_path):
    judge = Reads()
    found = write(model, tmp_path, judge=judge)
    assert judge.read == len(TEXTS) * DECODING.samples
    rows = [json.loads(line) for line in (tmp_path / "groups.jsonl").read_text().splitlines()]
    assert found["groups"] == len(rows) == len(TEXTS)
    assert [row["prompt"][-1]["content"] for row in rows] == TEXTS
    for row in rows:
        assert row["responses"][-1] in REFUSALS
        assert row["helpfulness"][-1] == 0 < min(row["helpfulness"][:-1])
        assert set(row["is_safe"]) == {1.0}
    # Training reads them as they are.
    assert len(load_preferences(str(tmp_path / "groups.jsonl"))) == len(TEXTS)
    before = (tmp_path / "groups.jsonl").read_bytes()
    again = Reads()
    assert write(model, tmp_path, judge=again) == found
    assert (again.read, (tmp_path / "groups.jsonl").read_bytes()) == (0, before), "nothing is asked twice"


def test_evaluation_prompts_are_left_out_and_counted(model, tmp_path):
    found = write(model, tmp_path, evaluation={"suite": [TEXTS[0].upper(), "Something else?"]})
    assert found["requests that overlap with evaluation prompts"] == 1
    assert TEXTS[0] not in (tmp_path / "groups.jsonl").read_text()


def test_a_buffer_without_anything_to_learn_is_refused(model, tmp_path):
    with pytest.raises(BfpoError, match="needs written refusals, and there are none"):
        write(model, tmp_path / "a", refusals=())
    with pytest.raises(BfpoError, match="needs plain requests that are apart from the evaluation prompts"):
        write(model, tmp_path / "b", evaluation={"suite": TEXTS})
    refusing = load_judge("microworld-oracle")

    class Declines(Reads):
        def judge(self, exchanges):
            return [replace(verdict, refusal="yes") for verdict in refusing.judge(exchanges)]

    with pytest.raises(BfpoError, match="the model declines all plain requests or answers none"):
        write(model, tmp_path / "c", judge=Declines())
