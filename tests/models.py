"""Tiny random models of several architectures, for tests."""

from functools import partial

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Llama4ForCausalLM, Llama4TextConfig


def tiny_llama(vocab_size=64, hidden_size=32, layers=2, seed=0, dtype=torch.float32):
    config = AutoConfig.for_model(
        "llama",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    # Larger weights than at initialization, so that wrong positions or masks show in the log-probabilities.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 4},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 4,
        "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 2.0,
        "query_pre_attn_scalar": 8,
    },
    "granite": {"logits_scaling": 3.0},
    "cohere": {"logit_scale": 0.3},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "mixtral": {"num_local_experts": 2, "experts_implementation": "eager"},
    "gpt_oss": {
        "head_dim": 8,
        "sliding_window": 4,
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        "experts_implementation": "eager",
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
}
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def tiny_model(family, dtype=torch.float64, seed=0, **changes):
    """A random model of a family, whose wrong positions or masks would show in the log-probabilities."""
    sizes = {} if family in ("gpt2", "mamba") else _SIZES
    tokens = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **(tokens | sizes | FAMILIES[family] | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def chunked_llama4(vocab_size):
    """A random model that attends within chunks of 32 tokens, which only longer rows show."""
    config = Llama4TextConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, intermediate_size_mlp=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=1, attention_chunk_size=32,
        no_rope_layers=[1, 1], moe_layers=[], pad_token_id=0, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    return Llama4ForCausalLM(config).eval()


def without_float32_parts(model, monkeypatch):
    """Compute a float64 model's norms and softmaxes in float64 too, where transformers has float32."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_rms_norm, module, 1.0 if "Gemma" in type(module).__name__ else 0.0)
        elif type(module).__name__ == "CohereLayerNorm":
            module.forward = partial(_layer_norm, module)
    plain = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda *args, dtype=None, **kw: plain(*args, **kw))
    return model


def _rms_norm(module, offset, hidden):
    return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6) * (offset + module.weight)


def _layer_norm(module, hidden):
    centered = hidden - hidden.mean(-1, keepdim=True)
    return centered * torch.rsqrt(centered.pow(2).mean(-1, keepdim=True) + 1e-5) * module.weight
