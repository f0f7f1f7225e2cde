"""Readers of what a server sends: completions, error messages, refusals by a provider's filter."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from bfpo.endpoints.messages import FILTERED, Reply, TokenLogprobs, Usage
from bfpo.files import encodable
from bfpo.thinking import split_thinking


class MalformedReplyError(ValueError):
    """A reply with status 200 that doesn't follow the protocol."""


def read_json(content: str) -> Any:
    """The value of a JSON text.

    Raises:
        MalformedReplyError: if it is not JSON, or nested too deeply.
    """
    try:
        found = json.loads(content)
        # Lone surrogates are legal in JSON, and no file could hold what is made of them.
        return json.loads(encodable(json.dumps(found, ensure_ascii=False))) if "\\ud" in content.lower() else found
    except RecursionError:
        raise MalformedReplyError("its JSON is nested too deeply") from None
    except ValueError as error:  # also integers of thousands of digits
        raise MalformedReplyError(f"it is not JSON ({error})") from None


# Reasons for the end of a completion that is no answer: the server failed, or was stopped.
_ABORTED = ("error", "abort")


def parse_reply(body: Any) -> Reply:
    """The completion in a server's JSON.

    Raises:
        MalformedReplyError: if there is no completion where the protocol puts it.
    """
    try:
        choice = body["choices"][0]
        is_chat = "message" in choice
        if is_chat:
            message = choice["message"]
            text, thinking, refusal = _content(message.get("content"))
            thinking = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or thinking
            refusal = _text(message.get("refusal")) or refusal
        else:
            text, thinking, refusal = choice["text"], "", ""
        finish_reason = str(choice.get("finish_reason") or "")
        aborted = choice.get("error") or finish_reason in _ABORTED
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        words = server_words(body)
        reason = f"it is an error: {words}" if words else f"it has no completion ({type(error).__name__}: {error})"
        raise MalformedReplyError(reason) from error
    if aborted:
        raise MalformedReplyError(f"the server ended it early ({server_words(choice) or finish_reason})")
    if not isinstance(text, str):
        raise MalformedReplyError(f"its text is a {type(text).__name__}")
    if not thinking:
        thinking, text = split_thinking(text, before=None)
    if not text.strip() and finish_reason in FILTERED:
        refusal = refusal or f"finish_reason {finish_reason}"
    tokens = _tokens(choice.get("logprobs"))
    return Reply(
        text,
        finish_reason,
        _tokens_of(text, tokens) if thinking else tokens,
        thinking=thinking,
        refusal="" if text.strip() else refusal,
        usage=_usage(body.get("usage")),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _content(content: Any) -> tuple[Any, str, str]:
    """Text, thinking and refusal of a message's content: a text, None, or a list of parts.

    Parts are OpenAI's ``{"type": "text" | "refusal", ...}`` and Mistral's ``{"type": "thinking", "thinking": [...]}``.
    """
    if content is None:
        return "", "", ""
    if not isinstance(content, list):
        return content, "", ""
    found = {"text": "", "thinking": "", "refusal": ""}
    for part in content:
        if isinstance(part, str):
            found["text"] += part
        elif isinstance(part, dict):
            for name in found:
                found[name] += _joined(part.get(name))
    return found["text"], found["thinking"], found["refusal"]


def _joined(value: Any) -> str:
    """A text, or the texts of a list of parts."""
    parts = value if isinstance(value, list) else []
    return _text(value) or "".join(_text(part.get("text")) for part in parts if isinstance(part, dict))


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("completion_tokens_details")
    reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return Usage(*(_count(value) for value in (usage.get("prompt_tokens"), usage.get("completion_tokens"), reasoning)))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _tokens(logprobs: Any) -> tuple[TokenLogprobs, ...]:
    """The tokens with their alternatives; none if they don't follow the protocol, so that the text alone counts."""
    if not isinstance(logprobs, dict):
        return ()
    if isinstance(logprobs.get("content"), list):  # a chat's form
        entries = logprobs["content"]
        if not all(isinstance(entry, dict) and isinstance(entry.get("token"), str) for entry in entries):
            return ()
        return tuple(TokenLogprobs(entry["token"], _alternatives(entry.get("top_logprobs"))) for entry in entries)
    texts, tops = logprobs.get("tokens"), logprobs.get("top_logprobs")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return ()
    if not isinstance(tops, list) or len(tops) != len(texts):
        tops = [None] * len(texts)
    return tuple(TokenLogprobs(text, _alternatives(top)) for text, top in zip(texts, tops, strict=True))


def _alternatives(top: Any) -> Mapping[str, float]:
    """Finite log-probabilities by token, of a chat's list or a plain completion's mapping; others are dropped."""
    pairs: list[tuple[Any, Any]]
    if isinstance(top, list):
        pairs = [(each.get("token"), each.get("logprob")) for each in top if isinstance(each, dict)]
    else:
        pairs = list(top.items()) if isinstance(top, dict) else []
    # Servers round, so a log-probability may be slightly above 0.
    return {token: min(float(value), 0.0) for token, value in pairs if isinstance(token, str) and _is_finite(value)}


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**53


def _tokens_of(text: str, tokens: tuple[TokenLogprobs, ...]) -> tuple[TokenLogprobs, ...]:
    """The tokens that make up the text after the thinking; none if they can't be told apart."""
    start = "".join(token.text for token in tokens).rfind(text.strip()) if text.strip() else -1
    seen = 0
    for at, token in enumerate(tokens):
        seen += len(token.text)
        if 0 <= start < seen:
            return tokens[at:]
    return ()


def server_words(content: Any) -> str:
    """The message in an error's JSON; "" if there is none."""
    if not isinstance(content, dict):
        return ""
    error: Any = content.get("error", content)
    if isinstance(error, dict):
        error = next((error[name] for name in ("message", "detail", "msg") if error.get(name)), "")
    return _text(error)


# Codes and messages of providers' filters. Azure: code content_filter, inner code ResponsibleAIPolicyViolation
# (github.com/compl-ai/compl-ai, issue 20); LiteLLM: ContentPolicyViolationError (github.com/BerriAI/litellm, pull
# 16231); OpenRouter: error.metadata.flagged_input (openrouter.ai/docs/api/reference/errors-and-debugging); DeepSeek:
# "Content Exists Risk" (github.com/deepseek-ai/DeepSeek-V2, issue 30); Alibaba: DataInspectionFailed
# (github.com/QwenLM/qwen-code, issue 3145).
_FILTER = re.compile(
    r"content_filter|ResponsibleAIPolicyViolation|ContentPolicyViolation|content_policy_violation|flagged_input|"
    r"Content Exists Risk|data_?inspection_?failed",
    re.IGNORECASE,
)


def is_filter(status: int, content: str) -> bool:
    """Whether an error says that a provider's filter refused the prompt."""
    return 400 <= status < 500 and status != 429 and _FILTER.search(content) is not None


def refuses_max_tokens(status: int, content: str) -> bool:
    """Whether an error says that the parameter ``max_tokens`` is not supported, rather than too large.

    OpenAI: "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    """
    names_it = re.search(r"\bmax_tokens\b", content) is not None
    text = content.casefold()
    unsupported = re.search(r"unsupported|not supported|unrecogni[sz]ed|unknown|not permitted|instead", text)
    too_large = re.search(r"too large|too long|context length|at most|maximum", text)
    return status in (400, 422) and names_it and unsupported is not None and too_large is None


# OpenAI's code (429); OpenRouter's limit of a key (403: github.com/gptme/gptme, issue 1449); Alibaba's free tier (403:
# github.com/666ghj/BettaFish, issue 609) and debt (400: github.com/tencentmusic/supersonic, issue 1572); xAI (429:
# github.com/continuedev/continue, issue 10373).
_USED_UP = re.compile(
    r"insufficient_quota|Key limit exceeded|AllocationQuota\.FreeTierOnly|\bArrearage\b|used all available credits"
)


def is_used_up(status: int, content: str) -> bool:
    """Whether an error says that the account's or the key's allowance is used up, which no waiting fixes."""
    return status == 402 or (status in (400, 403, 429) and _USED_UP.search(content) is not None)
