"""Judges: is an answer safe, is it a refusal, which of two helps more, and how far can the judge be trusted.

It knows nothing of training, nor of what its verdicts are for. ``load_judge(spec)`` gives a `Judge`, and
``verdicts(judge, exchanges, cache)`` its verdicts; ``python -m bfpo judge list`` says which judges there are.
"""

from bfpo.judges.registry import load_judge
from bfpo.judges.streaming import verdicts
from bfpo.judges.verdict import Exchange, Judge, Verdict

__all__ = ["Exchange", "Judge", "Verdict", "load_judge", "verdicts"]
