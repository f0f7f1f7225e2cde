"""Prompts as a model in this process reads them: through the tokenizer's chat template, if it has one."""

from __future__ import annotations

import hashlib
from typing import Any

from transformers import PreTrainedTokenizerBase

from bfpo.errors import BfpoError
from bfpo.generation.protocol import Prompt, as_messages
from bfpo.preferences.encoding import encode_prompt


def check_system_prompt(tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> None:
    """Refuse a system prompt that no template would render.

    Raises:
        BfpoError: if there is one, and the tokenizer has no chat template.
    """
    if system_prompt is not None and not tokenizer.chat_template:
        raise BfpoError("the model has no chat template, so it takes no system prompt: leave it out")


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, system_prompt: str | None) -> str:
    """A prompt as text."""
    if isinstance(prompt, str) and not tokenizer.chat_template:
        return prompt
    messages = as_messages(prompt, system_prompt)
    rendered: Any = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return str(rendered)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, system_prompt: str | None) -> list[int]:
    """A prompt's token ids."""
    return encode_prompt(tokenizer, prompt if system_prompt is None else as_messages(prompt, system_prompt))


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """SHA-256 of the chat template; None without one."""
    template = tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None
