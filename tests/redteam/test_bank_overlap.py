"""The prompt bank has no prompt of an evaluation set: the microworld's, and those in the folder of real samples."""

import csv
import gzip
import json
import re

import pytest

from bfpo.errors import BfpoError
from bfpo.microworld.data import held_out_prompts
from bfpo.preferences.overlap import find_overlap
from bfpo.redteam.bank import load_bank
from bfpo.safehelp.suites import load_suite
from bfpo.safehelp.tasks import packaged_suites

BANK = load_bank()
PROMPTS = [text for pair in BANK.pairs for text in (pair.risky, pair.benign)] + [one.plain for one in BANK.plain]
# No collections of prompts.
NOT_PROMPTS = ("gpt2_tokenizer", "tinylm_stories260k")
# Sets to train or to fit judges on, whose many texts take half a minute.
NOT_EVALUATED = {
    "autoj_pairs_human", "beavertails_unsafe", "coconot_contrast_pairs", "derived", "dna_mixed_pairs", "dolly_1k",
    "dolly_hhrlhf_small", "hh_rlhf", "lima", "llamafactory_demo", "mix_dev", "pandalm_pairs_human", "pku_family_groups",
    "pku_family_mixed_pairs", "pku_saferlhf_mini", "pku_saferlhf_sample", "rbr_gold_human", "refusal_vs_harmful_256",
    "rm_bench", "safety_tuned_sft", "self_instruct", "toxicchat_toxic", "ultrafeedback_small",
}  # fmt: skip
# Columns of answers, in the sets that have their prompts in other columns; HH's transcripts don't.
ANSWERS = re.compile(
    r"(output|response|completion|answer|model_output|text_(in)?correct|right$|wrong$|Target$|target$)"
)
# A longer text isn't repeated by requests of one sentence.
LONGEST = 60


def overlaps(texts):
    """Texts that requests repeat, and requests that texts repeat or contain."""
    short = [text for text in texts if len(text.split()) <= LONGEST]
    return find_overlap(PROMPTS, {"texts": short}) + find_overlap(texts, {"bank": PROMPTS})


def lines(value, column=""):
    """Every line of every string in a value, but those of answers."""
    if isinstance(value, str) and not ANSWERS.match(column):
        yield from filter(str.strip, value.splitlines())
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from lines(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from lines(inner, column)


def texts_of(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        match path.name.removesuffix(".gz").rpartition(".")[2]:
            case "jsonl":
                found = [json.loads(line) for line in file if line.strip()]
            case "json":
                found = json.load(file)
            case "csv":
                found = list(csv.DictReader(file))
            case _:
                found = file.read()
    return list(dict.fromkeys(lines(found)))


def test_an_overlap_is_noticed_either_way():
    assert overlaps([PROMPTS[0].upper()])
    assert overlaps([f"Please answer. {PROMPTS[0]} Thank you very much in advance."])
    assert overlaps(["an evaluation prompt about something else"]) == []


def test_nothing_overlaps_with_the_microworld():
    assert overlaps(held_out_prompts()) == []


@pytest.mark.parametrize("suite", packaged_suites())
def test_nothing_overlaps_with_a_packaged_suite(suite, shared_data):
    folder = shared_data / "real/suite_dev"
    try:
        loaded = load_suite(suite, folder=folder, skip_missing=True)
    except BfpoError as error:
        pytest.skip(f"none of the suite's rows are at hand: {error}")
    assert overlaps([item.prompt for item in [*loaded.prompts, *loaded.choices]]) == []


EVALUATED = (
    "advbench", "do_not_answer_human", "harmbench", "jailbreakbench", "jailbreakbench_artifacts", "malicious_instruct",
    "red_instruct", "simple_safety_tests", "strongreject", "suite_dev", "xstest",
)  # fmt: skip


@pytest.mark.long
def test_nothing_overlaps_with_the_evaluation_sets_at_hand(shared_data):
    paths = [
        path
        for path in sorted(shared_data.rglob("*.*"))
        if path.suffix in (".jsonl", ".json", ".csv", ".txt", ".gz")
        and path.name != "SOURCE.txt"
        and not {*path.parts} & {*NOT_PROMPTS}
        and path.parent.name not in NOT_EVALUATED
    ]
    assert {path.parent.name for path in paths} >= {*EVALUATED}
    found = {str(path.relative_to(shared_data)): overlap for path in paths if (overlap := overlaps(texts_of(path)))}
    assert found == {}
