"""Tests of what chat templates make of messages: turns, ends, and parts that they refuse or leave out."""

import json

import datasets
import pytest
from tokenizers.pre_tokenizers import Split

from bfpo.errors import BfpoError
from bfpo.preferences.encoding import encode
from bfpo.preferences.loading import checked
from bfpo.preferences.rendering import Renderer, RenderError
from bfpo.preferences.schema import PreferenceDataError
from preferences.formats import CALL, TOOLS, assistant, system, user
from support.word_tokenizer import tokenizer_of

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
LETTERS = [chr(code) for code in range(32, 127)] + ["\n"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3's: the last turn is rendered with an empty thought, earlier ones without.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Gemma's.
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
DEAF = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] in ('user', 'assistant') %}")
WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endif %}" + CHATML.replace(
        "+ m['content'] +", "+ m['content'] + (m['tool_calls'] | tojson if m['tool_calls'] else '') +"
    )
)  # fmt: skip


def tokenizer(template, eos="<|im_end|>"):
    made = tokenizer_of(
        [*SPECIAL, *LETTERS], split=Split("", "isolated"), eos_token=eos, pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:],
    )  # fmt: skip
    made.chat_template = template
    return made


def parts(group, used, answer):
    """The text that is trained on and the one that is only read."""
    context = set(group.context[answer])
    ids = group.answers[answer]
    kept = [[token for at, token in enumerate(ids) if (at in context) is read] for read in (False, True)]
    return [used.decode(some).replace(" ", "") for some in kept]


TURNS = [assistant("one"), user("more"), assistant("two")]


@pytest.mark.parametrize("template", [CHATML, THINKING], ids=["chatml", "thinking"])
def test_only_the_assistants_turns_of_an_answer_are_trained_on(template):
    used = tokenizer(template)
    group = Renderer(used).group([user("q")], [TURNS, [assistant("no")]])
    last = "<think></think>" if template == THINKING else ""
    assert used.decode(group.prompt).replace(" ", "") == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert parts(group, used, 0) == [
        f"one<|im_end|>{last}two<|im_end|>",
        "\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert parts(group, used, 1) == [f"{last}no<|im_end|>", ""]


def test_an_answer_may_begin_with_others_turns():
    used = tokenizer(CHATML)
    group = Renderer(used).group([user("q"), assistant("a")], [[user(x), assistant("y" + x)] for x in "rs"])
    assert [parts(group, used, at)[0] for at in (0, 1)] == ["yr<|im_end|>", "ys<|im_end|>"]


def test_turns_without_an_end_stop_where_the_next_begins():
    plain = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + ';' }}{% endfor %}"
    used = tokenizer(plain + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}", eos="</s>")
    group = Renderer(used).group([user("q")], [TURNS])
    assert parts(group, used, 0) == ["one;two;</s>", "user:more;assistant:"]
    assert group.added_ends == 1


def test_a_template_that_rewrites_earlier_turns_is_refused_for_answers_of_several():
    forgetful = "{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}" + CHATML.split("%}", 1)[1]
    forgetful = forgetful.replace("{% endfor %}", "{% endif %}{% endfor %}")
    with pytest.raises(RenderError, match="renders earlier turns differently"):
        Renderer(tokenizer(forgetful.replace("m['content']", "m['content'] + (messages | length) | string"))).group(
            [user("q")], [TURNS]
        )


@pytest.mark.parametrize(
    ("ends", "ending", "added"),
    [((5,), "y<|im_end|>", 0), ((), "y<|im_end|>\n</s>", 1), ((2, 5), "y<|im_end|>", 0)],
)
def test_an_answer_ends_once_where_the_model_stops(ends, ending, added):
    used = tokenizer(CHATML, eos="</s>")
    group = Renderer(used, ends).group([user("q")], [[assistant("y")]])
    assert used.decode(group.answers[0]).replace(" ", "") == ending
    assert group.added_ends == added


def test_of_two_ends_in_a_row_the_first_is_kept():
    used = tokenizer(CHATML.replace("<|im_end|>\n' }}{% endfor", "<|im_end|>\n</s>\n' }}{% endfor"), eos="</s>")
    group = Renderer(used, (2, 5)).group([user("q")], [[assistant("y ")]])
    assert group.answers[0][-1] == 5
    assert group.answers[0].count(5) == 1
    assert 2 not in group.answers[0]


def rows(*given):
    return datasets.Dataset.from_list(
        [{"prompt": prompt, "chosen": [assistant("y")], "rejected": [assistant("n")], "row": 3 + at}
         for at, prompt in enumerate(given)]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("template", "words"),
    [(NO_SYSTEM, "System role not supported"), (DEAF, "leaves out the message of the role 'system'")],
    ids=["raises", "leaves it out"],
)
def test_every_row_that_a_template_does_not_render_is_named(template, words):
    prompts = [user("q")], [system("s"), user("q")], [system("t"), user("q")]
    with pytest.raises(PreferenceDataError, match=words) as error:
        encode(rows(*prompts), tokenizer(template), 99, name="pairs.jsonl")
    assert [problem.row for problem in error.value.problems] == [4, 5]
    assert str(error.value).startswith("pairs.jsonl: row 4")
    assert encode(rows(*prompts), tokenizer(CHATML), 99).counts.rows == 3


def test_tools_and_calls_go_through_the_template_or_are_refused():
    tools = json.dumps(TOOLS)
    answer = [assistant("", tool_calls=json.dumps([CALL]))]
    used = tokenizer(WITH_TOOLS)
    group = Renderer(used).group([user("q")], [answer, [assistant("n")]], tools)
    assert '"description"' in used.decode(group.prompt).replace(" ", "")
    assert '{"place":"Oslo"}' in parts(group, used, 0)[0]
    with pytest.raises(RenderError, match="leaves out the tool 'weather'"):
        Renderer(tokenizer(CHATML)).group([user("q")], [[assistant("n")]], tools)
    with pytest.raises(RenderError, match="leaves out the call of 'weather'"):
        Renderer(tokenizer(CHATML)).group([user("q")], [answer])


def test_thoughts_that_a_template_leaves_out_are_refused():
    thought = [assistant("y", reasoning_content="hm, hm")]
    with pytest.raises(RenderError, match="leaves out 'reasoning_content' of the answer"):
        Renderer(tokenizer(CHATML)).group([user("q")], [thought])


def test_messages_without_a_template_are_refused_with_their_row():
    with pytest.raises(BfpoError, match="row 3: the chat template can't render it"):
        encode(rows([user("q")]), tokenizer(None), 99)


def test_truncated_context_leaves_a_scored_token_or_skips_the_row():
    used = tokenizer(CHATML)
    late = {"prompt": [user("q")], "chosen": [user("r"), assistant("y")], "rejected": [user("s"), assistant("n")]}
    whole = Renderer(used).group(late["prompt"], [late["chosen"], late["rejected"]])
    least = len(whole.prompt) + len(whole.context[0]) + 1
    data = datasets.Dataset.from_list([late | {"row": 1}, late | {"prompt": [user("qq")], "row": 2}])
    encoded = encode(data, used, least)
    assert encoded.counts.skipped_rows == [2]
    assert (encoded.counts.rows, encoded.counts.answers_with_context) == (1, 2)
    assert [
        len(ids) - len(places)
        for ids, places in zip(encoded.dataset[0]["answer_ids"], encoded.dataset[0]["context"], strict=True)
    ] == [1, 1]


@pytest.mark.parametrize("template", [None, CHATML.replace("<|im_end|>", ".")])
def test_an_end_within_an_answer_is_a_part_of_it(template):
    """The answer is not cut where it names the model's end."""
    used = tokenizer(template)
    text = "It writes <|im_end|> between texts"
    answers = [text, f"{text}<|im_end|>"] if template is None else [text]
    group = Renderer(used).group("q", answers)
    for ending in group.answers:
        whole = used.decode(ending).replace(" ", "")
        assert whole.startswith(text.replace(" ", ""))
        assert whole.endswith("texts<|im_end|>" if template is None else "texts.\n<|im_end|>")


# As Llama 3.1's: a call hides the text beside it; and as R1's: thinking is dropped.
CALL_ALONE = WITH_TOOLS.replace("m['content'] + (", "('' if m['tool_calls'] else m['content']) + (")
WITHOUT_THINKING = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")


@pytest.mark.parametrize(
    ("template", "answer", "lost"),
    [
        (CALL_ALONE, assistant("I will look.", tool_calls=[CALL]), "the text beside a call"),
        (WITHOUT_THINKING, assistant("<think>Hm.</think>Yes."), "the thinking of the answer"),
    ],
)
def test_a_part_of_an_answer_that_the_template_leaves_out_is_refused(template, answer, lost):
    used = tokenizer(template)
    row = checked("rows", datasets.Dataset.from_list([{"prompt": [user("q")], "chosen": [answer],
                                                       "rejected": [assistant("no")]}]))[0]  # fmt: skip
    with pytest.raises(RenderError, match=f"leaves out {lost}"):
        Renderer(used).group(row["prompt"], [row["chosen"], row["rejected"]])
    whole = Renderer(tokenizer(WITH_TOOLS)).group(row["prompt"], [row["chosen"], row["rejected"]])
    assert len(whole.answers) == 2


def test_pairs_that_the_model_cannot_tell_apart_are_counted():
    """Cut to the same tokens, or rendered alike, two answers compare nothing."""
    texts = [("yes", "no"), ("x" * 80 + "a", "x" * 80 + "b"), (" same", "same")]
    rows = datasets.Dataset.from_list([{"prompt": "q", "chosen": a, "rejected": b} for a, b in texts])
    found = encode(rows, tokenizer(CHATML.replace("m['content']", "m['content'] | trim")), 60)
    assert [first == second for first, second in found.dataset["answer_ids"]] == [False, True, True]
    assert found.counts.equal_answers == 2
