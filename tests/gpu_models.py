"""What the tests on a GPU share. They run without the suite's conftest, on machines that lack its packages."""

import os
import random
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("BFPO_CACHE", tempfile.mkdtemp(prefix="bfpo-test-cache-"))
# Before the first matrix product, for the deterministic runs.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bfpo.groups import TokenGroup
from models import FAMILIES

CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
DEVICE = torch.device("cuda")
VOCABULARY = 512


def small_model(family, dtype=torch.float32, **changes):
    """A random model on the GPU with heads of 32, whose wrong positions or masks show in the log-probabilities."""
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0, "max_position_embeddings": 4096,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **(FAMILIES[family] | sizes | changes))
    torch.manual_seed(0)
    # In some releases of transformers, torch's own attention leaves out Gemma 2's cap.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.06 * torch.randn_like(parameter))
    return model.to(DEVICE, dtype).eval()


def groups(count, seed=0, most=300):
    """Random prompts, each with two or three answers."""
    draw = random.Random(seed)

    def tokens(largest):
        return draw.choices(range(3, VOCABULARY), k=draw.randint(1, largest))

    return [TokenGroup(tokens(most), [tokens(most // 2) for _ in range(draw.randint(2, 3))]) for _ in range(count)]


def relative(found, expected):
    """Distance of two tensors as a share of the second's norm."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def largest_error(found, expected):
    """Largest distance of gradients as a share of their own norm, or of a hundredth of the norm of all."""
    total = torch.stack([part.double().norm() for part in expected]).norm()
    return max(
        float((mine.double() - plain.double()).norm() / (plain.double().norm() + total / 100))
        for mine, plain in zip(found, expected, strict=True)
    )
