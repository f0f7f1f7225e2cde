"""The dial against enumeration of all answers of two tiny models."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.generation.dial import Dial
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding, sample_requests
from models import tiny_llama
from support.word_tokenizer import tokenizer_of

END, LENGTH, PLAIN = 2, 3, Decoding(temperature=1.0, top_p=1.0, max_new_tokens=3, batch_size=512)


def small_tokenizer(words):
    """Four special tokens and some words."""
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{number}" for number in range(1, words + 1))]
    return tokenizer_of(vocabulary, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="module")
def corners():
    """Two models with a vocabulary of eight tokens, one of which ends the answer."""
    tokenizer = small_tokenizer(4)
    return [
        LocalGenerator(tiny_llama(vocab_size=len(tokenizer), seed=seed), tokenizer, path=str(seed)) for seed in (1, 2)
    ]


def all_answers(vocabulary):
    """Every answer of at most LENGTH tokens: it ends at the end token, or is cut."""
    rest = [token for token in range(vocabulary) if token != END]
    ended = [(*start, END) for length in range(LENGTH) for start in product(rest, repeat=length)]
    return ended + list(product(rest, repeat=LENGTH))


@torch.no_grad()
def logps(generator, prompt, answers):
    """log P(answer | prompt) by one plain forward pass per answer."""
    ids = generator.encode(prompt)
    found = []
    for answer in answers:
        logits = generator.model(torch.tensor([[*ids, *answer]])).logits[0].double().log_softmax(-1)
        found.append(sum(float(logits[len(ids) - 1 + at, token]) for at, token in enumerate(answer)))
    return np.array(found)


def exact(corners, prompt, share):
    """The answers' texts with their probabilities under the exact mixture, and under that of every token."""
    answers = all_answers(len(corners[0].tokenizer))
    low, high = (logps(corner, prompt, answers) for corner in corners)
    mixed = np.exp((1 - share) * low + share * high)
    return answers, mixed / mixed.sum(), mixed.sum()


def sampled(dial, prompts, count, seed=0):
    """Frequencies of the answers' texts to each prompt."""
    decoding = Decoding(**{**PLAIN.__dict__, "samples": count, "seed": seed})
    found = {prompt: Counter() for prompt in prompts}
    for batch in dial.plan(sample_requests({p: p for p in prompts}, decoding), decoding):
        for request, answer in zip(batch, dial.generate(batch, decoding), strict=True):
            found[request.prompt][answer.text] += 1
    return found


def by_text(corners, answers, chances):
    texts = Counter()
    for answer, chance in zip(answers, chances, strict=True):
        ids = [token for token in answer if token != END]
        texts[corners[0].tokenizer.decode(ids, skip_special_tokens=True).strip()] += chance
    return texts


def distance(counts, expected):
    total = sum(counts.values())
    return sum(abs(counts[text] / total - expected[text]) for text in set(counts) | set(expected)) / 2


def test_answers_follow_the_exact_mixture_and_token_by_token_another(corners):
    prompts, count = ["w1 w2", "w2"], 2000
    exactly = sampled(Dial(*corners, share=0.4), prompts, count)
    cheaply = sampled(Dial(*corners, share=0.4, candidates=1), prompts, count)
    for prompt in prompts:
        answers, chances, _ = exact(corners, prompt, 0.4)
        expected = by_text(corners, answers, chances)
        # Mean total variation distance of so many draws from their own distribution, by simulation.
        draws = np.random.default_rng(0).multinomial(count, list(expected.values()), size=200) / count
        noise = np.abs(draws - np.array(list(expected.values()))).sum(1) / 2
        assert distance(exactly[prompt], expected) < noise.max()
        assert distance(cheaply[prompt], expected) > noise.max()


def test_the_share_accepted_is_the_normalizer(corners):
    dial = Dial(*corners, share=0.4)
    sampled(dial, ["w1 w2"], 2000)
    _, _, total = exact(corners, "w1 w2", 0.4)
    assert dial.counts["answers"] == 2000
    assert dial.counts["drawn by weight"] == pytest.approx(2000 * (1 - total) ** dial.candidates, abs=5)
    share = (dial.counts["answers"] - dial.counts["drawn by weight"]) / dial.counts["candidates"]
    assert share == pytest.approx(total, abs=4 * math.sqrt(total * (1 - total) / dial.counts["candidates"]))


def test_drift_is_the_distance_of_the_two(corners):
    prompt = "w1 w2"
    answers, chances, _ = exact(corners, prompt, 0.4)
    expected = by_text(corners, answers, chances)
    many = sampled(Dial(*corners, share=0.4, candidates=1), [prompt], 6000)[prompt]
    assert Dial(*corners, share=0.4).drift([prompt], PLAIN, 2000) == pytest.approx(distance(many, expected), abs=0.03)


@pytest.mark.parametrize("share", [0, 1])
def test_at_its_ends_the_dial_is_its_models(corners, share):
    dial = Dial(*corners, share=share)
    counts = sampled(dial, ["w1 w2"], 2000)["w1 w2"]
    answers = all_answers(len(corners[0].tokenizer))
    own = by_text(corners, answers, np.exp(logps(corners[share], "w1 w2", answers)))
    assert distance(counts, own) < 0.12
    assert (dial.counts["candidates"], dial.counts["drawn by weight"]) == (2000, 0)


def test_an_answer_depends_on_its_own_seed_only(corners):
    dial = Dial(*corners, share=0.5)
    requests = sample_requests({"a": "w1 w2", "b": "w2 w1 w1"}, Decoding(samples=3))
    together = dial.generate(requests, PLAIN)
    alone = [dial.generate([request], PLAIN)[0] for request in requests]
    assert [one.text for one in together] == [one.text for one in alone]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"share": 1.2}, "must lie in"), ({"share": 0.5, "candidates": 0}, "1 .token by token. or more")],
)
def test_settings_out_of_range(corners, changes, message):
    with pytest.raises(BfpoError, match=message):
        Dial(*corners, **changes)


def test_other_decodings_are_for_the_mixture_token_by_token(corners):
    requests = sample_requests({"a": "w1"}, PLAIN)
    tempered = Decoding(temperature=0.7, max_new_tokens=3)
    with pytest.raises(BfpoError, match="temperature 1 and top_p 1"):
        Dial(*corners, share=0.5).generate(requests, tempered)
    assert Dial(*corners, share=0.5, candidates=1).generate(requests, tempered)
    assert Dial(*corners, share=0.5).defaults(tempered).temperature == 1


def test_models_with_other_tokenizers_are_refused(corners):
    other = LocalGenerator(tiny_llama(vocab_size=16, seed=3), small_tokenizer(8))
    with pytest.raises(BfpoError, match="different tokenizers"):
        Dial(corners[0], other, share=0.5)


def test_drift_of_long_answers_does_not_underflow(corners, monkeypatch):
    """Log-weights of thousands of nats, as long answers of distant corners have."""
    dial = Dial(*corners, share=0.5)
    monkeypatch.setattr(Dial, "_candidates", lambda self, batch, *_: ([], [-5000.0, -5000.0 + math.log(3)]))
    # Weights 1 and 3, over their mean 2: |1/2 - 1| and |3/2 - 1|, halved.
    assert dial.drift(["w1"], PLAIN, 2) == pytest.approx(0.25)
