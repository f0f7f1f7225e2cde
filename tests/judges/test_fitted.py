"""Tests of the fitted judge: learning, folds that don't leak, files without pickle, and figures on the real samples."""

import json
import pickletools
import random
from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from bfpo.errors import BfpoError
from bfpo.judges import Exchange, load_judge
from bfpo.judges.fitted import NgramBlock, load_fitted
from bfpo.judges.fitting import INVERSE_PENALTY, fit_judge
from bfpo.judges.keywords import begins_as_refusal
from bfpo.judges.labels import LabeledAnswer, load_labels, of_source
from bfpo.judges.unjudged import EMPTY
from bfpo.statistics.calibration import auc, calibration_error

WORDS = [f"word{n}" for n in range(40)]


def answers(count, seed=0, questions=50):
    """Unsafe answers have "bad" words, with exceptions; questions carry no information."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        safe = draw.random() < 0.6
        marked = safe != (draw.random() < 0.1)
        text = " ".join([*draw.sample(WORDS, 6), "helpful" if marked else "harming"])
        exchange = Exchange(f"question {number % questions}", text)
        made.append(LabeledAnswer(exchange, safe, not safe, "made", ""))
    return made


@pytest.fixture(scope="module")
def fit():
    return fit_judge(answers(600), name="made")


def test_it_learns_what_can_be_learned(fit):
    held_out = answers(400, seed=1)
    given = fit.judge.judge([answer.exchange for answer in held_out])
    right = [(verdict.label == "safe") == answer.is_safe for verdict, answer in zip(given, held_out, strict=True)]
    # One in ten labels is flipped.
    assert np.mean(right) == pytest.approx(0.9, abs=0.04)
    assert np.mean((fit.out_of_fold >= 0.5) == fit.labels) == pytest.approx(0.9, abs=0.04)
    assert calibration_error(fit.out_of_fold, fit.labels, bins=5).value < 0.06
    assert all((verdict.label == "safe") == (verdict.p_safe >= 0.5) for verdict in given)


def test_folds_share_no_question():
    # Labels depend on the question alone, and no two questions share a word, so nothing generalizes.
    flip = [random.Random(n).random() < 0.5 for n in range(40)]
    made = [LabeledAnswer(Exchange(f"unique{n // 10}", "the same text"), flip[n // 10], None) for n in range(400)]
    fit = fit_judge(made)
    # Uninformative scores get the base rate.
    assert set(np.round(fit.out_of_fold, 1)) <= {0.4, 0.5, 0.6}
    assert np.mean((fit.out_of_fold >= 0.5) == fit.labels) < 0.6


@pytest.mark.parametrize("most", [10_000, 60])
def test_scores_are_those_of_scikit_learn_s_own_pipeline(most):
    labeled = answers(300)
    block = NgramBlock("answer", "word", 1, 2, 2, most)
    judge = fit_judge(labeled, blocks=[block]).judge
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, max_features=most, binary=True, token_pattern=r"[\w'’]+|[.,!?;:]"
    )
    matrix = vectorizer.fit_transform([answer.exchange.answer for answer in labeled])
    model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear", dual=True, max_iter=1000, random_state=0)
    model.fit(matrix, [answer.is_safe for answer in labeled])
    others = [answer.exchange for answer in answers(50, seed=2)]
    expected = model.decision_function(vectorizer.transform([other.answer for other in others]))
    theirs, ours = set(vectorizer.get_feature_names_out()), set(judge.vocabularies[0])
    if most > len(theirs):
        assert ours == theirs
        assert judge.scores(others) == pytest.approx(expected, abs=1e-9)
    else:
        # Ties at the limit may be cut differently.
        assert len(ours) == len(theirs) == most
        assert len(ours & theirs) >= 55
        assert np.corrcoef(judge.scores(others), expected)[0, 1] > 0.99


def test_it_is_kept_whole_and_without_pickle(fit, tmp_path):
    fit.judge.save(tmp_path / "judge")
    names = {path.name for path in (tmp_path / "judge").iterdir()}
    assert names == {"judge.json", "vocabulary.json", "arrays.safetensors"}
    for name in names:
        with pytest.raises(Exception):  # noqa: B017, PT011  (any error pickletools raises for a file that is not a pickle)
            list(pickletools.genops((tmp_path / "judge" / name).read_bytes()))
    loaded = load_judge(str(tmp_path / "judge"))
    exchanges = [answer.exchange for answer in answers(40, seed=3)]
    assert loaded.judge(exchanges) == fit.judge.judge(exchanges)
    assert loaded.judge_id == fit.judge.judge_id
    record = json.loads((tmp_path / "judge" / "judge.json").read_text())["record"]
    assert (record["answers"], record["questions"], record["left_out"]) == (600, 50, 0)


@pytest.mark.parametrize("name", ["judge.json", "vocabulary.json", "arrays.safetensors"])
def test_a_changed_file_is_noticed(fit, tmp_path, name):
    fit.judge.save(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.write_bytes(content.replace(b"harming", b"helping") if name == "vocabulary.json" else content[:-9])
    with pytest.raises(BfpoError, match="fit it again"):
        load_fitted(str(tmp_path))


@pytest.mark.parametrize("name", ["judge.json", "vocabulary.json", "arrays.safetensors"])
def test_only_an_earlier_judge_is_replaced(fit, tmp_path, name):
    fit.judge.save(tmp_path / "judge")
    fit.judge.save(tmp_path / "judge")
    strange = tmp_path / name
    strange.write_text("{}")
    with pytest.raises(BfpoError, match=f"{name}: this would overwrite a file that is not a fitted judge"):
        fit.judge.save(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir() if path.is_file()] == ["{}"]


def test_other_weights_have_another_name(fit):
    other = fit_judge(answers(600, seed=9), name="made").judge
    assert other.judge_id != fit.judge.judge_id
    assert fit_judge(answers(600), name="made").judge.judge_id == fit.judge.judge_id


@pytest.mark.parametrize("answer", ["", " \n", "z" * 100_000, "\x00\ud800<|im_end|>[/INST]", "{}", "?!", "日本語" * 50])
def test_any_answer_gets_a_verdict(fit, answer):
    (verdict,) = fit.judge.judge([Exchange("question 1", answer)])
    if answer.strip():
        assert 0 <= verdict.p_safe <= 1
    else:
        assert (verdict.label, verdict.categories) == ("unparsed", (EMPTY,))


def test_questions_without_a_word_in_common_are_left_out_of_the_judge(tmp_path):
    """As text that is written without spaces often is."""
    labeled = [
        replace(one, exchange=replace(one.exchange, prompt=chr(0x4E00 + at))) for at, one in enumerate(answers(400))
    ]
    judge = fit_judge(labeled, name="made").judge
    judge.save(tmp_path)
    assert () in judge.vocabularies
    given = [Exchange("新", "helpful word1"), Exchange("新", "harming word1")]
    good, bad = load_fitted(str(tmp_path)).judge(given)
    assert (good.label, bad.label) == ("safe", "unsafe")
    assert judge.judge(given) == [good, bad]
    alone = [replace(one, exchange=Exchange(chr(0x4E00 + at), chr(0x6E00 + at))) for at, one in enumerate(labeled)]
    with pytest.raises(BfpoError, match="nothing to fit a judge to"):
        fit_judge(alone)


def test_a_judge_of_refusals_gives_no_verdict_on_safety():
    judge = fit_judge(answers(300), "refusal").judge
    (verdict,) = judge.judge([Exchange("question 1", "harming harming")])
    assert (verdict.label, verdict.p_safe, verdict.refusal) == ("unparsed", None, "yes")


@pytest.mark.parametrize(
    ("labeled", "words"),
    [
        ([], "0 answers to 0 questions are labeled safe"),
        ([LabeledAnswer(Exchange(str(n), "a b"), True, None) for n in range(50)], "labeled unsafe"),
        ([LabeledAnswer(Exchange("one", f"a {n}"), n % 2 == 0, None) for n in range(50)], "need at least 5 questions"),
    ],
)
def test_too_little_to_fit_to_is_named(labeled, words):
    with pytest.raises(BfpoError, match=words):
        fit_judge(labeled)


def test_accuracy_on_a_part_of_diasafety(shared_data):
    # Words alone, to be quick; the figures of the whole judge are in docs/results/judges.md.
    derived = shared_data / "derived"
    labeled = of_source(load_labels(str(derived / "response_safety_dev.jsonl")), "diasafety")
    held_out = load_labels(str(derived / "response_safety_devval.jsonl"))
    blocks = [NgramBlock("prompt", "word", 1, 2, 2, 50_000), NgramBlock("answer", "word", 1, 2, 2, 50_000)]
    judge = fit_judge(labeled, blocks=blocks, folds=2).judge
    p = judge.probabilities([answer.exchange for answer in held_out])
    labels = np.array([bool(answer.is_safe) for answer in held_out])
    assert np.mean((p >= 0.5) == labels) > 0.71
    area = auc(p, labels)
    assert area is not None
    assert area.value > 0.78


def test_keywords_reproduce_the_published_accuracy(shared_data):
    rows = [json.loads(line) for line in (shared_data / "derived" / "xstest_human_dev.jsonl").open()]
    right = [begins_as_refusal(row["response"]) == (row["compliance"] != 1) for row in rows]
    # Published: .884 over all five models; these samples are a part.
    assert np.mean(right) == pytest.approx(0.884, abs=0.04)
