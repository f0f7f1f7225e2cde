"""`RecordedAnswers`: replays answers that were made elsewhere, from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bfpo.errors import BfpoError
from bfpo.files import file_sha256
from bfpo.generation.protocol import Completion, Decoding, Generator, ModelIdentity, SampleRequest
from bfpo.preferences.messages import rendered, text_of
from bfpo.preferences.reading import Row, is_csv, parse_cell, read_rows
from bfpo.preferences.schema import PreferenceDataError, Problem, RowError

# Names of the answer's column, and optional columns with their types.
_ANSWER = ("answer", "response", "completion")
_OPTIONAL = {"truncated": bool, "tokens": int, "thinking": str, "refusal": str, "failure": str}


@dataclass(frozen=True)
class RecordedAnswers(Generator):
    """Replays answers by prompt; the answers to equal prompts are its samples, in the order of the file.

    Attributes:
        path: the file.
        digest: its SHA-256.
        answers: the answers to each prompt.
        samples: number of answers that every prompt of the suite has.
        unused: number of answers in the file to other prompts, or beyond ``samples``.
        system_prompt: system prompt that the answers were sampled with, if stated.
        stated: decoding that the answers were sampled with, as far as stated.
    """

    path: str
    digest: str
    answers: Mapping[str, Sequence[Completion]]
    samples: int = 1
    unused: int = 0
    system_prompt: str | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        path: str | Path,
        prompts: Iterable[str],
        *,
        samples: int | None = None,
        system_prompt: str | None = None,
        stated: Mapping[str, Any] | None = None,
    ) -> RecordedAnswers:
        """Read the answers to a suite's prompts.

        Args:
            path: file with columns ``prompt`` (a text or messages) and ``answer`` (or ``response``, ``completion``),
                such as the ``generations.jsonl`` of a run; optional columns are ``truncated``, ``tokens``,
                ``thinking``, ``refusal`` and ``failure``.
            prompts: the suite's prompts; conversations as `bfpo.preferences.messages.rendered`.
            samples: number of answers to each prompt; by default as many as every prompt has.
            system_prompt: system prompt that the answers were sampled with.
            stated: decoding that the answers were sampled with, for the run's header.

        Raises:
            BfpoError: if a prompt has no answer or too few, or a row is malformed.
        """
        answers = _read(str(path))
        wanted = list(dict.fromkeys(prompts))
        missing = [prompt for prompt in wanted if len(answers.get(prompt, ())) < (samples or 1)]
        if missing:
            few = "no answer" if samples in (None, 1) else f"fewer than {samples} answers"
            raise BfpoError(
                f"{path}: has {few} to {len(missing):,} of the suite's {len(wanted):,} prompts, the first of which "
                f"begins with {missing[0][:40]!r}; add them, or choose tasks with --task"
            )
        samples = samples or min((len(answers[prompt]) for prompt in wanted), default=1)
        unused = sum(map(len, answers.values())) - samples * len(wanted)
        digest = file_sha256(path)
        return cls(str(path), digest, answers, samples, unused, system_prompt, dict(stated or {}))

    @property
    def identity(self) -> ModelIdentity:
        """The file and its digest."""
        return ModelIdentity(self.path, self.digest, system_prompt=self.system_prompt)

    def defaults(self, decoding: Decoding) -> Decoding:
        """The decoding with the recorded number of samples, and the temperature that was stated."""
        return replace(decoding, samples=self.samples, temperature=self.stated.get("temperature", 1.0))

    def settings(self, decoding: Decoding) -> Mapping[str, Any]:
        """What was stated about the decoding, and the number of samples."""
        return {**self.stated, "samples": decoding.samples}

    def generate(self, batch: Sequence[SampleRequest], decoding: Decoding) -> list[Completion]:
        """The recorded answer to every request."""
        return [self.answers[rendered(request.prompt)][request.sample] for request in batch]


def _read(name: str) -> dict[str, list[Completion]]:
    problems: list[Problem] = []
    answers: dict[str, list[Completion]] = {}
    for number, read in read_rows(name, "train", None):
        row = _from_csv(read) if is_csv(name) else read
        found = [Problem(number, *problem) for problem in _problems(row)]
        problems += found
        if not found:
            column = next(column for column in _ANSWER if column in row)
            extra: dict[str, Any] = {"truncated": False}
            extra |= {key: row[key] for key in _OPTIONAL if row.get(key) is not None}
            answers.setdefault(_prompt(row), []).append(Completion(row[column].strip(), **extra))
    if problems:
        raise PreferenceDataError(name, problems, is_set=False)
    return answers


def _from_csv(row: Row) -> Row:
    """A row of a CSV file, in which numbers are texts, and an empty answer is null."""
    cells = {key: parse_cell(row[key]) for key in ("truncated", "tokens") if isinstance(row.get(key), str)}
    return row | cells | {key: "" for key in _ANSWER if key in row and row[key] is None}


def _prompt(row: Row) -> str:
    prompt = text_of(row.get("prompt"), "prompt")
    messages = prompt if isinstance(prompt, list) else []
    if isinstance(prompt, str) or (messages and all(isinstance(message["content"], str) for message in messages)):
        return rendered(prompt)
    raise RowError("prompt", "it is missing, or neither a string nor a list of messages", "write a string")


def _problems(row: Row) -> Iterator[tuple[str | None, str, str]]:
    try:
        _prompt(row)
    except RowError as error:
        yield error.column, error.what, error.remedy
    column = next((column for column in _ANSWER if column in row), None)
    if column is None:
        yield "answer", "it is missing", f"name the column {', '.join(_ANSWER[:-1])} or {_ANSWER[-1]}"
    elif not isinstance(row[column], str):
        yield column, "it is not a string", 'write a string, "" for an empty answer'
    for key, kind in _OPTIONAL.items():
        value = row.get(key)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            yield key, f"{value!r} is not of type {kind.__name__}", "correct it, or leave the column out"
