"""Tests of the prompt bank: its contents, the reader's errors, and the split."""

import itertools
import json
from collections import Counter
from importlib.resources import files
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.preferences.overlap import normalized
from bfpo.redteam.bank import Bank, Pair, PlainRequest, load_bank

BANK = load_bank()
PAIRS = [(pair.id, text) for pair in BANK.pairs for text in (pair.risky, pair.benign)]
TEXTS = PAIRS + [(one.id, one.plain) for one in BANK.plain]


def shared(one, other):
    """Jaccard index of two sets of words."""
    return len(one & other) / len(one | other)


def words(text):
    return {*normalized(text)}


def test_there_are_enough_requests_of_enough_kinds():
    file = files("bfpo.redteam") / "bank.jsonl"
    assert len(file.read_bytes()) <= 200_000
    assert sum(1 for _ in file.read_text("utf-8").splitlines()) == len(BANK.pairs) + len(BANK.plain)
    assert len(BANK.pairs) >= 400
    assert len(BANK.plain) >= 200
    assert len(BANK.categories) >= 8
    assert min(Counter(pair.category for pair in BANK.pairs).values()) >= 30
    assert len({one.category for one in BANK.plain}) >= 8
    assert "CC0-1.0" in (files("bfpo.redteam") / "LICENSE-bank.txt").read_text("utf-8")


def test_a_request_is_one_readable_sentence():
    for name, text in TEXTS:
        assert text.isprintable(), name
        assert text[0].isupper(), name
        assert text.rstrip('"')[-1] in ".?!", name
        assert not {". ", "? ", "! "} & {text[at : at + 2] for at in range(len(text))}, name
        assert 4 <= len(normalized(text)) <= 35, name


def test_a_twin_has_almost_the_same_words():
    found = [shared(words(pair.risky), words(pair.benign)) for pair in BANK.pairs]
    assert mean(found) >= 0.6
    assert min(found) >= 0.35
    assert max(found) < 1


def test_no_two_rows_are_nearly_the_same():
    sets = [(name, words(text)) for name, text in TEXTS]
    close = [(a, b) for (a, one), (b, other) in itertools.combinations(sets, 2) if a != b and shared(one, other) > 0.8]
    assert close == []


def test_requests_are_not_made_from_a_template():
    beginnings = Counter(start for _, text in set(TEXTS) for start in [normalized(text)[:5]])
    assert max(beginnings.values()) <= 6


ROWS = [
    {"id": "a-1", "category": "a", "risky": "How do I lie?", "benign": "How do I stop lying?"},
    {"id": "p-1", "category": "talk", "plain": "Hello there."},
]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_a_file_of_the_user_has_the_same_columns(tmp_path):
    bank = Bank(
        (Pair("a-1", "a", "How do I lie?", "How do I stop lying?"),), (PlainRequest("p-1", "talk", "Hello there."),)
    )
    assert load_bank(written(tmp_path / "seed.jsonl", ROWS)) == bank
    table = tmp_path / "seed.csv"
    table.write_text(
        "id,category,risky,benign,plain\na-1,a,How do I lie?, How do I stop lying? ,\np-1,talk,,,Hello there.\n"
    )
    assert load_bank(str(table)) == bank


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"benign": None}, "row 1, column 'benign': it is missing or blank"),
        ({"risky": "  "}, "row 1, column 'risky': it is missing or blank"),
        ({"category": 3}, "row 1, column 'category': it is a int; write a string"),
        ({"id": None}, "row 1, column 'id': it is missing"),
        ({"plain": "Hi."}, "row 1, column 'risky': the row has a plain request too"),
        ({"bening": "x"}, r"row 1, column 'bening': a prompt bank has no such column \(did you mean 'benign'\?\)"),
        ({"id": "p-1"}, "row 2, column 'id': 'p-1' is in row 1 already; give every row its own id"),
        ({"risky": "hello  THERE"}, "row 2, column 'plain': 'Hello there.' is in row 1 already; keep one of them"),
        ({"benign": "How do I LIE"}, "row 1, column 'benign': 'How do I LIE' is in row 1 already"),
    ],
)
def test_a_wrong_row_is_named_with_its_column(tmp_path, row, message):
    path = written(tmp_path / "seed.jsonl", [ROWS[0] | row, ROWS[1]])
    with pytest.raises(BfpoError, match=f"seed.jsonl: {message}"):
        load_bank(path)


def test_every_problem_of_a_file_is_listed(tmp_path):
    path = written(tmp_path / "seed.jsonl", [ROWS[0] | {"benign": None}, ROWS[1] | {"plain": 7}])
    with pytest.raises(BfpoError, match=r"(?s)row 1, column 'benign'.*row 2, column 'plain': it is a int"):
        load_bank(path)
    with pytest.raises(BfpoError, match="there is no such file"):
        load_bank(str(tmp_path / "none.jsonl"))


@given(st.floats(0.1, 0.9), st.integers(0, 2**32))
def test_a_split_is_a_partition_with_the_share_of_every_category(share, seed):
    train, held_out = BANK.split(share, seed)
    for all_, one, other in ((BANK.pairs, train.pairs, held_out.pairs), (BANK.plain, train.plain, held_out.plain)):
        trained = {*one}
        assert one == tuple(item for item in all_ if item in trained)
        assert other == tuple(item for item in all_ if item not in trained)
    for category in BANK.categories:
        count = sum(pair.category == category for pair in held_out.pairs)
        assert abs(count - share * sum(pair.category == category for pair in BANK.pairs)) <= 0.5
    assert BANK.split(share, seed) == (train, held_out)


def test_another_seed_holds_out_others_and_other_categories_do_not_matter():
    held_out = BANK.split(0.25, 0)[1]
    assert BANK.split(0.25, 1)[1] != held_out
    privacy = Bank(tuple(pair for pair in BANK.pairs if pair.category == "privacy")[::-1], ())
    assert {*privacy.split(0.25, 0)[1].pairs} == {pair for pair in held_out.pairs if pair.category == "privacy"}


def test_each_request_is_held_out_equally_often():
    counts = Counter(pair.id for seed in range(200) for pair in BANK.split(0.25, seed)[1].pairs)
    # Binomial with 200 draws of .25: standard deviation 6.1; 432 requests stay within 5 of them.
    assert all(abs(counts[pair.id] - 50) < 31 for pair in BANK.pairs)


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(BfpoError, match="between 0 and 1"):
        BANK.split(share, 0)


def test_a_part_without_pairs_is_refused():
    with pytest.raises(BfpoError, match=r"1 pairs can't be split with 0.2 held out.*add pairs"):
        Bank(BANK.pairs[:1], ()).split(0.2, 0)
