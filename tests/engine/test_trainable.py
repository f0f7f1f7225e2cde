import pytest
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM

from bfpo.engine import trainable
from bfpo.engine.trainable import prepare_model, select_trainable
from bfpo.errors import BfpoError
from models import tiny_llama


def test_only_matching_weights_train():
    model = tiny_llama()
    select_trainable(model, "down_proj")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)]


def test_all_leaves_the_model_as_it_is():
    model = tiny_llama()
    select_trainable(model, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(("pattern", "message"), [("no_such_layer", "matches no parameter"), ("(", "not a regular")])
def test_a_pattern_that_cannot_be_meant_is_refused(pattern, message):
    with pytest.raises(BfpoError, match=message):
        select_trainable(tiny_llama(), pattern)


def lora(model):
    torch.manual_seed(0)
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    made = prepare_model(model, "all", adapter, disable_dropout=True, mixed=True)
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return made


def loss_and_saved_bytes(model):
    """Loss under autocast, gradients, and the bytes of all different tensors that the backward pass keeps."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    ids = torch.arange(3, 35)[None]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(ids, labels=ids).loss
        size = sum(kept.values())
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters() if p.requires_grad], size


def test_an_adapter_in_half_precision_gives_pefts_numbers_and_keeps_less(monkeypatch):
    ours = loss_and_saved_bytes(lora(tiny_llama(dtype=torch.bfloat16)))
    monkeypatch.setattr(trainable, "_leave_casts_to_autocast", lambda model: None)
    pefts = loss_and_saved_bytes(lora(tiny_llama(dtype=torch.bfloat16)))
    assert ours[0] == pefts[0]
    assert all(map(torch.equal, ours[1], pefts[1]))
    assert ours[2] < 0.9 * pefts[2]


def test_outside_autocast_the_adapter_still_casts_its_input():
    model = lora(tiny_llama(dtype=torch.bfloat16))
    assert torch.isfinite(model(torch.arange(3, 35)[None]).logits).all()


@pytest.mark.parametrize("family", ["falcon", "persimmon"])
def test_dropout_that_a_forward_reads_from_the_configuration_is_disabled_too(family):
    config = AutoConfig.for_model(
        family, vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, attention_dropout=0.3,
        hidden_dropout=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model, ids = AutoModelForCausalLM.from_config(config).train(), torch.arange(3, 35)[None]
    assert not model(ids).logits.equal(model(ids).logits)
    prepare_model(model, "all", None, disable_dropout=True, mixed=False)
    assert not trainable.dropouts(model)
    assert model(ids).logits.equal(model(ids).logits)
