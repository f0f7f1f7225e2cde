"""Verdicts from an output and the probabilities of its deciding token; shared by local and served guard models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bfpo.judges.guard_templates import GuardTemplate
from bfpo.judges.verdict import Judge, Verdict

# Probability of being safe of a "controversial" answer; Qwen3Guard's strict mode reads it as 0, its loose mode as 1.
CONTROVERSIAL_IS_SAFE = 0.5


def deciding_step(template: GuardTemplate, pieces: Iterable[str]) -> int | None:
    """Index of the deciding token in an output, given by its tokens as text up to there; None if it has none."""
    text, found = "", None
    for step, piece in enumerate(pieces):
        if template.decides_after(text):
            found = step
        elif found is not None:
            break
        text += piece
    return found


def verdict_of(
    judge: Judge, template: GuardTemplate, output: str, probabilities: Mapping[str, float] | None
) -> Verdict:
    """The verdict in a guard's output, the only text that is parsed.

    ``probabilities`` are those of each valid word at the deciding token; None if unknown, and then the label alone
    decides ``p_safe``. The same holds if the label's own word has none: the probabilities are of another token.
    """
    parsed = template.parse(output)
    label_words = [word for word, label in template.words.items() if label == parsed.label]
    if probabilities and label_words and not any(probabilities[word] for word in label_words):
        probabilities = None
    mass = sum(probabilities.values()) if probabilities else None
    p_safe = None
    if parsed.harm is not None:
        p_safe = 1 - parsed.harm
    elif parsed.label != "unparsed":
        p_safe = _p_safe(template, probabilities or {}, mass or 0.0, parsed.label)
    return Verdict(
        label=parsed.label,
        p_safe=p_safe,
        refusal=parsed.refusal,
        categories=parsed.categories,
        raw=output,
        mass=min(1.0, mass) if mass is not None else None,
        judge_id=judge.judge_id,
        template_digest=judge.template_digest,
        harm=parsed.harm,
    )


def _p_safe(template: GuardTemplate, probabilities: Mapping[str, float], mass: float, label: str) -> float:
    worth = {"safe": 1.0, "unsafe": 0.0, "controversial": CONTROVERSIAL_IS_SAFE}
    if mass <= 0:
        return worth[label]
    return min(1.0, sum(p * worth[template.words[word]] for word, p in probabilities.items()) / mass)
