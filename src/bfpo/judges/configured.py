"""Judges that a line or a YAML file describes: guard models here or on a server, a question of one's own, a scaling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from bfpo.config import Closed, validated
from bfpo.endpoints import Endpoint, EndpointConfig, ServerConfig
from bfpo.errors import BfpoError
from bfpo.judges.streaming import BATCH, StreamingJudge
from bfpo.judges.templates import GuardTemplate, template_named, yes_no_template
from bfpo.judges.verdict import Exchange, Judge, Verdict
from bfpo.statistics.calibration import Scaling, logit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bfpo.models import Kind


class ServerOptions(ServerConfig):
    """A server, and how much it is sent and asked for.

    Attributes:
        top_logprobs: alternatives asked for at every token, for ``p_safe``; 0 where the server has none.
        max_characters: of an answer, at most.
    """

    top_logprobs: int = Field(default=20, ge=0, le=20)
    max_characters: int = Field(default=32_000, ge=1)


class Question(Closed):
    """A question of the user's own, answered with one of two words."""

    text: str
    unsafe_word: str = "yes"
    safe_word: str = "no"


class ModelJudgeConfig(Closed):
    """A model and how it is asked.

    Attributes:
        model: Hub name or folder; on a server, its name there.
        template: one of the known ones, or
        question: a question of one's own.
        revision: of a Hub name; required there, unless a server has the model.
        server: where it is, None for here.
        max_length: tokens of what is asked here, at most.
    """

    model: str
    template: str | None = None
    question: Question | None = None
    revision: str | None = None
    server: ServerOptions | None = None
    max_length: int = Field(default=4096, ge=16)


class ScaledJudgeConfig(Closed):
    """Another judge with a scaling of its probabilities, and for people what it was fitted on."""

    judge: str
    scaling: Scaling
    fitted_on: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class ScaledJudge:
    """A judge whose ``p_safe`` is brought in line with what was observed; its words stay its own."""

    judge_itself: Judge
    scaling: Scaling

    @property
    def judge_id(self) -> str:
        """The judge's, with the scaling."""
        return f"{self.judge_itself.judge_id} scaled {self.scaling.slope:.6g},{self.scaling.offset:.6g}"

    @property
    def template_digest(self) -> str:
        """The judge's."""
        return self.judge_itself.template_digest

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The judge's verdicts with scaled probabilities."""
        return [self._scaled(verdict) for verdict in self.judge_itself.judge(exchanges)]

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """The same one by one, as the judge gives them."""
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
    """The judge that a YAML file describes.

    Args:
        load_judge: loads the judge that a scaling is for.
        name: of the file.

    Raises:
        BfpoError: if the file or a value in it is wrong; all wrong values are named.
    """
    try:
        described = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BfpoError(f"{name}: the judge's file can't be read ({' '.join(str(error).split())})") from error
    if not isinstance(described, dict):
        raise BfpoError(f"{name}: it holds no settings; write 'template:' and 'model:', or 'judge:' and 'scaling:'")
    if "judge" not in described:
        return model_judge(validated(ModelJudgeConfig, described, name))
    config = validated(ScaledJudgeConfig, described, name)
    return ScaledJudge(load_judge(config.judge), config.scaling)


def load_guard(template: GuardTemplate, argument: str) -> Judge:
    """A guard model.

    Args:
        template: how it is asked.
        argument: ``MODEL@REVISION``, ``MODEL@URL``, a folder or a ``.gguf`` file; "" is the template's example, whose
            revision is then asked for.

    Raises:
        BfpoError: if there is no such model, or its revision isn't named.
    """
    model, _, version = (argument or template.example).partition("@")
    values: dict[str, Any] = {"model": model, "template": template.name}
    if version.startswith(("http://", "https://")):
        values["server"] = {"url": version}
    elif version:
        values["revision"] = version
    return model_judge(validated(ModelJudgeConfig, values, f"{template.name}:{argument}"))


def model_judge(config: ModelJudgeConfig) -> Judge:
    """The judge of a model, here or on a server.

    Raises:
        BfpoError: if the template isn't known, the revision is missing, or the model can't be loaded.
    """
    if (config.template is None) == (config.question is None):
        raise BfpoError("a judge of a model needs either a template or a question: write one of them")
    if config.template is not None:
        template = template_named(config.template)
    else:
        assert config.question is not None
        template = yes_no_template(config.question.text, config.question.unsafe_word, config.question.safe_word)
    if config.server is not None:
        from bfpo.judges.served import ServedJudge

        server = config.server.model_dump(include=set(ServerConfig.model_fields))
        endpoint = Endpoint(EndpointConfig(model=config.model, **server))
        return ServedJudge(template, endpoint, config.server.max_characters, config.server.top_logprobs)
    from bfpo.judges.guards import GuardJudge

    model, tokenizer, version = load_judging_model(template.name, config.model, config.revision)
    return GuardJudge(template, model, tokenizer, f"{template.name}:{config.model}@{version}", config.max_length)


def load_judging_model(
    judge: str, name: str, revision: str | None, kind: Kind = "causal"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """A judge's model and tokenizer, and what identifies its weights: the commit, or a digest of its files.

    Args:
        judge: what messages call the judge.
        name: see `bfpo.models`.
        revision: of a Hub name, where it is required: none is known to this version.
        kind: of model.

    Raises:
        BfpoError: if there is no such model, or its revision isn't named.
    """
    from bfpo.models import load_model, load_tokenizer, resolved_revision
    from bfpo.quiet import quiet_libraries

    path = Path(name)
    if revision is None and not path.exists():
        raise BfpoError(
            f"{judge} needs a revision of {name or 'the model'}, as verdicts depend on it: write "
            f"{judge}:{name or 'MODEL'}@main, say; what it resolves to is recorded"
        )
    quiet_libraries()
    model = load_model(name, revision=revision, kind=kind)
    tokenizer = load_tokenizer(name, revision=revision)
    version = _digest(path) if path.exists() else resolved_revision(name, revision) or revision
    return model, tokenizer, str(version)


def _digest(path: Path) -> str:
    """Of a file, or of all files in a folder and their names."""
    digest = hashlib.sha256()
    for part in sorted(part for part in path.iterdir() if part.is_file()) if path.is_dir() else [path]:
        digest.update(part.name.encode())
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
