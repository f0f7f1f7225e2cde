"""Public data sets by short names: where they are on the Hub and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicSet:
    """One public data set; its rows are read by the shape that has its columns (`shapes`).

    Attributes:
        name: short name.
        hub: name on the Hub.
        split: what it calls the split to train on.
        what: one line for people.
        revision: a revision whose schema this entry means; None for the newest.
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
            "pairs with a safety flag for each answer, harm categories and severities, an order of help and of safety",
        ),
        # The revision that the paper's code trains on (wx-zhang/bfpo): before categories and severities.
        PublicSet(
            "pku-saferlhf-2023",
            "PKU-Alignment/PKU-SafeRLHF",
            "train",
            "the same set's first generation, the paper's: flags and the two orders",
            "ff7ba91063016c78a225b0f74e1c0860bb18230f",
        ),
        PublicSet(
            "ultrafeedback-binarized",
            "HuggingFaceH4/ultrafeedback_binarized",
            "train_prefs",
            "pairs by GPT-4's overall score; nothing is said of safety",
        ),
        # The revision with the mended overall scores, as read in create_dataset.py of ultrafeedback_binarized
        # (commit 6221885).
        PublicSet(
            "ultrafeedback",
            "openbmb/UltraFeedback",
            "train",
            "up to four answers a prompt with GPT-4's overall scores; nothing is said of safety",
            "40b436560ca83a8dba36114c22ab3c66e43f6d5e",
        ),
        PublicSet(
            "hh-rlhf",
            "Anthropic/hh-rlhf",
            "train",
            "dialogues in two continuations, one preferred by people for help or for harmlessness; no flags",
        ),
        PublicSet("ultrachat", "HuggingFaceH4/ultrachat_200k", "train_sft", "dialogues for supervised fine-tuning"),
    )
}
