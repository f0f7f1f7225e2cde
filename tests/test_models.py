"""Loading models: every kind of name, one sentence per error, one rule for revision, device and dtype."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import bfpo
from bfpo import models
from bfpo.errors import BfpoError
from bfpo.models import (
    MICROWORLD,
    context_length,
    end_tokens,
    load_config,
    load_generation_config,
    load_model,
    load_tokenizer,
    resolve_device,
    resolved_revision,
)

PROMPT = "How do I"
TINY = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 24,
}  # fmt: skip


def logits(model, tokenizer):
    with torch.inference_mode():
        return model(**tokenizer(PROMPT, return_tensors="pt").to(model.device)).logits.float().cpu()


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled model, to be broken."""
    return Path(shutil.copytree(MICROWORLD, tmp_path / "model"))


def test_no_other_file_loads_models():
    root = Path(bfpo.__file__).parent

    def loads(path):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        return any(isinstance(node, ast.Attribute) and node.attr == "from_pretrained" for node in nodes)

    assert [str(path.relative_to(root)) for path in root.rglob("*.py") if loads(path)] == ["models.py"]


@pytest.mark.parametrize(
    ("kind", "positions", "options"),
    [
        ("roberta", 22, {}),
        ("roberta", 20, {"pad_token_id": 3}),
        ("xlm-roberta", 22, {}),
        ("camembert", 22, {}),
        ("data2vec-text", 22, {}),
        ("ibert", 22, {}),
        ("longformer", 22, {"attention_window": [4]}),
        ("luke", 22, {"entity_vocab_size": 5, "entity_emb_size": 4}),
        ("markuplm", 23, {}),
        ("mpnet", 22, {}),
        ("roberta-prelayernorm", 22, {}),
        ("xlm-roberta-xl", 22, {}),
        ("xmod", 22, {"languages": ["en_XX"], "default_language": "en_XX"}),
        # Of other models, all positions can be used.
        ("bert", 24, {}),
        ("opt", 24, {"ffn_dim": 16, "word_embed_proj_dim": 16}),
        ("bart", 24, {"d_model": 16, "eos_token_id": 7}),
    ],
)
def test_a_model_takes_as_many_tokens_as_it_has_positions_and_no_more(kind, positions, options):
    config = AutoConfig.for_model(kind, **TINY | options)
    assert context_length(config) == positions
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        model(torch.full((1, positions), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, positions + 1), 7))


def test_a_context_is_that_of_the_text_and_may_have_no_limit():
    assert context_length(AutoConfig.for_model("gpt2", n_positions=30)) == 30
    assert context_length(AutoConfig.for_model("mamba")) is None
    assert context_length(AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 77})) == 77


def test_the_bundled_model_has_a_name_unless_a_folder_has_it(tmp_path, monkeypatch, folder):
    assert load_config("microworld").to_dict() == load_config(MICROWORLD).to_dict()
    folder.rename(tmp_path / "microworld")
    monkeypatch.chdir(tmp_path)
    assert load_config("microworld").name_or_path == "microworld"
    assert load_model("microworld").config.name_or_path == "microworld"


def test_a_model_stops_at_the_ends_of_its_generation_defaults_and_its_tokenizers(folder):
    tokenizer = load_tokenizer(folder)
    defaults = folder / "generation_config.json"
    for ends in ([3, 4], 4):
        defaults.write_text(json.dumps({"eos_token_id": ends}))
        expected = {*([ends] if isinstance(ends, int) else ends), tokenizer.eos_token_id}
        assert end_tokens(load_generation_config(folder), tokenizer) == sorted(expected)
    defaults.unlink()
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(configuration | {"eos_token_id": 5}))
    assert end_tokens(load_generation_config(folder), tokenizer) == sorted({5, tokenizer.eos_token_id})
    assert end_tokens(None, tokenizer) == [tokenizer.eos_token_id]


def test_device_and_dtype(monkeypatch):
    assert load_model("microworld").dtype == torch.float32
    assert load_model("microworld", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(models, "resolve_device", lambda: torch.device("meta"))
    assert load_model("microworld").device.type == "meta"
    assert load_model("microworld", device=torch.device("cpu")).device.type == "cpu"


def test_a_folder_of_an_adapter_is_its_base_with_the_adapter(tmp_path):
    base = load_model("microworld")
    before = logits(base, load_tokenizer("microworld"))
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    # PEFT saves no tokenizer; its base model's is then the adapter's.
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == load_tokenizer("microworld").get_vocab()
    load_tokenizer("microworld").save_pretrained(tmp_path / "adapter")
    loaded, tokenizer = load_model(tmp_path / "adapter"), load_tokenizer(tmp_path / "adapter")
    found = logits(loaded, tokenizer)
    torch.testing.assert_close(found, logits(adapted, tokenizer))
    assert (found - before).abs().max() > 0.1


def pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder):
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "its_own", "auto_map": auto}))
    (folder / "code.py").write_text("raise SystemExit('this must never run')\n")


def cut(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def garbled(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (pickled, "its weights are pickled, which is unsafe to load; save them as safetensors"),
        (with_code, "it needs its own code, which bfpo never runs; choose a model that transformers"),
        (cut, "check that its files are complete"),
        (garbled, "check that its files are complete"),
        (lambda folder: (folder / "config.json").unlink(), "check that its files are complete"),
    ],
)
def test_what_cant_be_loaded_is_one_sentence(folder, damage, words):
    damage(folder)
    with pytest.raises(BfpoError) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f"the model {str(folder)!r} can't be loaded: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("load", "name", "words"),
    [
        (load_model, "no/such-model", "the model 'no/such-model' can't be loaded: .*name a folder, a .gguf file, or"),
        (load_tokenizer, "no/such-model", "the tokenizer 'no/such-model' can't be loaded"),
        (load_config, "no/such-model", "the configuration 'no/such-model' can't be loaded"),
        (load_model, "no/such.gguf", "can't be loaded: there is no such file; check the path"),
    ],
)
def test_what_isnt_there_is_one_sentence(load, name, words):
    with pytest.raises(BfpoError, match=words):
        load(name)


@pytest.mark.parametrize("load", [load_model, load_tokenizer, load_config])
@pytest.mark.parametrize("name", ["runs/gone", "/gone", "./gone", "~/gone", "owner/name/part", "runs/gone.gguf"])
def test_a_path_that_isnt_there_is_never_asked_of_the_hub(tmp_path, monkeypatch, load, name):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for module in (AutoModelForCausalLM, AutoTokenizer, AutoConfig):
        monkeypatch.setattr(module, "from_pretrained", None)
    with pytest.raises(BfpoError, match=f"there is no model at '{name}'; check the path"):
        load(name)


def test_the_revision_that_was_resolved_is_found(tmp_path):
    # A cache of the Hub in which the branch "main" and the tag "old" are different commits.
    commits = {"main": "a" * 40, "old": "b" * 40}
    cache = tmp_path / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (cache / "refs" / name).write_text(commit)
        shutil.copytree(MICROWORLD, cache / "snapshots" / commit)
    code = (
        "import json, sys; from bfpo.models import *; from bfpo.judges import load_judge\n"
        "load_model('some/model', revision='old'); load_tokenizer('some/model', revision='old')\n"
        "print(json.dumps([resolved_revision('some/model'), resolved_revision('some/model', 'old'),"
        " resolved_revision('some/model', 'a' * 40), resolved_revision('microworld'),"
        " load_judge('harmbench:some/model@old').judge_id, load_judge('harmbench:some/model').judge_id]))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    # A judge without a revision, as suites name theirs, is that of the main branch; the commit is recorded.
    judges = [f"harmbench:some/model@{commits[name]}" for name in ("old", "main")]
    assert json.loads(done.stdout) == [commits["main"], commits["old"], commits["main"], None, *judges]
    assert resolved_revision(MICROWORLD) is None


# A model of two layers of width 32, with a byte-pair tokenizer, as llama.cpp's converter writes one.
def write_gguf(path):
    gguf = pytest.importorskip("gguf", reason="the package gguf (extra 'gguf') is not installed")
    from models import tiny_llama

    model = tiny_llama(vocab_size=300)
    config, heads = model.config, {"q": 4, "k": 2}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<unk>", "<s>", "</s>", *alphabet, "Ho"]
    tokens += [f"<filler{n}>" for n in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["H o"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    writer.add_tensor("token_embd.weight", model.model.embed_tokens.weight.detach().numpy())
    writer.add_tensor("output_norm.weight", model.model.norm.weight.detach().numpy())
    for name, value in model.model.layers.state_dict().items():
        layer, _, rest = name.partition(".")
        kind = rest.removesuffix(".weight")
        count = heads.get(kind.removeprefix("self_attn.")[:1]) if kind.startswith("self_attn.") else None
        if count:  # llama.cpp rotates neighboring dimensions, transformers the two halves of a head
            rows, columns = value.shape
            value = value.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        values = value.numpy()
        if values.ndim == 2:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"blk.{layer}.{names[kind]}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"blk.{layer}.{names[kind]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_a_gguf_file_is_a_model_in_float32(tmp_path):
    path = tmp_path / "tiny.Q8_0.gguf"
    original = write_gguf(path)
    model, tokenizer = load_model(path), load_tokenizer(path)
    assert (model.dtype, model.config.name_or_path) == (torch.float32, str(path))
    ids = tokenizer("Hello", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "Hello"
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([ids], device=model.device)).logits.cpu()
        expected = original(input_ids=torch.tensor([ids])).logits
    # Eight bits a weight: near, and not the same.
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(load_model(tmp_path / "saved").state_dict(), model.state_dict())
    assert load_config(path).hidden_size == 32
    assert load_model(path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_damaged_gguf_file_is_one_sentence(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(BfpoError, match=re.escape(f"the model {str(path)!r} can't be loaded: ")):
        load_model(path)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ImportError("Please install torch and gguf>=0.10.0 to load a GGUF checkpoint in PyTorch.")

    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fails)
    with pytest.raises(BfpoError, match=r"install it with: pip install 'bfpo\[gguf\]'"):
        load_tokenizer(path)
