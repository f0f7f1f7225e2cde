"""What a judge's word is worth: Bayes with how often it is wrong and how common safe answers are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Label, Verdict

WORDS: tuple[Label, ...] = ("safe", "unsafe", "controversial")
# Of each kind, answers with people's labels that a judge's error is estimated from; fewer say too little.
MINIMUM_OF_EACH = 10


@dataclass(frozen=True)
class VerdictRates:
    """How often a judge says which word of safe and of unsafe answers: its error, known or estimated.

    Attributes:
        given_safe: probability of each word of `WORDS` for an answer that is safe; they add up to 1.
        given_unsafe: the same for an answer that is unsafe.
        n_safe: safe answers that this was estimated from.
        n_unsafe: unsafe answers that this was estimated from.
    """

    given_safe: Mapping[str, float]
    given_unsafe: Mapping[str, float]
    n_safe: int = 0
    n_unsafe: int = 0

    @property
    def sensitivity(self) -> float:
        """P(not called safe | unsafe)."""
        return 1 - self.given_unsafe["safe"]

    @property
    def specificity(self) -> float:
        """P(called safe | safe)."""
        return self.given_safe["safe"]

    @classmethod
    def of_rates(cls, sensitivity: float, specificity: float) -> VerdictRates:
        """The error of a judge that only says "safe" and "unsafe".

        Raises:
            BfpoError: if a rate is not in [0, 1].
        """
        for name, rate in (("sensitivity", sensitivity), ("specificity", specificity)):
            if not 0 <= rate <= 1:
                raise BfpoError(f"a judge's {name} is a share in [0, 1], not {rate}")
        return cls(
            {"safe": specificity, "unsafe": 1 - specificity, "controversial": 0.0},
            {"safe": 1 - sensitivity, "unsafe": sensitivity, "controversial": 0.0},
        )


def estimate_rates(is_safe: Sequence[float], verdicts: Sequence[Verdict]) -> VerdictRates | None:
    """A judge's error on answers with people's labels, half an answer added to every count (Jeffreys' prior).

    Labels that are probabilities count on both sides in proportion; unparsed verdicts say nothing and are left out.
    None if fewer than `MINIMUM_OF_EACH` safe or unsafe answers are left.

    Args:
        is_safe: [N] what people said, flags or probabilities.
        verdicts: [N] what the judge said of the same answers; one that learned from these labels looks better than
            it is.
    """
    counts = {True: Counter[str](), False: Counter[str]()}
    for safe, verdict in zip(is_safe, verdicts, strict=True):
        if verdict.label != "unparsed":
            counts[True][verdict.label] += safe  # pyright: ignore[reportArgumentType]
            counts[False][verdict.label] += 1 - safe  # pyright: ignore[reportArgumentType]
    sizes = {kind: sum(words.values()) for kind, words in counts.items()}
    if min(sizes.values()) < MINIMUM_OF_EACH:
        return None
    used = [word for word in WORDS if counts[True][word] or counts[False][word] or word != "controversial"]

    def shares(kind: bool) -> dict[str, float]:
        total = sizes[kind] + 0.5 * len(used)
        return {word: (counts[kind][word] + 0.5) / total if word in used else 0.0 for word in WORDS}

    return VerdictRates(shares(True), shares(False), round(sizes[True]), round(sizes[False]))


def base_rate(is_safe: Sequence[float]) -> float:
    """P(safe) of a source, from the answers of it that people labelled, with Jeffreys' half an answer on each side."""
    return (sum(is_safe) + 0.5) / (len(is_safe) + 1)


def posterior_safe(verdicts: Sequence[Verdict], errors: Sequence[VerdictRates], prior: float) -> float | None:
    """P(safe | what the judges said, source), in [0, 1] by construction; None if no judge was understood.

    By Bayes: odds(safe) = prior/(1 - prior) times P(word | safe)/P(word | unsafe) of every judge. Several judges
    count as independent given the truth, which overstates how sure they are where they err together.

    Args:
        verdicts: of one answer, from every judge.
        errors: of the same judges.
        prior: the source's share of safe answers, see `base_rate`.
    """
    safe, unsafe, heard = prior, 1 - prior, False
    for verdict, error in zip(verdicts, errors, strict=True):
        if verdict.label == "unparsed":
            continue
        heard = True
        safe *= error.given_safe[verdict.label]
        unsafe *= error.given_unsafe[verdict.label]
    if not heard:
        return None
    # A word that the judge never uses for either kind says nothing.
    return safe / (safe + unsafe) if safe + unsafe > 0 else prior
