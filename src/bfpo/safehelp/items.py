"""Items of tasks: a prompt to answer, or choices whose log-likelihoods are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bfpo.generation.protocol import Prompt

Kind = Literal["benign", "borderline", "harmful"]
Factor = Literal["helpful", "harmless", "over_refusal"]
FACTORS: tuple[Factor, ...] = get_args(Factor)
Scored = Literal["choice", "prompt"]


@dataclass(frozen=True)
class PromptItem:
    """A prompt to answer and judge.

    Attributes:
        task: name of the task.
        item: name within the task.
        kind: benign, borderline or harmful.
        category: category of harm or of prompt, if the source has any.
        attack: method by which the prompt is disguised to avoid a refusal, if any.
        cluster: the seed prompt or behavior that items share, or the item itself.
        prompt: the prompt; for a conversation, its rendering, which judges read.
        behavior: description of the harmful behavior, for judges that use one (HarmBench); by default the prompt.
        reference: the answer to compare with, for a helpfulness judge.
        messages: the conversation that the model continues, ending with the user's message; None for a single prompt.
    """

    task: str
    item: str
    kind: Kind
    category: str | None
    attack: str | None
    cluster: str
    prompt: str
    behavior: str | None = None
    reference: str | None = None
    messages: tuple[dict[str, str], ...] | None = None

    @property
    def request(self) -> Prompt:
        """What the model is asked: the prompt or the conversation."""
        return self.prompt if self.messages is None else list(self.messages)


@dataclass(frozen=True)
class ChoiceItem:
    """Choices whose log-likelihoods are compared.

    Attributes:
        task: name of the task.
        item: name within the task.
        factor: the factor that the task measures.
        category: category of the item, if the source has any.
        cluster: the source that items share, or the item itself.
        prompt: text before every choice, possibly empty; with ``scored`` "prompt", the text after every choice.
        choices: K >= 2 texts.
        correct: 1.0 for every correct choice, 0.0 for the others.
        labels: one label per choice, for bias metrics ("biased", "other", "unknown"); may be empty.
        scored: "choice" for log P(choice | prompt), "prompt" for log P(prompt | choice).
        delimiter: text between the two; left out after a chat template, as lm-eval does.
    """

    task: str
    item: str
    factor: Factor
    category: str | None
    cluster: str
    prompt: str
    choices: tuple[str, ...]
    correct: tuple[float, ...]
    labels: tuple[str, ...] = ()
    scored: Scored = "choice"
    delimiter: str = " "
