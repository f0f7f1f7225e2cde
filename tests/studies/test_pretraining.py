"""The microworld's pretraining: reproducible, and the shipped model is recorded as its product."""

import json

from bfpo.microworld.grammar import parse_request
from bfpo.models import MICROWORLD
from studies.pretraining import Pretraining, pretrain, pretraining_set


def test_the_shipped_model_was_made_by_the_default_plan():
    record = json.loads((MICROWORLD / "pretraining.json").read_text())
    assert Pretraining(**record["plan"]) == Pretraining()


def test_pretraining_has_no_composition_of_another_split():
    assert pretraining_set(20, 7) == pretraining_set(20, 7) != pretraining_set(20, 8)
    for row in pretraining_set(500, 0):
        assert parse_request(row["messages"][0]["content"]).split == "train"


def test_pretraining_is_reproducible(tmp_path):
    plan = Pretraining(conversations=60, steps=3, batch_size=4, vocabulary=400, hidden=16, layers=1)
    losses = [pretrain(tmp_path / name, plan) for name in ("a", "b")]
    assert losses[0] == losses[1]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
