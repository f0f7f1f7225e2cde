"""Judges that a line or a YAML file describes: guard models here or on a server, a question of one's own, a scaling."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bfpo.endpoints import Endpoint, EndpointConfig
from bfpo.errors import BfpoError, did_you_mean
from bfpo.judges.calibration import Scaling, logit
from bfpo.judges.registry import load_judge, register_judge
from bfpo.judges.streaming import BATCH, StreamingJudge
from bfpo.judges.templates import TEMPLATES, GuardTemplate, template_named, yes_no_template
from bfpo.judges.verdict import Exchange, Judge, Verdict


class ServerOptions(BaseModel):
    """`EndpointConfig` without the model, which a judge names itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    api_key_env: str | None = None
    concurrency: int = 32
    timeout: float = 120.0
    attempts: int = 6
    requests_per_minute: float | None = None
    top_logprobs: int = Field(default=20, ge=0, le=20)
    max_characters: int = Field(default=32_000, ge=1)


class Question(BaseModel):
    """A question of the user's own, answered with one of two words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    unsafe_word: str = "yes"
    safe_word: str = "no"


class ModelJudgeConfig(BaseModel):
    """A model and how it is asked.

    Attributes:
        model: Hub name or folder; on a server, its name there.
        template: one of the known ones, or
        question: a question of one's own.
        revision: of a Hub name; required there, unless a server has the model.
        server: where it is, None for here.
        max_length: tokens of what is asked here, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    template: str | None = None
    question: Question | None = None
    revision: str | None = None
    server: ServerOptions | None = None
    max_length: int = Field(default=4096, ge=16)


class ScaledJudgeConfig(BaseModel):
    """Another judge with a scaling of its probabilities, and for people what it was fitted on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str
    scaling: dict[str, float]
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


@register_judge("configured", "FILE.yaml", "a judge that a YAML file describes (docs/how-to/judge.md)")
def load_configured(name: str) -> Judge:
    """The judge that a YAML file describes.

    Raises:
        BfpoError: if the file or a value in it is wrong; all wrong values are named.
    """
    path = Path(name)
    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BfpoError(f"{name}: the judge's file can't be read ({' '.join(str(error).split())})") from error
    if not isinstance(described, dict):
        raise BfpoError(f"{name}: it holds no settings; write 'template:' and 'model:', or 'judge:' and 'scaling:'")
    kind = ScaledJudgeConfig if "judge" in described else ModelJudgeConfig
    try:
        config = kind.model_validate(described)
        if isinstance(config, ScaledJudgeConfig):
            return ScaledJudge(load_judge(config.judge), Scaling(**config.scaling))
    except ValidationError as error:
        raise BfpoError(f"{name}: {_wrong_values(error, kind)}") from error
    except TypeError:
        raise BfpoError(f"{name}: scaling holds {list(described['scaling'])}; write slope and offset") from None
    return model_judge(config)


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

        options = config.server.model_dump(exclude={"top_logprobs", "max_characters"})
        try:
            endpoint = Endpoint(EndpointConfig(model=config.model, **options))
        except ValidationError as error:
            raise BfpoError(_wrong_values(error, EndpointConfig)) from error
        return ServedJudge(template, endpoint, config.server.max_characters, config.server.top_logprobs)
    return _local_judge(template, config)


def _local_judge(template: GuardTemplate, config: ModelJudgeConfig) -> Judge:
    from transformers import AutoModelForCausalLM

    from bfpo.judges.guards import GuardJudge

    model, tokenizer, version = load_model(AutoModelForCausalLM, template.name, config.model, config.revision)
    return GuardJudge(template, model, tokenizer, f"{template.name}:{config.model}@{version}", config.max_length)


def load_model(auto_class: Any, kind: str, name: str, revision: str | None) -> tuple[Any, Any, str]:
    """A judge's model and tokenizer, and what identifies its weights: the commit, or a digest of a folder's files.

    Args:
        auto_class: transformers' class for it.
        kind: what messages call the judge.
        name: Hub name or folder.
        revision: of a Hub name, where it is required: none is known to this version.

    Raises:
        BfpoError: if there is no such model, or its revision isn't named.
    """
    from transformers import AutoTokenizer

    from bfpo.quiet import quiet_libraries

    folder = Path(name)
    if revision is None and not folder.is_dir():
        raise BfpoError(
            f"{kind} needs a revision of {name or 'the model'}, as verdicts depend on it: write "
            f"{kind}:{name or 'MODEL'}@main, say; what it resolves to is recorded"
        )
    quiet_libraries()
    try:
        model = auto_class.from_pretrained(name, revision=revision or "main", dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise BfpoError(f"{kind}: the model {name!r} can't be loaded: {' '.join(str(error).split())}") from error
    if folder.is_dir():
        return model, tokenizer, _folder_digest(folder)
    return model, tokenizer, str(getattr(model.config, "_commit_hash", None) or revision)


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _wrong_values(error: ValidationError, model: type[BaseModel]) -> str:
    known = list(model.model_fields)
    parts = []
    for wrong in error.errors():
        field = ".".join(str(part) for part in wrong["loc"]) or "settings"
        hint = did_you_mean(field, known) if wrong["type"] == "extra_forbidden" else ""
        parts.append(f"{field}: {wrong['msg'].removeprefix('Value error, ')}{hint}")
    return "; ".join(parts)


def _register(template: GuardTemplate) -> None:
    argument = "MODEL@REVISION | MODEL@URL | FOLDER"

    @register_judge(template.name, argument, f"guard model, e.g. {template.example}, here or on a server")
    def load(argument: str) -> Judge:
        model, _, version = (argument or template.example).partition("@")
        if version.startswith(("http://", "https://")):
            config = ModelJudgeConfig(model=model, template=template.name, server=ServerOptions(url=version))
        else:
            config = ModelJudgeConfig(model=model, template=template.name, revision=version or None)
        return model_judge(config)


for _template in TEMPLATES.values():
    _register(_template)
