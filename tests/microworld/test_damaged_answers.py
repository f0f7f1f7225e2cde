"""Tests of the oracle on answers like a broken model's: pieces in any order, swapped steps, foreign text."""

import random
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.microworld.answers import AnswerKind, addressed, steps, write_answer
from bfpo.microworld.data import safety_set
from bfpo.microworld.grammar import requests
from bfpo.microworld.oracle import P_HELP, judge, preference_probability
from bfpo.microworld.vocabulary import ALTERNATIVES, AREAS, REFUSALS, VAGUE
from bfpo.microworld.worlds import W0

HARMFUL = [request for request in requests("test") if request.kind == "harmful"]
HARMLESS = [request for request in requests("test") if request.kind != "harmful"]
ACTIONS = [action for area in AREAS for action in area.sensitive + area.plain]
THINGS = [thing for area in AREAS for thing in area.things]
STEPS = [t.preparation for t in THINGS] + [a.method for a in ACTIONS] + [a.check for a in ACTIONS]
FRAMES = [*VAGUE, *REFUSALS, *(frame.format(area.alternative) for frame in ALTERNATIVES for area in AREAS)]

harmful_of = st.sampled_from(HARMFUL)
harmless_of = st.sampled_from(HARMLESS)
seeds = st.integers(0, 10**6).map(random.Random)


def words(text):
    return text.lower().translate(str.maketrans("", "", string.punctuation)).split()


def holds(text, part):
    """Whether the words of a part occur in the text in sequence: another implementation of the safety rule."""
    inside, sought = words(text), words(part)
    return any(inside[at : at + len(sought)] == sought for at in range(len(inside)))


def test_every_step_belongs_to_one_action_or_thing_and_to_no_other_text():
    """Otherwise a wrong answer or a refusal could serve a harmful request by accident."""
    assert len(set(STEPS)) == len(STEPS)
    for step in STEPS:
        assert [other for other in STEPS + FRAMES if holds(other, step)] == [step]


@given(harmful_of, seeds, st.lists(st.sampled_from(FRAMES + STEPS), max_size=5))
def test_an_answer_is_unsafe_iff_a_serving_step_is_in_it(request, rng, pieces):
    text = ". ".join(rng.sample([*pieces, *rng.sample(STEPS, 3)], len(pieces) + 3))
    serves = any(holds(text, step) for step in steps(request))
    assert judge(request.text, text).is_safe == (not serves)


@given(harmful_of, seeds, st.integers(0, 2), st.lists(st.sampled_from(FRAMES + STEPS), max_size=4))
def test_a_serving_step_is_found_among_any_pieces(request, rng, at, pieces):
    mixed = [*pieces, steps(request)[at]]
    rng.shuffle(mixed)
    assert not judge(request.text, ". ".join(mixed)).is_safe


@given(harmless_of, seeds, st.lists(st.sampled_from(FRAMES + STEPS), max_size=5))
def test_no_answer_to_a_harmless_question_is_unsafe(request, rng, pieces):
    assert judge(request.text, ". ".join([*steps(request), *pieces])).is_safe


@given(harmful_of, seeds)
def test_wrong_and_vague_answers_to_harm_are_safe_and_help_little(request, rng):
    for kind in (AnswerKind.WRONG, AnswerKind.VAGUE):
        verdict = judge(request.text, write_answer(request, kind, rng))
        assert verdict.is_safe
        assert not verdict.is_refusal
        assert verdict.p_help < P_HELP[AnswerKind.PARTIAL]


@pytest.mark.parametrize(("length", "kind"), [(1, AnswerKind.PARTIAL), (2, AnswerKind.PARTIAL), (3, AnswerKind.FULL)])
@given(request=st.sampled_from(HARMFUL + HARMLESS))
def test_a_cleanly_ended_beginning_is_partial(length, kind, request):
    joints = ("first ", ", then ", ", and last ")
    body = "".join(joint + step for joint, step in zip(joints, steps(request)[:length], strict=False))
    assert judge(request.text, f"To {addressed(request)}: {body}.").kind == kind


@given(st.sampled_from(HARMFUL + HARMLESS))
def test_later_steps_or_another_order_are_no_full_answer(request):
    preparation, method, check = steps(request)
    head = f"To {addressed(request)}: "
    assert judge(request.text, f"{head}first {preparation}, then {check}, and last {method}.").kind is None
    assert judge(request.text, f"{head}first {method}, then {check}.").kind is None
    assert judge(request.text, f"{head}first {preparation}, then {method}, 3) {check}.").kind is None
    assert judge(request.text, f"{head}first {preparation}; then {method}.").kind is None


@given(harmless_of, seeds)
def test_the_right_steps_under_another_owner_are_wrong(request, rng):
    answer = write_answer(request, AnswerKind.FULL, rng)
    owner = addressed(request).removeprefix(f"{request.action.verb} ").removesuffix(f" {request.thing.noun}")
    other = rng.choice([name for name in ("your own", "your boss's", "a stranger's") if name != owner])
    elsewhere = answer.replace(f" {owner} {request.thing.noun}", f" {other} {request.thing.noun}")
    assert judge(request.text, elsewhere).kind == AnswerKind.WRONG


@given(st.sampled_from(HARMFUL + HARMLESS), st.sampled_from(REFUSALS), st.sampled_from(REFUSALS + VAGUE))
def test_two_short_answers_glued_together_are_incoherent(request, first, second):
    assert judge(request.text, f"{first} {second}").kind is None


@given(st.text(max_size=40), st.sampled_from(HARMFUL), seeds)
def test_junk_around_an_answer_makes_it_incoherent_but_no_safer(junk, request, rng):
    answer = write_answer(request, AnswerKind.FULL, rng)
    for text in (f"{junk} {answer}", f"{answer} {junk}"):
        verdict = judge(request.text, text)
        assert (verdict.kind is not None) == (not junk.split())
        assert not verdict.is_safe


def test_a_scale_of_nothing_is_no_noise_and_a_tiny_one_nearly():
    assert [preference_probability(*pair, 0) for pair in ((1, 0), (0, 1), (0.5, 0.5))] == [1, 0, 0.5]
    assert preference_probability(0, 1, 1e-9) < 1e-300
    assert preference_probability(1, 0, 1e-9) == 1
    for row in safety_set(300, 0, world=replace(W0, order_noise=0)):
        p_help = [judge(row["prompt"], row[f"response_{k}"]).p_help for k in (0, 1)]
        assert p_help[row["better_response_id"]] == max(p_help)


@pytest.mark.parametrize("scale", [-0.1, float("nan")])
def test_a_noise_scale_below_nothing_is_an_error(scale):
    with pytest.raises(BfpoError, match="noise_scale"):
        preference_probability(1, 0, scale)
