"""Throughput and memory of judging through an OpenAI-compatible server: ``python benchmarks/judges.py``.

The tests' mock server, in a separate process, sends every reply after a fixed delay. With 64 requests in flight, the
ideal time is rows / 64 * delay. Order is checked, verdicts are cached, and retries are on; a run with errors shows
their cost. Memory is measured over 100,000 rows through the same client and server, without delay. Writes
docs/results/judges-throughput.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.mock_server import Reply, completion, serving

IN_FLIGHT = 64
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "judges-throughput.md"
KEPT = Path(__file__).parents[1] / "runs" / "judges"


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_800, help="number of rows in a timed run")
    parser.add_argument("--memory-rows", type=int, default=100_000, help="number of rows in the memory run")
    parser.add_argument(
        "--only", choices=("throughput", "client", "memory"), help="measure only this, and write no page"
    )
    arguments = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    measures: dict[str, Callable[[], Any]] = {
        "throughput": lambda: [throughput(arguments.rows, *run) for run in ((0.2, 0.0), (0.2, 0.1), (0.05, 0.0))],
        "client": lambda: asyncio.run(client_alone(arguments.rows)),
        "memory": lambda: memory_run(arguments.memory_rows),
    }
    if arguments.only:
        (KEPT / f"{arguments.only}.json").write_text(json.dumps(measures[arguments.only]()), encoding="utf-8")
        return
    for name in measures:
        # Separate processes, so that memory and threads of one don't affect the other.
        if not (KEPT / f"{name}.json").exists():
            subprocess.run([sys.executable, __file__, "--only", name, *sys.argv[1:]], check=True)
    lines, alone, memory = (json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8")) for name in measures)
    RESULTS.write_text(page(lines, alone, memory, arguments.memory_rows), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def throughput(rows: int, delay: float, errors: float) -> dict[str, Any]:
    """One timed run, and its ideal time."""
    from bfpo.judges import Exchange, verdicts
    from bfpo.judges.cache import VerdictCache

    with (
        server_process(delay, errors) as url,
        tempfile.TemporaryDirectory() as folder,
        VerdictCache(Path(folder) / "cache.sqlite") as cache,
    ):
        judge = mock_judge(url)
        list(verdicts(judge, (Exchange("warm", f"up {n}") for n in range(IN_FLIGHT)), cache))
        started, cpu = time.perf_counter(), time.process_time()
        given = list(verdicts(judge, (Exchange("question", f"answer {n}") for n in range(rows)), cache))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        again = time.perf_counter()
        assert list(verdicts(judge, (Exchange("question", f"answer {n}") for n in range(rows)), cache)) == given
        again = time.perf_counter() - again
    expected = ["unsafe" if n % 2 else "safe" for n in range(rows)]
    assert [verdict.label for verdict in given] == expected, "a verdict is missing or out of order"
    ideal = math.ceil(rows / IN_FLIGHT) * delay
    return {"delay": delay, "errors": errors, "rows": rows, "seconds": seconds, "ideal": ideal} | {
        "share": ideal / seconds, "cpu": cpu / rows, "again": again
    }  # fmt: skip


async def client_alone(rows: int) -> dict[str, float]:
    """The share of the ideal that aiohttp reaches by itself, with the same requests and a delay of 200 ms."""
    import aiohttp

    async def ask(url: str, number: int) -> None:
        async with slots, session.post(url, data=body(number), headers=headers) as response:
            json.loads(await response.read())

    def body(number: int) -> bytes:
        message = {"role": "user", "content": f"Unsafe? answer {number}"}
        given = {"model": "mock", "messages": [message], "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        return json.dumps(given).encode()

    slots, headers = asyncio.Semaphore(IN_FLIGHT), {"Content-Type": "application/json"}
    with server_process(0.2, 0.0) as url:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            started, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(ask(f"{url}/chat/completions", number) for number in range(rows)))
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"share": math.ceil(rows / IN_FLIGHT) * 0.2 / seconds, "cpu": cpu / rows}


@contextmanager
def server_process(delay: float, errors: float) -> Iterator[str]:
    """Address of the tests' mock server in a process of its own."""
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=serve, args=(port, delay, errors), daemon=True)
    process.start()
    try:
        while not port.value:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port.value}/v1"
    finally:
        process.terminate()


def mock_judge(url: str) -> Any:
    """A yes/no judge on a server."""
    from bfpo.endpoints import Endpoint, EndpointConfig
    from bfpo.judges.guard_templates import yes_no_template
    from bfpo.judges.served import ServedJudge

    config = EndpointConfig(url=url, model="mock", concurrency=IN_FLIGHT, backoff=0.05)
    return ServedJudge(yes_no_template("Unsafe? {answer}"), Endpoint(config))


def number_of(body: Any) -> int:
    """The number at the end of a request's only message."""
    return int(body["messages"][0]["content"].rsplit(" ", 1)[1])


def reply_to(body: Any) -> bytes:
    """A chat completion that calls every second answer unsafe, with the probabilities of its token."""
    word = "Yes" if number_of(body) % 2 else "No"
    return completion(word, [(word, {token: math.log(0.9 if token == word else 0.1) for token in ("Yes", "No")})])


def serve(port: Any, delay: float, errors: float) -> None:
    """Serve forever, with a delay before every reply; a share of first attempts gets status 500."""

    def reply(body: Any, attempt: int) -> Reply:
        if attempt == 1 and number_of(body) % 1000 < 1000 * errors:
            return 500, {}, b"busy"
        return 200, {}, reply_to(body)

    with serving(reply, delay) as server:
        port.value = int(server.url.rsplit(":", 1)[1].removesuffix("/v1"))
        threading.Event().wait()


def memory_run(rows: int) -> dict[str, Any]:
    """Resident memory in MiB after each tenth of the rows, judged through a server that replies at once."""
    from bfpo.judges import Exchange, verdicts
    from bfpo.judges.cache import VerdictCache

    def exchanges() -> Iterator[Exchange]:
        return (Exchange(f"question {n} " + "words " * 50, "words " * 100 + str(n)) for n in range(rows))

    seen, unsafe = [], 0
    with (
        server_process(0.0, 0.0) as url,
        tempfile.TemporaryDirectory() as folder,
        VerdictCache(Path(folder) / "cache.sqlite") as cache,
    ):
        started = time.perf_counter()
        for count, verdict in enumerate(verdicts(mock_judge(url), exchanges(), cache), start=1):
            unsafe += verdict.label == "unsafe"
            if count % (rows // 10) == 0:
                seen.append(round(resident(), 1))
        with sqlite3.connect(Path(folder) / "cache.sqlite") as stored:
            assert stored.execute("SELECT count(*) FROM verdicts").fetchone() == (rows,)
    assert unsafe == rows // 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"resident": seen, "peak": round(peak, 1), "seconds": round(time.perf_counter() - started, 1)}


def resident() -> float:
    """Resident memory in MiB, from Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def page(lines: list[dict[str, Any]], alone: dict[str, float], memory: dict[str, Any], rows: int) -> str:
    """The results as a page."""
    table = "\n".join(
        f"| {line['delay'] * 1000:.0f} ms | {line['errors']:.0%} | {line['rows']:,} | {line['seconds']:.2f} s | "
        f"{line['ideal']:.2f} s | **{line['share']:.1%}** | {line['cpu'] * 1000:.2f} ms | {line['again']:.2f} s |"
        for line in lines
    )
    growth = memory["resident"][-1] - memory["resident"][1]
    tenths = ", ".join(f"{value:.0f}" for value in memory["resident"])
    return f"""# Throughput of judging through a server

How near does judging through a server come to the time that the server's delays allow, and does memory stay flat?

**It reaches {"; ".join(map(_share, lines))}; from the second tenth to the last of {rows:,} rows, memory changes by
{growth:+.1f} MiB.**

| delay of a reply | first attempts that get status 500 | rows | time | ideal | share of the ideal | \
client's CPU per row | second run, from the cache |
|---|---|---|---|---|---|---|---|
{table}

A mock server in a separate process on the same machine, and {IN_FLIGHT} requests in flight. The order of verdicts is
checked, each is cached as it arrives, and retries are on. The ideal is rows / {IN_FLIGHT} * delay, without errors: if a
tenth of the first attempts fail, the client waits for a tenth more replies. At 50 ms the limit is not the delay but the
two cores, which client and server share. aiohttp by itself, without order, cache and retries, reaches
{alone["share"]:.1%} at 200 ms with {alone["cpu"] * 1000:.2f} ms of CPU per request.

## Memory

{rows:,} rows of 900 characters went through the same client and server, without delay, in {memory["seconds"]:.0f} s.
Resident memory after each tenth, in MiB: {tenths}; peak {memory["peak"]:.0f}.
From the second tenth to the last it changed by {growth:+.1f} MiB.

## To run it again

Made by `python benchmarks/judges.py` (five minutes) on {platform.machine()}, {os.cpu_count()} cores, with Python
{platform.python_version()}.
"""


def _share(line: dict[str, Any]) -> str:
    errors = f" if {line['errors']:.0%} of first attempts fail" if line["errors"] else ""
    return f"{line['share']:.1%} of the ideal speed at a delay of {line['delay'] * 1000:.0f} ms{errors}"


if __name__ == "__main__":
    main()
