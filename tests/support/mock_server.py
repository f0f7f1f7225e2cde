"""A local mock of an OpenAI-compatible server, which can misbehave on purpose and logs every request.

`TRANSIENT` and `REFUSALS` hold replies of real servers, one for each kind of fault; `limited` is a rate limit.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Reply = tuple[int | str, Mapping[str, str], bytes]
"""Status, headers and body. The status "hang" never answers, "reset" resets the connection; the header ``x-half: 1``
hangs up after half the body."""
Behavior = Callable[[Any, int], Reply]


@dataclass
class Server:
    """A running server and the requests that it has seen.

    Attributes:
        url: base address, up to ``/v1``.
        log: path and body of every request, in order.
        headers: their headers, with names in lower case.
        attempts: number of requests with the same body, by that body as JSON.
        in_flight: requests that have no answer yet.
        most_in_flight: the largest such number so far.
    """

    url: str = ""
    log: list[tuple[str, Any]] = field(default_factory=list[tuple[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    attempts: dict[str, int] = field(default_factory=dict[str, int])
    most_in_flight: int = 0
    in_flight: int = 0


def completion(
    text: Any, tokens: Sequence[tuple[str, Mapping[str, Any]]] | None = None, finish: str = "stop", **extra: Any
) -> bytes:
    """The body of a chat completion.

    Args:
        text: the content.
        tokens: each token's text and the log-probabilities at its place.
        finish: the finish_reason.
        extra: ``usage``, and further fields of the message, such as ``reasoning_content``.
    """
    usage = extra.pop("usage", None)
    message = {"role": "assistant", "content": text} | extra
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {"token": token, "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}
                for token, top in tokens
            ]
        }
    return json.dumps({"model": "mock-1", "choices": [choice]} | ({"usage": usage} if usage else {})).encode()


def refusal(message: str, code: str | None = None, param: str | None = None) -> bytes:
    """The body of an error in OpenAI's form."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return json.dumps({"error": error}).encode()


# Faults that pass: another attempt succeeds.
TRANSIENT: dict[str, Reply] = {
    "connection reset": ("reset", {}, b""),
    "cut body": (200, {"x-half": "1"}, completion("half of this is lost, and must never be taken for a reply")),
    "no reply in time": ("hang", {}, b""),
    "429": (429, {}, refusal("Rate limit reached")),
    "429 with Retry-After": (429, {"retry-after": "0.01"}, refusal("Rate limit reached")),
    "500": (500, {}, b"boom"),
    "502": (502, {}, b"<html>bad gateway</html>"),
    "503": (503, {"retry-after": "0.01"}, b"busy"),
    "408": (408, {}, b""),
    "HTML": (200, {}, b"<html>busy</html>"),
    "JSON that ends early": (200, {}, b'{"choices": [{"message": {"content": "made'),
    "no choices": (200, {}, b'{"choices": []}'),
    "an error with status 200": (200, {}, b'{"error": {"message": "upstream is gone", "code": 502}}'),
    "no UTF-8": (200, {}, b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'),
    "wrong content-encoding": (200, {"content-encoding": "gzip"}, completion("not zipped")),
    "nested JSON": (200, {}, b"[" * 3000 + b"]" * 3000),
    "a number of 5,000 digits": (200, {}, b'{"choices": ' + b"9" * 5000 + b"}"),
}
MAX_TOKENS = refusal(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "unsupported_parameter",
    "max_tokens",
)
# Refusals of the prompt by a provider's filter: status and body, by provider.
FILTERS: dict[str, tuple[int, bytes]] = {
    "Azure": (400, refusal("The response was filtered due to the prompt triggering ...", "content_filter", "prompt")),
    "LiteLLM": (400, refusal("litellm.ContentPolicyViolationError: AzureException - ...", "400")),
    "DeepSeek": (400, refusal("Content Exists Risk", "invalid_request_error")),
    "Alibaba": (400, refusal("Input data may contain inappropriate content.", "data_inspection_failed")),
    "OpenRouter": (403, b'{"error": {"code": 403, "message": "flagged", "metadata": {"flagged_input": "..."}}}'),
}


def limited(reply: Behavior, requests: int, seconds: float) -> Behavior:
    """A behavior that takes a number of requests in every window of time and says when the next one begins."""
    window = [0.0, 0.0]  # start, and requests so far

    def behave(body: Any, attempt: int) -> Reply:
        now = time.monotonic()
        if now >= window[0] + seconds:
            window[:] = [now, 0.0]
        window[1] += 1
        if window[1] > requests:
            # Rounded up: "0.000" would name no wait, and clients would count an attempt.
            left = math.ceil(1000 * (window[0] + seconds - now)) / 1000
            return 429, {"retry-after": f"{left:.3f}"}, refusal("Rate limit reached for requests")
        return reply(body, attempt)

    return behave


@contextmanager
def serving(reply: Behavior, delay: float = 0.0) -> Generator[Server]:
    """Serve until the block ends.

    Args:
        reply: called with a request's body and the number of requests with that body so far, this one included.
        delay: seconds before every reply.
    """
    server = Server()
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await answer(lines[0], headers, content, writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client has hung up, as some tests want it to
        finally:
            writer.close()

    async def answer(line: str, headers: dict[str, str], content: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; returns whether the connection stays open."""
        body = json.loads(content)
        key = json.dumps(body, sort_keys=True)
        server.attempts[key] = server.attempts.get(key, 0) + 1
        server.log.append((line.split()[1], body))
        server.headers.append(headers)
        server.in_flight += 1
        server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            if delay:
                await asyncio.sleep(delay)
            status, extra, payload = reply(body, server.attempts[key])
            if status == "hang":
                await asyncio.sleep(30)
                return False
            if status == "reset":
                writer.transport.abort()
                return False
            lines = [f"HTTP/1.1 {status} X", f"content-length: {len(payload)}", "content-type: application/json"]
            writer.write("\r\n".join([*lines, *(f"{k}: {v}" for k, v in extra.items()), "", ""]).encode())
            half = extra.get("x-half") == "1"
            writer.write(payload[: len(payload) // 2] if half else payload)
            await writer.drain()
            return not half
        finally:
            server.in_flight -= 1

    async def main() -> None:
        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stop.wait()
        listening.close()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
