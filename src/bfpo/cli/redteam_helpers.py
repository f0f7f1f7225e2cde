"""The judges and the attacker of ``bfpo redteam``, which load when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bfpo.cli.generators import check_model, load_generator

if TYPE_CHECKING:
    from bfpo.judges.verdict import Judge
    from bfpo.redteam.attacker import Attacker


@dataclass(frozen=True)
class Helpers:
    """The judges and the attacker, by name."""

    judge: str
    refusal_judge: str | None
    evaluation_judge: str | None
    attacker: str | None
    attacker_endpoint: str | None
    api_key_env: str | None

    def check(self) -> None:
        """Refuse judges and an attacker that don't exist, without loading any weights."""
        from bfpo.judges.registry import check_judge

        for name in filter(None, (self.judge, self.refusal_judge, self.evaluation_judge)):
            check_judge(name)
        if self.attacker is not None:
            check_model(self.attacker, self.attacker_endpoint, self._attacker_key)

    def judges(self) -> tuple[Judge, Judge | None, Judge | None]:
        """The judges that label, decide on refusals, and evaluate."""
        from bfpo.judges.registry import load_judge

        refusal, evaluation = (load_judge(one) if one else None for one in (self.refusal_judge, self.evaluation_judge))
        return load_judge(self.judge), refusal, evaluation

    def load_attacker(self) -> Attacker | None:
        """The attacker, if there is one."""
        from bfpo.redteam.attacker import Attacker

        if self.attacker is None:
            return None
        return Attacker(load_generator(self.attacker, self.attacker_endpoint, self._attacker_key))

    @property
    def _attacker_key(self) -> str | None:
        return self.api_key_env if self.attacker_endpoint else None
