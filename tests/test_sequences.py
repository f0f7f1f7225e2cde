"""Functions of sequences and their sizes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bfpo.sequences import packed


@given(st.lists(st.integers(1, 50)), st.integers(1, 200), st.none() | st.integers(1, 5))
def test_batches_are_full_and_hold_what_was_asked_for(sizes, max_tokens, most):
    batches = packed(sizes, max_tokens, most)
    places = [at for batch in batches for at in batch]
    assert places == sorted(range(len(sizes)), key=lambda at: (sizes[at], at))
    limit = len(sizes) if most is None else most
    for batch in batches:
        assert 1 <= len(batch) <= limit
        assert len(batch) == 1 or len(batch) * max(sizes[at] for at in batch) <= max_tokens
    for batch, later in pairwise(batches):
        assert len(batch) == limit or (len(batch) + 1) * sizes[later[0]] > max_tokens
