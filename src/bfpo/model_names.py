"""Names of models: folders, ``.gguf`` files, models on the Hub, and "microworld", the one that ships with the package.

Apart from `bfpo.models`, because a wrong path should be found before its imports, which take seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

from bfpo.errors import BfpoError

MICROWORLD = Path(__file__).parent / "microworld" / "model"


def place_of(name: str | Path) -> str:
    """The folder or file on disk, or the name on the Hub.

    Raises:
        BfpoError: if the name is a path, and there is nothing.
    """
    if str(name) == "microworld" and not os.path.exists(name):
        return str(MICROWORLD)
    # A name on the Hub is at most owner/name. Asking the Hub for anything else takes a minute without a network.
    parts = Path(name).parts
    is_path = len(parts) > 2 or str(name)[:1] in {".", "~"} or (len(parts) == 2 and os.path.isdir(parts[0]))
    if is_path and not os.path.exists(name):
        raise BfpoError(f"there is no model at {str(name)!r}; check the path")
    return str(name)
