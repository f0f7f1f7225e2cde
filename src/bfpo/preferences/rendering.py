"""Token ids of prompts and answers: by the tokenizer's chat template, or as plain text without one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bfpo.errors import BfpoError, one_line
from bfpo.preferences.messages import Message, for_template, with_role
from bfpo.sequences import common_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_THOUGHTS = ("reasoning_content", "thinking")
_THOUGHT_END = "</think>"
# Letters that occur in no text; templates that write JSON don't escape them.
_MARK = "bfpoqzx"

Text = str | Sequence[Mapping[str, Any]]


class RenderError(BfpoError):
    """Messages that the chat template can't render, or renders without a part of them."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy


@dataclass(frozen=True)
class EncodedGroup:
    """Token ids of a prompt and its answers.

    Attributes:
        prompt: tokens of the prompt.
        answers: tokens of each answer, with exactly one end unless it has none.
        context: for each answer, places of tokens that are read but not trained on: the turns of others.
        moved: whether the last tokens of the rendered prompt depend on the answer and belong to it.
        added_ends: number of answers after which the template writes no end that the model stops at, so that the
            tokenizer's was added.
    """

    prompt: list[int]
    answers: list[list[int]]
    context: list[list[int]]
    moved: bool = False
    added_ends: int = 0


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with its chat template.

    Attributes:
        tokenizer: the tokenizer.
        ends: tokens at which the model stops; the tokenizer's end of sequence always is one.
    """

    tokenizer: PreTrainedTokenizerBase
    ends: Collection[int] = ()

    def prompt(self, prompt: Text, tools: str | None = None) -> list[int]:
        """Token ids of a prompt, up to the start of the answer.

        Raises:
            RenderError: if the template can't render it.
        """
        if isinstance(prompt, str) and not self.tokenizer.chat_template:
            return self._plain(prompt)
        return self._ids(_messages(prompt, "user"), tools, add_generation_prompt=True)

    def group(
        self, prompt: Text, answers: Sequence[Text], tools: str | None = None, unended: Collection[int] = ()
    ) -> EncodedGroup:
        """Token ids of a prompt and of each answer to it.

        The prompt is the longest common prefix of the rendered prompt and every rendered conversation. An answer ends
        with the first end that the template writes after it; what follows is cut, and a missing end is added. Those
        whose indices are in ``unended`` have no end.

        Raises:
            RenderError: if the template can't render them, or leaves something out.
        """
        rendered = self.prompt(prompt, tools)
        whole = [self._whole(prompt, answer, tools) for answer in answers]
        boundary = min(len(rendered), *(common_length(rendered, ids) for ids in whole))
        endings, context, added = [], [], 0
        for at, (ids, answer) in enumerate(zip(whole, answers, strict=True)):
            turns = self._turns(prompt, answer, tools, ids, boundary)
            ending, has_end = self._with_one_end(ids, turns[-1][0], answer)
            trained = {at for start, stop in turns[:-1] for at in range(start, stop)}
            context.append([at - boundary for at in range(boundary, turns[-1][0]) if at not in trained])
            endings.append(ending[boundary : -1 if at in unended else None])
            added += not has_end and at not in unended
        return EncodedGroup(rendered[:boundary], endings, context, boundary < len(rendered), added)

    def _whole(self, prompt: Text, answer: Text, tools: str | None) -> list[int]:
        if isinstance(prompt, str) and isinstance(answer, str) and not self.tokenizer.chat_template:
            return self._plain(prompt + answer)
        messages = [*_messages(prompt, "user"), *_messages(answer, "assistant")]
        if tools or any(_is_special(message) for message in messages):
            marked_messages, marked_tools, marks = _marked(messages, tools)
            text = self._text(marked_messages, marked_tools)
            missing = next((what for mark, what in marks.items() if mark not in text), None)
            if missing:
                remedy = "use a tokenizer whose template renders it, or remove it"
                raise RenderError(f"the chat template leaves out {missing}", remedy)
        return self._ids(messages, tools)

    def _turns(
        self, prompt: Text, answer: Text, tools: str | None, ids: list[int], boundary: int
    ) -> list[tuple[int, int]]:
        """Start and stop, in ``ids``, of each of the assistant's turns in an answer; the last one stops at the end."""
        before, messages = _messages(prompt, "user"), _messages(answer, "assistant")
        places = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if not places:
            raise RenderError("the answer has no message of the assistant", "give it the role 'assistant'")
        if len(messages) == 1:
            return [(boundary, len(ids))]
        whole = self._text([*before, *messages], tools)
        starts = [self._start([*before, *messages[:at]], tools, whole, ids) if at else boundary for at in places]
        stops = [
            self._stop([*before, *messages[: at + 1]], tools, ids, start, following)
            for at, start, following in zip(places, starts, starts[1:], strict=False)
        ]
        return list(zip(starts, [*stops, len(ids)], strict=True))

    def _start(self, earlier: list[Message], tools: str | None, whole: str, ids: list[int]) -> int:
        """Where the assistant's turn starts in ``ids``, the tokens of the ``whole`` text."""
        if not whole.startswith(self._text(earlier, tools, add_generation_prompt=True)):
            raise RenderError(
                "the chat template renders earlier turns differently if others follow, so an answer's turns can't be "
                "told apart",
                "make all but the last a part of the prompt",
            )
        return common_length(self._ids(earlier, tools, add_generation_prompt=True), ids)

    def _stop(self, turns: list[Message], tools: str | None, ids: list[int], start: int, following: int) -> int:
        """Where a turn stops that others follow: after its end, or else where the template goes on without them."""
        end = next((at for at in range(start, following) if ids[at] in self._all_ends), None)
        return end + 1 if end is not None else min(following, common_length(self._ids(turns, tools), ids))

    @property
    def _all_ends(self) -> set[int]:
        eos: Any = self.tokenizer.eos_token_id
        if eos is None:
            raise BfpoError("the tokenizer has no end-of-sequence token: set its eos_token")
        return {eos, *self.ends}

    def _with_one_end(self, ids: list[int], start: int, answer: Text) -> tuple[list[int], bool]:
        """The ids up to the first of the ends that follow a turn, and whether the template wrote it."""
        ends = self._all_ends
        at = next((at for at in range(len(ids) - 1, start - 1, -1) if ids[at] in ends), None)
        if at is not None and self._is_within(answer, ids[at:]):
            at = None
        if at is None:
            return [*ids, self.tokenizer.eos_token_id], not self.tokenizer.chat_template  # pyright: ignore
        first = at
        while at > start and (ids[at - 1] in ends or not str(self.tokenizer.decode([ids[at - 1]])).strip()):
            at -= 1
            first = at if ids[at] in ends else first
        return ids[: first + 1], True

    def _is_within(self, answer: Text, rest: list[int]) -> bool:
        """Whether the end that these tokens begin with is a part of the answer's own text, which goes on after it."""
        text = answer if isinstance(answer, str) else answer[-1].get("content")
        end, after = (str(self.tokenizer.decode(ids)) for ids in (rest[:1], rest[1:]))
        _, found, tail = str(text or "").rpartition(end)
        own, written = ("".join(each.split()) for each in (tail, after))
        return bool(found and own) and written.startswith(own)

    def _text(self, messages: list[Message], tools: str | None, *, add_generation_prompt: bool = False) -> str:
        return str(self._apply(messages, tools, tokenize=False, add_generation_prompt=add_generation_prompt))

    def _ids(self, messages: list[Message], tools: str | None, *, add_generation_prompt: bool = False) -> list[int]:
        ids = self._apply(messages, tools, return_dict=False, add_generation_prompt=add_generation_prompt)
        return self._with_one_bos(list(ids))

    def _apply(self, messages: list[Message], tools: str | None, **options: Any) -> Any:
        given = json.loads(tools) if tools else None
        try:
            return self.tokenizer.apply_chat_template(for_template(messages), tools=given, **options)
        except Exception as error:  # a template is code, which may raise anything
            what = f"the chat template can't render it ({one_line(error)})"
            raise RenderError(what, "change the row, or use another tokenizer") from error

    def _plain(self, text: str) -> list[int]:
        return self._with_one_bos(list(self.tokenizer(text)["input_ids"]))

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        """The ids with exactly one beginning-of-sequence token if the tokenizer uses one."""
        bos: Any = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        start = next((at for at, token in enumerate(ids) if token != bos), len(ids))
        by_convention = list(self.tokenizer("a")["input_ids"])[:1] == [bos]
        return [bos, *ids[start:]] if start or by_convention else ids


def _messages(text: Text, role: str) -> list[Message]:
    return list(with_role(text, role))


def _is_special(message: Message) -> bool:
    """Whether a template may leave out a message or a part of it, as many do without saying so."""
    thinks = message["role"] == "assistant" and _THOUGHT_END in str(message.get("content") or "")
    own = any(message.get(name) for name in ("tool_calls", *_THOUGHTS))
    return message["role"] not in ("user", "assistant") or own or thinks


def _marked(messages: Sequence[Message], tools: str | None) -> tuple[list[Message], str | None, dict[str, str]]:
    """Messages and tools with marks in all that a template may leave out, and what each mark stands for.

    Marked are tools, tool calls and the text beside them, the reasoning of the last turn (apart, or in its text), and
    messages of other roles than user and assistant.
    """
    marks: dict[str, str] = {}

    def mark(text: str, what: str) -> str:
        name = f"{_MARK}{len(marks)}x"
        marks[name] = what
        return f"{text.rstrip()}{name}"

    def named(calls: str, what: str) -> str:
        made = json.loads(calls)
        for call in made:
            function = call.get("function", call)
            function["name"] = mark(str(function["name"]), f"{what} {function['name']!r}")
        return json.dumps(made)

    made = []
    for message in messages:
        message = dict(message)
        if message["role"] not in ("user", "assistant"):
            message["content"] = mark(message["content"], f"the message of the role {message['role']!r}")
        if message.get("tool_calls"):
            message["tool_calls"] = named(message["tool_calls"], "the call of")
            if str(message.get("content") or "").strip():
                message["content"] = mark(message["content"], "the text beside a call")
        made.append(message)
    for name in _THOUGHTS:
        if made[-1].get(name):
            made[-1][name] = mark(made[-1][name], f"{name!r} of the answer")
    thought, end, rest = str(made[-1].get("content") or "").partition(_THOUGHT_END)
    if end and made[-1]["role"] == "assistant":
        made[-1]["content"] = mark(thought, "the thinking of the answer") + end + rest
    return made, named(tools, "the tool") if tools else None, marks
