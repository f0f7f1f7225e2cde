"""Judges that labeled a model's training data: they don't evaluate it, because it may have learned to please them."""

from __future__ import annotations

from collections.abc import Sequence

from bfpo.errors import BfpoError
from bfpo.judges.preference import HelpfulnessJudge
from bfpo.judges.verdict import Judge, unscaled
from bfpo.safehelp.training_records import training_record, training_setting


def labelers_of(model_paths: Sequence[str], named: str | None = None) -> list[str]:
    """Ids of the judges that labeled the training data of models, and of the models that these were trained from.

    They are those that the data names, by the ``run.json`` in a model's folder, and one that is ``named`` besides.
    """
    found: dict[str, None] = {}
    seen: set[str] = set()
    for path in model_paths:
        model_path: str | None = path
        while model_path and model_path not in seen:
            seen.add(model_path)
            training = training_record(model_path)
            for source in training.get("data", []):
                found |= dict.fromkeys(((source.get("labels") or {}).get("flags") or {}).get("judges", ()))
            model_path = training_setting(training, "model")
    return [*found, *([named] if named and named not in found else [])]


def check_labelers(labelers: Sequence[str], judges: Sequence[Judge | HelpfulnessJudge]) -> None:
    """Refuse judges that labeled the training data; a suite's own exact judge is never among them.

    Raises:
        BfpoError: if there is one.
    """
    for judge in judges:
        # With or without a scaling of its probabilities, a judge gives the same labels.
        if unscaled(judge.judge_id) in map(unscaled, labelers):
            raise BfpoError(
                f"{judge.judge_id} labeled the model's training data, so the model may have learned to please it: name "
                "another judge, or allow this one with --allow-labeling-judge"
            )
