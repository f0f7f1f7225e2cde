"""Guard models and other judges behind an OpenAI-compatible server."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bfpo.endpoints import CompletionRequest, Endpoint, Failure, Reply
from bfpo.judges.deciding import deciding_step, verdict_of
from bfpo.judges.templates import GuardTemplate, neutralised_exchange
from bfpo.judges.unjudged import EMPTY, NO_REPLY, is_empty, unjudged
from bfpo.judges.verdict import Exchange, Verdict


@dataclass(frozen=True)
class ServedJudge:
    """A judge on a server.

    Guard models with a chat template of their own are sent the conversation, and the server renders it.

    Attributes:
        template: how it is asked, and how its answer is read.
        endpoint: the server.
        max_characters: of an answer, at most; longer ones are cut at their end, and counted.
        top_logprobs: alternatives asked for at every token, for ``p_safe``; 0 where the server has none.
        counts: of what was asked in this process: "truncated" answers, "failed" requests.
    """

    template: GuardTemplate
    endpoint: Endpoint
    max_characters: int = 32_000
    top_logprobs: int = 20  # the most that OpenAI's protocol gives
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def judge_id(self) -> str:
        """Template, model and server; what the server has under that name is the server's business."""
        return f"{self.template.name}:{self.endpoint.config.model}@{self.endpoint.config.url}"

    @property
    def template_digest(self) -> str:
        """Of the template and of what it is sent with."""
        parts = f"{self.template.digest} {self.max_characters} {self.top_logprobs}"
        return hashlib.sha256(parts.encode()).hexdigest()

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """A verdict on every exchange, in the order given."""
        return list(self.stream(exchanges))

    def stream(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        """The same one by one, as replies come; what failed after all tries is unparsed, with the reason."""
        empty: deque[bool] = deque()

        def asked() -> Iterator[Exchange]:
            for exchange in exchanges:
                empty.append(is_empty(exchange))
                if not empty[-1]:
                    yield exchange

        for verdict in self._ask(asked()):
            while empty.popleft():
                yield unjudged(self, EMPTY)
            yield verdict
        yield from (unjudged(self, EMPTY) for _ in empty)

    def _ask(self, exchanges: Iterable[Exchange]) -> Iterator[Verdict]:
        for reply in self.endpoint.complete(self._request(exchange) for exchange in exchanges):
            if isinstance(reply, Failure):
                self.counts["failed"] += 1
                yield unjudged(self, NO_REPLY, raw=f"[{reply.reason}]")
            else:
                yield verdict_of(self, self.template, reply.text, self._probabilities(reply))

    def _request(self, exchange: Exchange) -> CompletionRequest:
        clean = neutralised_exchange(exchange)
        if len(clean.answer) > self.max_characters:
            self.counts["truncated"] += 1
            # White space alone would not be the answer.
            clean = replace(clean, answer=clean.answer.lstrip()[: self.max_characters])
        return CompletionRequest(
            self.template.render(clean) if self.template.form == "text" else self.template.messages(clean),
            max_tokens=self.template.max_new_tokens,
            temperature=0.0,
            top_logprobs=self.top_logprobs,
        )

    def _probabilities(self, reply: Reply) -> dict[str, float] | None:
        """Of each valid word at the deciding token, as far as the server's alternatives show them."""
        step = deciding_step(self.template, [token.text for token in reply.tokens])
        if step is None:
            return None
        words = dict.fromkeys(self.template.words, 0.0)
        for token, logprob in reply.tokens[step].top.items():
            if word := self.template.word_of(token):
                words[word] += math.exp(logprob)
        return words if any(words.values()) else None
