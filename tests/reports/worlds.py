"""Evaluations of models that don't exist, of harmless placeholder text: several sets, categories, attacks, judges."""

import random
from dataclasses import dataclass, replace

from bfpo.judges.verdict import Verdict
from bfpo.safehelp.records import Evaluation, GenerationRecord, JudgeUsed, LikelihoodRecord, RunHeader
from bfpo.safehelp.scores import (
    generation_scores,
    generation_task_scores,
    likelihood_scores,
    likelihood_task_scores,
)

JUDGES = (JudgeUsed("guard-small@1f3a", "a1" * 32, "primary"), JudgeUsed("guard-large@77bc", "b2" * 32, "second"))
ATTACKS = ("direct", "prefix", "role play", "suffix")
SYLLABLES = (
    "ba",
    "co",
    "di",
    "fu",
    "ge",
    "ho",
    "ki",
    "lu",
    "ma",
    "ne",
    "po",
    "ra",
    "si",
    "to",
    "vu",
    "ze",
    "lin",
    "tar",
)
TASKS = {
    "HarmBench": ("harmful", ("chemistry", "cybercrime", "harassment", "misinformation"), ATTACKS),
    "XSTest": ("borderline", ("homonyms", "figurative language", "safe targets", "history"), (None,)),
    "AlpacaEval": ("benign", (None,), (None,)),
}
# Factor, items and what guessing scores.
LIKELIHOODS = {
    "truthfulqa_mc2": ("harmless", 817, 0.4),
    "bbq": ("harmless", 150, 1 / 3),
    "winogrande": ("helpful", 400, 0.5),
}


@dataclass(frozen=True)
class Profile:
    """Behavior of a model: probabilities, and length of answers."""

    unsafe: float = 0.4
    refuses_borderline: float = 0.1
    helpful: float = 0.8
    words: int = 60
    apologizes: float = 0.3


PROFILES = {
    "base": Profile(0.7, 0.02, 0.75, 40, 0.05),
    "SFT": Profile(0.45, 0.05, 0.85, 50, 0.2),
    "BFPO": Profile(0.06, 0.09, 0.84, 62, 0.4),
    "DPO-H": Profile(0.8, 0.01, 0.92, 90, 0.02),
    "DPO-S": Profile(0.03, 0.6, 0.45, 25, 0.9),
    "DPO": Profile(0.09, 0.2, 0.83, 70, 0.5),
}


def evaluation(name, profile=None, *, per_task=60, seed=0, judges=JUDGES, likelihoods=True, text=None, **header):
    """One model's evaluation; prompts are the same for every model of a seed, answers are its own."""
    profile = profile or PROFILES.get(name, Profile())
    prompt_rng, rng = random.Random(f"prompts {seed}"), random.Random(f"{name} {seed}")
    generations = []
    for task, (kind, categories, attacks) in TASKS.items():
        for number in range(per_task):
            attack = attacks[number % len(attacks)]
            category = categories[number // len(attacks) % len(categories)]
            prompt = f"Placeholder question {number} of {task}: {text or words(prompt_rng, 12)}?"
            place = (task, number, kind, category, attack)
            generations.append(_record(rng, profile, place, prompt, text, judges))
    choices = _likelihoods(rng, profile) if likelihoods else []
    unparsed = sum(v.label == "unparsed" for r in generations for v in r.verdicts[:1])
    counts = {"prompts": len(generations), "answers": len(generations), "empty": 0, "unparsed": unparsed}
    counts["truncated"] = sum(r.truncated for r in generations)
    settings = {
        "model": name, "suite": "fixture", "model_digest": f"{rng.getrandbits(256):064x}", "suite_digest": "5e" * 32,
        "chat_template_sha256": "c4" * 32, "judges": tuple(judges),
        "decoding": {"temperature": 0.7, "top_p": 0.95, "seed": seed},
        "versions": {"bfpo": "0.1.0", "python": "3.11"}, "command": f"bfpo evaluate {name}", "counts": counts,
        "started": "2026-11-24T20:00:00+00:00", "seconds": 754.0,
    }  # fmt: skip
    scores = generation_scores(generations) | likelihood_scores(choices)
    chances = {task: chance for task, (_, _, chance) in LIKELIHOODS.items()}
    tasks = (*generation_task_scores(generations), *likelihood_task_scores(choices, {}, chances))
    return Evaluation(RunHeader(**(settings | header)), scores, tasks, generations, choices)


def world(names=("SFT", "BFPO"), **settings):
    """Several models' evaluations on the same prompts."""
    return [evaluation(name, **settings) for name in names]


def partly_rated(run, rated):
    """The run with a level of harm for the first of its answers to harmful prompts, as a rubric gives it."""
    harmful = [record for record in run.generations if record.kind == "harmful"]
    harm = {record.item: {"rubric": 0.5} for record in harmful[:rated]}
    records = [replace(record, harm=harm.get(record.item)) for record in run.generations]
    return replace(run, generations=records, tasks=tuple(generation_task_scores(records)))


def words(rng, count):
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(count))


def _record(rng, profile, place, prompt, text, judges):
    task, number, kind, category, attack = place
    harmful = kind == "harmful"
    p_unsafe = profile.unsafe * (1.25 if attack in ("suffix", "role play") else 0.6) if harmful else 0.0
    unsafe = rng.random() < p_unsafe
    refused = not unsafe and rng.random() < (0.8 if harmful else profile.refuses_borderline * (kind == "borderline"))
    partial = not unsafe and not refused and rng.random() > profile.helpful
    answer_kind = "unsafe" if unsafe else "safe-refusal" if refused else "partial" if partial else "safe-helpful"
    truncated, lost = rng.random() < 0.01, rng.random() < 0.01
    answer_kind = "incoherent" if rng.random() < 0.02 else "unjudged" if lost else answer_kind
    start = "I'm sorry, but " if refused and rng.random() < profile.apologizes else ""
    answer = text or start + words(rng, max(3, round(rng.gauss(profile.words, profile.words / 4))))
    verdicts = tuple(_verdict(rng, judge, unsafe, refused, lost, text) for judge in judges)
    p_help = None if harmful else 0.0 if refused else rng.uniform(0.2, 0.6) if partial else rng.uniform(0.7, 1.0)
    return GenerationRecord(
        task=text or task, item=f"{task}-{number:04}", sample=0, kind=kind, category=text or category,
        attack=attack and (text or attack), cluster=f"{task}-{number // 4}", prompt=prompt, rendered=prompt,
        answer=answer,
        tokens=len(answer.split()), truncated=truncated, verdicts=verdicts, p_help=p_help, answer_kind=answer_kind,
        detail=text,
    )  # fmt: skip


def _verdict(rng, judge, unsafe, refused, lost, text):
    if lost and judge.role == "primary":
        return Verdict(
            "unparsed", None, raw=text or "?", judge_id=judge.judge_id, template_digest=judge.template_digest
        )
    wrong = rng.random() < (0.03 if judge.role == "primary" else 0.08)
    bad = unsafe != wrong
    p_safe = min(1.0, max(0.0, rng.gauss(0.08 if bad else 0.93, 0.12)))
    return Verdict(
        label="unsafe" if p_safe < 0.5 else "safe",
        p_safe=p_safe,
        refusal="yes" if refused else "no",
        categories=(text,) if text else (),
        raw=text or f"Safety: {'Unsafe' if bad else 'Safe'}",
        mass=0.85 if rng.random() < 0.02 else 0.99,
        judge_id=judge.judge_id,
        template_digest=judge.template_digest,
    )


def _likelihoods(rng, profile):
    return [
        LikelihoodRecord(
            task, f"{task}-{number}", factor, None, f"{task}-{number}", f"Placeholder {number}", ("one", "two"),
            (-3.0, -4.0) if rng.random() < 0.35 + profile.helpful / 3 else (-4.0, -3.0), (3, 3), (1.0, 0.0),
        )
        for task, (factor, count, _) in LIKELIHOODS.items()
        for number in range(count)
    ]  # fmt: skip
