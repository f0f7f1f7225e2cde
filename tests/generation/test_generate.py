"""Sampling against a plain loop over forwards and exact probabilities, and its invariances."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from bfpo.errors import BfpoError, RunError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import ChoiceRequest, Completion, Decoding, SampleRequest, sample_requests
from bfpo.generation.sampling import read_answer
from bfpo.models import MICROWORLD, load_tokenizer
from bfpo.preferences.encoding import encode_prompt
from models import tiny_llama
from training.rows import word_tokenizer

PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w1", "w2 w2"]
GREEDY = Decoding(temperature=0, max_new_tokens=8)


@pytest.mark.parametrize("name", ["samples", "max_new_tokens", "batch_size", "max_tokens"])
def test_nothing_can_be_sampled_with_less_than_one(name):
    with pytest.raises(BfpoError, match=f"{name} 0: write a number of at least 1"):
        Decoding(**{name: 0})


def generate(model, tokenizer, prompts, decoding):
    """The answers to every prompt, as a run plans and samples them."""
    generator = LocalGenerator(model, tokenizer)
    requests = sample_requests({str(at): prompt for at, prompt in enumerate(prompts)}, decoding)
    answers = [[None] * decoding.samples for _ in prompts]
    for batch in generator.plan(requests, decoding):
        for request, completion in zip(batch, generator.generate(batch, decoding), strict=True):
            answers[int(request.key)][request.sample] = completion
    return answers


def greedy_ids(model, prompt, count):
    """The likeliest tokens one by one: no padding, no cache, no stopping."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(("batch_size", "max_tokens"), [(1, 99), (2, 99), (256, 20), (256, 32_768)])
def test_greedy_answers_equal_a_plain_loop_in_every_plan(batch_size, max_tokens):
    model, tokenizer = tiny_llama().eval(), word_tokenizer()
    expected = []
    for prompt in PROMPTS:
        ids = greedy_ids(model, encode_prompt(tokenizer, prompt), 8)
        stop = ids.index(2) if 2 in ids else None
        expected.append(
            [
                Completion(
                    tokenizer.decode(ids[:stop], skip_special_tokens=True), stop is None, 8 if stop is None else stop
                )
            ]
        )
    assert (
        generate(model, tokenizer, PROMPTS, replace(GREEDY, batch_size=batch_size, max_tokens=max_tokens)) == expected
    )


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize(
    ("prompt", "output", "thinking", "answer"),
    [
        ("how?", "[THINK]bake the bread[/THINK] the sea</s>", "bake the bread", "the sea"),
        ("how?", "[THINK]bake the bread", "bake the bread", ""),
        ("how? [THINK]", "bake the bread", "bake the bread", ""),
        ("how? [THINK]", "bake the bread[/THINK]the sea</s>", "bake the bread", "the sea"),
        ("how?", "bake the bread</s>", "", "bake the bread"),
        ("how?", "", "", ""),
    ],
)
def test_thinking_is_no_answer_whatever_the_tokenizer_calls_its_marks(special, prompt, output, thinking, answer):
    tokenizer = load_tokenizer(MICROWORLD)
    tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=special)
    prompt, output = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, output))
    assert len(output) < 12
    assert read_answer(tokenizer, prompt, output) == (thinking, answer)


def test_a_template_that_begins_the_thinking_leaves_no_answer_to_judge():
    """The model's words would be judged as its answer, if the tokens run out before it stops thinking."""
    model, tokenizer = tiny_llama().eval(), word_tokenizer()
    [[plain], [_]] = generate(model, tokenizer, ["w1 w2", "w3"], replace(GREEDY, max_new_tokens=3))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    [[same], [_]] = generate(model, tokenizer, ["w1 w2", "w3"], replace(GREEDY, max_new_tokens=3))
    assert (same, same.thinking) == (plain, "")
    tokenizer.add_tokens(["<think>"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tokenizer.chat_template += "{{ '<think>' }}"
    [[cut], [_]] = generate(model, tokenizer, ["w1 w2", "w3"], replace(GREEDY, max_new_tokens=3))
    assert cut.text == ""
    assert (len(cut.thinking.split()), cut.truncated, cut.tokens) == (3, True, 3)


def test_an_answer_ends_at_any_end_token_of_the_model():
    model, tokenizer = tiny_llama().eval(), word_tokenizer()
    continued = {prompt: greedy_ids(model, encode_prompt(tokenizer, prompt), 8) for prompt in tokenizer.get_vocab()}
    prompt, ids = next((p, ids) for p, ids in continued.items() if len(set(ids)) > 1 and 2 not in ids)
    at = next(at for at in range(1, 8) if ids[at] not in ids[:at])
    assert generate(model, tokenizer, [prompt], GREEDY)[0][0].truncated
    model.generation_config.eos_token_id = [2, ids[at]]
    completion = generate(model, tokenizer, [prompt], GREEDY)[0][0]
    assert completion == Completion(tokenizer.decode(ids[:at], skip_special_tokens=True), truncated=False, tokens=at)


def test_tokens_are_drawn_from_the_tempered_nucleus_and_nothing_else():
    model, tokenizer = tiny_llama().eval(), word_tokenizer()
    drawn = 20_000
    decoding = Decoding(temperature=1.6, top_p=0.9, samples=drawn, max_new_tokens=1, batch_size=1000, max_tokens=99_999)
    with torch.no_grad():
        logits = model(torch.tensor([encode_prompt(tokenizer, "w1 w2")])).logits[0, -1]
    likely, order = (logits.double() / 1.6).softmax(-1).sort(descending=True)
    kept = likely.cumsum(0) - likely < 0.9
    nucleus = {int(token): float(p) for token, p in zip(order[kept], likely[kept] / likely[kept].sum(), strict=True)}
    assert 5 < len(nucleus) < 60
    found = Counter(completion.text for completion in generate(model, tokenizer, ["w1 w2"], decoding)[0])
    expected = Counter()
    for token, p in nucleus.items():
        expected[tokenizer.decode([token], skip_special_tokens=True)] += p
    assert set(found) <= set(expected)
    for text, p in expected.items():
        assert abs(found[text] / drawn - p) < 5 * (p * (1 - p) / drawn) ** 0.5


def test_sampling_is_seeded_and_ignores_what_ran_before_and_leaves_randomness_alone():
    model, tokenizer = tiny_llama(), word_tokenizer()
    decoding = Decoding(temperature=1.0, top_p=1.0, samples=2, max_new_tokens=8, batch_size=4)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = generate(model, tokenizer, PROMPTS, decoding)
    assert torch.equal(torch.rand(3), expected)
    assert generate(model, tokenizer, PROMPTS, decoding) == first
    assert [len(samples) for samples in first] == [2] * 5
    assert generate(model, tokenizer, PROMPTS, replace(decoding, seed=1)) != first


def test_an_answer_depends_on_its_own_seed_and_not_on_its_neighbors():
    model, tokenizer = tiny_llama(dtype=torch.float64), word_tokenizer()
    generator = LocalGenerator(model, tokenizer)
    decoding = Decoding(temperature=1.0, top_p=1.0, max_new_tokens=8, samples=3)
    requests = sample_requests({prompt: prompt for prompt in PROMPTS}, decoding)
    together = generator.generate(requests, decoding)
    assert [generator.generate([request], decoding)[0] for request in requests] == together
    assert generator.generate(requests[::-1], decoding) == together[::-1]
    assert len({completion.text for completion in together}) == len(requests) == 3 * len(PROMPTS)
    # The same prompt under another name, and the same name in another run, are other draws.
    assert generator.generate(sample_requests({"other": PROMPTS[0]}, decoding), decoding)[0] != together[0]
    other_run = sample_requests({PROMPTS[0]: PROMPTS[0]}, replace(decoding, seed=1))
    assert generator.generate(other_run, decoding)[0] != together[0]


def test_batches_of_the_same_prompt_get_different_answers():
    decoding = Decoding(temperature=1.0, top_p=1.0, samples=6, max_new_tokens=8, batch_size=2)
    (answers,) = generate(tiny_llama(), word_tokenizer(), ["w1"], decoding)
    assert len({completion.text for completion in answers}) == 6


def test_a_system_prompt_stands_before_every_prompt_in_the_template():
    tokenizer = word_tokenizer()
    with pytest.raises(BfpoError, match="no chat template"):
        LocalGenerator(tiny_llama(), tokenizer, system_prompt="w1")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}w0{% endif %}"
    )
    generator = LocalGenerator(tiny_llama(), tokenizer, system_prompt="w7")
    assert generator.render("w3") == "system w7 user w3 w0"
    request, without = SampleRequest("a", "w3"), replace(generator, system_prompt=None)
    assert generator.generate([request], GREEDY) != without.generate([request], GREEDY)
    assert generator.identity == replace(without.identity, system_prompt="w7")


def test_the_models_own_defaults_do_not_decide_how_it_is_sampled():
    model, tokenizer = tiny_llama().train(), word_tokenizer()
    plain = generate(model, tokenizer, PROMPTS, GREEDY)
    model.generation_config.repetition_penalty = 50.0
    model.generation_config.min_new_tokens = 8
    assert generate(model, tokenizer, PROMPTS, GREEDY) == plain
    assert model.generation_config.repetition_penalty == 50.0
    assert model.training


@pytest.mark.parametrize(("batch_size", "max_tokens", "widest"), [(3, 32_768, 3), (256, 2 * (8 + 6), 2), (256, 1, 1)])
def test_no_batch_is_larger_than_planned(monkeypatch, batch_size, max_tokens, widest):
    model, tokenizer, shapes = tiny_llama(), word_tokenizer(), []
    plain = model.generate

    def watched(**arguments):
        shapes.append(arguments["input_ids"].shape)
        return plain(**arguments)

    monkeypatch.setattr(model, "generate", watched)
    generate(model, tokenizer, ["w1 w2 w3 w4 w5"] * 7, replace(GREEDY, batch_size=batch_size, max_tokens=max_tokens))
    assert sum(rows for rows, _ in shapes) == 7
    assert max(rows for rows, _ in shapes) == widest


def test_answers_end_at_the_models_context_and_prompts_beyond_it_get_none():
    """The tiny model has 256 positions; without the rule, the longest prompt would run on in silence."""
    model, tokenizer = tiny_llama().eval(), word_tokenizer()
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    sizes = [3, 253, 256, 300]
    prompts = [" ".join(["w1"] * size) for size in sizes]
    encoded = [len(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    short, close, *beyond = (answers[0] for answers in generate(model, tokenizer, prompts, GREEDY))
    assert (short.tokens, short.truncated) == (8, True)
    assert (close.tokens, close.truncated) == (256 - encoded[1], True)
    alone = generate(model, tokenizer, prompts[1:2], GREEDY)[0][0]
    assert close == alone
    assert [(one.text, one.failure) for one in beyond] == [
        ("", f"the prompt has {size} tokens, and the model's context is 256") for size in encoded[2:]
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_model_that_diverged_is_named(temperature):
    """Its likeliest token and its likeliest choice would otherwise be the first one, which is often the right one."""
    generator = LocalGenerator.load("microworld")
    for parameter in generator.model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(RunError, match=r"scores are not numbers \(NaN\): its training diverged"):
        generator.generate([SampleRequest("a", "How do I open it?", 0)], Decoding(temperature=temperature))
    with pytest.raises(RunError, match="scores are not numbers"):
        list(generator.score_choices([ChoiceRequest("a", "How?", (" So.", " Or so."))]))


def test_want_of_memory_is_a_sentence_and_no_traceback():
    model, tokenizer = tiny_llama().eval(), word_tokenizer()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = model.register_forward_pre_hook(full)
    what = "out of memory while continuing 5 prompts of up to 5 tokens by 8: lower --batch-size or --max-new-tokens if"
    with pytest.raises(RunError, match=what):
        generate(model, tokenizer, PROMPTS, GREEDY)
    items = [ChoiceRequest("a", "w1 w2", ("w3", "w4 w5"))]
    with pytest.raises(RunError, match="out of memory while comparing layouts for the choices: "):
        list(LocalGenerator(model, tokenizer).score_choices(items))
    hook.remove()
    batches = LocalGenerator(model, tokenizer).score_choices([*items, replace(items[0], key="b", prompt="w6")] * 40)
    next(batches)
    model.register_forward_pre_hook(full)
    with pytest.raises(RunError, match="out of memory while scoring 32 choices of up to 3 tokens: "):
        next(batches)
