"""Parts of an evaluation, which several processes make, and what they hold together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bfpo.errors import BfpoError
from bfpo.safehelp.journal import Key, key_of
from bfpo.safehelp.records import (
    GENERATIONS,
    LIKELIHOODS,
    GenerationRecord,
    LikelihoodRecord,
    RunHeader,
    read_generations,
    read_header,
    read_likelihoods,
)
from bfpo.safehelp.same_run import check_same_run
from bfpo.shards import Shard


@dataclass(frozen=True)
class Work:
    """Which part of an evaluation is made here, and what other processes have made.

    Attributes:
        shard: the planned batches to make; None for all.
        answers: records of answers that other processes have made, by key.
        likelihoods: their other records, in the order in which they made them.
        headers: the headers of their parts.
    """

    shard: Shard | None = None
    answers: Mapping[Key, GenerationRecord] = field(default_factory=dict)
    likelihoods: Sequence[LikelihoodRecord] = ()
    headers: Sequence[RunHeader] = ()


def work_of(shard: Shard | None, folders: Sequence[Path], header: RunHeader) -> Work:
    """The work on a shard or on all; reads the folders of all parts, in any order, of the evaluation with this header.

    Raises:
        BfpoError: if a folder isn't a finished part of this evaluation, or a part is missing.
    """
    answers: dict[Key, GenerationRecord] = {}
    likelihoods: list[LikelihoodRecord] = []
    found: dict[Shard, RunHeader] = {}
    for folder in folders:
        part = read_header(folder)
        if part is None or part.shard is None:
            raise BfpoError(f"{folder}: is not part of an evaluation; name folders written with --shard")
        if not part.finished:
            raise BfpoError(f"{folder}: part {part.shard} is unfinished; repeat its command, then merge")
        check_same_run(folder, part, header, what="a part of a run")
        found[Shard.parse(part.shard)] = part
        answers |= {key_of(record): record for record in read_generations(folder / GENERATIONS)}
        likelihoods += read_likelihoods(folder / LIKELIHOODS)
    sizes = {shard.of for shard in found}
    if found and (len(sizes) > 1 or len(found) < max(sizes) or len(folders) > len(found)):
        named = ", ".join(map(str, sorted(found, key=lambda shard: (shard.of, shard.number))))
        raise BfpoError(f"--merge: got the parts {named}; name every part of one division once")
    return Work(shard, answers, likelihoods, list(found.values()))
