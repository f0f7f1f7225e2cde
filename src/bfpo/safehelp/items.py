"""What a task asks: a prompt to be answered, or choices whose log-likelihoods are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["benign", "borderline", "harmful"]
Factor = Literal["helpful", "harmless", "over_refusal"]
FACTORS: tuple[Factor, ...] = get_args(Factor)
Scored = Literal["choice", "prompt"]


@dataclass(frozen=True)
class PromptItem:
    """A prompt to be answered and judged.

    Attributes:
        task: name of the task.
        item: name within the task.
        kind: benign, borderline or harmful.
        category: kind of harm or of prompt, if the source has any.
        attack: what was done to the prompt to get round a refusal, if anything.
        cluster: what items share (seed prompt, behaviour); the item itself otherwise.
        prompt: the question.
        behavior: what a harmful answer would do, for judges that are told; by default the prompt.
        reference: the answer to compare with, for a pairwise judge.
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


@dataclass(frozen=True)
class ChoiceItem:
    """Texts whose log-likelihoods are compared.

    Attributes:
        task: name of the task.
        item: name within the task.
        factor: what is measured.
        category: kind of item, if the source has any.
        cluster: what items share; the item itself otherwise.
        prompt: what precedes every choice, possibly nothing; with ``scored`` "prompt", what follows every choice.
        choices: K >= 2 texts.
        correct: 1.0 for every right choice, 0.0 for the others.
        labels: one word a choice, for metrics that ask what was chosen ("biased", "other", "unknown"); may be empty.
        scored: "choice" for log P(choice | prompt), "prompt" for log P(prompt | choice).
        delimiter: between what precedes and what follows; left out after a chat template, as lm-eval does.
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
