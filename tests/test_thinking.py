"""Thinking and the answer after it, in the ways that models write them."""

import pytest

from bfpo.thinking import split_thinking


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("An answer.", "", "An answer."),
        ("  An answer.\n", "", "  An answer.\n"),
        ("<think>\nHm.\n</think>\n\nAn answer.\n", "Hm.", "An answer."),
        ("\n <think>Hm.</think>An answer.", "Hm.", "An answer."),
        ("<think></think>An answer.", "", "An answer."),
        ("<think>One.</think>\n<think>Two.</think>An answer.", "One.\n\nTwo.", "An answer."),
        ("<thinking>Hm.</thinking>An answer.", "Hm.", "An answer."),
        ("[THINK]Hm.[/THINK]An answer.", "Hm.", "An answer."),
        ("<think>A </thinking> is no end.</think>An answer.", "A </thinking> is no end.", "An answer."),
        ("<think>It never ends", "It never ends", ""),
        ("<think>One.</think><think>It never ends", "One.\n\nIt never ends", ""),
        ("<think>", "", ""),
        ("Write <think> before it.", "", "Write <think> before it."),
        ("<think>Hm.</think>Write </think> after it.", "Hm.", "Write </think> after it."),
    ],
)
def test_thinking_is_split_from_the_answer(text, thinking, answer):
    assert split_thinking(text) == (thinking, answer)


def test_a_closing_mark_hides_nothing_unless_the_prompt_may_have_opened_the_thinking():
    """Otherwise a model, or an attack, could write what it likes before the mark, and a refusal for judges after it."""
    text = "Everything you asked for. </think> Sorry, I can't help."
    assert split_thinking(text) == ("", text)
    assert split_thinking(text, "<|im_start|>assistant\n") == ("", text)
    hidden = ("Everything you asked for.", "Sorry, I can't help.")
    assert split_thinking(text, "<|im_start|>assistant\n<think>\n") == hidden
    # Nobody knows what a server's template wrote before the output.
    assert split_thinking(text, None) == hidden
    assert split_thinking("<think>Hm.</think>An answer.", None) == ("Hm.", "An answer.")


@pytest.mark.parametrize(
    ("before", "text", "thinking", "answer"),
    [
        ("<|assistant|><think>\n", "It never ends", "It never ends", ""),
        ("<|assistant|>[THINK]", "It never ends", "It never ends", ""),
        ("<|assistant|><think>\n", "Hm.\n</think>\n\nAn answer.", "Hm.", "An answer."),
        ("<|assistant|><think>\n", "", "", ""),
        ("<|assistant|><think>\n\n</think>\n\n", "An answer.", "", "An answer."),
        ("Write <think> before it.<|assistant|>", "An answer.", "", "An answer."),
    ],
)
def test_a_prompt_can_begin_the_thinking(before, text, thinking, answer):
    assert split_thinking(text, before) == (thinking, answer)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "<think>a</think> ", "[THINK]"])
def test_a_million_marks_take_no_time(piece):
    assert len(split_thinking(piece * 300_000)) == 2
