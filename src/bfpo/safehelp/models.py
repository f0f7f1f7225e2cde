"""Load a model for evaluation: a folder, an adapter's folder, a Hub name, or the embedded one."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bfpo.errors import BfpoError
from bfpo.microworld.model import MODEL_PATH


def load_for_evaluation(name_or_path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model (with its adapter, if the folder holds one), on the GPU if there is one, and its tokenizer.

    "microworld" is the embedded one.

    Raises:
        BfpoError: if there is no such model.
    """
    place = str(MODEL_PATH) if name_or_path == "microworld" and not Path(name_or_path).exists() else name_or_path
    try:
        model, tokenizer = (
            AutoModelForCausalLM.from_pretrained(place, dtype="auto"),
            AutoTokenizer.from_pretrained(place),
        )
    except (OSError, ValueError) as error:
        raise BfpoError(f"the model {name_or_path!r} can't be loaded: {' '.join(str(error).split())}") from error
    if torch.cuda.is_available():
        model = model.to(torch.device("cuda"))  # pyright: ignore[reportArgumentType]
    return model, tokenizer
