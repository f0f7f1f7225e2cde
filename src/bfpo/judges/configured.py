"""Judges configured by a specification or a YAML file: local or served guard models, custom questions, scalings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bfpo.config import Closed, read_yaml, validated
from bfpo.endpoints import Endpoint, EndpointConfig, ServerConfig
from bfpo.errors import BfpoError
from bfpo.files import file_sha256
from bfpo.judges.guard_templates import GuardTemplate, template_named, yes_no_template
from bfpo.judges.rubric import rubric_template
from bfpo.judges.streaming import BATCH, StreamingJudge
from bfpo.judges.verdict import SCALED, Exchange, Judge, Verdict, WrappedJudge
from bfpo.statistics.calibration import Scaling, check_scaling, logit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bfpo.models import Kind

# Tokens of a rubric's output: a line for each score, with a few words of reasons.
_RUBRIC_TOKENS = 256


class ServerOptions(ServerConfig):
    """A server and the limits of its requests.

    Attributes:
        top_logprobs: number of alternatives requested at every token, for ``p_safe``; 0 if the server has none.
        max_characters: largest number of characters of an answer.
    """

    top_logprobs: int = Field(default=20, ge=0, le=20)
    max_characters: int = Field(default=32_000, ge=1)


class Question(Closed):
    """A custom question, answered with one of two words."""

    text: str
    unsafe_word: str = "yes"
    safe_word: str = "no"


class Rubric(Closed):
    """A rubric in StrongREJECT's form, see `bfpo.judges.rubric.rubric_template`."""

    text: str
    scores: dict[str, tuple[float, float]]
    refused: str | None = None
    unsafe_from: float = Field(default=0.5, gt=0, le=1)


class ModelJudgeConfig(Closed):
    """A model with a template, a question or a rubric; exactly one of the three is set.

    Attributes:
        model: Hub name or folder, or the server's name of the model.
        template: name of a known template.
        question: custom question.
        rubric: custom rubric.
        revision: revision of a Hub name; by default the main branch. The commit is recorded.
        server: server that runs the model; None to run it locally.
        max_length: largest number of tokens in a local request.
        max_new_tokens: largest number of tokens in an output, thinking included; by default the template's.
    """

    model: str
    template: str | None = None
    question: Question | None = None
    rubric: Rubric | None = None
    revision: str | None = None
    server: ServerOptions | None = None
    max_length: int = Field(default=4096, ge=16)
    max_new_tokens: int | None = Field(default=None, ge=1)


class ScaledJudgeConfig(Closed):
    """Another judge with a scaling of its probabilities; ``fitted_on`` records where the scaling comes from."""

    judge: str
    scaling: Scaling
    fitted_on: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class ScaledJudge(WrappedJudge):
    """A judge with calibrated ``p_safe``; its labels are unchanged.

    Attributes:
        judge_itself: the judge under the scaling.
        scaling: the scaling.
        labels_sha256: SHA-256 of the file of labels that the scaling was fitted to; "" if unknown.
    """

    scaling: Scaling
    labels_sha256: str = ""

    @property
    def judge_id(self) -> str:
        """Id of the underlying judge, with the scaling."""
        return f"{self.judge_itself.judge_id}{SCALED}{self.scaling.slope:.6g},{self.scaling.offset:.6g}"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for every exchange, with scaled probabilities."""
        return [self._scaled(verdict) for verdict in self.judge_itself.judge(exchanges)]

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """The same verdicts one by one, as the underlying judge yields them."""
        if isinstance(self.judge_itself, StreamingJudge):
            yield from map(self._scaled, self.judge_itself.stream(exchanges))
            return
        rest = iter(exchanges)
        while batch := list(islice(rest, BATCH)):
            yield from self.judge(batch)

    def _scaled(self, verdict: Verdict) -> Verdict:
        if verdict.p_safe is None:
            return replace(verdict, judge_id=self.judge_id)
        p_safe = float(self.scaling.apply(logit([verdict.p_safe]))[0])
        return replace(verdict, p_safe=p_safe, judge_id=self.judge_id)


def load_configured(load_judge: Callable[[str], Judge], name: str) -> Judge:
    """Load a judge from a YAML file; ``load_judge`` loads the one under a scaling.

    Raises:
        BfpoError: if the file can't be read; all wrong values are named.
    """
    config = _configuration(name)
    if isinstance(config, ModelJudgeConfig):
        return model_judge(config)
    return ScaledJudge(load_judge(config.judge), config.scaling, str(config.fitted_on.get("sha256", "")))


def check_configured(check_judge: Callable[[str], None], name: str) -> None:
    """Check a YAML file of `load_configured`; ``check_judge`` checks the judge under a scaling."""
    config = _configuration(name)
    if isinstance(config, ModelJudgeConfig):
        _check_model(config)
    else:
        check_judge(config.judge)


def _configuration(name: str) -> ModelJudgeConfig | ScaledJudgeConfig:
    described = read_yaml(Path(name), "a judge with 'template' and 'model', or 'judge' and 'scaling'")
    if "judge" not in described:
        return validated(ModelJudgeConfig, described, name)
    config = validated(ScaledJudgeConfig, described, name)
    check_scaling(config.scaling, name)
    return config


def load_guard(template: GuardTemplate, argument: str) -> Judge:
    """Load a guard model: ``MODEL`` or ``MODEL@REVISION`` on the Hub, ``MODEL@URL``, a folder or a ``.gguf`` file.

    "" stands for the template's example model.

    Raises:
        BfpoError: if the model doesn't exist.
    """
    return model_judge(_guard_configuration(template, argument))


def check_guard(template: GuardTemplate, argument: str) -> None:
    """Check that a guard model of `load_guard` exists."""
    _check_model(_guard_configuration(template, argument))


def _guard_configuration(template: GuardTemplate, argument: str) -> ModelJudgeConfig:
    model, _, version = (argument or template.example).partition("@")
    values: dict[str, Any] = {"model": model, "template": template.name}
    if version.startswith(("http://", "https://")):
        values["server"] = {"url": version}
    elif version:
        values["revision"] = version
    return validated(ModelJudgeConfig, values, f"{template.name}:{argument}")


def _check_model(config: ModelJudgeConfig) -> None:
    """Check that a judge's template exists and, unless a server runs it, its model."""
    _template(config)
    if config.server is None:
        from bfpo.models import load_config

        load_config(config.model, revision=config.revision)


def model_judge(config: ModelJudgeConfig) -> Judge:
    """Build the judge of a local or served model.

    Raises:
        BfpoError: if the template is unknown, or the model can't be loaded.
    """
    template = _template(config)
    if config.max_new_tokens is not None:
        template = replace(template, max_new_tokens=config.max_new_tokens)
    if config.server is not None:
        from bfpo.judges.served import ServedJudge

        server = config.server.model_dump(include=set(ServerConfig.model_fields))
        endpoint = Endpoint(EndpointConfig(model=config.model, **server))
        return ServedJudge(template, endpoint, config.server.max_characters, config.server.top_logprobs)
    from bfpo.judges.guards import GuardJudge

    model, tokenizer, version = load_judging_model(template.name, config.model, config.revision)
    return GuardJudge(template, model, tokenizer, f"{template.name}:{config.model}@{version}", config.max_length)


def _template(config: ModelJudgeConfig) -> GuardTemplate:
    if [config.template, config.question, config.rubric].count(None) != 2:
        raise BfpoError("a model judge needs a template, a question or a rubric; write one of the three")
    if config.question:
        return yes_no_template(config.question.text, config.question.unsafe_word, config.question.safe_word)
    if config.rubric:
        rubric = config.rubric
        return rubric_template(rubric.text, rubric.scores, rubric.refused, rubric.unsafe_from, _RUBRIC_TOKENS)
    return template_named(config.template or "")


def load_judging_model(
    judge: str, name: str, revision: str | None, kind: Kind = "causal"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """Load a judge's model and tokenizer, with the version of its weights: a commit, or a digest of its files.

    ``judge`` is its name in messages; for the rest see `bfpo.models.load_model`.

    Raises:
        BfpoError: if the model doesn't exist.
    """
    from bfpo.models import load_model, load_tokenizer, resolved_revision
    from bfpo.quiet import quiet_libraries

    if not name:
        raise BfpoError(f"{judge} needs a model: write, for example, {judge}:MODEL")
    quiet_libraries()
    model = load_model(name, revision=revision, kind=kind)
    # The tokenizer of the same commit, even if the branch moves on meanwhile.
    commit = resolved_revision(name, revision)
    tokenizer = load_tokenizer(name, revision=commit or revision)
    path = Path(name)
    return model, tokenizer, _digest(path) if os.path.exists(path) else commit or revision or "main"


def _digest(path: Path) -> str:
    """Digest of a file, or of all files in a folder with their names."""
    digest = hashlib.sha256()
    for part in sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]:
        digest.update(part.name.encode())
        digest.update(bytes.fromhex(file_sha256(part)))
    return digest.hexdigest()[:16]
