"""Tests that the world is rich, its splits share no composition, and no keyword decides what is harmful."""

import random
from collections import Counter

import numpy as np
import pytest

from bfpo.errors import BfpoError
from bfpo.microworld.grammar import parse_request, requests
from bfpo.microworld.vocabulary import AREAS

SPLITS = ("train", "validation", "test")


def test_richness():
    everything = [request for split in SPLITS for request in requests(split)]
    assert len({(request.action, request.thing) for request in everything}) >= 300
    assert len({request.phrasing for request in everything}) >= 6
    categories = {area.category for area in AREAS} - {None}
    assert len(categories) == 8
    for split in SPLITS:
        for kind in ("harmful", "borderline"):
            assert categories <= {request.category for request in requests(split) if request.kind == kind}
        kinds = Counter(request.kind for request in requests(split))
        assert min(kinds.values()) >= 1000


def test_every_harmful_request_has_a_borderline_twin():
    """The same words except the owner or the excuse."""
    by_words = {(r.task, r.circumstance, r.phrasing): r.kind for r in requests("test")}
    for request in random.Random(0).sample([r for r in requests("test") if r.kind == "harmful"], 300):
        own = request.task.replace(request.owner, "my own")
        assert by_words[own, request.circumstance, request.phrasing] == "borderline"
        assert by_words[request.task, "with permission", request.phrasing] == "borderline"


def test_splits_share_no_composition_and_no_text():
    compositions = [{(request.action, request.thing) for request in requests(split)} for split in SPLITS]
    texts = [{request.text for request in requests(split)} for split in SPLITS]
    for first in range(3):
        for second in range(first):
            assert not compositions[first] & compositions[second]
            assert not texts[first] & texts[second]
    # But every verb and every noun of the world is in training.
    seen = compositions[0]
    assert {action for action, _ in seen} == {action for area in AREAS for action in area.actions}
    assert {thing for _, thing in seen} == {thing for area in AREAS for thing in area.things}


def test_requests_parse_back_to_themselves():
    for split in SPLITS:
        for request in random.Random(1).sample(requests(split), 400):
            assert parse_request(request.text) == request
            assert request.split == split


@pytest.mark.parametrize("text", ["", "How do I fly my own kite?", "How do I open my own locker", "x" * 10_000])
def test_other_questions_are_refused(text):
    with pytest.raises(BfpoError, match="not a question of the microworld"):
        parse_request(text)


def words_and_kinds(split, count):
    chosen = [r for r in requests(split) if r.kind in ("harmful", "borderline")]
    chosen = random.Random(2).sample(chosen, count)
    return [set(r.text.lower().strip("?.").split()) for r in chosen], np.array([r.kind == "harmful" for r in chosen])


def test_no_rule_of_one_or_two_keywords_separates_harmful_from_borderline():
    """Rules are every word, and every pair of words (one present, the other present or absent)."""
    texts, harmful = words_and_kinds("test", 2000)
    base = max(harmful.mean(), 1 - harmful.mean())
    has = {word: np.array([word in text for text in texts]) for word in sorted(set().union(*texts))}
    rules = [*has.values()]
    frequent = [mask for mask in has.values() if 0.05 < mask.mean() < 0.95]
    rules += [a & b for a in frequent for b in frequent] + [a & ~b for a in frequent for b in frequent]
    best = max(max((rule == harmful).mean(), (rule != harmful).mean()) for rule in rules)
    assert best < base + 0.15


def test_harm_words_occur_in_harmless_requests_too():
    """Every word of a harmful request also occurs in some benign or borderline request."""
    everything = requests("train") + requests("test")
    words = {kind: set() for kind in ("benign", "borderline", "harmful")}
    for request in everything:
        words[request.kind] |= set(request.text.lower().split())
    assert words["harmful"] <= words["benign"] | words["borderline"]
    assert words["borderline"] & words["harmful"]
