"""QLoRA: a base model in 4 bits (bitsandbytes, which computes on CPU too) and an adapter on it."""

import json

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback

from bfpo import BFPOConfig, BFPOTrainer
from bfpo.engine.trainable import prepare_model
from bfpo.engine.work import Work, training_flops
from bfpo.errors import BfpoError
from bfpo.models import load_model
from bfpo.training.recipe import load_recipe
from bfpo.training.run import train
from bfpo.training.run_plan import plan_recipe
from models import tiny_llama
from training.rows import pairs, word_tokenizer

bitsandbytes = pytest.importorskip("bitsandbytes")

FOUR_BITS = {"load_in_4bit": True, "lora": {"r": 2}}
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
IDS = torch.tensor([[1, 5, 6, 7, 9]])
BETA = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, an adapter on it that changes its logits, and pairs."""
    folder = tmp_path_factory.mktemp("qlora")
    tiny_llama(hidden_size=64).save_pretrained(folder / "model")
    adapted = with_adapter(AutoModelForCausalLM.from_pretrained(folder / "model"))
    adapted.save_pretrained(folder / "sft")
    for name in ("model", "sft"):
        word_tokenizer().save_pretrained(folder / name)
    pairs(12).to_json(folder / "pairs.jsonl")
    return folder


def with_adapter(base):
    """An adapter whose second matrices are not zero, so that both have gradients."""
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def recipe_file(folder, name, **changes):
    values = FOUR_BITS | {
        "stage": "preference", "model": str(folder / "model"), "data": [{"path": str(folder / "pairs.jsonl")}],
        "output_dir": str(folder / name), "beta": BETA, "learning_rate": 0.01, "batch_size": 4, "max_steps": 3,
        "warmup_steps": 0, "logging_steps": 1, "reference_cache": None,
    } | changes  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not ...}))
    return path


def recipe(folder, name, **changes):
    return load_recipe(recipe_file(folder, name, **changes))


def logits(model):
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such a CPU, bitsandbytes computes without gradients in bfloat16, whatever the dtype.
            module.support_avx512bf16_for_cpu = False
    with torch.inference_mode():
        return model.eval()(IDS).logits


def adapter(folder):
    return load_file(folder / "adapter_model.safetensors")


def record_of(run):
    return json.loads((run.folder / "run.json").read_text())


def dequantized(folder):
    """The model with every linear weight of its layers replaced by what 4 bits make of it."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    for module in model.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            packed = bitsandbytes.functional.quantize_4bit(
                module.weight.data, blocksize=64, quant_type="nf4", compress_statistics=True
            )
            module.weight.data = bitsandbytes.functional.dequantize_4bit(*packed)
    return model


def answer_logp(model, tokenizer, prompt, answer):
    ids = [*tokenizer(prompt + answer).input_ids, tokenizer.eos_token_id]
    start = len(tokenizer(prompt).input_ids)
    logps = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logps[range(start - 1, len(ids) - 1), ids[start:]].sum()


def descended(folder, rows, steps, rate):
    """Losses and adapter of gradient descent on DPO's loss over all rows, in plain transformers and PEFT."""
    model, tokenizer = dequantized(folder / "model"), AutoTokenizer.from_pretrained(folder / "model")
    model = PeftModel.from_pretrained(model, folder / "sft", is_trainable=True).eval()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}

    def margins():
        one = [
            [answer_logp(model, tokenizer, row["prompt"], row[key]) for key in ("chosen", "rejected")] for row in rows
        ]
        return torch.stack([chosen - rejected for chosen, rejected in one])

    with torch.no_grad():
        reference = margins()
    losses = []
    for _ in range(steps):
        loss = -logsigmoid(BETA * (margins() - reference)).mean()
        gradients = torch.autograd.grad(loss, list(trained.values()))
        losses.append(loss.item())
        with torch.no_grad():
            for value, gradient in zip(trained.values(), gradients, strict=True):
                value -= rate * gradient
    return losses, {name.replace(".default", ""): value.detach() for name, value in trained.items()}


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients_are_those_of_the_dequantized_weights(folder, layout, checkpointing):
    """Plain gradient descent, so that the adapter moves by its gradient times the learning rate."""
    rate, name = 0.02, f"descent-{layout}-{checkpointing}"
    run = train(
        recipe(
            folder, name, model=str(folder / "sft"), lora="continue", loss_type="dpo", optim="sgd", learning_rate=rate,
            lr_scheduler_type="constant", max_grad_norm=0, batch_size=12, max_steps=2, layout=layout,
            gradient_checkpointing=checkpointing, micro_batch_tokens=60,
        )
    )  # fmt: skip
    losses, expected = descended(folder, pairs(12), 2, rate)
    found, before = adapter(run.folder), adapter(folder / "sft")
    assert [entry["loss"] for entry in record_of(run)["log"] if "loss" in entry] == pytest.approx(losses, rel=1e-5)
    assert losses[1] < losses[0] - 1e-3
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        moved = value - before[key]
        assert moved.abs().max() > 0
        torch.testing.assert_close(found[key] - before[key], moved, rtol=1e-4, atol=1e-6)


def test_two_runs_have_the_same_bits_although_one_was_interrupted(folder):
    """The reference comes from the cache the second time, and the run that is interrupted resumes."""

    class Fail(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 2:
                raise KeyboardInterrupt

    cache = str(folder / "cache")
    one, two = (recipe(folder, name, save_steps=1, reference_cache=cache) for name in ("one", "two"))
    expected = adapter(train(one).folder)
    with pytest.raises(KeyboardInterrupt):
        train(two, callbacks=[Fail()])
    run = train(two, resume=True)
    assert expected.keys() == adapter(run.folder).keys()
    assert all(value.equal(expected[key]) for key, value in adapter(run.folder).items())
    assert record_of(run)["resumed"][0]["checkpoint"] == "checkpoint-2"
    assert record_of(run)["reference"] == {"reused": 24, "scored": 0}


def test_the_reference_cache_tells_a_base_in_4_bits_from_a_whole_one(folder):
    cache = {"reference_cache": str(folder / "references"), "max_steps": 1}
    counts = [
        record_of(train(recipe(folder, f"cached-{number}", load_in_4bit=four, **cache)))["reference"]
        for number, four in enumerate((False, True, True))
    ]
    assert counts == [{"reused": 0, "scored": 24}, {"reused": 0, "scored": 24}, {"reused": 24, "scored": 0}]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_adapter_loads_on_the_whole_base_and_on_one_in_4_bits(folder, precision):
    run = train(recipe(folder, f"loads-{precision}", precision=precision))
    record, dtype = record_of(run), {"fp32": "float32", "bf16": "bfloat16"}[precision]
    assert record["model"]["quantization"] == {
        "bits": 4, "type": "nf4", "double_quantization": True, "compute_dtype": dtype,
        "bitsandbytes": bitsandbytes.__version__,
    }  # fmt: skip
    whole = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert record["model"]["parameters"] == whole.num_parameters()
    assert f"4 bits (nf4, double quantization, computing in {dtype})" in (run.folder / "README.md").read_text()
    start = logits(whole)
    adapted = logits(AutoPeftModelForCausalLM.from_pretrained(run.folder, dtype=torch.float32))
    assert (adapted - start).abs().max() > 1e-3
    base = AutoModelForCausalLM.from_pretrained(folder / "model", quantization_config=NF4)
    found = logits(PeftModel.from_pretrained(base, run.folder))
    expected = logits(PeftModel.from_pretrained(dequantized(folder / "model"), run.folder))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - adapted).abs().max() > 1e-3
    torch.testing.assert_close(logits(load_model(run.folder, dtype=torch.float32)), adapted)


def test_a_new_adapter_belongs_to_the_merged_weights_which_are_quantized(folder):
    """The first stage is merged into whole weights; those are saved, and only then quantized."""
    run = train(recipe(folder, "second", model=str(folder / "sft"), learning_rate=1e-12))
    merged = logits(AutoPeftModelForCausalLM.from_pretrained(folder / "sft"))
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(run.folder / "base")), merged)
    torch.testing.assert_close(logits(AutoPeftModelForCausalLM.from_pretrained(run.folder)), merged)
    quantized = logits(dequantized(run.folder / "base"))
    loaded = load_model(run.folder / "base", dtype=torch.float32, load_in_4bit=True)
    torch.testing.assert_close(logits(loaded), quantized, rtol=1e-4, atol=1e-4)
    plain = train(recipe(folder, "plain", learning_rate=1e-12))
    first = [next(e["logps/chosen"] for e in record_of(each)["log"] if "loss" in e) for each in (run, plain)]
    assert abs(first[0] - first[1]) > 0.01


def test_packed_weights_cost_what_whole_ones_do(folder):
    """Two weights share a byte, and were counted as one."""
    made = [load_model(folder / "model", dtype=torch.float32, load_in_4bit=each) for each in (True, False)]
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    four, whole = (training_flops(get_peft_model(model, adapter), Work(11, 7, 5)) for model in made)
    assert four == whole


def test_the_plan_counts_weights_in_4_bits(folder):
    four, whole = (plan_recipe(recipe(folder, "planned", load_in_4bit=each)) for each in (True, False))
    layers = AutoModelForCausalLM.from_pretrained(folder / "model").model.layers
    linear = sum(module.weight.numel() for module in layers.modules() if isinstance(module, torch.nn.Linear))
    assert (four.size.quantized, whole.size.quantized) == (linear, 0)
    assert (four.size.parameters, four.size.trainable) == (whole.size.parameters, whole.size.trainable)
    saved = whole.estimate.memory_bytes - four.estimate.memory_bytes
    packed = sum(
        value.numel() * value.element_size()
        for name, value in load_model(folder / "model", dtype=torch.float32, load_in_4bit=True).state_dict().items()
        if "layers" in name and "norm" not in name and "quant" not in name and name.count("weight") == 1
    )
    assert 4 * linear - saved == pytest.approx(packed, rel=0.005)


def test_packed_weights_without_a_backward_pass_are_never_made(folder, monkeypatch):
    """With AVX512-BF16 on a CPU, bitsandbytes packs weights when the reference is scored, and then has no gradient."""
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    model = load_model(folder / "model", dtype=torch.float32, load_in_4bit=True)
    adapter = LoraConfig(r=2, target_modules="all-linear")
    model = prepare_model(model, "all", adapter, disable_dropout=False, mixed=False)
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": ...}, "'load_in_4bit' needs 'lora'"),
        ({"merge_adapter": True}, "'merge_adapter' can't merge into weights in 4 bits"),
        ({"model": "model.gguf"}, r"model.gguf is a .gguf file; name a model with weights in safetensors"),
    ],
)
def test_what_is_refused_is_refused_before_any_work(folder, changes, message):
    lines = []
    with pytest.raises(BfpoError, match=message) as error:
        train(recipe(folder, "refused", **changes), say=lines.append)
    assert "\n" not in str(error.value)
    assert not lines


def test_divided_weights_and_a_missing_package_are_refused_before_any_work(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("bfpo.models.find_spec", lambda name: None)
        with pytest.raises(BfpoError, match=r"install it with: pip install 'bfpo\[qlora\]'"):
            train(recipe(folder, "missing"))
    monkeypatch.setattr("bfpo.training.engines.sharding", lambda: "FSDP2")
    with pytest.raises(BfpoError, match="that FSDP2 divides: start one process, or several by DDP"):
        train(recipe(folder, "divided"))


def test_a_folder_in_4_bits_needs_the_option_and_has_its_own_quantization(folder):
    quantized = AutoModelForCausalLM.from_pretrained(folder / "model", quantization_config=NF4)
    quantized.save_pretrained(folder / "quantized")
    word_tokenizer().save_pretrained(folder / "quantized")
    with pytest.raises(BfpoError, match="its weights are quantized: add 'load_in_4bit: true'"):
        train(recipe(folder, "unsaid", model=str(folder / "quantized"), load_in_4bit=False))
    run = train(recipe(folder, "said", model=str(folder / "quantized")))
    same = train(recipe(folder, "same"))
    found, expected = adapter(run.folder), adapter(same.folder)
    assert all(torch.allclose(value, found[key], atol=1e-5) for key, value in expected.items())


def test_the_trainer_refuses_a_quantized_model_that_can_not_train(folder, tmp_path):
    def trainer(dtype, peft_config=None):
        model = load_model(folder / "model", dtype=dtype, load_in_4bit=True)
        arguments = BFPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True)
        return BFPOTrainer(model, arguments, pairs(12), processing_class=word_tokenizer(), peft_config=peft_config)

    with pytest.raises(BfpoError, match="quantized and can't train: give a peft_config"):
        trainer(torch.float32)
    with pytest.raises(BfpoError, match=r"the others are torch.bfloat16: set bf16=True"):
        trainer(torch.bfloat16, LoraConfig(r=2, target_modules="all-linear"))
