"""SIGTERM and Ctrl-C (real signals): long commands end in time, in one sentence, and continue where they were."""

import json
import os
import signal
import time

import pytest

from bfpo.stopping import Stopped, noted_signals
from support import warm
from support.mock_server import completion, serving

# The promise, in seconds.
IN_TIME = 10


def reply(body):
    if "messages" in body:
        return 200, {}, completion(f"Answer to {body['messages'][-1]['content']}")
    unsafe = len(body["prompt"]) % 2
    return 200, {}, json.dumps({"choices": [{"text": " Yes" if unsafe else " No", "finish_reason": "stop"}]}).encode()


def stopped_and_again(command, asked, sent, is_saved=lambda: True):
    """A command's end when it is sent a signal while its server, asked so often, hangs; and what it asks once more.

    Args:
        command: called with the server's address, returns the arguments.
        asked: number of requests that are answered before the server hangs.
        sent: the signal.
        is_saved: called until it says that what was answered is on the disk.
    """
    state = {"left": asked}

    def some(body, attempt):
        if not state["left"]:
            return "hang", {}, b""
        state["left"] -= 1
        return reply(body)

    with serving(some) as server:
        arguments = command(server.url)
        running = warm.start_bfpo(*arguments)
        until = time.monotonic() + 60
        while time.monotonic() < until and (state["left"] or not server.in_flight or not is_saved()):
            time.sleep(0.01)
        # The last reply has left the server, and arrives.
        time.sleep(0.5)
        os.kill(running.process.pid, sent)
        began = time.monotonic()
        done = running.wait(60)
        assert time.monotonic() - began < IN_TIME
        first, state["left"] = len(server.log), 10_000
        again = warm.bfpo(*arguments)
        assert again.returncode == 0, again.stderr
        return done, len(server.log) - first


def assert_stopped(done, sent):
    assert done.returncode == 128 + sent, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"stopped by {sent.name}: run the same command again to continue from what was saved"
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_labeling_goes_on_from_the_verdicts_that_it_has(tmp_path, sent):
    rows = [{"prompt": f"p{at}", "chosen": "yes " * (at + 1), "rejected": "no " * (at + 1)} for at in range(20)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = tmp_path / "judge.yaml"

    def command(url):
        # One request at a time, so that no reply waits for an earlier one.
        server = {"url": url, "concurrency": 1}
        judge.write_text(json.dumps({"template": "harmbench", "model": "m", "server": server}))
        return ["label", pairs, "--judge", judge, "-o", tmp_path / "out.jsonl", "--cache", tmp_path / "verdicts.sqlite"]

    done, asked_again = stopped_and_again(command, 15, sent)
    assert_stopped(done, sent)
    assert asked_again == 40 - 15
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


def test_an_evaluation_goes_on_from_its_whole_batches(tmp_path):
    small = ["--suite", "microworld", "--per-kind", "6", "--max-new-tokens", "12", "--batch-size", "4"]
    done, asked_again = stopped_and_again(
        lambda url: ["evaluate", "served", *small, "--endpoint", url, "-o", tmp_path / "run"],
        10,
        signal.SIGTERM,
        lambda: len((tmp_path / "run/generations.jsonl").read_bytes().splitlines()) == 8,
    )
    assert_stopped(done, signal.SIGTERM)
    # Two batches of four are whole, and the third is asked for again.
    records = [json.loads(line) for line in (tmp_path / "run/generations.jsonl").read_text().splitlines()]
    assert asked_again == 18 - 8 == len(records) - 8
    assert all(record["answer"] == f"Answer to {record['prompt']}" for record in records)


def stop_a_busy_thread():
    """The command is stopped while a thread can't be: Python would wait for it."""
    import threading

    from bfpo.cli import main

    threading.Thread(target=time.sleep, args=(60,)).start()
    main.app = lambda: os.kill(os.getpid(), signal.SIGTERM)
    main.main()


def test_nothing_that_python_waits_for_keeps_the_process():
    began = time.monotonic()
    done = warm.run(stop_a_busy_thread)
    assert done.returncode == 143
    assert done.stderr == "stopped by SIGTERM: run the same command again\n"
    assert time.monotonic() - began < IN_TIME


def test_noted_signals_are_raised_by_nobody_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with noted_signals() as noted:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert noted.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_is_an_exit_with_the_shells_code():
    with pytest.raises(SystemExit) as raised:
        raise Stopped(signal.SIGINT)
    assert raised.value.code == 130
