"""Guard models and other judges on an OpenAI-compatible server."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bfpo.endpoints import CompletionRequest, Endpoint, Failure, Reply
from bfpo.judges.deciding import deciding_step, verdict_of
from bfpo.judges.guard_templates import GuardTemplate, neutralized_exchange
from bfpo.judges.unjudged import (
    EMPTY,
    NO_REPLY,
    ONLY_THINKING,
    REPLY_CUT,
    REPLY_EMPTY,
    REPLY_FILTERED,
    is_empty,
    unjudged,
)
from bfpo.judges.verdict import Exchange, Verdict


@dataclass(frozen=True)
class ServedJudge:
    """A judge on a server, which renders the chat template of guard models that have one.

    Attributes:
        template: template of requests and parser of outputs.
        endpoint: the server.
        max_characters: largest number of characters of an answer; longer ones are cut at the end.
        top_logprobs: number of alternatives requested at every token, for ``p_safe``; 0 if the server has none.
        counts: numbers of "truncated" answers and of replies without a verdict by reason, in this process.
    """

    template: GuardTemplate
    endpoint: Endpoint
    max_characters: int = 32_000
    top_logprobs: int = 20  # the maximum of OpenAI's protocol
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def judge_id(self) -> str:
        """Template, model and server; the weights behind the server's name can't be verified."""
        return f"{self.template.name}:{self.endpoint.config.model}@{self.endpoint.config.url}"

    @property
    def template_digest(self) -> str:
        """Digest of the template and the request options."""
        return self.endpoint.config.digest_with(f"{self.template.digest} {self.max_characters} {self.top_logprobs}")

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for every exchange, in order."""
        return list(self.stream(exchanges))

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """The same verdicts one by one, as replies arrive; a failed request is unparsed."""
        empty: deque[bool] = deque()

        def non_empty() -> Iterator[Exchange]:
            for exchange in exchanges:
                empty.append(is_empty(exchange))
                if not empty[-1]:
                    yield exchange

        for verdict in self._ask(non_empty()):
            while empty.popleft():
                yield unjudged(self, EMPTY)
            yield verdict
        yield from (unjudged(self, EMPTY) for _ in empty)

    def _ask(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        for reply in self.endpoint.complete(self._request(exchange) for exchange in exchanges):
            if isinstance(reply, Failure):
                yield self._without_verdict(NO_REPLY, reply.reason)
            else:
                yield self._verdict(reply)

    def _verdict(self, reply: Reply) -> Verdict:
        """The verdict in a reply; a reply that was filtered, or cut before its verdict, holds none."""
        if reply.refusal or reply.filtered:
            return self._without_verdict(REPLY_FILTERED, reply.refusal or reply.text)
        if reply.only_thinking:
            return self._without_verdict(ONLY_THINKING, reply.thinking)
        if not reply.text.strip():
            return self._without_verdict(REPLY_EMPTY, reply.finish_reason)
        verdict = verdict_of(self, self.template, reply.text, self._probabilities(reply))
        if verdict.label == "unparsed" and reply.truncated:
            return self._without_verdict(REPLY_CUT, reply.text)
        return verdict

    def _without_verdict(self, reason: str, words: str) -> Verdict:
        self.counts[reason] += 1
        return unjudged(self, reason, raw=f"[{words}]")

    def _request(self, exchange: Exchange) -> CompletionRequest:
        clean = neutralized_exchange(exchange)
        if len(clean.answer) > self.max_characters:
            self.counts["truncated"] += 1
            # Leading white space must not use up the limit.
            clean = replace(clean, answer=clean.answer.lstrip()[: self.max_characters])
        return CompletionRequest(
            self.template.render(clean) if self.template.form == "text" else self.template.messages(clean),
            max_tokens=self.template.max_new_tokens,
            temperature=0.0,
            top_logprobs=self.top_logprobs,
        )

    def _probabilities(self, reply: Reply) -> dict[str, float] | None:
        """Probability of each valid word at the deciding token, among the server's alternatives."""
        step = deciding_step(self.template, [token.text for token in reply.tokens])
        if step is None:
            return None
        words = dict.fromkeys(self.template.words, 0.0)
        for token, logprob in reply.tokens[step].top.items():
            if word := self.template.word_of(token):
                words[word] += math.exp(logprob)
        return words if any(words.values()) else None
