"""The embedded chat model and its tokenizer, shipped with the package."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

MODEL_PATH = Path(__file__).with_name("model")


def load_microworld_model() -> PreTrainedModel:
    """The base model: helpful, and harmful where it is asked to be."""
    return AutoModelForCausalLM.from_pretrained(MODEL_PATH)


def load_microworld_tokenizer() -> PreTrainedTokenizerBase:
    """Its tokenizer, with a chat template."""
    return AutoTokenizer.from_pretrained(MODEL_PATH)
