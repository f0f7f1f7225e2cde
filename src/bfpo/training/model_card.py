"""The model card of a run folder: base, data, objective, settings, cells, and how to load the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from bfpo import __version__
from bfpo.files import write_text

# The settings of a recipe that decide the result.
_SHOWN = (
    "stage", "loss_type", "beta", "b1", "alpha", "harm_prices", "learning_rate", "batch_size", "max_steps",
    "num_train_epochs", "max_length", "trainable", "lora", "precision", "seed",
)  # fmt: skip


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a run's card, without a license, which its owner must choose, as ``README.md`` in its folder."""
    lines = [
        "---",
        card_data(record, folder.name).to_yaml(),
        "---",
        "",
        f"# {plain(folder.name)}",
        "",
        f"Trained from {plain(str(base_model(record)))} with bfpo {__version__}{_used(record['usage'])}.",
        "",
        "## How to load it",
        "",
        "```python",
        *(_ADAPTER if _is_adapter(record) else _WHOLE).format(folder=folder).splitlines(),
        "```",
        "",
        "## Training data",
        "",
        *[f"- {line}" for line in source_lines(record)],
        "",
        "## Objective and settings",
        "",
        "| setting | value |",
        "|---|---|",
        *[f"| {key} | {value} |" for key, value in shown_settings(record)],
        "",
        "## Evaluation",
        "",
        f"Not evaluated yet. `bfpo evaluate {folder}`, then `bfpo report` with `--card`, write a card with figures.",
        "",
    ]
    write_text(folder / "README.md", "\n".join(lines))


def _used(usage: Mapping[str, Any]) -> str:
    """What training used, as the end of a sentence."""
    parts = [f"on {usage['tokens']:,} tokens ({usage['answer_tokens']:,} of answers)"]
    if usage["flops"] is not None:
        parts.append(f"by {usage['flops']:.2g} floating point operations")
    if usage["share_of_peak"] is not None:
        parts.append(f"at {usage['share_of_peak']:.0%} of the device's peak")
    if usage["peak_memory_bytes"] is not None:
        parts.append(f"in {usage['peak_memory_bytes'] / 2**30:.1f} GiB")
    return f", {', '.join(parts)}"


_WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")"""
_ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")"""


def card_data(record: Mapping[str, Any], name: str, **more: Any) -> ModelCardData:
    """A card's metadata from a run's record; ``more`` are further fields."""
    objective = setting(record, "loss_type") or record.get("objective", {}).get("name")
    return ModelCardData(
        base_model=base_model(record),
        datasets=_hub_datasets(record) or None,
        library_name="peft" if _is_adapter(record) else "transformers",
        pipeline_tag="text-generation",
        model_name=name,
        tags=[*more.pop("tags", []), *(["bfpo"] if objective == "bfpo" else [])],
        **more,
    )


def _is_adapter(record: Mapping[str, Any]) -> bool:
    """Whether a run's folder holds an adapter, not a whole model."""
    return bool(setting(record, "lora")) and not setting(record, "merge_adapter")


def base_model(record: Mapping[str, Any]) -> str | None:
    """The model that a run started from."""
    return setting(record, "model")


def setting(record: Mapping[str, Any], key: str) -> Any:
    """A value of a run's recipe; None if the record has none."""
    entry = record.get("config", {}).get(key)
    return entry.get("value") if isinstance(entry, Mapping) else None


def shown_settings(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that decide the result, as text for a table; the objective's include its defaults."""
    settings = {key: setting(record, key) for key in _SHOWN}
    objective = record.get("objective", {})
    settings |= {key: value for key, value in objective.items() if key in settings}
    settings["loss_type"] = objective.get("name", settings["loss_type"])
    if isinstance(lora := settings.get("lora"), Mapping):
        shown = {key: value for key, value in lora.items() if value is not None and key != "continued"}
        settings["lora"] = "continued" if lora.get("continued") else ", ".join(f"{k} {v}" for k, v in shown.items())
        settings["trainable"] = "the adapter"
    if held := record.get("model", {}).get("quantization"):
        settings["quantization"] = _quantization_text(held)
    return [(key, plain(str(value))) for key, value in settings.items() if value is not None]


def _quantization_text(held: Mapping[str, Any]) -> str:
    """How the frozen weights of a run were held, from its record of the quantization."""
    double = "double quantization, " if held["double_quantization"] else ""
    return f"base in {held['bits']} bits ({held['type']}, {double}computing in {held['compute_dtype']})"


def source_lines(record: Mapping[str, Any]) -> Iterable[str]:
    """Yield a line of text for every source of a run, with its safety cells and the judges that labeled it."""
    for source in record.get("data", ()):
        used = source.get("used", source.get("read", 0))
        cells = ", ".join(f"{cell} {count:,}" for cell, count in source.get("cells", {}).items())
        judges = ", ".join(((source.get("labels") or {}).get("flags") or {}).get("judges", ()))
        parts = [f"{used:,} rows", cells, f"flags by {judges}" if judges else ""]
        yield plain(f"{source['name']} ({source.get('role', 'main')}): {'; '.join(part for part in parts if part)}")


def _hub_datasets(record: Mapping[str, Any]) -> list[str]:
    """The sources that are Hub names: one slash, and not a file."""
    paths = [source.get("path", "") for source in setting(record, "data") or ()]
    return [
        path for path in paths if path.count("/") == 1 and "." not in path.rsplit("/", 1)[1] and path[0] not in "./"
    ]


def plain(text: str) -> str:
    """Text escaped for a Markdown table."""
    text = " ".join(text.split())
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text
