"""Sequences that share what neighbors begin with, as one stream."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfpo.engine import layout as layout_module
from bfpo.engine.tree import build_tree
from engine.visibility import expected_pairs, seen_pairs

sizes = st.one_of(st.integers(1, 12), st.integers(60, 90))
# A size and a seed: drawing every token takes longer than the computations.
token_lists = st.builds(lambda size, seed: random.Random(seed).choices(range(3, 64), k=size), sizes, st.integers(0, 99))


@given(
    parts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 90), token_lists), min_size=1, max_size=12),
    beginnings=st.lists(token_lists, min_size=4, max_size=4),
    ordered=st.booleans(),
    least=st.none() | st.integers(1, 20),
    window=st.none() | st.integers(1, 100),
    masked=st.integers(0, 40_000),
)
@settings(max_examples=100)
def test_a_tree_holds_every_sequence_and_shares_what_neighbors_begin_with(
    parts, beginnings, ordered, least, window, masked
):
    texts = [[*beginnings[number][:length], *own] for number, length, own in parts]
    texts = sorted(texts) if ordered else texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_MASKED", masked)
        stream, places = build_tree(texts, least)
    ids, positions = stream.input_ids[0].tolist(), stream.position_ids[0].tolist()
    assert [[ids[place] for place in own] for own in places] == texts
    assert [[positions[place] for place in own] for own in places] == [list(range(len(text))) for text in texts]
    assert seen_pairs(stream, window).equal(expected_pairs(places, window))
    shared = [max(at for at in range(len(one) + 1) if one[:at] == other[:at]) for one, other in pairwise(texts)]
    saved = sum(length for length in shared if least and length >= least)
    assert len(ids) == sum(map(len, texts)) - saved
