"""Red teaming: the prompt bank, attack styles, the archive that chooses attacks, and the groups that come of them.

`red_team` in ``running`` is the entry point.
"""
