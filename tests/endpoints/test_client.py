"""Tests of the client against a real local server that errs on purpose."""

import asyncio
import email.utils
import hashlib
import itertools
import json
import time
from collections import Counter

import pytest
from pydantic import ValidationError

from bfpo.endpoints import CompletionRequest, Endpoint, EndpointConfig, Failure, Reply
from bfpo.endpoints.replies import MalformedReplyError, parse_reply
from bfpo.endpoints.session import _retry_after
from bfpo.errors import BfpoError, RunError
from support.asking import ask, config, echo, said
from support.mock_server import completion, serving

KEY = "sk-very-secret-4711"


def test_replies_come_in_the_order_of_requests():
    def shuffled(body, attempt):
        time.sleep(0)
        return echo(body, attempt)

    with serving(shuffled) as server:
        replies = list(Endpoint(config(server, concurrency=16)).complete(ask(str(n)) for n in range(200)))
    assert [reply.text for reply in replies] == [f"re: {n}" for n in range(200)]
    assert len(server.log) == 200


def test_requests_in_flight_are_limited():
    with serving(echo, delay=0.05) as server:
        list(Endpoint(config(server, concurrency=7)).complete(ask(str(n)) for n in range(60)))
    assert server.most_in_flight == 7


def misbehave(body, attempt):
    """Half of the requests fail at first, as determined by their text; one in ten never succeeds."""
    kind = int(hashlib.sha256(said(body).encode()).hexdigest(), 16) % 20
    if kind < 2:
        return 503, {}, b"never"
    if attempt > 1 or kind >= 10:
        return echo(body, attempt)
    return {
        2: ("hang", {}, b""),
        3: (500, {}, b"boom"),
        4: (200, {}, b'{"choices": [{"message": {"content": "made'),
        5: (200, {"x-half": "1"}, completion("half of this is lost, and must never be taken for a reply")),
        6: (429, {"retry-after": "0"}, b"slow down"),
        7: (200, {}, b'{"choices": []}'),
        8: (200, {}, b"<html>busy</html>"),
        9: (408, {}, b""),
    }[kind]


def test_errors_are_retried_without_lost_or_doubled_replies():
    texts = [str(n) for n in range(400)]
    with serving(misbehave) as server:
        options = config(server, concurrency=32, timeout=2.0, attempts=3)
        replies = list(Endpoint(options).complete(ask(text) for text in texts))
    assert len(replies) == len(texts)
    asked, failed = Counter(said(body) for _, body in server.log), 0
    for text, reply in zip(texts, replies, strict=True):
        kind = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 20
        if kind < 2:
            failed += 1
            assert reply == Failure("HTTP 503: never", 3)
        else:
            assert isinstance(reply, Reply)
            assert (reply.text, asked[text]) == (f"re: {text}", 2 if kind < 10 else 1)
    assert failed > 10


def test_a_request_that_the_server_never_takes_fails_at_once_and_alone():
    def refuse(body, attempt):
        return (400, {}, b"too long") if said(body) == "3" else echo(body, attempt)

    with serving(refuse) as server:
        replies = list(Endpoint(config(server)).complete(ask(str(n)) for n in range(6)))
    assert replies[3] == Failure("HTTP 400: too long", 1, permanent=True)
    assert sum(isinstance(reply, Failure) for reply in replies) == 1


def test_the_key_is_sent_and_never_shown(monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)

    def tell(body, attempt):
        return 400, {}, f"bad key {KEY}".encode()

    with serving(tell) as server:
        endpoint = Endpoint(config(server, api_key_env="SOME_KEY"))
        (failure,) = endpoint.complete([ask("a")])
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert failure == Failure("HTTP 400: bad key ***", 1, permanent=True)
    assert KEY not in repr(endpoint.config) + repr(vars(endpoint))


@pytest.mark.parametrize(("status", "words"), [(401, "SOME_KEY"), (404, "model name")])
def test_what_fails_for_every_request_stops_the_run(monkeypatch, status, words):
    monkeypatch.setenv("SOME_KEY", KEY)
    with (
        serving(lambda body, attempt: (status, {}, f"no: {KEY}".encode())) as server,
        pytest.raises(BfpoError, match=words) as caught,
    ):
        list(Endpoint(config(server, api_key_env="SOME_KEY")).complete(ask(str(n)) for n in range(1000)))
    assert KEY not in str(caught.value)
    assert len(server.log) < 300


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with serving(echo) as server, pytest.raises(BfpoError, match="set the environment variable SOME_KEY"):
        list(Endpoint(config(server, api_key_env="SOME_KEY")).complete([ask("a")]))
    assert not server.log


def test_a_server_that_is_not_there_stops_the_run():
    with serving(echo) as server:
        gone = config(server, attempts=2)
    with pytest.raises(RunError, match="start the server and rerun"):
        list(Endpoint(gone).complete(ask(str(n)) for n in range(100)))


def test_requests_are_read_as_they_are_needed_and_breaking_off_ends_everything():
    read = itertools.count()

    def endless():
        while True:
            yield ask(str(next(read)))

    with serving(echo) as server:
        replies = Endpoint(config(server, concurrency=4)).complete(endless())
        taken = list(itertools.islice(replies, 10))
        replies.close()
    assert [reply.text for reply in taken] == [f"re: {n}" for n in range(10)]
    assert next(read) <= 10 + 4 * 4


def test_it_works_inside_a_running_event_loop():
    async def notebook():
        return [reply.text for reply in Endpoint(config(server)).complete([ask("a"), ask("b")])]

    with serving(echo) as server:
        assert asyncio.run(notebook()) == ["re: a", "re: b"]


def test_the_rate_limit_is_kept():
    starts = []

    def note(body, attempt):
        starts.append(time.monotonic())
        return echo(body, attempt)

    with serving(note) as server:
        list(Endpoint(config(server, requests_per_minute=6000)).complete(ask(str(n)) for n in range(20)))
    # Twenty requests, 10 ms apart: the server can't have seen them in less.
    assert starts[-1] - starts[0] >= 0.15
    # Also over several calls, as of batches of one.
    starts.clear()
    with serving(note) as server:
        endpoint = Endpoint(config(server, requests_per_minute=6000))
        for number in range(20):
            list(endpoint.complete([ask(str(number))]))
    assert starts[-1] - starts[0] >= 0.15


def test_request_bodies_match_the_requests():
    request = ask("a", max_tokens=7, temperature=0.5, top_p=0.9, seed=3, top_logprobs=5)
    with serving(echo) as server:
        list(Endpoint(config(server)).complete([request]))
    path, body = server.log[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 5,
    }


def test_a_plain_completion_goes_to_its_own_address_and_is_read_in_its_own_form():
    reply = {"text": " Yes", "finish_reason": "length"}
    reply["logprobs"] = {"tokens": [" Yes"], "top_logprobs": [{" Yes": -0.1, " No": -2.4}]}

    with serving(lambda body, attempt: (200, {}, json.dumps({"choices": [reply]}).encode())) as server:
        (got,) = Endpoint(config(server)).complete([CompletionRequest("text", max_tokens=1, top_logprobs=2)])
    path, body = server.log[0]
    assert (path, body["prompt"], body["logprobs"]) == ("/v1/completions", "text", 2)
    assert got.text == " Yes"
    assert got.truncated
    assert got.tokens[0].top == {" Yes": -0.1, " No": -2.4}


def test_logprobs_of_a_chat_are_read():
    body = completion("Yes", tokens=[("Yes", {"Yes": -0.1, "No": -2.4})])
    with serving(lambda *_: (200, {}, body)) as server:
        (got,) = Endpoint(config(server)).complete([ask("a", top_logprobs=2)])
    assert got.tokens[0].text == "Yes"
    assert got.tokens[0].top == {"Yes": -0.1, "No": -2.4}


def test_no_content_is_an_empty_reply_and_not_an_error():
    assert parse_reply({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}).text == ""


@pytest.mark.parametrize(
    "body", [None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 3}}]},
             {"choices": [{"message": None}]}, {"choices": "abc"}]
)  # fmt: skip
def test_what_is_no_reply_is_never_taken_for_one(body):
    with pytest.raises(MalformedReplyError):
        parse_reply(body)


@pytest.mark.parametrize(
    ("url", "words"),
    [("localhost:8000", "not an address"), ("ftp://host/v1", "not an address"),
     ("http://me:secret@host/v1", "api_key_env"), ("http://host/v1?key=secret", "api_key_env")],
)  # fmt: skip
def test_bad_addresses_are_refused(url, words):
    with pytest.raises(ValidationError, match=words) as caught:
        EndpointConfig(url=url, model="m")
    assert words in str(caught.value)


def test_unknown_options_are_refused():
    with pytest.raises(ValidationError, match="concurency"):
        EndpointConfig(url="http://host/v1", model="m", concurency=3)  # pyright: ignore


def test_retry_after_is_seconds_or_a_date():
    def seconds(value):
        return _retry_after({"retry-after": value})

    assert seconds("3.5") == 3.5
    assert [seconds(value) for value in ("", "soon", "-1", "nan", "inf", "1e999", "Wed, 21 Oct 2015 07:28:00 GMT")] == [
        0
    ] * 7
    assert 55 < seconds(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert _retry_after({}) == 0
    assert _retry_after({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
