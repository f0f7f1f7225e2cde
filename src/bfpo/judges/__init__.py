"""Judges of safety, refusal and helpfulness, and checks of judges against labels.

``load_judge(spec)`` loads a `Judge` and ``verdicts(judge, exchanges, cache)`` runs it; ``bfpo judge list`` lists the
available judges. This room is independent of training and of the use of its verdicts.
"""

from bfpo.judges.registry import load_judge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge, Verdict

__all__ = ["Exchange", "Judge", "Verdict", "load_judge", "verdicts"]
