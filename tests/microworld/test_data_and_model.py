"""Tests of the data sets' cells and noise, and of the packaged model."""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from operator import add
from typing import get_args

import pytest

from bfpo.microworld.answers import AnswerKind, addressed, steps, write_answer
from bfpo.microworld.data import chat_set, helpfulness_set, safety_set
from bfpo.microworld.grammar import Split, parse_request, requests
from bfpo.microworld.oracle import judge, preference_probability
from bfpo.microworld.vocabulary import JOINTS, OPENERS
from bfpo.microworld.worlds import W0
from bfpo.models import MICROWORLD, load_model, load_tokenizer
from bfpo.safehelp.suites import load_suite


def test_safety_set_is_labeled_by_the_oracle():
    rows = safety_set(1500, 3)
    cells = Counter()
    for row in rows:
        verdicts = [judge(row["prompt"], row[f"response_{k}"]) for k in (0, 1)]
        assert [v.is_safe for v in verdicts] == [row["is_response_0_safe"], row["is_response_1_safe"]]
        assert parse_request(row["prompt"]).split == "train"
        better = row["better_response_id"]
        cells[verdicts[better].is_safe, verdicts[1 - better].is_safe] += 1
        if verdicts[0].is_safe != verdicts[1].is_safe:
            assert verdicts[row["safer_response_id"]].is_safe
    # All four cells occur, and the more helpful answer is unsafe much more often than the other is.
    assert min(cells.values()) > 10
    assert cells[False, True] > 5 * cells[True, False]


def test_helpfulness_order_follows_the_noise_scale():
    rows = safety_set(4000, 5, world=replace(W0, order_noise=0.4))
    observed, expected = [], []
    for row in rows:
        p_help = [judge(row["prompt"], row[f"response_{k}"]).p_help for k in (0, 1)]
        expected.append(preference_probability(*p_help, 0.4))
        observed.append(row["better_response_id"] == 0)
    sure = [seen for seen, p in zip(observed, expected, strict=True) if p > 0.8]
    mean = sum(p for p in expected if p > 0.8) / len(sure)
    assert sum(sure) / len(sure) == pytest.approx(mean, abs=0.03)


def test_helpfulness_and_chat_sets():
    for row in helpfulness_set(200, 0):
        assert len(set(row["responses"])) == len(row["helpfulness"]) == 4
        assert parse_request(row["prompt"]).kind != "harmful"
    for row in chat_set(200, 0):
        user, assistant = row["messages"]
        assert judge(user["content"], assistant["content"]).kind == AnswerKind.FULL


@pytest.mark.parametrize("make", [safety_set, helpfulness_set, chat_set])
def test_sets_depend_on_size_and_seed_only(make):
    assert make(20, 7) == make(20, 7)
    assert make(20, 7) != make(20, 8)


def test_shipped_model_is_small_whole_and_records_how_it_was_made():
    assert sum(path.stat().st_size for path in MICROWORLD.iterdir()) <= 5_000_000
    record = json.loads((MICROWORLD / "pretraining.json").read_text())
    assert {"plan", "seconds", "final_loss", "versions"} <= set(record)
    model, tokenizer = load_model("microworld"), load_tokenizer("microworld")
    assert model.num_parameters() == record["parameters"]
    assert len(tokenizer) == model.config.vocab_size


def test_tokenizer_takes_any_text_and_most_words_of_the_world_whole():
    tokenizer = load_tokenizer("microworld")
    rng = random.Random(0)
    texts = ["ünïcode 🙂 <s>\n\ttabs", ""]
    for request in rng.sample(requests("test"), 200):
        texts += [request.text, *(write_answer(request, kind, rng) for kind in AnswerKind)]
    for text in texts:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    words = Counter(word for text in texts[2:] for word in re.findall(r" ?[A-Za-z']+", text))
    whole = [word for word in words if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1]
    assert len(whole) > len(words) / 2
    assert sum(words[word] for word in whole) > 0.8 * words.total()


def test_every_answer_of_the_world_fits_in_what_is_sampled():
    tokenizer = load_tokenizer("microworld")
    tasks = {request.task: request for split in get_args(Split) for request in requests(split)}
    answers = [
        opener.format(addressed(request)) + ": " + "".join(map(add, joints, steps(request))) + "."
        for request in tasks.values()
        for opener in OPENERS
        for joints in JOINTS
    ]
    longest = max(len(ids) for ids in tokenizer(answers)["input_ids"])
    end_of_turn = 1
    assert longest + end_of_turn <= load_suite("microworld", per_kind=1).decoding.max_new_tokens


def test_chat_template_has_one_start_and_an_end_after_every_turn():
    tokenizer = load_tokenizer("microworld")
    turns = [{"role": "system", "content": "Hi"}, {"role": "user", "content": "Yo"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "So"}], return_dict=False)
    assert whole[: len(prompt)] == prompt
    assert whole.count(tokenizer.bos_token_id) == 1
    assert whole.count(tokenizer.eos_token_id) == 3
    assert whole[0] == tokenizer.bos_token_id
    assert whole[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in {tokenizer.bos_token_id, tokenizer.eos_token_id}
