"""Tests of encoding under every convention of tokenizers: the template's own ids, one BOS, one EOS, the boundary."""

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from bfpo.errors import BfpoError
from bfpo.preferences.encoding import encode, encode_prompt
from bfpo.preferences.rendering import Renderer
from support.word_tokenizer import tokenizer_of

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>", "\n"]
LETTERS = [chr(code) for code in range(97, 123)] + [" ", ".", "?"]
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
LLAMA = "{{ bos_token }}" + ZEPHYR.replace(" + '\n' }}{% endfor", " }}{% endfor")
NO_EOS = ZEPHYR.replace("eos_token", "'<|end|>'")


def tokenizer(template=None, bos_by_tokenizer=False, bos_token="<s>"):
    """Every letter is a token, so expected ids are easy to read."""
    made = tokenizer_of(
        SPECIAL + LETTERS, split=Split("", "isolated"), eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[4:7], **({"bos_token": bos_token} if bos_token else {}),
    )  # fmt: skip
    if bos_by_tokenizer:
        bos_first = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        made.backend_tokenizer.post_processor = bos_first
    made.chat_template = template
    return made


CONVENTIONS = {
    "template, no bos": tokenizer(ZEPHYR, bos_token=None),
    "template writes bos": tokenizer(LLAMA),
    "tokenizer adds bos, template does not": tokenizer(ZEPHYR, bos_by_tokenizer=True),
    "both": tokenizer(LLAMA, bos_by_tokenizer=True),
    "template ends without eos": tokenizer(NO_EOS),
    "plain text": tokenizer(),
    "plain text with bos": tokenizer(bos_by_tokenizer=True),
}
texts = st.text(alphabet="abcdefgh .?", min_size=1, max_size=12).filter(str.strip)
BOS, EOS = 1, 2


@pytest.mark.parametrize("name", CONVENTIONS)
@given(prompt=texts, answers=st.lists(texts, min_size=1, max_size=4))
def test_sequences_are_the_tokenizers_own_rendering(name, prompt, answers):
    used = CONVENTIONS[name]
    group = Renderer(used).group(prompt, answers)
    ids, endings = group.prompt, group.answers
    has_bos = used.bos_token_id is not None and name not in ("template ends without eos", "plain text")
    for answer, ending in zip(answers, endings, strict=True):
        whole = ids + ending
        assert whole.count(BOS) == int(has_bos)
        assert not has_bos or whole[0] == BOS
        assert ending.count(EOS) == 1
        assert ending[-1] == EOS
        text = used.decode([token for token in whole[:-1] if token != BOS]).replace(" ", "")
        if used.chat_template:
            turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            rendered = used.apply_chat_template(turns, tokenize=False)
            last = max(rendered.rfind("</s>"), 0) or len(rendered)
            expected = rendered[:last].replace("<s>", "")
        else:
            expected = prompt + answer
        assert text == expected.replace(" ", "")
    assert ids == encode_prompt(used, prompt)
    assert not group.moved
    assert group.added_ends == (len(answers) if name == "template ends without eos" else 0)


def test_messages_and_strings_are_rendered_alike_by_a_template():
    used = CONVENTIONS["both"]
    turns = [{"role": "user", "content": "abc"}], [[{"role": "assistant", "content": "de"}]]
    assert Renderer(used).group(*turns) == Renderer(used).group("abc", ["de"])


def test_a_boundary_that_depends_on_the_answer_moves_back():
    vocabulary = ["<s>", "</s>", "<unk>", "a", "b", "ab"]
    merging = tokenizer_of(vocabulary, split=Split("x", "isolated"), eos_token="</s>", unk_token="<unk>")
    group = Renderer(merging).group("axa", ["b", "xb"])
    assert (group.prompt, group.moved) == ([3, 2], True)
    assert group.answers == [[5, 1], [3, 2, 4, 1]]


def pairs(*rows):
    return datasets.Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in rows])


def test_truncation_keeps_the_start_and_is_counted():
    encoded = encode(pairs(("abc", "defgh", "d"), ("ab", "c", "d")), CONVENTIONS["plain text with bos"], 7)
    first = encoded.dataset[0]
    whole = [[*first["prompt_ids"], *answer] for answer in first["answer_ids"]]
    assert [len(ids) for ids in whole] == [7, 6]
    assert EOS not in whole[0]
    assert encoded.counts.truncated_answers == 1
    untruncated = encode(pairs(("abc", "defgh", "d")), CONVENTIONS["plain text with bos"], 99).dataset[0]
    assert whole[0] == [*untruncated["prompt_ids"], *untruncated["answer_ids"][0]][:7]


def test_a_prompt_that_fills_the_length_is_skipped_and_named():
    encoded = encode(pairs(("abcdefgh", "a", "b"), ("a", "c", "d")), CONVENTIONS["plain text"], 8)
    assert encoded.counts.skipped_rows == [1]
    assert encoded.dataset["row"][:] == [2]
    with pytest.raises(BfpoError, match="no row is left"):
        encode(pairs(("abcdefgh", "a", "b")), CONVENTIONS["plain text"], 8)


def test_templated_strings_are_counted():
    assert encode(pairs(("a", "b", "c")), CONVENTIONS["both"], 50).counts.templated_strings == 1
    assert encode(pairs(("a", "b", "c")), CONVENTIONS["plain text"], 50).counts.templated_strings == 0


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6))
def test_pairs_of_k_answers(scores):
    answers = [f"a{'b' * at}" for at in range(len(scores))]
    rows = datasets.Dataset.from_list(
        [{"prompt": "p", "responses": answers, "helpfulness": scores, "is_safe": [None] * len(scores)}]
    )
    row = encode(rows, CONVENTIONS["plain text"], 99).dataset[0]
    found = list(zip(row["first"], row["second"], row["first_is_better"], strict=True))
    assert {frozenset(pair[:2]) for pair in found} == {frozenset((i, j)) for i in range(len(scores)) for j in range(i)}
    for first, second, probability in found:
        assert scores[first] >= scores[second]
        assert probability == (0.5 if scores[first] == scores[second] else 1.0)


def test_a_tokenizer_without_end_token_is_refused():
    bare = tokenizer_of(["a", "<unk>"])
    with pytest.raises(BfpoError, match="end-of-sequence"):
        encode(pairs(("a", "a", "a")), bare, 9)
