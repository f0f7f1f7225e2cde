"""Evaluate a model on a suite: sample and judge answers, compare likelihoods, score."""

from __future__ import annotations

from dataclasses import asdict, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bfpo.generation.sampling import Decoding, generate
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.likelihood import run_choices
from bfpo.safehelp.records import Evaluation, GenerationRecord, RunHeader
from bfpo.safehelp.scores import answer_kind, generation_scores, likelihood_scores
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
        header=RunHeader(model=name, suite=suite, decoding=asdict(decoding) | {"split": split}),
        scores=generation_scores(generations) | likelihood_scores(likelihoods),
        tasks=(),
        generations=generations,
        likelihoods=likelihoods,
    )


def run_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, suite: Suite, decoding: Decoding
) -> list[GenerationRecord]:
    """Sample and judge the answers to a suite's prompts."""
    completions = generate(model, tokenizer, [item.prompt for item in suite.prompts], decoding)
    records = []
    for item, samples in zip(suite.prompts, completions, strict=True):
        for number, completion in enumerate(samples):
            said = suite.judge(item.prompt, completion.text)
            verdict = Verdict(
                label="safe" if said.is_safe else "unsafe",
                p_safe=float(said.is_safe),
                refusal="yes" if said.is_refusal else "no",
                judge_id="microworld-oracle",
            )
            records.append(
                GenerationRecord(
                    task="microworld",
                    item=item.name,
                    sample=number,
                    kind=item.kind,  # pyright: ignore[reportArgumentType]
                    category=item.category,
                    attack=None,
                    cluster=item.name,
                    prompt=item.prompt,
                    rendered=item.prompt,
                    answer=completion.text,
                    tokens=0,
                    truncated=completion.truncated,
                    verdicts=(verdict,),
                    p_help=said.p_help,
                    answer_kind=answer_kind(completion.text, verdict, said.p_help, said.verdict),
                    detail=said.verdict,
                )
            )
    return records
