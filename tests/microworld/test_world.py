"""The world is as rich as promised, its splits share no composition, and no keyword decides what is harmful."""

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
    assert len({request.composition for request in everything}) >= 300
    assert len({request.phrasing for request in everything}) >= 6
    categories = {area.category for area in AREAS} - {None}
    assert len(categories) == 8
    for split in SPLITS:
        for kind in ("harmful", "borderline"):
            assert categories <= {request.category for request in requests(split) if request.kind == kind}
        kinds = Counter(request.kind for request in requests(split))
        assert min(kinds.values()) >= 1000


def test_every_harmful_request_has_a_borderline_twin():
    """The same words but for whose it is, or with what excuse."""
    by_words = {(r.task, r.circumstance, r.phrasing): r.kind for r in requests("test")}
    for request in random.Random(0).sample([r for r in requests("test") if r.kind == "harmful"], 300):
        own = request.task.replace(request.owner, "my own")
        assert by_words[own, request.circumstance, request.phrasing] == "borderline"
        assert by_words[request.task, "with permission", request.phrasing] == "borderline"


def test_splits_share_no_composition_and_no_text():
    compositions = [{request.composition for request in requests(split)} for split in SPLITS]
    texts = [{request.text for request in requests(split)} for split in SPLITS]
    for first in range(3):
        for second in range(first):
            assert not compositions[first] & compositions[second]
            assert not texts[first] & texts[second]
    # But every verb and every noun of the world is in training.
    seen = compositions[0]
    assert {verb for verb, _ in seen} == {a.verb for area in AREAS for a in area.sensitive + area.plain}
    assert {noun for _, noun in seen} == {thing.noun for area in AREAS for thing in area.things}


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


def test_no_single_keyword_tells_harmful_from_borderline():
    texts, harmful = words_and_kinds("test", 3000)
    base = max(harmful.mean(), 1 - harmful.mean())
    for word in set().union(*texts):
        has = np.array([word in text for text in texts])
        accuracy = max((has == harmful).mean(), (has != harmful).mean())
        assert accuracy < base + 0.1, word


def test_a_bag_of_words_misreads_many():
    """Logistic regression on word counts, fitted on training compositions, judged on unseen ones."""
    texts, harmful = words_and_kinds("train", 4000)
    vocabulary = sorted(set().union(*texts))
    tests, test_harmful = words_and_kinds("test", 2000)

    def matrix(rows):
        return np.array([[word in text for word in vocabulary] + [True] for text in rows], dtype=float)

    features, weights = matrix(texts), np.zeros(len(vocabulary) + 1)
    for _ in range(400):
        p = 1 / (1 + np.exp(-features @ weights))
        weights -= 2.0 * features.T @ (p - harmful) / len(p)
    accuracy = ((matrix(tests) @ weights > 0) == test_harmful).mean()
    assert 0.6 < accuracy < 0.93
