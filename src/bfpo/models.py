"""Loading of models, tokenizers and their configurations; the only module that does it.

A name is a folder (with a model or a PEFT adapter), a ``.gguf`` file, a model on the Hub, or "microworld", the model
that ships with the package. Code that comes with a model is never run, and pickled weights are never read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import ADAPTER_SAFE_WEIGHTS_NAME, find_adapter_config_file

from bfpo.errors import BfpoError, one_line
from bfpo.model_names import MICROWORLD as MICROWORLD
from bfpo.model_names import place_of

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel

# Types of models that count positions from behind their padding token's id, and so have fewer than configured.
_FROM_PADDING = {
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "markuplm", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
Kind = Literal["causal", "sequence-classification"]
_CLASSES = {"causal": AutoModelForCausalLM, "sequence-classification": AutoModelForSequenceClassification}


def resolve_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    name: str | Path,
    *,
    revision: str | None = None,
    dtype: torch.dtype | Literal["auto"] = "auto",
    device: torch.device | Literal["auto"] = "auto",
    kind: Kind = "causal",
    load_in_4bit: bool = False,
) -> PreTrainedModel:
    """A model in evaluation mode, with its adapter if the folder holds one.

    Args:
        name: name of the model, see the module's docstring.
        revision: branch, tag or commit on the Hub; by default the main branch.
        dtype: dtype of the weights; "auto" keeps the saved one (float32 for quantized GGUF weights).
        device: device of the weights; "auto" is `resolve_device`.
        kind: kind of model, "causal" or "sequence-classification".
        load_in_4bit: whether to quantize all linear layers but the head (NF4), computing in `dtype`.

    Raises:
        BfpoError: if the model can't be loaded.
    """
    adapter_config(name, revision=revision)  # refuses pickled adapters
    target = resolve_device() if device == "auto" else device
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if _is_gguf(name):
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    if load_in_4bit:
        check_4bit(name)
        # The Trainer doesn't move a quantized model, so it is loaded where it stays.
        options |= {"quantization_config": four_bit_config(dtype), "device_map": {"": str(target)}}
    model = _load("model", _CLASSES[kind].from_pretrained, name, revision, **options)
    if _is_gguf(name):
        model.config.name_or_path = str(name)  # transformers puts the file's folder there
    return model.to(target)


def load_peft_model(
    name: str | Path,
    *,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device,
    trainable: bool,
    load_in_4bit: bool = False,
) -> PeftModel:
    """A PEFT adapter on its base model; see `load_model` for arguments and errors.

    Args:
        trainable: whether the adapter's weights require gradients.
    """
    from peft import PeftModel

    config = adapter_config(name, revision=revision)
    assert config is not None, name
    base = load_model(
        str(config.base_model_name_or_path),
        revision=config.revision,
        dtype=dtype,
        device=device,
        load_in_4bit=load_in_4bit,
    )
    return _load("adapter", partial(PeftModel.from_pretrained, base), name, revision, is_trainable=trainable)


def check_4bit(name: str | Path) -> None:
    """Refuse to load a model in 4 bits where that isn't possible.

    Raises:
        BfpoError: if the name is that of a ``.gguf`` file, or bitsandbytes is not installed.
    """
    if _is_gguf(name):
        raise BfpoError(f"load_in_4bit: {name} is a .gguf file; name a model with weights in safetensors")
    if find_spec("bitsandbytes") is None:
        raise BfpoError("load_in_4bit needs bitsandbytes; install it with: pip install 'bfpo[qlora]'")


def four_bit_config(dtype: torch.dtype | Literal["auto"]) -> BitsAndBytesConfig:
    """QLoRA's quantization (Dettmers et al. 2023, section 3): NF4 with double quantization, computing in a dtype."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=None if dtype == "auto" else dtype,
    )


def quantize_to_4bit(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Quantize a model that was not loaded, in place, as ``load_in_4bit`` does.

    On the meta device, the weights keep their shapes and only get their type.
    """
    nn: Any = import_module("bitsandbytes.nn")
    whole = dict(model.named_parameters())
    quantizer = AutoHfQuantizer.from_config(four_bit_config(dtype), pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None)
    modules: dict[str, Any] = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Linear4bit):
            weight = whole[f"{name}.weight"].detach()
            module.weight = nn.Params4bit(weight, requires_grad=False, **vars(module.weight)).to(weight.device)
            module.bias = whole.get(f"{name}.bias")


def adapter_config(name: str | Path, *, revision: str | None = None) -> PeftConfig | None:
    """The configuration of a PEFT adapter; None if the name stands for anything else.

    Raises:
        BfpoError: if the adapter's configuration can't be read, or its weights are not in safetensors.
    """
    try:
        file = None if _is_gguf(name) else find_adapter_config_file(place_of(name), revision=revision)
    except OSError:  # no such model, which is for the caller to report
        return None
    if file is None:
        return None
    weights = cached_file(
        place_of(name), ADAPTER_SAFE_WEIGHTS_NAME, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if weights is None:
        raise BfpoError(
            f"the adapter {str(name)!r} has no {ADAPTER_SAFE_WEIGHTS_NAME}; save it as safetensors (save_pretrained), "
            "because pickled weights are unsafe to load"
        )
    from peft import PeftConfig

    return _load("adapter", PeftConfig.from_pretrained, name, revision)


def load_tokenizer(name: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; see `load_model` for arguments and errors.

    An adapter without one of its own (PEFT saves none) has its base model's.
    """
    adapter = adapter_config(name, revision=revision)
    has_own = partial(cached_file, place_of(name), revision=revision, _raise_exceptions_for_missing_entries=False)
    if adapter and has_own("tokenizer_config.json") is None:
        return load_tokenizer(str(adapter.base_model_name_or_path), revision=adapter.revision)
    return _load("tokenizer", AutoTokenizer.from_pretrained, name, revision)


def load_config(name: str | Path, *, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a model, without its weights; see `load_model` for arguments and errors.

    An adapter has the configuration of its base model.
    """
    adapter = adapter_config(name, revision=revision)
    if adapter:
        return load_config(str(adapter.base_model_name_or_path), revision=adapter.revision)
    return _load("configuration", AutoConfig.from_pretrained, name, revision)


def load_generation_config(name: str | Path, *, revision: str | None = None) -> GenerationConfig:
    """The generation defaults of a model, without its weights; see `load_config` for arguments and errors."""
    adapter = adapter_config(name, revision=revision)
    if adapter:
        return load_generation_config(str(adapter.base_model_name_or_path), revision=adapter.revision)
    try:
        return GenerationConfig.from_pretrained(place_of(name), revision=revision or "main")
    except Exception:  # many models have no such file, and transformers then takes the configuration's values
        return GenerationConfig.from_model_config(load_config(name, revision=revision))


def context_length(config: Any) -> int | None:
    """Number of tokens that a model has positions for; None if its configuration sets no limit."""
    text = getattr(config, "text_config", None) or config
    lengths = (getattr(text, name, None) for name in ("n_positions", "max_position_embeddings", "n_ctx"))
    length = next((int(length) for length in lengths if length is not None), None)
    if length is not None and getattr(text, "model_type", "") in _FROM_PADDING:
        return length - (text.pad_token_id or 0) - 1
    return length


def uniform_length(config: Any) -> int | None:
    """Number of tokens up to which a row's scores are the same beside any other rows; None without a limit.

    Longrope (Phi-3) has other frequencies, for all rows of a pass, once one of them is longer than in pretraining.
    """
    text = getattr(config, "text_config", None) or config
    rope: Any = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    length = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
    return None if length is None else int(length)


def end_tokens(defaults: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens at which a model stops: those of its generation defaults, and the tokenizer's end of sequence."""
    configured: Any = getattr(defaults, "eos_token_id", None)
    end: Any = tokenizer.eos_token_id
    ends = [*configured, end] if isinstance(configured, list) else [configured, end]
    return sorted({token for token in ends if token is not None})


def resolved_revision(name: str | Path, revision: str | None = None) -> str | None:
    """The Hub commit that a name and revision were loaded from; None for a path on disk."""
    from huggingface_hub import try_to_load_from_cache

    if os.path.exists(place_of(name)):
        return None
    for file in ("config.json", "adapter_config.json"):
        cached = try_to_load_from_cache(str(name), file, revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent.name
    return None


def _is_gguf(name: str | Path) -> bool:
    return Path(name).suffix == ".gguf"


def _load(what: str, load: Callable[..., Any], name: str | Path, revision: str | None, **options: Any) -> Any:
    place = place_of(name)
    if what != "adapter":
        options["trust_remote_code"] = False
    if _is_gguf(name):
        place, options["gguf_file"] = str(Path(name).parent), Path(name).name
    try:
        return load(place, revision=revision, **options)
    except Exception as error:  # transformers and its dependencies raise many types
        raise BfpoError(f"the {what} {str(name)!r} can't be loaded: {_reason(name, error)}") from error


def _reason(name: str | Path, error: Exception) -> str:
    """Why something can't be loaded, and what to do."""
    path, raised = Path(name), one_line(error, limit=None)
    if "trust_remote_code" in raised:
        return "it needs its own code, which bfpo never runs; choose a model that transformers itself implements"
    if _is_gguf(name):
        if not os.path.isfile(path):
            return "there is no such file; check the path"
        if isinstance(error, ImportError):
            return f"a .gguf file needs another package ({raised}); install it with: pip install 'bfpo[gguf]'"
    if isinstance(error, BfpoError):
        return raised
    if os.path.isdir(path) and not any(path.glob("*.safetensors")) and any(path.glob("*.bin")):
        return "its weights are pickled, which is unsafe to load; save them as safetensors (save_pretrained) first"
    if os.path.exists(path):
        return f"{raised}; check that its files are complete"
    return f"{raised}; name a folder, a .gguf file, or a Hub model that is reachable or cached"
