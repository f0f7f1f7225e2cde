"""Parts of a work that several processes or machines share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bfpo.errors import BfpoError


@dataclass(frozen=True)
class Shard:
    """One of several parts, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            BfpoError: if it is something else.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise BfpoError(f"--shard {text}: write the part and the number of parts, such as 1/8 to 8/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        """``i/n``."""
        return f"{self.number}/{self.of}"

    def has(self, place: int) -> bool:
        """Whether what is at this place, from 0 on, is in this part."""
        return place % self.of == self.number - 1
