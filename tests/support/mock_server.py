"""A local mock of an OpenAI-compatible server, which can misbehave on purpose and logs every request."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Reply = tuple[int | str, Mapping[str, str], bytes]
"""Status, headers and body. The status "hang" never answers; the header ``x-half: 1`` hangs up after half the body."""


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
    text: str, tokens: Sequence[tuple[str, Mapping[str, float]]] | None = None, finish: str = "stop"
) -> bytes:
    """The body of a chat completion; each of the tokens is its text and the log-probabilities at its place."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {"token": token, "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}
                for token, top in tokens
            ]
        }
    return json.dumps({"model": "mock-1", "choices": [choice]}).encode()


@contextmanager
def serving(reply: Callable[[Any, int], Reply], delay: float = 0.0) -> Generator[Server]:
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
            pass
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
