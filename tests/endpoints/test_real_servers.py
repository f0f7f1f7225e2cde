"""Tests of the client against the ways of real servers: one behavior for each row of the faults."""

import hashlib
import json
import random
import re

import pytest
from pydantic import ValidationError

from bfpo.endpoints import Endpoint, EndpointConfig, Failure, Reply, Usage, endpoint_config
from bfpo.endpoints.replies import parse_reply, refuses_max_tokens
from bfpo.errors import BfpoError, RunError
from bfpo.generation.endpoint_generator import _completion as completion_of
from support.asking import ask, config, echo, said
from support.mock_server import FILTERS, MAX_TOKENS, TRANSIENT, completion, limited, refusal, serving


def replies(behavior, requests, **options):
    """What comes of the requests, and the server that answered them."""
    with serving(behavior) as server:
        return list(Endpoint(config(server, **options)).complete(requests)), server


def answer_to(content, **options):
    """The reply to one request whose response has this content."""
    ((reply,), _) = replies(lambda *_: (200, {}, content), [ask("a")], **options)
    return reply


# The rate: J6


def test_a_rate_limit_loses_nothing_and_its_waits_are_no_attempts():
    """200 requests at 20 per window, 32 in flight, as real servers limit them (there 10 s, here 0.1 s)."""
    found, server = replies(limited(echo, 20, 0.1), (ask(str(n)) for n in range(200)), attempts=1)
    assert [reply.text for reply in found] == [f"re: {n}" for n in range(200)]
    # The pause is common: no window sees more than the requests that were in flight.
    assert len(server.log) <= 200 + 32 * 20


def test_a_pause_longer_than_the_patience_stops_the_run():
    with pytest.raises(RunError, match=r"asks to wait for 3600 s \(HTTP 429: slow\).* or raise 'patience'"):
        replies(lambda *_: (429, {"retry-after": "3600"}, b"slow"), [ask("a")])


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (402, "Insufficient Balance", None),
        (429, "You exceeded your quota", "insufficient_quota"),
        (403, "Key limit exceeded (monthly limit). Manage it using https://openrouter.ai/settings/keys", "403"),
        (403, "The free tier of the model has been exhausted.", "AllocationQuota.FreeTierOnly"),
        (400, "Access denied, please make sure your account is in good standing.", "Arrearage"),
        (429, "Your team 16f2 has either used all available credits or reached its monthly spending limit.", None),
    ],
)
def test_an_allowance_that_is_used_up_on_the_way_stops_the_run(status, words, code):
    """It had failed every later request, one by one, and the run finished."""

    def pays_for(body, attempt):
        return echo(body, attempt) if said(body) in "012" else (status, {}, refusal(words, code))

    message = rf"HTTP {status}: {re.escape(words)}\): top up the account, or raise the key's limit, and rerun"
    with serving(pays_for) as server, pytest.raises(RunError, match=message):
        list(Endpoint(config(server)).complete(ask(str(n)) for n in range(2000)))
    assert len(server.log) < 1000


@pytest.mark.parametrize(
    "end",
    [{"finish_reason": "abort"}, {"finish_reason": "error", "error": {"message": "Provider failed", "code": 502}}],
)
def test_an_answer_that_the_server_ended_early_is_asked_for_again(end):
    choice = {"message": {"role": "assistant", "content": "Sure, first you"}} | end
    cut = 200, {}, json.dumps({"choices": [choice]}).encode()
    found, _ = replies(lambda body, attempt: cut if attempt == 1 else echo(body, attempt), [ask("a")])
    assert [reply.text for reply in found] == ["re: a"]
    ((failure,), _) = replies(lambda *_: cut, [ask("a")], attempts=2)
    assert "the server ended it early" in failure.reason


# Faults that pass


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_passes_is_outlived(fault):
    found, _ = replies(
        lambda body, attempt: TRANSIENT[fault] if attempt == 1 else echo(body, attempt), [ask("a")], timeout=0.5
    )
    assert [reply.text for reply in found] == ["re: a"]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_stays_is_a_failure_with_a_reason(fault):
    if fault == "429 with Retry-After" or fault == "503":
        with pytest.raises(RunError, match="asks to wait"):
            replies(lambda *_: TRANSIENT[fault], [ask("a")], patience=0.05)
        return
    ((failure,), _) = replies(lambda *_: TRANSIENT[fault], [ask("a")], attempts=2, timeout=0.3)
    assert isinstance(failure, Failure)
    assert (failure.attempts, failure.permanent) == (2, False)
    assert len(failure.reason) > 5


def test_nothing_is_lost_with_a_tenth_of_every_fault_that_passes():
    """Each attempt of 300 requests meets each fault of the table with 10 % / number of faults."""
    names = list(TRANSIENT)

    def flaky(body, attempt):
        draw = random.Random(f"{said(body)} {attempt}").random()
        return TRANSIENT[names[int(draw * 10 * len(names))]] if draw < 0.1 else echo(body, attempt)

    found, _ = replies(flaky, (ask(str(n)) for n in range(300)), timeout=0.5)
    assert [getattr(reply, "text", reply) for reply in found] == [f"re: {n}" for n in range(300)]


def test_permanent_refusals_of_some_requests_are_counted_with_the_servers_words():
    def refuse(body, attempt):
        kind = int(hashlib.sha256(said(body).encode()).hexdigest(), 16) % 10
        return (400, {}, refusal(f"prompt of {said(body)} is too long")) if kind == 0 else echo(body, attempt)

    found, server = replies(refuse, (ask(str(n)) for n in range(100)))
    failures = [reply for reply in found if isinstance(reply, Failure)]
    assert 0 < len(failures) < 30
    assert all(failure.permanent and failure.reason.startswith("HTTP 400: prompt of ") for failure in failures)
    assert len(server.log) == 100


# Refusals of every request: J7


def test_a_server_that_refuses_everything_is_asked_a_few_times_and_quoted():
    words = "Unsupported value: 'temperature' does not support 0 with this model."

    def refuse(body, attempt):
        return 400, {}, refusal(f"{words} (request {hashlib.sha256(said(body).encode()).hexdigest()})")

    found, server = replies(refuse, (ask(str(n)) for n in range(1000)))
    assert all(failure.reason.startswith(f"HTTP 400: {words}") and failure.permanent for failure in found)
    assert [failure.attempts for failure in found] == [1] * 5 + [0] * 995
    assert len(server.log) == 5
    found, server = replies(lambda *_: (500, {}, b"boom"), (ask(str(n)) for n in range(1000)), attempts=2)
    assert [failure.attempts for failure in found] == [2] * 12 + [0] * 988
    assert len(server.log) < 40


def test_a_server_that_breaks_down_stops_the_run_but_single_refusals_do_not():
    def breaks_down(body, attempt):
        return echo(body, attempt) if int(said(body)) < 20 else (503, {}, b"gone")

    with serving(breaks_down) as server:
        found = Endpoint(config(server, attempts=2, concurrency=4)).complete(ask(str(n)) for n in range(1000))
        with pytest.raises(RunError, match=r"failed 12 requests in a row, 2 attempts each \(HTTP 503: gone\)"):
            list(found)
        assert len(server.log) < 100

    def refuses_later(body, attempt):
        return echo(body, attempt) if int(said(body)) < 20 else (400, {}, b"too long")

    found, _ = replies(refuses_later, (ask(str(n)) for n in range(100)))
    assert sum(isinstance(reply, Failure) for reply in found) == 80


def test_a_server_that_answers_others_meanwhile_has_not_broken_down():
    """Neighboring prompts that a server always fails on stay unanswered; the run goes on, whatever their number."""

    def fails_some(body, attempt):
        return (500, {}, b"boom") if 20 <= int(said(body)) < 40 else echo(body, attempt)

    found, _ = replies(fails_some, (ask(str(n)) for n in range(100)), attempts=2)
    assert [number for number, reply in enumerate(found) if isinstance(reply, Failure)] == list(range(20, 40))
    assert {reply.attempts for reply in found if isinstance(reply, Failure)} == {2}


def test_lone_surrogates_in_a_reply_can_be_written():
    def odd(body, attempt):
        return 200, {}, rb'{"choices": [{"message": {"content": "A lone \ud83d and \ud83d\ude00"}}]}'

    (found,), _ = replies(odd, [ask("0")])
    assert found.text == "A lone ? and \N{GRINNING FACE}"


@pytest.mark.parametrize("known", [True, False])
def test_max_tokens_becomes_max_completion_tokens(known, recwarn):
    def modern(body, attempt):
        return (400, {}, MAX_TOKENS) if "max_tokens" in body else echo(body, attempt)

    options = {"attempts": 1} | ({"token_limit": "max_completion_tokens"} if known else {})
    found, server = replies(modern, (ask(str(n), max_tokens=7) for n in range(50)), **options)
    assert [reply.text for reply in found] == [f"re: {n}" for n in range(50)]
    assert {body.get("max_completion_tokens") for _, body in server.log[-40:]} == {7}
    # Said once, and only a few requests were in flight by then.
    assert [("max_completion_tokens is sent" in str(each.message)) for each in recwarn] == [] if known else [True]
    assert len(server.log) <= 50 + (0 if known else 5)


def test_a_limit_that_is_too_high_is_not_taken_for_an_unknown_parameter():
    too_high = "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 4096"
    assert not refuses_max_tokens(400, refusal(too_high).decode())
    assert refuses_max_tokens(400, MAX_TOKENS.decode())
    assert not refuses_max_tokens(500, MAX_TOKENS.decode())


def test_extra_parameters_are_sent_and_null_leaves_one_out():
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": None}
    _, server = replies(echo, [ask("a")], extra_body=extra)
    body = server.log[0][1]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "temperature" not in body
    for wrong in ({"stream": True}, {"messages": []}, {"x": float("nan")}, {"x": {1, 2}}):
        with pytest.raises(ValidationError):
            EndpointConfig(url="http://host/v1", model="m", extra_body=wrong)


# What a reply holds: J3, J4, J8, J10, J11


TEXT = {"type": "text", "text": "Yes"}


@pytest.mark.parametrize(
    ("content", "thinking", "text"),
    [
        (completion("<think>\nLet me see.\n</think>\n\nYes"), "Let me see.", "Yes"),
        (completion("Let me see.\n</think>\nYes"), "Let me see.", "Yes"),
        (completion("<think></think>Yes"), "", "Yes"),
        (completion("[THINK]Hm.[/THINK]Yes"), "Hm.", "Yes"),
        (completion("Yes", reasoning_content="Let me see."), "Let me see.", "Yes"),
        (completion("Yes", reasoning="Let me see."), "Let me see.", "Yes"),
        (completion([{"type": "thinking", "thinking": [TEXT]}, TEXT]), "Yes", "Yes"),
        (completion([TEXT, {"type": "text", "text": "!"}]), "", "Yes!"),
        (completion("Say <think> aloud"), "", "Say <think> aloud"),
    ],
)  # fmt: skip
def test_thinking_and_parts_are_told_from_the_answer(content, thinking, text):
    reply = answer_to(content)
    assert (reply.thinking, reply.text, reply.only_thinking) == (thinking, text, False)


@pytest.mark.parametrize(
    "content",
    [completion("<think>Let me", finish="length"), completion(None, finish="length", reasoning_content="Let me")],
)
def test_thinking_that_never_ends_is_known_as_such(content):
    reply = answer_to(content)
    assert (reply.thinking, reply.text, reply.only_thinking, reply.truncated) == ("Let me", "", True, True)


@pytest.mark.parametrize("provider", FILTERS)
def test_a_provider_that_blocks_a_prompt_has_declined(provider):
    status, body = FILTERS[provider]
    found, server = replies(lambda *_: (status, {}, body), (ask(str(n)) for n in range(20)))
    assert all(isinstance(reply, Reply) and reply.refusal.startswith(f"HTTP {status}: ") for reply in found)
    assert len(server.log) == 20


def test_a_refusal_in_the_message_or_an_empty_filtered_reply_is_the_providers():
    assert answer_to(completion(None, refusal="I can't.")).refusal == "I can't."
    assert answer_to(completion([{"type": "refusal", "refusal": "I can't."}])).refusal == "I can't."
    assert answer_to(completion("", finish="content_filter")).refusal == "finish_reason content_filter"
    cut = answer_to(completion("As I was", finish="content_filter"))
    assert (cut.text, cut.refusal, cut.filtered, cut.truncated) == ("As I was", "", True, True)


def test_usage_is_kept():
    counts = {"prompt_tokens": 12, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 20}}
    assert answer_to(completion("a", usage=counts)).usage == Usage(12, 30, 20)
    assert answer_to(completion("a", usage={"prompt_tokens": "many"})).usage == Usage()
    assert answer_to(completion("a")).usage is None


@pytest.mark.parametrize(("reasoning", "expected"), [(20, 10), (30, 0), (31, 30), (90, 30)])
def test_thinking_is_taken_from_the_tokens_only_where_it_is_among_them(reasoning, expected):
    counts = {"completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": reasoning}}
    assert completion_of(answer_to(completion("a", usage=counts))).tokens == expected


def test_alternatives_that_are_no_numbers_are_dropped():
    odd = {"Yes": None, "No": float("nan"), "Maybe": float("inf"), "Oh": "x", "Ah": True, "So": 10**400, "Now": -1.5}
    reply = answer_to(completion("Yes", [("Yes", odd | {"Up": 1e-6})]))
    assert reply.tokens[0].top == {"Now": -1.5, "Up": 0.0}


@pytest.mark.parametrize(
    "logprobs", [{"content": [{"token": "Yes", "logprob": -0.1}]}, {"content": [{"token": 3}]}, {"content": "x"}, [],
                 "x", {"tokens": ["Yes"], "top_logprobs": None}, {"tokens": ["a", "b"], "top_logprobs": [{}]},
                 {"tokens": [1], "top_logprobs": [{}]}]
)  # fmt: skip
def test_without_alternatives_the_text_is_taken(logprobs):
    reply = parse_reply({"choices": [{"message": {"content": "Yes"}, "logprobs": logprobs}]})
    assert reply.text == "Yes"
    assert all(not token.top for token in reply.tokens)


def test_tokens_of_the_thinking_are_left_out():
    tokens = [(text, {text: -0.1}) for text in ("<think>", "No", "</think>", "\n", " Yes", ".", "<end>")]
    reply = answer_to(completion("<think>No</think>\n Yes.", tokens))
    assert [token.text for token in reply.tokens] == [" Yes", ".", "<end>"]
    assert reply.text == "Yes."


# The key: J2

# No digits, which a port may have.
KEY = 'sk-"hidden/secret\\qzxv'


@pytest.mark.parametrize("key", ["sk-a\nb", "sk a", "sk-\x1bb", "schlüssel"])
def test_what_can_be_no_key_is_refused_unseen(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with serving(echo) as server, pytest.raises(BfpoError, match="SOME_KEY holds no key") as caught:
        list(Endpoint(config(server, api_key_env="SOME_KEY")).complete([ask("a")]))
    assert key not in str(caught.value)
    assert not server.log


@pytest.mark.parametrize("written", [KEY, json.dumps(KEY), repr(KEY), KEY.replace("/", "\\/"), "x" * 295 + KEY])
@pytest.mark.parametrize("status", [400, 401, 200])
def test_no_form_or_part_of_the_key_is_ever_shown(monkeypatch, written, status):
    monkeypatch.setenv("SOME_KEY", KEY)
    content = completion(written) if status == 200 else written.encode()
    with serving(lambda *_: (status, {}, content)) as server:
        endpoint = Endpoint(config(server, api_key_env="SOME_KEY"))
        try:
            shown = repr(list(endpoint.complete([ask("a")])))
        except BfpoError as error:
            shown = str(error)
    assert "***" in shown
    for part in ("sk-", "hidden", "secret", "qzxv"):
        assert part not in shown + repr(endpoint) + repr(vars(endpoint))


def test_a_word_for_a_key_is_not_cut_out_of_answers(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "EMPTY")
    found, _ = replies(lambda *_: (200, {}, completion("The set is EMPTY.")), [ask("a")], api_key_env="SOME_KEY")
    assert found[0].text == "The set is EMPTY."


# Addresses, proxies, sizes: J5


@pytest.mark.parametrize(
    "url", ["http://host:99999/v1", "http://host:0/v1", "http://ho\rst/v1", "http://host/v1\n", "http://ho st/v1",
            "http://[::1/v1", "http://host:port/v1", "http://host/v1#top", "http:///v1"]
)  # fmt: skip
def test_odd_addresses_are_refused_in_a_sentence(url):
    with pytest.raises(BfpoError, match="url: "):
        endpoint_config(url, "m")


def test_a_redirection_is_not_followed():
    """A key must not go to another server."""
    found, server = replies(lambda *_: (307, {"location": "http://127.0.0.1:1/v1"}, b""), [ask("a")])
    assert found[0] == Failure("HTTP 307", 1, permanent=True)
    assert len(server.log) == 1


def test_a_reply_without_end_is_a_failure(monkeypatch):
    monkeypatch.setattr("bfpo.endpoints.session._LARGEST", 1000)
    ((failure,), _) = replies(lambda *_: (200, {}, completion("x" * 2000)), [ask("a")])
    assert failure == Failure("the reply is larger than 0 MiB", 1, permanent=True)


def test_a_lone_surrogate_is_sent_as_json_writes_it():
    found, server = replies(lambda *_: (200, {}, completion("a")), [ask("a \ud83d")])
    assert found[0].text == "a"
    assert said(server.log[0][1]) == "a \ud83d"


def test_a_servers_settings_come_from_a_file(tmp_path):
    path = tmp_path / "server.yaml"
    path.write_text(
        "url: http://host/v1\nconcurrency: 3\nextra_body: {chat_template_kwargs: {enable_thinking: false}}\n"
    )
    found = endpoint_config(str(path), "m", api_key_env="KEY")
    assert (found.url, found.model, found.concurrency, found.api_key_env) == ("http://host/v1", "m", 3, "KEY")
    path.write_text("url: http://host/v1\nconcurency: 3\n")
    with pytest.raises(BfpoError, match="did you mean 'concurrency'"):
        endpoint_config(str(path), "m")
    path.write_text("- 1")
    with pytest.raises(BfpoError, match="is a mapping of keys"):
        endpoint_config(str(path), "m")
    with pytest.raises(BfpoError, match="can't be read"):
        endpoint_config(str(tmp_path / "none.yaml"), "m")
