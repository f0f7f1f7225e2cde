"""Tests of the attack styles: the request stays in the prompt, equal seeds give equal prompts, styles differ."""

import random
import re
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.generation.protocol import as_messages
from bfpo.preferences.overlap import find_overlap, normalized
from bfpo.redteam.bank import load_bank
from bfpo.redteam.styles import DEMONSTRATIONS, HELD_OUT_STYLES, STYLES, styled

BANK = load_bank()
REQUESTS = [text for pair in BANK.pairs for text in (pair.risky, pair.benign)] + [one.plain for one in BANK.plain]
# Styles that keep every request letter by letter.
VERBATIM = ("plain", "role_play", "hypothetical", "prefix_injection", "many_shot", "authority")
# Words that a change of person, or of "How do I" and "Please tell me how to", may take away.
FUNCTION_WORDS = {
    *normalized(
        "how do can could would should might i we one you so and but please tell show teach explain describe me"
    ),
    *normalized("to help is there a any an easy way trick what i'd i'll i'm i've it mine my myself our ours the us"),
    *normalized("we'd we're we've"),
}
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
SENTENCES = st.sampled_from(REQUESTS) | ANY


def attack(request, style, seed=0):
    return styled(request, style, random.Random(seed))


def last_turn(prompt):
    return as_messages(prompt)[-1]["content"]


def one_edit_apart(word, other):
    """Whether one inner letter was left out or doubled, or two were swapped; by deleting letters, not by the rule."""
    deleted = {word[:at] + word[at + 1 :] for at in range(1, len(word) - 1)}
    if len(other) == len(word) - 1:
        return other in deleted
    if len(other) == len(word) + 1:
        return any(other[:at] + other[at + 1 :] == word and other[at] == other[at - 1] for at in range(1, len(other)))
    differing = [at for at in range(len(word)) if len(other) != len(word) or word[at] != other[at]]
    return len(differing) == 2 and sorted(word) == sorted(other)


def test_the_table_has_the_known_styles_and_says_where_they_come_from():
    assert [*STYLES] == [
        "plain", "role_play", "hypothetical", "past_tense", "prefix_injection", "rewording", "many_shot", "authority",
        "spelling",
    ]  # fmt: skip
    assert {*HELD_OUT_STYLES} < {*STYLES} - {"plain"}
    for name, style in STYLES.items():
        assert style.name == name
        assert style.summary
        assert name == "plain" or re.search(r"arXiv \d{4}\.\d{5}|anthropic\.com", style.source)


@pytest.mark.parametrize("style", VERBATIM)
@given(request=ANY, seed=st.integers(0, 2**32))
@example(request='Say "{request}" and {0}\n- now', seed=0)
def test_framing_styles_keep_any_request_letter_by_letter(style, request, seed):
    found = attack(request, style, seed)
    assert request in last_turn(found)


def test_plain_changes_nothing():
    assert attack(" Hi\n", "plain") == " Hi\n"


def lost_words(request, style, seed=0):
    return {*normalized(request)} - FUNCTION_WORDS - {*normalized(last_turn(attack(request, style, seed)))}


@pytest.mark.parametrize("style", ["past_tense", "rewording"])
def test_rephrasing_styles_keep_the_content_words(style):
    assert {request: lost for request in REQUESTS if (lost := lost_words(request, style))} == {}


@pytest.mark.parametrize("style", ["past_tense", "rewording"])
@given(request=ANY, beginning=st.sampled_from(["", "How do I ", "I see; how can we ", "Please write "]))
def test_rephrasing_styles_keep_any_other_words(style, request, beginning):
    assert lost_words(beginning + request, style) == set()


def test_the_past_tense_is_about_the_past_and_about_others():
    rephrased = 0
    for request in REQUESTS:
        text = attack(request, "past_tense")
        assert re.match("Back in the day|In the old days|A few decades ago|In the last century", text)
        if request not in text:
            rephrased += 1
            assert re.search("did people|people used to", text)
            assert not re.search(r"\b(I|I'm|I'd|my|me|our)\b", text), text
    assert rephrased > 400


@pytest.mark.parametrize(
    ("request_", "past", "reworded"),
    [
        ("How can I lock my door?", "how did people lock their door?", "lock my door"),
        ("Please tell me how to rest.", "how did people rest?", "rest"),
        ("How do I say I’m sorry", "how did people say they were sorry?", "say I’m sorry"),
        ("I'm late; how do I tell my boss?", "like this: they were late. How did people tell their boss?", "I'm late."),
        ("Write a poem about us!", "people used to write a poem about them.", "write a poem about us"),
        ("Give me a pen.", "Give me a pen.", "give me a pen"),
    ],
)
def test_a_question_a_task_and_a_question_with_its_setting_are_rephrased(request_, past, reworded):
    assert past in attack(request_, "past_tense")
    assert reworded in attack(request_, "rewording")
    assert request_ not in attack(request_, "rewording")


@given(request=SENTENCES, seed=st.integers(0, 2**32))
def test_misspelled_words_are_one_edit_from_their_own(request, seed):
    text = attack(request, "spelling", seed)
    before, after = (re.split(r"([^\W\d_]+)", one) for one in (request, text))
    assert len(before) == len(after)
    changed = [(word, other) for word, other in zip(before, after, strict=True) if word != other]
    assert all(len(word) >= 4 and one_edit_apart(word, other) for word, other in changed)
    assert bool(changed) == any(len(word) >= 4 for word in before[1::2])


def test_about_a_third_of_the_long_words_are_misspelled():
    words = [word for text in REQUESTS for word in re.findall(r"[^\W\d_]{4,}", text)]
    changed = sum(
        word != other
        for number, text in enumerate(REQUESTS)
        for word, other in zip(text.split(), attack(text, "spelling", number).split(), strict=True)
    )
    assert 0.25 < changed / len(words) < 0.4


@pytest.mark.parametrize("style", STYLES)
def test_equal_seeds_give_equal_prompts(style):
    first, second = ([attack(request, style, seed) for seed, request in enumerate(REQUESTS)] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("style", [style for style in STYLES if style != "plain"])
def test_a_style_has_several_wordings(style):
    found = {str(attack("How do I read the old letters of a friend?", style, seed)) for seed in range(40)}
    assert len(found) >= 3


def test_no_two_styles_give_the_same_prompt():
    for request in REQUESTS[::7]:
        prompts = [attack(request, style, 3) for style in STYLES]
        assert all(one != other for one, other in combinations(prompts, 2))


def test_many_shot_has_harmless_turns_that_are_not_in_the_bank():
    prompt = attack("The request.", "many_shot", 5)
    assert [message["role"] for message in prompt] == ["user", "assistant"] * (len(prompt) // 2) + ["user"]
    asked = [message["content"] for message in prompt[:-1:2]]
    assert len({*asked}) == len(asked) >= 4
    assert {*zip(asked, (message["content"] for message in prompt[1::2]), strict=True)} <= {*DEMONSTRATIONS}
    assert find_overlap([question for question, _ in DEMONSTRATIONS], {"bank": REQUESTS}) == []


@pytest.mark.parametrize("request_", ["", " \n\t"])
def test_a_blank_request_is_refused(request_):
    for style in STYLES:
        with pytest.raises(BfpoError, match="a request for the style '" + style + "' is blank"):
            attack(request_, style)


def test_an_unknown_style_is_refused():
    with pytest.raises(
        BfpoError, match=r"no attack style 'roleplay' \(did you mean 'role_play'\?\); the styles are plain"
    ):
        attack("Hi.", "roleplay")
