"""`RayGenerator`: answers from a transformers model on the machines of a Ray cluster (the extra ``ray``)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Completion, Decoding, SampleRequest
from bfpo.ray_cluster import Task, connect, has_gpus, slots

_Batch = list[SampleRequest]


@dataclass(frozen=True)
class RayGenerator(LocalGenerator):
    """A model whose planned batches are answered by the workers of the connected cluster, several at once.

    Answers are those of the model here, on an equal device. A batch whose worker dies is answered again. This process
    renders prompts and scores given texts.

    Attributes:
        name: folder or Hub name of the model; every node must have it.
        chat: whether the model's chat template is used.
    """

    name: str = ""
    chat: bool = True
    _planned: deque[_Batch] = field(default_factory=deque[_Batch], compare=False, repr=False)
    _asked: deque[tuple[_Batch, Task]] = field(default_factory=deque[tuple[_Batch, Task]], compare=False, repr=False)

    def plan(self, requests: Sequence[SampleRequest], decoding: Decoding) -> list[_Batch]:
        """The batches of `LocalGenerator`, which are asked for in this order, ahead of `generate`."""
        batches = super().plan(requests, decoding)
        while self._asked:
            self._asked.pop()[1].cancel()
        self._planned.clear()
        self._planned.extend(batches)
        return batches

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """One answer to every request; batches that are planned next are asked for in the meantime.

        Raises:
            BfpoError: if a node has another model under this name, or none.
            RunError: if a batch's workers die again and again.
        """
        on_gpu = has_gpus()

        def asked(wanted: Sequence[SampleRequest]) -> Task:
            return Task(
                _answers, self.name, self.system_prompt, self.chat, self._digest, wanted, decoding, on_gpu=on_gpu
            )

        is_asked = any(each == batch for each, _ in self._asked)
        if not is_asked and batch not in self._planned:
            return asked(batch).result()
        # What is planned before this batch was answered in an earlier run.
        while self._asked and self._asked[0][0] != batch:
            self._asked.popleft()[1].cancel()
        while not self._asked and self._planned[0] != batch:
            self._planned.popleft()
        while self._planned and len(self._asked) < slots(on_gpu):
            following = self._planned.popleft()
            self._asked.append((following, asked(following)))
        return self._asked.popleft()[1].result()

    @cached_property
    def _digest(self) -> str | None:
        return self.identity.digest


def load_on_ray(name: str, address: str = "", system_prompt: str | None = None, *, chat: bool = True) -> RayGenerator:
    """Connect to a cluster (`bfpo.ray_cluster.connect`), and load a model for it from a folder or the Hub.

    Raises:
        BfpoError: if there is no such model, or Ray isn't installed.
        RunError: if the cluster can't be reached.
    """
    connect(address)
    here = LocalGenerator.load(name, system_prompt, chat=chat)
    return RayGenerator(here.model, here.tokenizer, system_prompt, here.path, name, chat)


def _answers(
    name: str, system_prompt: str | None, chat: bool, digest: str | None, batch: _Batch, decoding: Decoding
) -> list[Completion]:
    """In a worker: the answers to a batch."""
    generator, own = _loaded(name, system_prompt, chat, os.getcwd())
    if own != digest:
        raise BfpoError(f"{name} is another model there: give all nodes the same files")
    return generator.generate(batch, decoding)


@cache
def _loaded(name: str, system_prompt: str | None, chat: bool, folder: str) -> tuple[LocalGenerator, str | None]:
    """The model, loaded once per worker and folder, to which its name may be relative; and its digest."""
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    generator = LocalGenerator.load(name, system_prompt, chat=chat)
    return generator, generator.identity.digest
