"""Tiny random models of several architectures, for tests."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM


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
    # Larger weights than at initialisation, so that wrong positions or masks show in the log-probabilities.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model
