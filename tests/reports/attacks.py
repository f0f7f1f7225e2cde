"""Folders as `bfpo redteam` writes them, of models that don't exist."""

import json
import random
from dataclasses import asdict

from bfpo.redteam.settings import RedTeam
from bfpo.statistics.intervals import rate_interval

CATEGORIES = ("mild trespass", "petty theft", "small lies", "queue jumping", "noise at night")
SETTINGS = RedTeam()
STYLES = (*SETTINGS.styles, *SETTINGS.held_out)


def rate(rng, probability, count=40):
    return asdict(rate_interval([float(rng.random() < probability) for _ in range(count)]))


def write_attacks(folder, unsafe=0.4, *, refused=0.1, seed=0, categories=CATEGORIES):
    """A finished run of `bfpo redteam`; without ``refused``, its judge doesn't report refusals."""
    rng = random.Random(seed)

    def rates(of):
        found = {"all": rate(rng, of, 200)}
        found |= {f"category {name}": rate(rng, of * (0.5 + at / 4)) for at, name in enumerate(categories)}
        return found | {f"style {name}": rate(rng, of) for name in STYLES}

    success = rates(unsafe)
    summary = {
        "settings": asdict(SETTINGS), "groups_sha256": "a1" * 32, "attacks": dict.fromkeys(STYLES, 20),
        "success": success, "groups": 90, "left_out": {},
        "over_refusal": {} if refused is None else rates(refused),
        "cells": {name: {style: rng.randrange(5) / 4 for style in SETTINGS.styles} for name in categories},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "redteam.json").write_text(json.dumps(summary))
    return summary
