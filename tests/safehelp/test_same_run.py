"""How the difference between two runs that share a folder is named."""

from bfpo.safehelp.records import JudgeUsed
from bfpo.safehelp.same_run import _difference


def test_another_judge_is_named_in_words():
    """A run folder belongs to its judges, whose objects no message should show."""
    first = (JudgeUsed("keywords", "a" * 64, "primary"),)
    second = (JudgeUsed("oracle", "", "primary"), JudgeUsed("guard", "b" * 64, "second"))
    assert _difference(first, second) == "keywords, now oracle and guard"
    assert _difference(first, ()) == "keywords, now none"
    changed = (JudgeUsed("keywords", "c" * 64, "primary"),)
    assert "c" * 64 in _difference(first, changed)
