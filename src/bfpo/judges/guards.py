"""Guard models run locally through transformers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from bfpo.continuation import continued
from bfpo.judges.deciding import deciding_step, verdict_of
from bfpo.judges.guard_templates import GuardTemplate, marks_of, neutralized_exchange
from bfpo.judges.truncation import TOO_LONG, cut_to_fit
from bfpo.judges.unjudged import ONLY_THINKING, around_empty, unjudged
from bfpo.judges.verdict import Exchange, Verdict
from bfpo.models import context_length, end_tokens
from bfpo.sequences import packed
from bfpo.thinking import PROMPT_TAIL, split_thinking


@dataclass(frozen=True)
class GuardJudge:
    """A local guard model with its template.

    Attributes:
        template: template of requests and parser of outputs.
        model: a causal language model.
        tokenizer: its tokenizer, with its chat template.
        judge_id: id of the judge, with the version of its weights.
        max_length: largest number of tokens in a request; longer answers are cut at the end.
        max_tokens: largest number of padded tokens in a batch.
        counts: number of "truncated" answers in this process.
    """

    template: GuardTemplate
    model: PreTrainedModel
    tokenizer: Tokenizer
    judge_id: str
    max_length: int = 4096
    max_tokens: int = 16_384
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def template_digest(self) -> str:
        """Digest of the template and, if it is used, of the tokenizer's chat template."""
        parts = [self.template.digest, str(self._room)]
        if self.template.form != "text":
            parts.append(str(self.tokenizer.chat_template))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for every exchange; unparsed if the question leaves no room for the answer."""
        return around_empty(self, exchanges, self._judge)

    def render(self, exchange: Exchange) -> str:
        """The text of a request, without a start token that the tokenizer adds."""
        if self.template.form == "text":
            return self.template.render(exchange)
        generation = self.template.form == "message"
        rendered = self.tokenizer.apply_chat_template(
            [dict(message) for message in self.template.messages(exchange)],
            tokenize=False,
            add_generation_prompt=generation,
        )
        return str(rendered)

    def _judge(self, exchanges: list[Exchange]) -> list[Verdict]:
        encoded = [self._encode(exchange) for exchange in exchanges]
        verdicts: dict[int, Verdict] = {at: unjudged(self, TOO_LONG) for at, ids in enumerate(encoded) if ids is None}
        known = [(at, ids) for at, ids in enumerate(encoded) if ids is not None]
        for batch in packed([len(ids) + self.template.max_new_tokens for _, ids in known], self.max_tokens):
            own = [known[place] for place in batch]
            verdicts |= zip([at for at, _ in own], self._ask([ids for _, ids in own]), strict=True)
        return [verdicts[at] for at in range(len(exchanges))]

    def _encode(self, exchange: Exchange) -> list[int] | None:
        clean = neutralized_exchange(exchange, marks_of(self.tokenizer))
        cut = cut_to_fit(clean, self._tokens, self._room)
        if cut is None:
            return None
        self.counts["truncated"] += cut is not clean
        return self._tokens(cut)

    @property
    def _room(self) -> int:
        longest = context_length(self.model.config) or self.max_length
        return min(self.max_length, longest - self.template.max_new_tokens)

    def _tokens(self, exchange: Exchange) -> list[int]:
        # A chat template writes its own start token.
        add_special = self.template.form == "text"
        return list(self.tokenizer(self.render(exchange), add_special_tokens=add_special)["input_ids"])  # pyright: ignore

    @torch.inference_mode()
    def _ask(self, batch: list[list[int]]) -> list[Verdict]:
        watch = _WordProbabilities(self._word_tokens)
        ends = end_tokens(self.model.generation_config, self.tokenizer)
        rows = continued(self.model, batch, ends, self.template.max_new_tokens, LogitsProcessorList([watch]))
        steps = torch.stack(watch.steps, dim=1).tolist()
        return [self._verdict(*one, ends) for one in zip(batch, rows, steps, strict=True)]

    def _verdict(self, prompt: list[int], row: list[int], seen: list[list[float]], ends: list[int]) -> Verdict:
        length = next((at for at, token in enumerate(row) if token in ends), len(row))
        output = self._decoded(row[:length])
        # The template may have begun the thinking.
        thinking, answer = split_thinking(output, self._decoded(prompt[-PROMPT_TAIL:]))
        if thinking:  # the deciding token is then unknown, so the word alone counts
            return verdict_of(self, self.template, answer, None) if answer else unjudged(self, ONLY_THINKING, thinking)
        step = deciding_step(self.template, chain(self._pieces(row[:length]), [""]))
        probabilities = None
        if step is not None and step < len(seen):
            probabilities = dict(zip(self._word_tokens, seen[step], strict=True))
        return verdict_of(self, self.template, output, probabilities)

    def _pieces(self, output: list[int]) -> Iterator[str]:
        """The text of each token, from whole prefixes, because a tokenizer may join adjacent tokens."""
        for one, longer in pairwise(self._decoded(output[:end]) for end in range(len(output) + 1)):
            yield longer[len(one) :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    @cached_property
    def _word_tokens(self) -> Mapping[str, list[int]]:
        """Token ids of each valid word: of the whole word if there are any, otherwise of its unambiguous prefixes."""
        whole: dict[str, list[int]] = {word: [] for word in self.template.words}
        begun: dict[str, list[int]] = {word: [] for word in self.template.words}
        special = set(self.tokenizer.all_special_ids)
        for token, number in self.tokenizer.get_vocab().items():
            if number in special:
                continue
            text = self.tokenizer.convert_tokens_to_string([token])
            if word := self.template.word_of(text, prefixes=False):
                whole[word].append(number)
            elif word := self.template.word_of(text):
                begun[word].append(number)
        return {word: whole[word] or begun[word] for word in self.template.words}


class _WordProbabilities(LogitsProcessor):
    """Records the probability of each valid word at every generation step; scores are unchanged."""

    def __init__(self, word_tokens: Mapping[str, list[int]]) -> None:
        self._tokens = list(word_tokens.values())
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> Any:
        log_total = scores.float().logsumexp(-1, keepdim=True)
        words = [(scores[:, tokens].float() - log_total).exp().sum(-1) for tokens in self._tokens]
        self.steps.append(torch.stack(words, dim=-1).cpu() if words else scores.new_empty(len(scores), 0).cpu())
        return scores
