"""Log-likelihoods against lm-eval's HFLM, item by item, in every form, batching and layout."""

import random
from dataclasses import replace

import pytest
import torch

from bfpo.errors import BfpoError
from bfpo.generation.choice_encoding import encode_choices, longest_input
from bfpo.generation.choice_scoring import Batching, score_choices
from bfpo.generation.protocol import ChoiceRequest
from models import chunked_llama4, tiny_llama, tiny_model
from support.choice_parity import (
    TEMPLATE,
    by_bfpo,
    by_lm_eval,
    byte_tokenizer,
    largest_difference,
    load_stories,
    sample_items,
)

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

BATCH_SIZES = (1, 3, 8, 64)
VOCABULARY = 300
WORDS = [
    "the", "an", "on", "a", "then", "thane", "other,", "no.", "yes.", "Ümlaut", "tea\n\n", "Q:", "A:", "it's", "'the'",
    "anon",
]  # fmt: skip


def text(generator, most, least=1):
    return " ".join(generator.choice(WORDS) for _ in range(generator.randint(least, most)))


def generated_items(count=36, seed=0):
    """Every form that a task can have: like beginnings, no prompt, reversed, spaces at the seam, equal choices."""
    generator = random.Random(seed)
    items = []
    for number in range(count):
        prompt = "then the other, " * (number % 3 == 0) + text(generator, 12) + generator.choice(["", " ", "\n", "  "])
        choices = tuple(text(generator, 5) for _ in range(generator.randint(2, 4)))
        item = ChoiceRequest(str(number), prompt, choices)
        if number % 4 == 1:
            item = replace(item, prompt="", delimiter="")
        elif number % 4 == 2:
            stem = text(generator, 6)
            choices = tuple(f"{stem} {choice}" for choice in choices)
            item = replace(item, prompt=text(generator, 6), choices=choices, scored="prompt")
        elif number % 4 == 3:
            item = replace(item, choices=("no", "yes", "no")[: len(choices)])
        items.append(item)
    return items


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_equal_to_lm_eval_in_every_form_and_batching(adds_bos, chat):
    model, tokenizer = tiny_llama(VOCABULARY, seed=3).eval(), byte_tokenizer(adds_bos)
    items = generated_items()
    expected = by_lm_eval(model, tokenizer, items, chat)
    for size in BATCH_SIZES:
        assert largest_difference(expected, by_bfpo(model, tokenizer, items, chat, size)) <= 1e-4


def test_a_template_that_writes_the_first_token_gets_no_second_one():
    model, tokenizer = tiny_llama(VOCABULARY).eval(), byte_tokenizer(adds_bos=True)
    tokenizer.chat_template = "<s>" + TEMPLATE
    items = generated_items(8)
    found = by_bfpo(model, tokenizer, items, True)
    assert largest_difference(by_lm_eval(model, tokenizer, items, True), found) <= 1e-4
    request = encode_choices(tokenizer, items[:1], chat=True, max_length=256)[0]
    assert request.ids[0][:2].count(tokenizer.bos_token_id) == 1


def test_what_is_too_long_loses_its_beginning_as_in_lm_eval():
    model, tokenizer = tiny_llama(VOCABULARY).eval(), byte_tokenizer()
    generator = random.Random(1)
    items = [ChoiceRequest(str(n), text(generator, 140, 90), ("yes", text(generator, 9))) for n in range(5)]
    expected = by_lm_eval(model, tokenizer, items, False)
    assert largest_difference(expected, by_bfpo(model, tokenizer, items, False, 3)) <= 1e-4
    scored = [each for batch in score_choices(model, tokenizer, items, chat=False) for each in batch]
    assert all(each.truncated for each in scored)
    (short,) = next(iter(score_choices(model, tokenizer, generated_items(1), chat=False)))
    assert not short.truncated


@pytest.mark.parametrize("family", ["gemma2", "mistral", "gpt2", "mamba"])
def test_other_architectures(family):
    model = tiny_model(family, torch.float32, vocab_size=VOCABULARY)
    items = generated_items(12)
    expected = by_lm_eval(model, byte_tokenizer(), items, False)
    assert largest_difference(expected, by_bfpo(model, byte_tokenizer(), items, False, 5)) <= 1e-4


@pytest.mark.parametrize("chat", [False, True])
def test_equal_to_lm_eval_on_real_items_and_a_trained_model(shared_data, chat):
    model, tokenizer = load_stories(shared_data)
    items = sample_items(shared_data, each=40)
    expected = by_lm_eval(model, tokenizer, items, chat)
    for size in BATCH_SIZES:
        assert largest_difference(expected, by_bfpo(model, tokenizer, items, chat, size)) <= 1e-4


def test_a_mask_that_only_long_items_have_is_found_behind_the_first_items():
    """Llama 4 attends within chunks: the long item's log-likelihoods were off where the first items are short."""
    model, tokenizer = chunked_llama4(vocab_size=VOCABULARY), byte_tokenizer()
    items = [ChoiceRequest(str(n), "the", ("an", "a tea")) for n in range(17)]
    items.append(ChoiceRequest("long", "then the other, thane, " * 3, ("an other", "on")))
    expected = by_lm_eval(model, tokenizer, items, False)
    assert largest_difference(expected, by_bfpo(model, tokenizer, items, False, 3)) <= 1e-4


def test_batches_are_planned_from_the_items_alone_and_done_ones_are_left_out():
    model, tokenizer = tiny_llama(VOCABULARY).eval(), byte_tokenizer()
    items = generated_items(20)

    def run(done=frozenset()):
        return list(score_choices(model, tokenizer, items, chat=False, batching=Batching(items=6), done=done))

    batches = run()
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    done = {scored.key for scored in batches[1]}
    assert run(done) == [batches[0], *batches[2:]]
    assert run(done - {batches[1][0].key}) == batches
    assert list(score_choices(model, tokenizer, [], chat=False)) == []


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_a_long_item_is_not_padded_into_a_batch_of_short_ones(family):
    """Mamba's rows are padded: a batch takes as many tokens as its rows times the longest of them."""
    model, tokenizer = tiny_model(family, torch.float32, vocab_size=VOCABULARY), byte_tokenizer()
    items = [ChoiceRequest(str(number), "the" * (200 if number == 7 else 1), ("an", "on")) for number in range(30)]
    sizes = []
    model.register_forward_pre_hook(lambda _, args, values: sizes.append(values["input_ids"].numel()), with_kwargs=True)
    scored = score_choices(model, tokenizer, items, chat=False, batching=Batching(items=64, tokens=500))
    assert sum(len(batch) for batch in scored) == 30
    # The check of the layout comes first and has no more than three items.
    assert max(sizes[-2:]) <= 500
    assert sum(sizes[-2:]) < 30 * 2 * 20 + 500


def test_the_model_is_left_as_it_was():
    model, tokenizer = tiny_llama(VOCABULARY), byte_tokenizer()
    before = model.config._attn_implementation
    assert model.training
    list(score_choices(model, tokenizer, generated_items(4), chat=False))
    assert model.training
    assert model.config._attn_implementation == before


def test_what_cannot_be_scored_is_named():
    tokenizer = byte_tokenizer()
    item = ChoiceRequest("t/7", "the", ("tea", ""), delimiter="")
    with pytest.raises(BfpoError, match="item t/7: a scored text has no token"):
        encode_choices(tokenizer, [item], chat=False, max_length=256)
    with pytest.raises(BfpoError, match="has 300 tokens and the model reads 256"):
        encode_choices(tokenizer, [replace(item, choices=("tea", "x" * 300))], chat=False, max_length=256)
    with pytest.raises(BfpoError, match="a system prompt needs the chat template"):
        encode_choices(tokenizer, [item], chat=False, max_length=256, system_prompt="Be brief.")
    tokenizer.chat_template = None
    with pytest.raises(BfpoError, match="no chat template"):
        encode_choices(tokenizer, [item], chat=True, max_length=256)


def test_the_longest_input_is_found_where_lm_eval_looks():
    from lm_eval.models.utils import resolve_max_length

    tokenizer = byte_tokenizer()
    for family in ("llama", "gpt2", "mamba"):
        config = tiny_model(family).config
        assert longest_input(config, tokenizer) == resolve_max_length(config, tokenizer)
    tokenizer.model_max_length = int(1e30)
    assert longest_input(tiny_model("mamba").config, tokenizer) == 2048
