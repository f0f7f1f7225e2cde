"""`VllmGenerator`: answers from vLLM in this process (the extra ``vllm``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bfpo.config import read_yaml
from bfpo.errors import BfpoError, RunError, one_line
from bfpo.files import file_sha256
from bfpo.generation.prompts import check_system_prompt, prompt_ids, render_prompt, template_digest
from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity, Prompt, SampleRequest
from bfpo.generation.sampling import in_rooms, read_answer
from bfpo.model_names import place_of
from bfpo.models import (
    adapter_config,
    context_length,
    end_tokens,
    load_config,
    load_generation_config,
    load_tokenizer,
)

# Arguments of `vllm.LLM` that are not the user's to set: they choose the model, run code, or hold a key.
_RESERVED = (
    "model", "tokenizer", "revision", "tokenizer_revision", "trust_remote_code", "skip_tokenizer_init",
    "load_format", "worker_cls", "hf_overrides", "hf_token",
)  # fmt: skip


@dataclass(frozen=True)
class VllmGenerator(Generator):
    """A model that vLLM runs, with prompts and end tokens as in `LocalGenerator`.

    An answer has its own seed. vLLM batches requests as it likes, so that the same seed may give another answer, by
    rounding.

    Attributes:
        llm: the `vllm.LLM`.
        tokenizer: the model's tokenizer; without a chat template prompts are plain text.
        ends: tokens that end an answer.
        context: largest number of tokens of prompt and answer; None if unknown.
        path: folder or Hub name of the model, for the run's header.
        digest: SHA-256 of weights and engine options; None for a model on the Hub.
        system_prompt: system prompt before every prompt, if any.
    """

    llm: Any
    tokenizer: PreTrainedTokenizerBase
    ends: Sequence[int]
    context: int | None
    path: str
    digest: str | None = None
    system_prompt: str | None = None

    @classmethod
    def load(
        cls, name: str, system_prompt: str | None = None, *, chat: bool = True, options: Mapping[str, Any] | None = None
    ) -> VllmGenerator:
        """Load a model from a folder or the Hub; without ``chat`` its chat template is ignored.

        ``options`` are arguments of `vllm.LLM`, such as ``max_model_len`` or ``tensor_parallel_size``.

        Raises:
            BfpoError: if vLLM is not installed, can't load the model with these options, or an option is reserved.
        """
        options = dict(options or {})
        if reserved := [option for option in _RESERVED if option in options]:
            raise BfpoError(f"vLLM's option {reserved[0]!r} can't be set here: remove it")
        if name.endswith(".gguf"):
            raise BfpoError(f"{name}: bfpo doesn't hand .gguf files to vLLM; leave --engine out, or name a folder")
        if adapter_config(name):
            raise BfpoError(f"{name}: is an adapter, and vLLM gets whole models; merge it first (merge_adapter)")
        tokenizer = load_tokenizer(name)
        if not chat:
            tokenizer.chat_template = None
        check_system_prompt(tokenizer, system_prompt)
        context = options.get("max_model_len") or context_length(load_config(name))
        ends = end_tokens(load_generation_config(name), tokenizer)
        place = place_of(name)
        return cls(
            _engine(place, options), tokenizer, ends, context, name, _digest(Path(place), options), system_prompt
        )

    @property
    def identity(self) -> ModelIdentity:
        """Digests of weights and options, and of the chat template."""
        return ModelIdentity(self.path, self.digest, template_digest(self.tokenizer), self.system_prompt)

    def render(self, prompt: Prompt) -> str:
        """The prompt rendered by the chat template."""
        return render_prompt(self.tokenizer, prompt, self.system_prompt)

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request; a prompt that leaves no room for one gets a ``failure``.

        Raises:
            RunError: if vLLM fails.
        """
        prompts = [prompt_ids(self.tokenizer, request.prompt, self.system_prompt) for request in batch]
        return in_rooms(batch, prompts, self.context, decoding, self._sample)

    def _sample(
        self, batch: Sequence[SampleRequest], prompts: Sequence[list[int]], decoding: Decoding
    ) -> list[Completion]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        params = [
            SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                max_tokens=decoding.max_new_tokens,
                seed=request.seed,
                stop_token_ids=list(self.ends),
            )
            for request in batch
        ]
        try:
            outputs = self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
        except Exception as error:  # vLLM and its workers raise many types
            raise RunError(f"vLLM failed: {one_line(error)}; repeat the command to continue from here") from error
        answers = [output.outputs[0] for output in outputs]
        return [
            self._completion(prompt, list(answer.token_ids), answer.finish_reason)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _completion(self, prompt: Sequence[int], ids: list[int], finish_reason: str | None) -> Completion:
        ids = ids[:-1] if ids and ids[-1] in self.ends else ids
        # vLLM's own text lacks marks of thinking that are special tokens.
        thinking, text = read_answer(self.tokenizer, prompt, ids)
        return Completion(text, finish_reason == "length", len(ids), thinking, finish_reason=finish_reason or "")


def load_vllm(name: str, engine: str, system_prompt: str | None = None, *, chat: bool = True) -> VllmGenerator:
    """A model by the command line's name of the engine: ``vllm``, or ``vllm:FILE.yaml`` with arguments of `vllm.LLM`.

    Raises:
        BfpoError: if there is no such engine, or `VllmGenerator.load` raises it.
    """
    kind, _, file = engine.partition(":")
    if kind != "vllm" or (file and not file.endswith((".yaml", ".yml"))):
        raise BfpoError(f"there is no engine {engine!r}: write transformers, vllm, vllm:FILE.yaml or ray")
    options = read_yaml(Path(file), "options of vLLM") if file else {}
    return VllmGenerator.load(name, system_prompt, chat=chat, options=options)


def _engine(name: str, options: Mapping[str, Any]) -> Any:
    try:
        from vllm import LLM  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BfpoError(f"vLLM isn't installed ({one_line(error)}): pip install 'bfpo[vllm]'") from error
    try:
        return LLM(model=name, trust_remote_code=False, load_format="safetensors", **options)
    except Exception as error:  # vLLM and its workers raise many types
        raise BfpoError(f"vLLM can't load {name!r} with these options: {one_line(error)}") from error


def _digest(folder: Path, options: Mapping[str, Any]) -> str | None:
    """SHA-256 of configuration, weights, vLLM's version and options."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256(json.dumps([version("vllm"), dict(options)], sort_keys=True, default=str).encode())
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(file.name.encode() + bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()
