"""Tests of judges by name: every kind loads in a fresh process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.judges.fitted import FittedJudge, NgramBlock
from bfpo.judges.helpfulness import load_helpfulness_judge
from bfpo.judges.registry import KINDS, check_judge, load_judge
from bfpo.models import MICROWORLD

SERVED = "a-model@http://localhost:1/v1"


@pytest.fixture(scope="module")
def argument(tmp_path_factory):
    """Arguments by kind; guards are only named here, not run."""
    folder = tmp_path_factory.mktemp("judges")
    block = NgramBlock("answer", "word", 1, 1, 1, 10)
    FittedJudge("mine", "safety", (block,), (("gladly",),), np.ones(1), np.ones(1), 0.0).save(folder / "mine")
    (folder / "told.jsonl").write_text(
        json.dumps({"prompt": "p", "answer": "a", "label": "safe", "p_safe": 1.0}) + "\n"
    )
    (folder / "own.yaml").write_text("judge: microworld-oracle:0.1\nscaling: {slope: 2}\n")
    files = {"configured": folder / "own.yaml", "fitted": folder / "mine", "replay": folder / "told.jsonl"}
    given = files | {"compliance": "keywords"} | dict.fromkeys(("keywords", "microworld-oracle", "refusals"), "")
    return lambda kind: str(given.get(kind, SERVED))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads_in_a_fresh_process(kind, argument):
    code = "import sys; from bfpo.judges import load_judge; print(load_judge(sys.argv[1]).judge_id)"
    spec = f"{kind}:{argument(kind)}"
    done = subprocess.run([sys.executable, "-c", code, spec], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load_judge(spec).judge_id
    if kind in ("configured", "fitted", "replay"):  # a path does without its kind
        assert load_judge(argument(kind)).judge_id == done.stdout.strip()


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_that_exists_is_checked_without_loading_weights(kind, argument, monkeypatch):
    monkeypatch.setattr("bfpo.models.load_model", None)
    check_judge(f"{kind}:{argument(kind)}")
    check_judge(f"harmbench:{MICROWORLD}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("keyword", "no judge 'keyword'"),
        ("gone.yaml", "gone.yaml: can't be read as a judge"),
        ("replay:gone.jsonl", "gone.jsonl: there is no such file"),
        ("fitted:gone", "gone: it has no judge.json"),
        ("compliance:fitted:gone", "gone: it has no judge.json"),
        ("harmbench:./gone", "no model at './gone'"),
    ],
)
def test_a_judge_that_does_not_exist_is_named(spec, message):
    with pytest.raises(BfpoError, match=message):
        check_judge(spec)


def test_the_judge_in_a_configuration_is_checked(tmp_path):
    (tmp_path / "scaled.yaml").write_text("judge: fitted:gone\nscaling: {slope: 2}\n")
    (tmp_path / "guard.yaml").write_text("model: ./gone\ntemplate: harmbench\n")
    for name, message in (("scaled", "gone: it has no judge.json"), ("guard", "no model at './gone'")):
        with pytest.raises(BfpoError, match=message):
            check_judge(str(tmp_path / f"{name}.yaml"))


def test_the_table_is_there_without_the_judges():
    code = "import sys, bfpo.judges.registry; print([m for m in ('torch', 'sklearn', 'aiohttp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_judges_here_go_where_models_go(monkeypatch, tmp_path):
    monkeypatch.setattr("bfpo.models.resolve_device", lambda: torch.device("meta"))
    guard = load_judge(f"harmbench:{MICROWORLD}")
    assert guard.model.device.type == "meta"
    assert guard.judge_id.startswith(f"harmbench:{MICROWORLD}@")
    with pytest.raises(BfpoError, match="a reward model has one"):
        load_helpfulness_judge(f"reward:{MICROWORLD}")


@pytest.mark.parametrize("spec", ["(" * 5000, "fitted:" + "x" * 5000, "x" * 5000 + ".yaml", "replay:" + "x" * 5000])
def test_a_name_that_no_file_can_have_is_reported(spec):
    with pytest.raises(BfpoError):
        load_judge(spec)


def test_a_wrong_address_is_reported():
    with pytest.raises(BfpoError, match=r"pairwise:m@http://u:p@h/v1: server.url: the address contains a user"):
        load_helpfulness_judge("pairwise:m@http://u:p@h/v1")
