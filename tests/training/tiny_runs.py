"""A tiny model, a dozen pairs, and recipes that train it for a few steps."""

import yaml

from models import tiny_llama
from training.rows import pairs, word_tokenizer


def write_material(folder):
    """The model and the pairs of the recipes."""
    tiny_llama().save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    pairs(12).to_json(folder / "pairs.jsonl")


def write_recipe(folder, name, **changes):
    """A recipe's file, for a run in the folder of its name."""
    values = {
        "stage": "preference", "model": str(folder / "model"), "data": [{"path": str(folder / "pairs.jsonl")}],
        "output_dir": str(folder / name), "beta": 0.3, "learning_rate": 0.01, "batch_size": 4, "max_steps": 2,
        "warmup_steps": 0, "reference_cache": None,
    } | changes  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
