"""Disk cache of reference log-probabilities.

Values are addressed by weights, precision and token ids, so a run with another learning rate, output folder, objective
or order of rows reuses them, and one with another template, truncation or weight doesn't.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from bfpo.config import read_json
from bfpo.engine.forward import Engine
from bfpo.errors import BfpoError
from bfpo.files import cache_folder, whole_file, write_json
from bfpo.groups import TokenGroup

_KEY = np.dtype("S16")
_DESCRIPTION = "model.json"
_REMEDY = "delete its folder, and its rows are scored again"
# Seconds between writes, so that a killed pass loses little.
_SECONDS_A_FILE = 30.0


def default_cache_folder() -> Path:
    """Default folder of the reference cache: ``reference`` in $BFPO_CACHE or ~/.cache/bfpo."""
    return cache_folder() / "reference"


def model_digest(model: nn.Module, precision: str) -> str:
    """Digest of everything that a model's log-probabilities depend on.

    It covers names, types and bytes of all weights, the configuration without descriptive fields, the settings of an
    adapter, and the precision of the computation. An adapter that doesn't change the model yet (LoRA's second matrices
    are all zero) is left out.
    """
    digest = hashlib.sha256(precision.encode())
    state = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): v for name, v in model.state_dict().items()
    }
    if not any(value.any() for name, value in state.items() if "lora_B" in name or "lora_embedding_B" in name):
        state = {name: value for name, value in state.items() if "lora_" not in name}
    else:
        for name, layer in model.named_modules():
            if isinstance(layer, BaseTunerLayer):
                # Such as LoRA's alpha over its rank.
                settings = (type(layer).__name__, getattr(layer, "scaling", None), layer.active_adapters)
                digest.update(f"{name} {settings}\n".encode())
    for name in sorted(state):
        value = state[name].detach().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.cpu().view(torch.uint8).numpy().data if value.dim() else repr(value.item()).encode())
    config: Any = getattr(model, "config")  # noqa: B009  (pyright knows no attributes of modules)
    described = {"_name_or_path", "transformers_version", "architectures", "dtype", "use_cache"}
    decisive = {k: v for k, v in config.to_dict().items() if k not in described}
    digest.update(json.dumps(decisive, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def answer_keys(groups: Sequence[TokenGroup]) -> np.ndarray:
    """[N] key of every answer: a digest of its prompt's and its own token ids, and of those that are not scored."""
    keys = []
    for group in groups:
        ids = np.asarray(group.prompt, dtype="<i4")
        prompt = hashlib.sha256(len(ids).to_bytes(8, "little") + ids.tobytes())
        for at, answer in enumerate(group.answers):
            digest = prompt.copy()
            digest.update(np.asarray(answer, dtype="<i4").tobytes())
            if len(group.context) and len(group.context[at]):
                digest.update(b"context" + np.asarray(group.context[at], dtype="<i4").tobytes())
            keys.append(digest.digest()[: _KEY.itemsize])
    return np.array(keys, dtype=_KEY)


@dataclass(frozen=True)
class Part:
    """One file of a cache: keys, summed log-probabilities in nats, and token counts of answers."""

    keys: np.ndarray
    sums: np.ndarray
    tokens: np.ndarray

    def digest(self) -> str:
        """Digest of the content, for the file's metadata."""
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in (self.keys, self.sums, self.tokens))
        return hashlib.sha256(data).hexdigest()


@dataclass
class ReferenceCache:
    """Reference log-probabilities of one model at one precision.

    Attributes:
        folder: folder with ``model.json`` and one file per write; None keeps the cache in memory.
        description: name, architecture and precision of the model, for ``model.json``.
        parts: the content of each file.
    """

    folder: Path | None
    description: Mapping[str, Any]
    parts: list[Part] = field(default_factory=list)

    @classmethod
    def open(cls, root: Path, digest: str, description: Mapping[str, Any]) -> ReferenceCache:
        """Open or create the cache of the model with this digest.

        Raises:
            BfpoError: if a file is damaged.
        """
        folder = root / digest[:32]
        return cls(folder, description, [read_part(path) for path in part_files(folder)])

    def get(self, keys: np.ndarray) -> np.ndarray:
        """[N] sums in nats, NaN if not in the cache."""
        found = np.full(len(keys), np.nan)
        for part in self.parts:
            order = np.argsort(part.keys)
            at = np.searchsorted(part.keys, keys, sorter=order)
            candidates = order[np.minimum(at, len(order) - 1)]
            hits = part.keys[candidates] == keys
            found[hits] = part.sums[candidates[hits]]
        return found

    def add(self, keys: np.ndarray, sums: np.ndarray, tokens: np.ndarray) -> None:
        """Add answers' sums and token counts, as one file."""
        if not len(keys):
            return
        part = Part(keys, np.asarray(sums, dtype=np.float64), np.asarray(tokens, dtype=np.int64))
        self.parts.append(part)
        if self.folder is None:
            return
        description = self.folder / _DESCRIPTION
        if not description.exists():
            write_json(description, dict(self.description))
        arrays = {
            "keys": np.frombuffer(part.keys.tobytes(), dtype=np.uint8).reshape(-1, _KEY.itemsize),
            "sums": part.sums,
            "tokens": part.tokens,
        }
        name = f"{secrets.token_hex(8)}.safetensors"
        with whole_file(self.folder / name) as temporary:
            save_file(arrays, temporary, metadata={"sha256": part.digest()})


def open_cache(root: str | None, model: Any, precision: str, digest: str) -> ReferenceCache:
    """The cache for the current weights of a model (with its adapter) with this `model_digest`.

    It lies below ``root``, with "default" below `default_cache_folder`, and with None in memory.

    Raises:
        BfpoError: if a file of the cache is damaged.
    """
    description = {"model": model.config.name_or_path, "architecture": type(model).__name__, "precision": precision}
    if root is None:
        return ReferenceCache(None, description)
    folder = default_cache_folder() if root == "default" else Path(root).expanduser()
    return ReferenceCache.open(folder, digest, description)


def fill_cache(
    engine: Engine,
    model: nn.Module,
    chunks: Iterable[Sequence[TokenGroup]],
    cache: ReferenceCache,
    progress: Callable[[int], None] = lambda answers: None,
) -> None:
    """Score groups and add the results to the cache; only one chunk of groups is in memory at a time.

    ``progress`` is called with the number of answers scored so far.
    """
    keys: list[np.ndarray] = []
    sums: list[float] = []
    tokens: list[int] = []

    def write() -> None:
        if keys:
            cache.add(np.concatenate(keys), np.array(sums), np.array(tokens))
        for kept in (keys, sums, tokens):
            kept.clear()

    written, done = time.monotonic(), 0
    for groups in chunks:
        for part, values in scored(engine, model, groups):
            keys.append(answer_keys(part))
            sums += values
            tokens += [len(group.scored(at)) for group in part for at in range(len(group.answers))]
            done += len(values)
            progress(done)
            if time.monotonic() - written > _SECONDS_A_FILE:
                write()
                written = time.monotonic()
    write()


@torch.no_grad()
def scored(
    engine: Engine, model: nn.Module, groups: Sequence[TokenGroup]
) -> Iterator[tuple[list[TokenGroup], list[float]]]:
    """Yield each micro-batch's groups and their answers' sums, without a gradient and in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        with engine.attached():
            for batch in engine.split(groups):
                part = [groups[index] for index in batch]
                yield part, engine.logps(model, part).policy.tolist()
    finally:
        model.train(was_training)


def part_files(folder: Path) -> list[Path]:
    """The files with sums in a cache folder."""
    return sorted(folder.glob("*.safetensors"))


def read_part(path: Path) -> Part:
    """Read a file of a cache and check it against its digest.

    Raises:
        BfpoError: if the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            raw = {name: file.get_tensor(name) for name in ("keys", "sums", "tokens")}
            expected = (file.metadata() or {}).get("sha256")
        part = Part(np.frombuffer(raw["keys"].tobytes(), dtype=_KEY), raw["sums"], raw["tokens"])
        if part.digest() != expected:
            raise ValueError("its content differs from its digest")
    except (SafetensorError, OSError, ValueError) as error:
        raise BfpoError(
            f"{path}: this file of the reference cache is damaged; delete it, and its rows will be scored again"
        ) from error
    return part


@dataclass(frozen=True)
class CacheSummary:
    """Summary of a cache folder."""

    folder: Path
    description: dict[str, Any]
    answers: int
    tokens: int
    size: int
    damaged: list[Path]


def summarize(root: Path) -> Iterator[CacheSummary]:
    """Read and check every model's cache below a folder."""
    for description in sorted(root.glob(f"*/{_DESCRIPTION}")):
        folder, damaged, answers, tokens = description.parent, [], 0, 0
        for path in part_files(folder):
            try:
                part = read_part(path)
            except BfpoError:
                damaged.append(path)
                continue
            answers += len(part.keys)
            tokens += int(part.tokens.sum())
        size = sum(path.stat().st_size for path in part_files(folder))
        described = read_json(description, dict[str, Any], "the model of a cache", _REMEDY)
        yield CacheSummary(folder, described, answers, tokens, size, damaged)
