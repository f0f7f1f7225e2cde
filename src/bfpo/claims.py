"""The record of a run's settings, by which a folder belongs to that run alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bfpo.config import checked, read_json
from bfpo.errors import BfpoError
from bfpo.files import write_json


@dataclass(frozen=True)
class _Claim:
    """What every record of `claimed` has, among more."""

    settings: dict[str, Any]


def claimed(path: Path, settings: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The record of a run in ``path``, which is written with these settings if there is none.

    Args:
        path: file of the record, in the run's folder.
        settings: what determines the results.
        what: what the run is, such as "a quickstart".

    Raises:
        BfpoError: if the file can't be read, or has other settings.
    """
    if not path.exists():
        write_json(path, {"settings": settings})
    about = (f"the record of {what}", "move it away")
    record = read_json(path, dict[str, Any], *about)
    found = checked(record, _Claim, str(path), *about).settings
    # In the JSON of a record, tuples are lists.
    wanted = json.loads(json.dumps(settings))
    differing = [name.replace("_", " ") for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise BfpoError(
            f"{path.parent}: contains {what} with other settings ({', '.join(differing)}); name another folder"
        )
    return record
