"""The answering model and the progress bars, for every command that samples answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID

from bfpo.cli.printing import Console, echo
from bfpo.errors import BfpoError

if TYPE_CHECKING:
    from bfpo.generation.protocol import Generator


def load_generator(
    model: str,
    url: str | None,
    key: str | None,
    system_prompt: str | None = None,
    *,
    chat: bool = True,
    engine: str | None = None,
) -> Generator:
    """A local model, the dial of a JSON file, or a served model; ``bfpo evaluate --help`` describes its name.

    ``url`` is the address of an OpenAI-compatible server or a file with its settings, and ``key`` the environment
    variable with its key. ``engine`` runs a local model: transformers (by default), vllm, vllm:FILE.yaml, ray or
    ray:HOST:PORT.
    """
    if url:
        from bfpo.generation.endpoint_generator import EndpointGenerator

        return EndpointGenerator.connect(url, model, system_prompt=system_prompt, api_key_env=key)
    from bfpo.generation.local_generator import LocalGenerator
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    if engine and engine != "transformers":
        from bfpo.generation.ray_generator import load_on_ray
        from bfpo.generation.vllm_generator import load_vllm

        if model.endswith(".json"):
            raise BfpoError(
                f"--engine: {model} is a dial between two models, which only transformers runs; leave it out"
            )
        if is_ray(engine):
            return load_on_ray(model, engine.partition(":")[2], system_prompt, chat=chat)
        return load_vllm(model, engine, system_prompt, chat=chat)
    if model.endswith(".json"):
        from bfpo.generation.dial_file import load_dial

        dial = load_dial(Path(model))
        if dial.candidates > 1:
            echo(f"{model}: the exact dial samples at temperature 1 from the whole vocabulary.", err=True)
        return dial.load_models(system_prompt, chat=chat)
    return LocalGenerator.load(model, system_prompt, chat=chat)


def check_model(model: str, url: str | None, key: str | None) -> None:
    """Check that a model of `load_generator` exists, without loading weights or asking a server.

    Raises:
        BfpoError: if it doesn't.
    """
    if url:
        from bfpo.generation.endpoint_generator import EndpointGenerator

        EndpointGenerator.connect(url, model, api_key_env=key)
        return
    from bfpo.models import load_config
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    names = [model]
    if model.endswith(".json"):
        from bfpo.generation.dial_file import load_dial

        dial = load_dial(Path(model))
        names = [dial.low, dial.high]
    for name in names:
        load_config(name)


def is_ray(engine: str | None) -> bool:
    """Whether an engine is a Ray cluster."""
    return (engine or "").partition(":")[0] == "ray"


def check_whole(engine: str | None, shard: str | None) -> None:
    """Refuse a part of the work for a cluster, which would be asked ahead for other parts' batches.

    Raises:
        BfpoError: if both are given.
    """
    if is_ray(engine) and shard:
        raise BfpoError("--engine ray divides the work itself: leave out --shard")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on standard error, one per stage, if that is a terminal."""
    stages: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total)
            bar.update(stages[stage], completed=done)

        yield update
