"""Distance of a policy from its reference, from answers that the policy samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from bfpo.engine.forward import Engine
from bfpo.engine.layout_choice import choose_layout
from bfpo.engine.reference_cache import scored
from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding, Prompt, sample_requests
from bfpo.generation.sampling import sample_ids
from bfpo.groups import TokenGroup
from bfpo.models import context_length, end_tokens
from bfpo.statistics.intervals import Estimate, mean_interval

_TOKENS_AT_ONCE = 16_384


@dataclass(frozen=True)
class SampledLogRatios:
    """Log-ratios of sampled answers.

    Attributes:
        values: [N] log pi(y|x) - log pi_ref(y|x) of each answer in nats, summed over its tokens, its end included.
        prompts: [N] key of each answer's prompt.
        truncated: number of answers cut before their end; their log-ratio is that of what there is of them.
    """

    values: list[float]
    prompts: list[str]
    truncated: int

    def kl(self) -> Estimate:
        """Their mean: KL(pi || pi_ref) per sequence in nats, averaged over prompts; with its interval over prompts.

        Raises:
            ValueError: if there are fewer than two prompts.
        """
        return mean_interval(self.values, self.prompts)


def sampled_log_ratios(
    policy: LocalGenerator, reference: LocalGenerator, prompts: Mapping[str, Prompt], decoding: Decoding
) -> SampledLogRatios:
    """Sample answers from the policy itself, and score their tokens under both models.

    Args:
        policy: the policy; it samples at temperature 1 from the whole vocabulary, whatever ``decoding`` says, because
            only the mean over its own distribution is the KL divergence.
        reference: the reference, with the policy's tokenizer and chat template.
        prompts: prompts by key.
        decoding: number of samples per prompt, length, seed and batches.

    Raises:
        BfpoError: if the two encode a prompt differently, or it has no room for an answer of that length.
    """
    decoding = replace(decoding, temperature=1.0, top_p=1.0)
    _check(policy, reference, prompts, decoding)
    groups: list[TokenGroup] = []
    keys: list[str] = []
    for batch in policy.plan(sample_requests(prompts, decoding), decoding):
        encoded = [policy.encode(request.prompt) for request in batch]
        with torch.inference_mode():
            answers = sample_ids(policy.model, policy.tokenizer, [one.seed for one in batch], encoded, decoding)
        groups += [TokenGroup(prompt, [answer]) for prompt, answer in zip(encoded, answers, strict=True)]
        keys += [request.key for request in batch]
    ends = end_tokens(policy.model.generation_config, policy.tokenizer)
    return SampledLogRatios(
        values=(_sums(policy.model, groups) - _sums(reference.model, groups)).tolist(),
        prompts=keys,
        truncated=sum(group.answers[0][-1] not in ends for group in groups),
    )


def _check(
    policy: LocalGenerator, reference: LocalGenerator, prompts: Mapping[str, Prompt], decoding: Decoding
) -> None:
    context = context_length(policy.model.config)
    for key, prompt in prompts.items():
        ids = policy.encode(prompt)
        if ids != reference.encode(prompt):
            raise BfpoError(f"prompt {key!r} has other tokens for the reference: both need one tokenizer and template")
        if context is not None and len(ids) + decoding.max_new_tokens > context:
            raise BfpoError(
                f"prompt {key!r} has {len(ids):,} tokens, and the model's context is {context:,}: leave it out, or "
                "sample fewer tokens"
            )


def _sums(model: PreTrainedModel, groups: Sequence[TokenGroup]) -> np.ndarray:
    """[G] summed log-probability of each group's only answer, in nats."""
    choice = choose_layout(model, model, groups[:16])
    engine = Engine(model, choice.layout, _TOKENS_AT_ONCE, choice.attention)
    sums = np.empty(len(groups))
    order = [index for batch in engine.split(groups) for index in batch]
    sums[order] = [value for _, values in scored(engine, model, groups) for value in values]
    return sums
