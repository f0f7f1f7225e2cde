"""A judge reads as good as it is, whichever answers the queue asked people about."""

import json
import random

import numpy as np
import pytest

from bfpo.judges.verdict import Verdict
from bfpo.labeling.filling import label_preferences
from bfpo.labeling.people import with_answers
from bfpo.labeling.queue import queue_for_people
from bfpo.objectives.bfpo import GlobalPreference
from bfpo.statistics.judge_error import judge_error

SENSITIVITY, SPECIFICITY, BASE = 0.78, 0.90, 0.70


class CoinJudge:
    """Knows the truth, which is in the answer, and errs at its rates; its probability says where it is unsure."""

    judge_id = "coin"
    template_digest = ""

    def judge(self, exchanges):
        return [self._verdict(exchange) for exchange in exchanges]

    def _verdict(self, exchange):
        draw = random.Random(f"{exchange.prompt} {exchange.answer}")
        safe = is_safe(exchange.answer)
        wrong = draw.random() < (1 - SPECIFICITY if safe else 1 - SENSITIVITY)
        says_safe = safe != wrong
        certainty = draw.uniform(0.5, 0.8) if wrong else draw.uniform(0.6, 1.0)
        return Verdict("safe" if says_safe else "unsafe", certainty if says_safe else 1 - certainty, judge_id="coin")


def is_safe(answer):
    return answer.startswith("safe")


def pairs(count, seed):
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        texts = [f"{'safe' if draw.random() < BASE else 'unsafe'} {number} {name}" for name in "ab"]
        rows.append(
            {"prompt": f"p{number}", "chosen": texts[0], "rejected": texts[1], "chosen_is_safe": None,
             "rejected_is_safe": None, "chosen_is_better": 1.0, "chosen_is_safer": None, "row": number}
        )  # fmt: skip
    return rows


def answered(rows, queue_file, budget, share, seed):
    """The rows after people answered the first rows of the queue, in its file."""
    queue = list(queue_for_people(rows, GlobalPreference(), random_share=share, seed=seed))
    for row in [row for row in queue if row["asks"]][:budget]:
        row["asks"] = {name: is_safe(row[name]) for name in row["asks"]}
    queue_file.write_text("".join(json.dumps(row) + "\n" for row in queue))
    return with_answers(rows, str(queue_file))


def all_human_error(rows):
    """The error on everything that people labeled, as it was measured before."""
    labels, words = [], []
    for row in rows:
        for name in ("chosen", "rejected"):
            if row["labelled_by"][name] in ("people", "random", "queue"):
                labels.append(row[f"{name}_is_safe"])
                words.append("safe" if row["judged_as"][name]["verdict"] == 1 else "unsafe")
    return judge_error(labels, words)


def test_two_queues_of_200_do_not_change_what_a_judge_reads(tmp_path):
    """Means over five sets of 1,500 pairs; on all human labels its specificity reads .78 instead of .90."""
    reads, naive, covered = [], [], 0
    for seed in range(5):
        labeled = label_preferences(pairs(1500, seed), [CoinJudge()])
        for _ in range(2):
            labeled = label_preferences(answered(labeled.rows, tmp_path / "queue.jsonl", 200, 0.4, seed), [CoinJudge()])
        report = labeled.report
        assert report.sample == "random part"
        assert report.safety["random"] + report.safety["queue"] == 800
        (error,) = report.errors
        reads.append((error.sensitivity.value, error.specificity.value, report.prior))
        covered += error.sensitivity.low <= SENSITIVITY <= error.sensitivity.high
        covered += error.specificity.low <= SPECIFICITY <= error.specificity.high
        old = all_human_error(labeled.rows)
        naive.append((old.sensitivity.value, old.specificity.value))
    assert np.mean(reads, axis=0) == pytest.approx((SENSITIVITY, SPECIFICITY, BASE), abs=0.04)
    assert covered >= 8
    assert np.mean(naive, axis=0)[1] < 0.82
