"""Short names of public data sets, with their place on the Hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicSet:
    """One public data set; `shapes` recognizes its rows by their columns.

    Attributes:
        name: short name.
        hub: name on the Hub.
        split: the set's own name of its training split.
        what: description in one line.
        revision: revision to load; None for the newest.
    """

    name: str
    hub: str
    split: str
    what: str
    revision: str | None = None


PUBLIC_SETS = {
    entry.name: entry
    for entry in (
        PublicSet(
            "pku-saferlhf",
            "PKU-Alignment/PKU-SafeRLHF",
            "train",
            "pairs with a safety flag for each answer, harm categories and severities, ordered by help and by safety",
        ),
        # The revision that the paper's code (wx-zhang/bfpo) trains on, before categories and severities.
        PublicSet(
            "pku-saferlhf-2023",
            "PKU-Alignment/PKU-SafeRLHF",
            "train",
            "first generation of that set, used in the paper: flags and the two orders",
            "ff7ba91063016c78a225b0f74e1c0860bb18230f",
        ),
        PublicSet(
            "ultrafeedback-binarized",
            "HuggingFaceH4/ultrafeedback_binarized",
            "train_prefs",
            "pairs by GPT-4's overall score; no safety flags",
        ),
        # The revision with corrected overall scores that create_dataset.py of ultrafeedback_binarized reads
        # (commit 6221885).
        PublicSet(
            "ultrafeedback",
            "openbmb/UltraFeedback",
            "train",
            "up to four answers per prompt with GPT-4's overall scores; no safety flags",
            "40b436560ca83a8dba36114c22ab3c66e43f6d5e",
        ),
        PublicSet(
            "hh-rlhf",
            "Anthropic/hh-rlhf",
            "train",
            "dialogues with two continuations, one preferred by people as more helpful or harmless; no safety flags",
        ),
        PublicSet("ultrachat", "HuggingFaceH4/ultrachat_200k", "train_sft", "dialogues for supervised fine-tuning"),
    )
}
