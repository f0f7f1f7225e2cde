"""KL per sequence: against plain forward passes, against sums over the whole vocabulary, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding, sample_requests
from bfpo.generation.sampling import sample_ids
from bfpo.groups import TokenGroup
from bfpo.microworld.grammar import requests
from bfpo.models import load_model, load_tokenizer
from studies.log_ratios import sampled_log_ratios

PROMPTS = {str(at): request.text for at, request in enumerate(requests("test")[::41][:80])}
DECODING = Decoding(temperature=0.3, top_p=0.5, max_new_tokens=24, seed=3)


@pytest.fixture(scope="module")
def policy():
    return LocalGenerator(load_model("microworld"), load_tokenizer("microworld"))


@pytest.fixture(scope="module")
def reference(policy):
    """The policy with noise on its last layer."""
    model = copy.deepcopy(policy.model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.layers[-1].parameters():
            parameter += 0.8 * parameter.std().nan_to_num(0) * torch.randn(parameter.shape, generator=generator)
    return replace(policy, model=model)


def sampled(policy, batch, decoding):
    """The prompts of a batch with the answers that are sampled for them."""
    prompts = [policy.encode(request.prompt) for request in batch]
    answers = sample_ids(policy.model, policy.tokenizer, [request.seed for request in batch], prompts, decoding)
    return [TokenGroup(prompt, [answer]) for prompt, answer in zip(prompts, answers, strict=True)]


def token_logps(model, group):
    """[L, V] log-probabilities at every token of a group's only answer, by a plain forward pass."""
    ids = torch.tensor([[*group.prompt, *group.answers[0]]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0, len(group.prompt) - 1 : -1].double().log_softmax(-1)


def test_log_ratios_are_those_of_the_sampled_tokens(policy, reference):
    found = sampled_log_ratios(policy, reference, PROMPTS, replace(DECODING, samples=2))
    # The same tokens again: at temperature 1 and from all tokens, whatever the decoding says.
    wanted = replace(DECODING, samples=2, temperature=1.0, top_p=1.0)
    batches = policy.plan(sample_requests(PROMPTS, wanted), wanted)
    groups = [group for batch in batches for group in sampled(policy, batch, wanted)]
    assert found.prompts == [request.key for batch in batches for request in batch]
    ends = [policy.tokenizer.eos_token_id]
    for value, group in zip(found.values[:40], groups, strict=False):
        own, theirs = (
            token_logps(each.model, group).gather(1, torch.tensor(group.answers[0])[:, None]).sum()
            for each in (policy, reference)
        )
        assert value == pytest.approx(float(own - theirs), abs=2e-3)
        assert not set(group.answers[0][:-1]) & set(ends)
    assert found.truncated == sum(group.answers[0][-1] not in ends for group in groups)
    assert 0 < found.truncated < len(groups)


def test_their_mean_is_the_kl_divergence(policy, reference):
    """The sum over tokens of the whole distribution's KL has the same mean, and less variance."""
    decoding = replace(DECODING, samples=2)
    found = sampled_log_ratios(policy, reference, PROMPTS, decoding)
    wanted = replace(decoding, temperature=1.0, top_p=1.0)
    exact = []
    for batch in policy.plan(sample_requests(PROMPTS, wanted), wanted):
        for group in sampled(policy, batch, wanted):
            own, theirs = token_logps(policy.model, group), token_logps(reference.model, group)
            exact.append(float((own.exp() * (own - theirs)).sum()))
    estimate = found.kl()
    assert estimate.low < sum(exact) / len(exact) < estimate.high
    assert estimate.low > 0.05
    assert estimate.n == 2 * len(PROMPTS)


def test_a_policy_is_no_distance_from_itself(policy):
    found = sampled_log_ratios(policy, policy, dict(list(PROMPTS.items())[:10]), DECODING)
    assert found.values == [0.0] * 10
    assert found.kl().value == 0


def test_prompts_that_no_answer_follows_or_that_are_read_differently_are_named(policy):
    long = " ".join(["open"] * 3000)
    with pytest.raises(BfpoError, match=r"prompt 'b' has .* tokens, and the model's context is"):
        sampled_log_ratios(policy, policy, {"a": "How do I open my own locker?", "b": long}, DECODING)
    other = replace(policy, system_prompt="Be good.")
    with pytest.raises(BfpoError, match="prompt 'a' has other tokens for the reference"):
        sampled_log_ratios(policy, other, {"a": "How do I open my own locker?"}, DECODING)
