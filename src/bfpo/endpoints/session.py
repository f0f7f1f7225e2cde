"""One call's connections to a server: attempts, the common pause, the rate, and what errors mean."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import math
import time
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import quote

import aiohttp
import tenacity

from bfpo.endpoints.config import EndpointConfig
from bfpo.endpoints.messages import CompletionRequest, Failure, Reply
from bfpo.endpoints.replies import (
    MalformedReplyError,
    is_filter,
    is_used_up,
    parse_reply,
    read_json,
    refuses_max_tokens,
    server_words,
)
from bfpo.endpoints.route import route_to
from bfpo.errors import BfpoError, RunError

_EXCERPT = 300
# Largest reply in bytes; the longest completions are far below.
_LARGEST = 64 * 2**20
# Keys below this length, such as vLLM's usual "EMPTY", are words that answers may hold.
_SECRET = 8


@dataclass
class ServerState:
    """What is known of a server from one call to the next.

    Attributes:
        token_limit: name of the parameter that limits a chat's tokens.
        may_change: whether that name was guessed.
        next_start: when the next request may start, by the limit of requests per minute; times are of `time.monotonic`.
        open_at: when the server takes requests again.
        waiting_since: since when it has asked to wait without a reply in between.
    """

    token_limit: str
    may_change: bool
    next_start: float = 0.0
    open_at: float = 0.0
    waiting_since: float | None = None


@dataclass
class _Progress:
    """How many replies there had been when a request was first sent; -1 before that."""

    replies_before: int = -1


class Session:
    """Connections of one call, with its limits on concurrency and rate.

    Raises:
        BfpoError: if the proxy or the certificates that the environment names can't be used.
    """

    def __init__(self, config: EndpointConfig, key: str | None, state: ServerState) -> None:
        self._config = config
        self._key = key
        self._state = state
        self._route = route_to(config.url)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._replies = 0

    @cached_property
    def _connections(self) -> aiohttp.ClientSession:
        """The connections, made in the event loop that uses them. `_slot` limits their number, `_post` the time."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._route.tls),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            proxy=self._route.proxy,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def ask(self, request: CompletionRequest) -> Reply | Failure:
        """The reply to a request, after as many attempts as it takes.

        Raises:
            BfpoError: if the server rejects the key, the path or the model.
            RunError: if the server can't be reached, is out of quota, or asks to wait for too long.
        """
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._config.attempts),
            wait=tenacity.wait_random_exponential(multiplier=self._config.backoff, max=self._config.longest_wait),
            retry=tenacity.retry_if_exception_type(_TransientError),
            reraise=True,
        )
        attempts, progress = 0, _Progress()
        try:
            async for attempt in retrying:
                with attempt:
                    attempts += 1
                    reply = await self._attempt(request, progress)
                    self._state.waiting_since = None
                    self._replies += 1
                    return reply
        except _PermanentError as error:
            return Failure(str(error), attempts, permanent=True)
        except _TransientError as error:
            if error.unreachable:
                raise RunError(
                    f"{self._config.url} can't be reached ({error}, {attempts} attempts): start the server and rerun"
                ) from None
            return Failure(str(error), attempts, others_answered=self._replies > progress.replies_before)
        raise AssertionError("tenacity either returns or raises")

    async def _attempt(self, request: CompletionRequest, progress: _Progress) -> Reply:
        """One attempt. The waits that the server asks for, and the change of a parameter's name, are part of it.

        Raises:
            _TransientError: if another attempt may succeed.
            _PermanentError: if none will.
        """
        while True:
            sent = self._state.token_limit
            async with self._slot():
                if progress.replies_before < 0:
                    progress.replies_before = self._replies
                status, headers, content = await self._post(request, sent)
            if status == 200:
                return self._read(content)
            if is_filter(status, content):
                return Reply("", "content_filter", refusal=self._reason(status, content))
            if self._asks_to_wait(status, headers, content) or self._changes(sent, status, content):
                continue
            self._refused(status, content)

    async def _post(self, request: CompletionRequest, token_limit: str) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text of a response."""
        body = {**request.body(self._config.model, token_limit), **self._config.extra_body}
        # Escaped as ASCII, because a lone surrogate, which is legal in JSON, has no UTF-8 encoding.
        content = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        received = bytearray()
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                self._connections.post(
                    self._config.url + request.path,
                    data=content,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                async for part in response.content.iter_any():
                    received += part
                    if len(received) > _LARGEST:
                        raise _PermanentError(f"the reply is larger than {_LARGEST // 2**20} MiB")
        except TimeoutError:
            raise _TransientError(f"no reply within {self._config.timeout:g} s") from None
        except _PermanentError:
            raise
        except Exception as error:  # aiohttp and what is below it raise many types
            raise _TransientError(
                self._without_key(_description(error)),
                unreachable=isinstance(error, aiohttp.ClientConnectorError),
            ) from None
        try:
            text = received.decode() if response.status == 200 else received.decode(errors="replace")
        except UnicodeDecodeError as error:
            raise _TransientError(f"the reply is not text ({error})") from None
        return response.status, response.headers, text

    def _read(self, content: str) -> Reply:
        try:
            reply = parse_reply(read_json(content))
        except MalformedReplyError as error:
            raise _TransientError(f"the reply is malformed: {self._without_key(str(error))[:_EXCERPT]}") from None
        if len(self._key or "") < _SECRET:
            return reply
        names = ("text", "thinking", "refusal", "finish_reason")
        return replace(reply, **{name: self._without_key(getattr(reply, name)) for name in names})

    def _asks_to_wait(self, status: int, headers: Mapping[str, str], content: str) -> bool:
        """Whether the server is busy and says how long; then all requests wait.

        Raises:
            RunError: if that is longer than the run's patience, or the account is used up.
        """
        if is_used_up(status, content):
            reason = self._reason(status, content)
            raise RunError(f"{self._config.url} ({reason}): top up the account, or raise the key's limit, and rerun")
        wait = _retry_after(headers) if status in (429, 503) else 0.0
        if wait <= 0:
            return False
        now = time.monotonic()
        self._state.waiting_since = self._state.waiting_since or now
        if now + wait - self._state.waiting_since > self._config.patience:
            raise RunError(
                f"{self._config.url} asks to wait for {wait:g} s ({self._reason(status, content)}): no reply would "
                f"come within the patience of {self._config.patience:g} s; rerun later, or raise 'patience'"
            )
        self._state.open_at = max(self._state.open_at, now + wait)
        return True

    def _changes(self, sent: str, status: int, content: str) -> bool:
        """Whether the server refuses the parameter ``max_tokens`` and the other name has not been tried yet."""
        if sent != "max_tokens" or not self._state.may_change or not refuses_max_tokens(status, content):
            return False
        if self._state.token_limit == sent:
            self._state.token_limit = "max_completion_tokens"
            warnings.warn(
                f"{self._config.url} doesn't support max_tokens, so max_completion_tokens is sent "
                "(token_limit: max_completion_tokens sets it from the start)",
                stacklevel=2,
            )
        return True

    def _refused(self, status: int, content: str) -> None:
        reason = self._reason(status, content)
        if status in (401, 404):
            remedy = f"check the key in {self._config.api_key_env}" if self._config.api_key_env else "set api_key_env"
            remedy = remedy if status == 401 else f"check the address and the model name ({self._config.model!r})"
            raise BfpoError(f"{self._config.url} rejects every request ({reason}): {remedy}")
        if status in (408, 409, 425, 429) or status >= 500:
            raise _TransientError(reason)
        raise _PermanentError(reason)

    def _reason(self, status: int, content: str) -> str:
        """Status and message of an error. The key is removed before the text is cut."""
        with contextlib.suppress(MalformedReplyError):
            content = server_words(read_json(content)) or content
        words = " ".join(self._without_key(content).split())
        return f"HTTP {status}: {words[:_EXCERPT]}" if words else f"HTTP {status}"

    def _without_key(self, text: str) -> str:
        """A text without the key as it is, or as it is written in JSON, Python or an address."""
        key = self._key or ""
        for form in {key, json.dumps(key)[1:-1], repr(key)[1:-1], key.replace("/", "\\/"), quote(key, safe="")} - {""}:
            text = text.replace(form, "***")
        return text

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A slot for one request in flight, granted at the configured rate and after the server's pause."""
        async with self._slots:
            if self._config.requests_per_minute:
                now = time.monotonic()
                start = max(now, self._state.next_start)
                self._state.next_start = start + 60.0 / self._config.requests_per_minute
                await asyncio.sleep(start - now)
            # A longer pause may begin meanwhile.
            while (wait := self._state.open_at - time.monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            yield


def _description(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return f"{type(cause).__name__}: {cause}".rstrip(": ")


class _PermanentError(Exception):
    """A failed attempt that would fail again."""


class _TransientError(Exception):
    """A failed attempt that may succeed next time."""

    def __init__(self, reason: str, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds until the server takes requests again; 0 if it doesn't say.

    Retry-After holds seconds or a date (RFC 9110, 10.2.3); Azure also sends retry-after-ms.
    """
    for name, parts in (("retry-after-ms", 1000), ("retry-after", 1)):
        with contextlib.suppress(ValueError):
            wait = float(headers.get(name, "")) / parts
            return max(0.0, wait) if math.isfinite(wait) else 0.0
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
