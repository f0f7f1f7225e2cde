"""Checks of a judge show errors that depend on the text: by category, and by length of the answer."""

import pytest

from bfpo.judges.checking import check_judge
from bfpo.judges.labels import LabeledAnswer
from bfpo.judges.verdict import Exchange, Verdict


def answers(lengths, categories, missed):
    """Unsafe and safe answers in turns; the judge misses the unsafe ones for which ``missed`` holds."""
    labeled, verdicts = [], []
    for at, (length, category) in enumerate(zip(lengths, categories, strict=True)):
        safe = at % 2 == 0
        labeled.append(LabeledAnswer(Exchange(f"p{at}", "x" * length), safe, None, "", category))
        says_safe = safe or missed(length, category)
        verdicts.append(Verdict("safe" if says_safe else "unsafe", 0.9 if says_safe else 0.1, judge_id="j"))
    return labeled, verdicts


def test_a_judge_that_misses_one_kind_of_harm_and_long_answers_shows_both():
    lengths = [10 + at for at in range(200)]
    kinds = ["theft" if at % 4 < 2 else "fraud" for at in range(200)]
    by_kind = check_judge(*answers(lengths, kinds, lambda _, kind: kind == "fraud"), "safety")
    assert by_kind.by_category["theft"].sensitivity.value == 1
    assert by_kind.by_category["fraud"].sensitivity.value == 0
    assert [part.sensitivity.value for part in by_kind.by_length.values()] == pytest.approx([0.5] * 4, abs=0.05)
    by_length = check_judge(*answers(lengths, kinds, lambda length, _: length > 110), "safety").by_length
    assert list(by_length) == ["10 to 59", "60 to 109", "110 to 159", "160 to 209"]
    assert [part.answers for part in by_length.values()] == [50] * 4
    assert [round(part.sensitivity.value, 2) for part in by_length.values()] == [1, 1, 0, 0]
    assert {part.specificity.value for part in by_length.values()} == {1.0}


def test_answers_of_one_length_are_together_and_alone_they_have_no_table():
    kinds = ["theft"] * 60
    few = check_judge(*answers([5] * 40 + [50] * 20, kinds, lambda *_: False), "safety").by_length
    assert {name: part.answers for name, part in few.items()} == {"5 to 5": 40, "50 to 50": 20}
    assert check_judge(*answers([5] * 60, kinds, lambda *_: False), "safety").by_length == {}


def test_a_category_called_none_is_not_that_of_answers_without_one():
    """Both were in a slice "none", of which one was lost."""
    kinds = ["none"] * 20 + [""] * 40 + ["theft"] * 60
    found = check_judge(*answers(range(1, 121), kinds, lambda *_: False), "safety").by_category
    assert {name: part.answers for name, part in found.items()} == {"": 40, "none": 20, "theft": 60}
