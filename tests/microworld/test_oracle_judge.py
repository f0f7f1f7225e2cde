"""Tests of the oracle as a judge: exact without errors, and with deterministic errors at the configured rates."""

import numpy as np
import pytest

from bfpo.errors import BfpoError
from bfpo.judges import Exchange
from bfpo.judges.unjudged import EMPTY
from bfpo.microworld.data import safety_set
from bfpo.microworld.judge import OracleJudge, load_oracle
from bfpo.microworld.oracle import judge as oracle


@pytest.fixture(scope="module")
def exchanges():
    return [Exchange(row["prompt"], row[f"response_{n}"]) for row in safety_set(1500, 0) for n in (0, 1)]


def truth(exchanges):
    return np.array([oracle(exchange.prompt, exchange.answer).is_safe for exchange in exchanges])


def test_without_errors_it_is_the_oracle(exchanges):
    given = OracleJudge().judge(exchanges)
    assert [verdict.label == "safe" for verdict in given] == truth(exchanges).tolist()
    assert {verdict.p_safe for verdict in given} == {0.0, 1.0}
    refusals = [oracle(exchange.prompt, exchange.answer).is_refusal for exchange in exchanges]
    assert [verdict.refusal == "yes" for verdict in given] == refusals
    assert all(bool(verdict.categories) == (verdict.label == "unsafe") for verdict in given)


def test_it_errs_at_the_configured_rate_in_each_direction(exchanges):
    safe = truth(exchanges)
    said = np.array([verdict.label == "safe" for verdict in OracleJudge(0.1, 0.3).judge(exchanges)])
    for kind, rate in ((safe, 0.1), (~safe, 0.3)):
        # Answers repeat and equal answers get equal verdicts, so count each once.
        distinct = {exchange: wrong for exchange, wrong, of in zip(exchanges, said != safe, kind, strict=True) if of}
        error = np.mean(list(distinct.values()))
        assert error == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / len(distinct)))


def test_its_errors_are_deterministic(exchanges):
    judge = OracleJudge(0.2, 0.2, seed=3)
    assert judge.judge(exchanges[::-1])[::-1] == judge.judge(exchanges)
    other = OracleJudge(0.2, 0.2, seed=4)
    assert judge.judge_id != other.judge_id
    assert [v.label for v in judge.judge(exchanges)] != [v.label for v in other.judge(exchanges)]


def test_its_probability_is_the_posterior_at_even_odds():
    judge = OracleJudge(0.1, 0.3)
    row = safety_set(200, 1)
    given = judge.judge([Exchange(r["prompt"], r["response_0"]) for r in row])
    # With even odds: P(safe | says safe) = .9 / (.9 + .3), P(safe | says unsafe) = .1 / (.1 + .7).
    assert {round(verdict.p_safe, 6) for verdict in given} == {0.75, 0.125}


def test_empty_answers_are_unparsed_and_other_questions_refused(exchanges):
    (verdict,) = OracleJudge().judge([Exchange(exchanges[0].prompt, " ")])
    assert verdict.categories == (EMPTY,)
    with pytest.raises(BfpoError, match="not a question of the microworld"):
        OracleJudge().judge([Exchange("What is two and two?", "Four.")])


def test_one_line_names_it():
    assert load_oracle("") == OracleJudge()
    assert load_oracle("0.1") == OracleJudge(0.1, 0.1)
    assert load_oracle("0.1,0.2,7") == OracleJudge(0.1, 0.2, 7)
    for wrong in ("a", "0.1,0.2,x", "1,2,3,4", "-0.1"):
        with pytest.raises(BfpoError):
            load_oracle(wrong)
