"""Generation on a GPU: greedy answers against transformers' own, log-likelihoods of choices against the CPU's."""

import pytest
import torch

from bfpo.generation.choice_scoring import score_choices
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import ChoiceRequest, Decoding, sample_requests
from gpu_models import CUDA, DEVICE
from models import tiny_llama
from training.rows import WORDS, word_tokenizer

pytestmark = CUDA
PROMPTS = {f"p{n}": " ".join(WORDS[n : n + 2 + n % 5]) for n in range(0, 40, 3)}


@pytest.fixture
def model():
    torch.backends.cuda.matmul.allow_tf32 = False
    return tiny_llama(hidden_size=64).eval()


def test_greedy_answers_are_those_of_transformers(model):
    tokenizer, decoding = word_tokenizer(), Decoding(temperature=0.0, max_new_tokens=24)
    model.to(DEVICE)
    generator = LocalGenerator(model, tokenizer)
    requests = sample_requests(PROMPTS, decoding)
    found = generator.generate(requests, decoding)
    for request, completion in zip(requests, found, strict=True):
        ids = torch.tensor([generator.encode(request.prompt)], device=DEVICE)
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, eos_token_id=2,
            pad_token_id=0,
        )  # fmt: skip
        answer = output[0, ids.shape[1] :]
        assert completion.text == tokenizer.decode(answer, skip_special_tokens=True).strip()
    assert len({completion.text for completion in found}) > 3


def test_samples_are_those_of_the_cpu(model):
    tokenizer, decoding = word_tokenizer(), Decoding(temperature=1.0, top_p=0.9, max_new_tokens=12)
    requests = sample_requests(PROMPTS, decoding)
    texts = [
        [one.text for one in LocalGenerator(model.to(device), tokenizer).generate(requests, decoding)]
        for device in ("cpu", DEVICE)
    ]
    assert texts[0] == texts[1]


def test_log_likelihoods_of_choices_are_those_of_the_cpu(model, record_property):
    requests = [
        ChoiceRequest(f"c{n}", " ".join(WORDS[n : n + 6]), (WORDS[n + 6], " ".join(WORDS[n + 7 : n + 11]), WORDS[n]))
        for n in range(0, 40, 2)
    ]
    scores = [
        {
            one.key: one.logps
            for batch in score_choices(model.to(device), word_tokenizer(), requests, chat=False)
            for one in batch
        }
        for device in ("cpu", DEVICE)
    ]
    apart = max(abs(a - b) for key in scores[0] for a, b in zip(scores[0][key], scores[1][key], strict=True))
    record_property("nats", f"{apart:.1e}")
    assert len(scores[1]) == len(requests)
    assert apart < 1e-4
