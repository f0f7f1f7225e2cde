"""The reference cache: the dependencies of its address, and its behavior after damage and kills."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from bfpo.cli.ref import app
from bfpo.engine import reference_cache
from bfpo.engine.forward import Engine
from bfpo.engine.reference_cache import (
    ReferenceCache,
    answer_keys,
    fill_cache,
    model_digest,
    part_files,
    summarize,
)
from bfpo.errors import BfpoError
from bfpo.groups import TokenGroup
from models import tiny_llama

ids = st.lists(st.integers(0, 3), min_size=1, max_size=4)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=30))
def test_keys_are_equal_exactly_where_prompt_and_answer_are(pairs):
    keys = answer_keys([TokenGroup(prompt, [answer]) for prompt, answer in pairs])
    for one, mine in zip(pairs, keys, strict=True):
        for other, theirs in zip(pairs, keys, strict=True):
            assert (one == other) == (mine == theirs)


@given(
    known=st.dictionaries(st.binary(min_size=16, max_size=16), st.floats(-1e6, 0), max_size=20),
    others=st.lists(st.binary(min_size=16, max_size=16), max_size=10),
    split=st.integers(0, 20),
)
def test_cache_gives_back_what_was_added_and_nan_otherwise(known, others, split):
    cache = ReferenceCache(None, {})
    for part in (list(known)[:split], list(known)[split:]):
        cache.add(np.array(part, dtype="S16"), np.array([known[key] for key in part]), np.ones(len(part)))
    wanted = others + list(known)
    found = cache.get(np.array(wanted, dtype="S16"))
    for key, value in zip(wanted, found, strict=True):
        assert value == known[key] if key in known else np.isnan(value)


def test_one_changed_bit_of_a_weight_is_another_model_and_its_name_is_not():
    model, other = tiny_llama(), tiny_llama()
    other.config._name_or_path = "elsewhere"
    digest = model_digest(model, "fp32")
    assert model_digest(other, "fp32") == digest
    weight = other.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        weight.view(torch.int32)[0, 0] ^= 1
    assert model_digest(other, "fp32") != digest
    assert model_digest(model, "bf16 autocast") != digest
    assert model_digest(tiny_llama(dtype=torch.float64), "fp32") != digest
    deeper = tiny_llama()
    deeper.config.rope_parameters = deeper.config.rope_parameters | {"rope_theta": 5.0}
    assert model_digest(deeper, "fp32") != digest


def test_a_fresh_adapter_shares_its_bases_reference_and_a_trained_one_does_not():
    digest = model_digest(tiny_llama(), "fp32")
    adapted = get_peft_model(tiny_llama(), LoraConfig(target_modules="all-linear", r=2))
    assert model_digest(adapted, "fp32") == digest
    trained = get_peft_model(tiny_llama(), LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False))
    assert model_digest(trained, "fp32") != digest


def test_the_scale_of_a_trained_adapter_is_part_of_its_digest():
    def digest(**settings):
        torch.manual_seed(0)
        config = LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False, **settings)
        return model_digest(get_peft_model(tiny_llama(), config), "fp32")

    assert digest(lora_alpha=4) == digest(lora_alpha=4)
    assert len({digest(lora_alpha=4), digest(lora_alpha=64), digest(lora_alpha=4, use_rslora=True)}) == 3


def filled(root, answers=5):
    cache = ReferenceCache.open(root, "0" * 64, {"model": "tiny", "precision": "fp32"})
    keys = answer_keys([TokenGroup([1], [[at]]) for at in range(answers)])
    cache.add(keys, -np.arange(answers), np.ones(answers))
    return cache, keys


def test_what_was_added_is_there_when_opened_again(tmp_path):
    _, keys = filled(tmp_path)
    again = ReferenceCache.open(tmp_path, "0" * 64, {})
    assert again.get(keys).tolist() == [0, -1, -2, -3, -4]
    assert np.isnan(ReferenceCache.open(tmp_path, "1" * 64, {}).get(keys)).all()
    (summary,) = summarize(tmp_path)
    assert (summary.answers, summary.tokens, summary.damaged) == (5, 5, [])
    assert summary.description["model"] == "tiny"


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "value"])
def test_a_damaged_file_is_never_read(tmp_path, damage):
    cache, _ = filled(tmp_path)
    (path,) = part_files(cache.folder)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    if damage == "value":
        data[-3] ^= 1
    path.write_bytes({"truncate": bytes(data[:-7]), "empty": b""}.get(damage, bytes(data)))
    with pytest.raises(BfpoError, match="damaged; delete it"):
        ReferenceCache.open(tmp_path, "0" * 64, {})
    outcome = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert outcome.exit_code == 1
    assert str(path) in outcome.output
    path.unlink()
    assert CliRunner().invoke(app, ["verify", str(tmp_path)]).exit_code == 0


def test_show_lists_what_is_there(tmp_path):
    filled(tmp_path)
    assert "5 answers" in CliRunner().invoke(app, ["show", str(tmp_path)]).output
    (row,) = json.loads(CliRunner().invoke(app, ["show", str(tmp_path), "--json"]).output)
    assert (row["model"], row["answers"], row["damaged"]) == ("tiny", 5, [])


def test_a_pass_that_is_broken_off_keeps_what_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_cache, "_SECONDS_A_FILE", 0.0)
    model = tiny_llama()
    groups = [TokenGroup([5, 6], [[7, 8], [9] * length]) for length in range(1, 9)]
    engine = Engine(model, "shared", max_tokens=1)
    calls = 0

    class Broken(Engine):
        def logps(self, model, groups):
            nonlocal calls
            calls += 1
            if calls == 4:
                raise KeyboardInterrupt
            return super().logps(model, groups)

    cache = ReferenceCache.open(tmp_path, "0" * 64, {})
    with pytest.raises(KeyboardInterrupt):
        fill_cache(Broken(model, "shared", max_tokens=1), model, [groups], cache)
    again = ReferenceCache.open(tmp_path, "0" * 64, {})
    found = again.get(answer_keys(groups)).reshape(-1, 2)
    assert (~np.isnan(found[:, 1])).sum() == 3
    whole = ReferenceCache(None, {})
    fill_cache(engine, model, [groups], whole)
    expected = whole.get(answer_keys(groups)).reshape(-1, 2)
    known = ~np.isnan(found)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-6)
