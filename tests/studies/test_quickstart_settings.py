"""The trials of the real quickstart's settings, on a toy run: what they hold out, share and measure."""

import json
import math

import pytest

from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import ChoiceRequest
from bfpo.real_quickstart import run_real_quickstart
from studies import quickstart_settings
from studies.quickstart_settings import Trial, run_trial
from test_real_quickstart import TOY, write_model


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    model = write_model(folder / "toy-chat")
    run_real_quickstart(str(model), folder / "run", 3, TOY)
    return folder / "run", str(model)


def test_a_trial_trains_on_the_rest_and_shares_the_sft(quickstart, tmp_path, monkeypatch):
    run, model = quickstart
    slower = {"slow": Trial(method={"learning_rate": 1e-4}), "as it was": Trial()}
    monkeypatch.setattr(quickstart_settings, "TRIALS", slower)
    for name in slower:
        figures = run_trial(run, model, tmp_path, name)
        assert figures == json.loads((tmp_path / f"{name}.json").read_text())
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        "SFT", "SFT BFPO", "SFT BFPO learning_rate=0.0001",
    ]  # fmt: skip
    held_out = set(quickstart_settings._held_out(run).texts)
    before = (run / "red-team" / "groups.jsonl").read_text().splitlines()
    kept = (tmp_path / "data" / "red-team.jsonl").read_text().splitlines()
    asked = [json.loads(line)["prompt"][-1]["content"] for line in before]
    assert 0 < len(kept) < len(before)
    assert kept == [line for line, text in zip(before, asked, strict=True) if text not in held_out]


def test_likelihoods_are_means_over_the_bytes_that_are_counted(quickstart):
    generator = LocalGenerator.load(quickstart[1])
    requests = [ChoiceRequest("a", "What is this?", ("A lock", "Help")), ChoiceRequest("b", "Why", ("I can't", "help"))]
    logps = {one.key: one.logps for batch in generator.score_choices(requests) for one in batch}
    first = quickstart_settings._nats_per_byte(generator, requests, 1)
    assert math.isclose(first, (logps["a"][0] + logps["b"][0]) / (6 + 7), rel_tol=1e-6)
    both = quickstart_settings._nats_per_byte(generator, requests, 2)
    assert math.isclose(both, (sum(logps["a"]) + sum(logps["b"])) / (6 + 4 + 7 + 4), rel_tol=1e-6)
