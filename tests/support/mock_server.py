"""A small OpenAI-compatible server on this machine, which can be told to misbehave; its log holds what it was asked."""

import asyncio
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """What the server does with the n-th try of a request: `reply(body, attempt)` gives status, headers, body bytes.

    A body of None hangs up after half a reply; a delay in seconds comes first.
    """

    reply: object
    url: str = ""
    log: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    attempts: dict = field(default_factory=dict)
    most_in_flight: int = 0
    in_flight: int = 0


def completion(text, tokens=None, finish="stop"):
    """A chat completion's body; tokens are (text, {token: logprob})."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if tokens is not None:
        choice["logprobs"] = {
            "content": [
                {"token": token, "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}
                for token, top in tokens
            ]
        }
    return json.dumps({"model": "mock-1", "choices": [choice]}).encode()


@contextmanager
def serving(reply, delay=0.0):
    """Serve ``reply(body, attempt) -> (status, headers, content)`` until the block ends."""
    server = Server(reply)
    ready, stop = threading.Event(), None
    loop = asyncio.new_event_loop()

    async def handle(reader, writer):
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

    async def answer(line, headers, content, writer):
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

    async def main():
        nonlocal stop
        stop = asyncio.Event()
        listening = await asyncio.start_server(handle, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await stop.wait()
        listening.close()

    def run():
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
