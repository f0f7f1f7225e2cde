"""Tests that the oracle gives every generated answer its own verdict, and that damage doesn't fool it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.microworld.answers import AnswerKind, steps, write_answer
from bfpo.microworld.grammar import requests
from bfpo.microworld.oracle import P_HELP, judge, preference_probability
from bfpo.microworld.vocabulary import AREAS, REFUSALS

ALL = requests("train") + requests("test")
request_of = st.integers(0, len(ALL) - 1).map(ALL.__getitem__)
harmful_of = request_of.filter(lambda request: request.kind == "harmful")
seeds = st.integers(0, 10**6).map(random.Random)
kinds = st.sampled_from(AnswerKind)


@given(request_of, kinds, seeds)
def test_generated_answers_get_their_verdict(request, kind, rng):
    verdict = judge(request.text, write_answer(request, kind, rng))
    complies = kind in (AnswerKind.FULL, AnswerKind.PARTIAL)
    assert verdict.kind == kind
    assert verdict.p_help == P_HELP[kind]
    assert verdict.is_safe == (not (request.kind == "harmful" and complies))
    assert verdict.is_refusal == (kind in (AnswerKind.REFUSAL, AnswerKind.REFUSAL_WITH_ALTERNATIVE))
    assert verdict.kind is not None


@given(request_of, kinds, seeds)
def test_case_and_white_space_do_not_matter(request, kind, rng):
    answer = write_answer(request, kind, rng)
    assert judge(request.text, f"  {answer.upper().replace(' ', '  ')}\n") == judge(request.text, answer)


@given(request_of, kinds, seeds)
def test_shuffled_cut_repeated_or_extended_answers_are_incoherent(request, kind, rng):
    answer = write_answer(request, kind, rng)
    shuffled = answer.split()
    rng.shuffle(shuffled)
    half = answer[: rng.randint(1, len(answer) - 1)]
    for damaged in (f"{answer} {answer}", f"{answer} xyz", f"so {answer}", half.rstrip(".?") + " and"):
        assert judge(request.text, damaged).kind is None
    if shuffled != answer.split():
        assert judge(request.text, " ".join(shuffled)).kind is None


@given(request_of, seeds, st.data())
def test_half_an_answer_is_no_full_one(request, rng, data):
    answer = write_answer(request, AnswerKind.FULL, rng)
    cut = answer[: data.draw(st.integers(0, len(answer) - 1))]
    verdict = judge(request.text, cut)
    assert verdict.kind is None
    assert verdict.p_help == 0


@pytest.mark.parametrize("text", ["", " ", "\n", "."])
def test_empty_text_is_incoherent_and_helps_nothing(text):
    verdict = judge(ALL[0].text, text)
    assert (verdict.kind, verdict.p_help, verdict.is_refusal, verdict.is_safe) == (None, 0.0, False, True)


@given(harmful_of, seeds, st.sampled_from(REFUSALS))
def test_a_refusal_glued_to_harm_is_unsafe(request, rng, refusal):
    harm = write_answer(request, AnswerKind.FULL, rng)
    for glued in (f"{refusal} {harm}", f"{harm} {refusal}"):
        verdict = judge(request.text, glued)
        assert not verdict.is_safe
        assert not verdict.is_refusal
        assert verdict.kind is None


@given(harmful_of, st.sampled_from([0, 1, 2]))
def test_a_single_serving_step_is_unsafe_in_any_wrapping(request, at):
    verdict = judge(request.text, f"blah {steps(request)[at]} blah")
    assert not verdict.is_safe


@given(request_of, st.text(max_size=200))
def test_any_text_is_judged(request, text):
    verdict = judge(request.text, text)
    assert verdict.p_help == P_HELP[verdict.kind]


@given(request_of, request_of, seeds)
def test_a_full_answer_to_another_question_is_wrong(request, other, rng):
    if (request.action, request.thing) != (other.action, other.thing):
        assert judge(request.text, write_answer(other, AnswerKind.FULL, rng)).kind == AnswerKind.WRONG


def test_an_alternative_must_fit_the_question():
    request = next(r for r in ALL if r.area is AREAS[0])
    assert judge(request.text, f"{REFUSALS[0]} Instead, {AREAS[0].alternative}.").is_refusal
    assert judge(request.text, f"{REFUSALS[0]} Instead, {AREAS[1].alternative}.").kind is None


def test_preference_probability_is_the_logistic_of_the_difference():
    assert preference_probability(0.5, 0.5) == 0.5
    assert preference_probability(0.6, 0.5, 0.1) == pytest.approx(0.7310585786)
    assert preference_probability(0.2, 0.7) + preference_probability(0.7, 0.2) == pytest.approx(1)
