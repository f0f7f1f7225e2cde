"""Evaluate a model on a suite: sample and judge answers, compare likelihoods, score."""

from __future__ import annotations

from dataclasses import asdict, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.generation.sampling import Decoding, generate
from bfpo.safehelp.likelihood import run_choices
from bfpo.safehelp.records import Evaluation, GenerationRecord
from bfpo.safehelp.scores import generation_scores, likelihood_scores
from bfpo.safehelp.suites import Split, Suite, build_suite


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    suite: str = "microworld",
    split: Split = "test",
    decoding: Decoding | None = None,
    per_kind: int = 500,
) -> Evaluation:
    """Evaluate a model.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        name: what tables call the model.
        suite: name of the suite.
        split: "test", or "validation" for choosing settings.
        decoding: how to sample; the suite sets how long an answer may be.
        per_kind: prompts of each kind.

    Raises:
        BfpoError: if there is no such suite.
    """
    built = build_suite(suite, split, per_kind)
    decoding = replace(decoding or Decoding(), max_new_tokens=built.max_new_tokens)
    generations = run_prompts(model, tokenizer, built, decoding)
    likelihoods = run_choices(model, tokenizer, built.choices)
    return Evaluation(
        model=name,
        suite=suite,
        decoding=asdict(decoding) | {"split": split},
        scores=generation_scores(generations) | likelihood_scores(likelihoods),
        generations=generations,
        likelihoods=likelihoods,
    )


def run_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: Suite, decoding: Decoding
) -> list[GenerationRecord]:
    """Sample and judge the answers to a suite's prompts."""
    completions = generate(model, tokenizer, [item.prompt for item in suite.prompts], decoding)
    return [
        GenerationRecord(
            item=item.name,
            sample=number,
            kind=item.kind,
            category=item.category,
            prompt=item.prompt,
            answer=completion.text,
            truncated=completion.truncated,
            **asdict(suite.judge(item.prompt, completion.text)),
        )
        for item, samples in zip(suite.prompts, completions, strict=True)
        for number, completion in enumerate(samples)
    ]
