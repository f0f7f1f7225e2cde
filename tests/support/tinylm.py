"""Converts the 260K-parameter model of llama2.c (a real, trained, Llama-shaped one) to transformers, for tests."""

import struct
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def load_tiny_model(checkpoint: Path) -> LlamaForCausalLM:
    """Read the version-0 checkpoint: a header of seven integers, then float32 weights in a fixed order."""
    content = checkpoint.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack("7i", content[:28])
    values = np.frombuffer(content[28:], dtype=np.float32)
    at = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        size = int(np.prod(shape))
        part = torch.tensor(values[at : at + size].reshape(shape))
        at += size
        return part

    kv_dim = dim * kv_heads // heads
    weights = {"model.embed_tokens.weight": take(vocabulary, dim)}
    layout = [
        ("input_layernorm", (dim,)),
        ("self_attn.q_proj", (dim, dim)),
        ("self_attn.k_proj", (kv_dim, dim)),
        ("self_attn.v_proj", (kv_dim, dim)),
        ("self_attn.o_proj", (dim, dim)),
        ("post_attention_layernorm", (dim,)),
        ("mlp.gate_proj", (hidden, dim)),
        ("mlp.down_proj", (dim, hidden)),
        ("mlp.up_proj", (hidden, dim)),
    ]
    for name, shape in layout:
        for layer, weight in enumerate(take(layers, *shape)):
            rotated = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
            weights[f"model.layers.{layer}.{name}.weight"] = _halves(weight, rotated) if rotated else weight
    weights["model.norm.weight"] = take(dim)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=dim, intermediate_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=length,
        rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    missing = model.load_state_dict(weights, strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"}
    assert not missing.unexpected_keys
    return model


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama2.c rotates neighboring dimensions, transformers the two halves of a head."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def load_tiny_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Read tok512.bin: after the longest length, a score, a length and the bytes of every token."""
    content = path.read_bytes()
    at = 4
    tokens: list[str] = []
    scores: list[float] = []
    while at < len(content):
        score, size = struct.unpack("fi", content[at : at + 8])
        tokens.append(content[at + 8 : at + 8 + size].decode())
        scores.append(score)
        at += 8 + size
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    # Of all pairs of neighbors, the one whose union scores highest is merged.
    pieces = sorted((number for number in range(259, len(tokens))), key=lambda number: -scores[number])
    merges = [
        (tokens[n][:cut], tokens[n][cut:])
        for n in pieces
        for cut in range(1, len(tokens[n]))
        if tokens[n][:cut] in vocabulary and tokens[n][cut:] in vocabulary
    ]
    model = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    model.normalizer = normalizers.Prepend(" ")
    model.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
