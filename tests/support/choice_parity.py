"""lm-eval's own log-likelihoods of our items, and real items and a real small model to compare on."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from bfpo.generation.choice_scoring import Batching, score_choices
from bfpo.generation.protocol import ChoiceRequest
from support.tinylm import load_tiny_model, load_tiny_tokenizer

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def sample_items(data: Path, each: int | None = None) -> list[ChoiceRequest]:
    """Winogrande (1,267), BBQ (864) and CrowS-Pairs (1,508) items, as in lm-eval's own tasks."""
    items: list[ChoiceRequest] = []
    with (data / "llm_foundry_eval" / "winogrande.jsonl").open(encoding="utf-8") as file:
        for number, row in list(enumerate(map(json.loads, file)))[:each]:
            choices = tuple(row["context_options"])
            items.append(ChoiceRequest(f"winogrande/{number}", row["continuation"], choices, scored="prompt"))
    with (data / "bbq" / "Sexual_orientation.jsonl").open(encoding="utf-8") as file:
        for number, row in list(enumerate(map(json.loads, file)))[:each]:
            prompt = f"{row['context']}\n\nQ: {row['question']}\nA:"
            items.append(ChoiceRequest(f"bbq/{number}", prompt, (row["ans0"], row["ans1"], row["ans2"])))
    with (data / "crows_pairs" / "crows_pairs_anonymized.csv").open(encoding="utf-8", newline="") as file:
        for number, row in list(enumerate(csv.DictReader(file)))[:each]:
            choices = (row["sent_more"], row["sent_less"])
            items.append(ChoiceRequest(f"crows_pairs/{number}", "", choices, delimiter=""))
    return items


def load_stories(data: Path) -> tuple[Any, Any]:
    """The 260K-parameter model, and its tokenizer with a plain chat template."""
    folder = data / "tinylm_stories260k"
    tokenizer = load_tiny_tokenizer(folder / "tok512.bin")
    tokenizer.chat_template = TEMPLATE
    return load_tiny_model(folder / "stories260K.bin").eval(), tokenizer


def byte_tokenizer(adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few merges across spaces' usual places, and a plain chat template."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "a"), ("a", "n"), ("Ġa", "n"), (".", "Ġ"), ("o", "n")]
    vocabulary = {token: at for at, token in enumerate(["<pad>", "<s>", "</s>", *symbols, *map("".join, merges)])}
    model = Tokenizer(BPE(vocabulary, merges))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    if adds_bos:
        model.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=10**6
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def lm_eval_requests(lm: Any, items: Sequence[ChoiceRequest], chat: bool) -> list[Any]:
    """The items as lm-eval's ``Task.construct_requests`` builds them."""
    from lm_eval.api.instance import Instance

    def rendered(text: str) -> str:
        return lm.apply_chat_template([{"role": "user", "content": text}]) if chat else text

    requests: list[Any] = []
    for item in items:
        delimiter = "" if chat else item.delimiter
        if item.scored == "prompt":
            pairs = [(rendered(choice), delimiter + item.prompt) for choice in item.choices]
        else:
            pairs = [(rendered(item.prompt), delimiter + choice) for choice in item.choices]
        requests += [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    return requests


def by_lm_eval(
    model: Any, tokenizer: Any, items: Sequence[ChoiceRequest], chat: bool, batch_size: int = 64
) -> list[float]:
    """Log-likelihoods of all choices of all items, as lm-eval's HFLM computes them."""
    from lm_eval.models.huggingface import HFLM

    make: Any = HFLM
    lm = make(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    return [value for value, _ in lm.loglikelihood(lm_eval_requests(lm, items, chat), disable_tqdm=True)]


def by_bfpo(
    model: Any, tokenizer: Any, items: Sequence[ChoiceRequest], chat: bool, batch_items: int = 64
) -> list[float]:
    """The same, by our runner."""
    found: dict[str, Sequence[float]] = {}
    for batch in score_choices(model, tokenizer, items, chat=chat, batching=Batching(items=batch_items)):
        found.update({scored.key: scored.logps for scored in batch})
    return [value for item in items for value in found[item.key]]


def largest_difference(expected: Sequence[float], found: Sequence[float]) -> float:
    """In nats."""
    assert len(expected) == len(found)
    return max(abs(one - other) for one, other in zip(expected, found, strict=True))
