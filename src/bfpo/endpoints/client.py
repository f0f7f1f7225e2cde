"""`Endpoint`: concurrent requests to a server; asynchronous inside, plain iteration outside."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bfpo.endpoints.config import EndpointConfig
from bfpo.endpoints.messages import CompletionRequest, Failure, Reply, Usage
from bfpo.endpoints.session import ServerState, Session
from bfpo.errors import RunError

# How many requests are read ahead of the oldest unanswered one, in multiples of the requests in flight: a request that
# waits for its next attempt doesn't hold up the others, and memory stays bounded.
_AHEAD = 4
# Requests in flight until the first reply.
_FIRST = 5
# Equal failures in a row after which a server isn't asked any more: refusals, and requests without a reply on every
# attempt.
_REFUSALS, _BREAKDOWN = 5, 12


class Endpoint:
    """A server that speaks OpenAI's protocol (vLLM, llama.cpp, SGLang, a vendor).

    Args:
        config: address, model and limits.

    Attributes:
        spent: tokens of all replies so far, as the server counts them.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.spent = Usage()
        guessed = config.token_limit == "auto"
        self._state = ServerState("max_tokens" if guessed else config.token_limit, may_change=guessed)
        self._has_replied = False
        self._failures: list[Failure] = []

    def complete(self, requests: Iterable[CompletionRequest]) -> Iterator[Reply | Failure]:
        """A reply to every request, in order; a request that fails on every attempt gives a `Failure`.

        A server that refuses or fails the first few requests for the same reason is not asked any more: the other
        requests fail for that reason too. Requests are read as needed, so the iterable may be endless.

        Raises:
            BfpoError: if the server rejects the key, the path or the model.
            RunError: if the server can't be reached, breaks down after it has replied, or asks to wait for too long.
        """
        key = self.config.api_key()
        with _loop_in_thread() as loop:
            session = Session(self.config, key, self._state)
            waiting: deque[Future[Reply | Failure]] = deque()
            given_up: Failure | None = None
            try:
                for request in requests:
                    if given_up:
                        yield given_up
                        continue
                    waiting.append(asyncio.run_coroutine_threadsafe(session.ask(request), loop))
                    while len(waiting) >= self._ahead() and not given_up:
                        # Noted first: a caller with enough replies doesn't ask on.
                        given_up = self._noted(outcome := waiting.popleft().result())
                        yield outcome
                    while given_up and waiting:
                        waiting.popleft().cancel()
                        yield given_up
                while waiting:
                    self._noted(outcome := waiting.popleft().result())
                    yield outcome
            finally:
                for future in waiting:
                    future.cancel()
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()

    def _ahead(self) -> int:
        """How many requests may be under way; until the first reply, no more than refusals are still needed."""
        if self._has_replied:
            return _AHEAD * self.config.concurrency
        return max(1, _FIRST - sum(failure.permanent for failure in self._failures))

    def _noted(self, outcome: Reply | Failure) -> Failure | None:
        """The reason to ask no more, if this outcome is the last of several equal failures, and none has replied.

        A server that has replied may still refuse any number of requests, each for a reason of its own.

        Raises:
            RunError: if the server has broken down: it had replied, and now fails many requests in a row.
        """
        if isinstance(outcome, Reply):
            self._has_replied, self._failures = True, []
            self.spent += outcome.usage or Usage()
            return None
        # A server that goes on to reply to others hasn't broken down: it fails these requests, which stay unanswered.
        if outcome.others_answered or (self._failures and _cause(self._failures[-1]) != _cause(outcome)):
            self._failures = []
        if outcome.others_answered:
            return None
        self._failures.append(outcome)
        enough = _REFUSALS if outcome.permanent else _BREAKDOWN
        if len(self._failures) < enough or (self._has_replied and outcome.permanent):
            return None
        if self._has_replied:
            raise RunError(
                f"{self.config.url} failed {len(self._failures)} requests in a row, {outcome.attempts} attempts each "
                f"({outcome.reason.rstrip('.')}): repair the server and rerun"
            )
        return replace(outcome, attempts=0)


def _cause(failure: Failure) -> str:
    """The reason of a failure without identifiers, which differ from request to request."""
    words = failure.reason.split()
    return " ".join("#" if len(word) >= 8 and any(map(str.isdigit, word)) else word for word in words)


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in its own thread: works inside a notebook's loop, and keeps running while the caller computes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="bfpo-endpoint", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_rest(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_rest() -> None:
    rest: list[Any] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
