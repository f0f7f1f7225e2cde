"""`Endpoint`: concurrent requests to a server; asynchronous inside, plain iteration outside."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import httpx2
import tenacity

from bfpo.endpoints.messages import CompletionRequest, EndpointConfig, Failure, MalformedReplyError, Reply, parse_reply
from bfpo.errors import BfpoError, RunError

# How many requests are read ahead of the oldest unanswered one, in multiples of the requests in flight: a request that
# waits for its next attempt doesn't hold up the others, and memory stays bounded.
_AHEAD = 4
_EXCERPT = 200


class Endpoint:
    """A server that speaks OpenAI's protocol (vLLM, llama.cpp, SGLang, a vendor).

    Args:
        config: address, model and limits.
        transport: transport in place of the network, for tests.
    """

    def __init__(self, config: EndpointConfig, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.config = config
        self._transport = transport

    def complete(self, requests: Iterable[CompletionRequest]) -> Iterator[Reply | Failure]:
        """A reply to every request, in order; a request that fails on every attempt gives a `Failure`.

        Requests are read as needed, so the iterable may be endless.

        Raises:
            BfpoError: if the server rejects the key, the path or the model.
            RunError: if the server can't be reached.
        """
        key = self.config.api_key()
        with _loop_in_thread() as loop:
            session = _Session(self.config, key, self._transport)
            waiting: deque[Future[Reply | Failure]] = deque()
            try:
                for request in requests:
                    waiting.append(asyncio.run_coroutine_threadsafe(session.ask(request), loop))
                    if len(waiting) >= _AHEAD * self.config.concurrency:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()


class _Session:
    """Connections of one call, with its limits on concurrency and rate."""

    def __init__(self, config: EndpointConfig, key: str | None, transport: httpx2.AsyncBaseTransport | None) -> None:
        self._config = config
        self._key = key
        self._slots = asyncio.Semaphore(config.concurrency)
        self._next_start = 0.0
        limits = httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=config.timeout,
            limits=limits,
            transport=transport,
            verify=_tls(config.url.startswith("https")),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, request: CompletionRequest) -> Reply | Failure:
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._config.attempts),
            wait=self._wait,
            retry=tenacity.retry_if_exception_type(_TransientError),
            reraise=True,
        )
        attempts = 0
        try:
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    return replace(await self._once(request), attempts=attempts)
        except _PermanentError as error:
            return Failure(str(error), attempts)
        except _TransientError as error:
            if error.unreachable:
                raise RunError(
                    f"{self._config.url} can't be reached ({error}, {attempts} attempts): start the server and rerun"
                ) from None
            return Failure(str(error), attempts)
        raise AssertionError("tenacity either returns or raises")

    async def _once(self, request: CompletionRequest) -> Reply:
        """One attempt.

        Raises:
            _TransientError: if another attempt may succeed.
            _PermanentError: if none will.
        """
        async with self._slot():
            try:
                async with asyncio.timeout(self._config.timeout):
                    response = await self._client.post(
                        self._config.url + request.path, json=request.body(self._config.model)
                    )
            except (TimeoutError, httpx2.TimeoutException):
                raise _TransientError(f"no reply within {self._config.timeout:g} s") from None
            except httpx2.TransportError as error:
                unreachable = isinstance(error, httpx2.ConnectError)
                raise _TransientError(
                    self._without_key(f"{type(error).__name__}: {error}"), unreachable=unreachable
                ) from None
        if response.status_code != 200:
            self._refused(response)
        try:
            return parse_reply(response.json())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise _TransientError(f"the reply is not JSON ({error})") from None
        except MalformedReplyError as error:
            raise _TransientError(f"the reply is malformed: {self._without_key(str(error))}") from None

    def _refused(self, response: httpx2.Response) -> None:
        status = response.status_code
        body = self._without_key(" ".join(response.text.split())[:_EXCERPT])
        reason = f"HTTP {status}: {body}" if body else f"HTTP {status}"
        if status in (401, 404):
            remedy = f"check the key in {self._config.api_key_env}" if self._config.api_key_env else "set api_key_env"
            remedy = remedy if status == 401 else f"check the address and the model name ({self._config.model!r})"
            raise BfpoError(f"{self._config.url} rejects every request ({reason}): {remedy}")
        if status in (408, 409, 425, 429) or status >= 500:
            raise _TransientError(reason, retry_after=_retry_after(response.headers.get("retry-after")))
        raise _PermanentError(reason)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds to the next attempt: exponential with full jitter, and at least the server's Retry-After."""
        error = state.outcome.exception() if state.outcome else None
        requested = error.retry_after if isinstance(error, _TransientError) else 0.0
        jittered = tenacity.wait_random_exponential(multiplier=self._config.backoff, max=self._config.longest_wait)
        return max(jittered(state), min(requested, self._config.longest_wait))

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A slot for one request in flight, granted at the configured rate."""
        async with self._slots:
            if self._config.requests_per_minute:
                now = time.monotonic()
                start = max(now, self._next_start)
                self._next_start = start + 60.0 / self._config.requests_per_minute
                await asyncio.sleep(start - now)
            yield


@cache
def _tls(needed: bool) -> ssl.SSLContext:
    """The TLS context, built once because reading the certificate authorities takes up to a second.

    An address without TLS gets a context without authorities.
    """
    return httpx2.create_ssl_context() if needed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _PermanentError(Exception):
    """A failed attempt that would fail again."""


class _TransientError(Exception):
    """A failed attempt that may succeed next time."""

    def __init__(self, reason: str, retry_after: float = 0.0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.unreachable = unreachable


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return 0.0
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


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
