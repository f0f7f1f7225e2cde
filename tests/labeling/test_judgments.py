"""Pairs for overall judgments: balanced over the cells, one per prompt, and read back by the fit."""

import json
from collections import Counter

import pytest

from bfpo.errors import BfpoError
from bfpo.judges.verdict import Verdict
from bfpo.labeling.fitted import fit_file
from bfpo.labeling.judgments import judgment_rows
from bfpo.labeling.run import judgments_file, label


def pair(number, flags, prompt=None, better=1.0, by="judge"):
    return {
        "prompt": prompt or f"p{number}", "chosen": f"a {number}", "rejected": f"b {number}", "row": number,
        "chosen_is_safe": flags[0], "rejected_is_safe": flags[1], "chosen_is_better": better,
        "labelled_by": {"chosen": by, "rejected": "people", "order": "people"}, "category": "theft",
    }  # fmt: skip


CELLS = [(1.0, 1.0)] * 60 + [(1.0, 0.0)] * 10 + [(0.0, 1.0)] * 20 + [(0.0, 0.0)] * 30


def test_every_cell_has_the_same_quota_as_long_as_it_has_pairs():
    rows = [pair(number, flags) for number, flags in enumerate(CELLS)]
    drawn = judgment_rows(rows, 40)
    assert Counter(CELLS[row["row"]] for row in drawn) == dict.fromkeys(CELLS, 10)
    assert Counter(CELLS[row["row"]] for row in judgment_rows(rows, 60))[1.0, 0.0] == 10
    assert len(judgment_rows(rows, 500)) == len(rows)
    assert drawn == judgment_rows(rows, 40)
    assert drawn != judgment_rows(rows, 40, seed=1)


def test_people_label_the_flags_that_are_a_judge_s():
    """A draw by verdicts would otherwise bias the fit."""
    (row,) = judgment_rows([pair(7, (1.0, 0.0))], 1)
    assert row == {
        "row": 7, "prompt": "p7", "better": "a 7", "worse": "b 7", "better_is_safe": None, "worse_is_safe": 0.0,
        "overall_prefers_better": None, "asked": ["better_is_safe", "overall_prefers_better"], "category": "theft",
    }  # fmt: skip


def test_the_harm_of_the_answers_goes_along():
    harm = {"chosen_harm": "{}", "rejected_harm": '{"lies": 0.5, "theft": 1.0}'}
    (row,) = judgment_rows([pair(7, (1.0, 0.0)) | harm], 1)
    assert (row["better_harm"], row["worse_harm"]) == ({}, {"lies": 0.5, "theft": 1.0})


def test_a_prompt_is_drawn_once_and_useless_pairs_never():
    rows = [pair(n, (1.0, 1.0), prompt="same") for n in range(5)]
    rows += [pair(9, (None, 1.0)), pair(10, (1.0, 1.0), better=0.5), {"prompt": "p", "responses": ["a"], "row": 11}]
    assert len(judgment_rows(rows, 10)) == 1
    with pytest.raises(BfpoError, match="nothing for overall judgments"):
        judgment_rows(rows[5:], 10)


class SafeIfEven:
    judge_id = "even"
    template_digest = ""

    def judge(self, exchanges):
        return [Verdict("safe" if int(one.answer.split()[1]) % 2 else "unsafe", 0.5) for one in exchanges]


def test_label_writes_them_and_the_fit_reads_the_answers(tmp_path):
    source, output = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": f"p{n}", "chosen": f"a {n}", "rejected": f"b {n + n // 100}"} for n in range(200)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    label(str(source), [SafeIfEven()], output, judgments=80)
    judged = [json.loads(line) for line in judgments_file(output).read_text().splitlines()]
    assert len(judged) == 80
    for at, row in enumerate(judged):
        flags = int(row["better"].split()[1]) % 2, int(row["worse"].split()[1]) % 2
        prefers = flags[0] >= flags[1] if at % 3 else at % 2 == 0
        row |= {"better_is_safe": flags[0], "worse_is_safe": flags[1], "overall_prefers_better": prefers}
    judgments_file(output).write_text("".join(json.dumps(row) + "\n" for row in judged))
    _, fit = fit_file(str(judgments_file(output)))
    assert set(fit.n_per_cell.values()) == {20}
    with pytest.raises(BfpoError, match=r"judgments\.jsonl: this would overwrite people's answers in it"):
        label(str(source), [SafeIfEven()], output, judgments=80)
    # Without --judgments the file stays as it is.
    before = judgments_file(output).read_bytes()
    assert label(str(source), [SafeIfEven()], output).judgments is None
    assert judgments_file(output).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [({}, None), ({"better_is_safe": True}, "people's answers in it"), ({"overall_prefers_better": 0.5}, "people's")],
)
def test_a_judgments_file_is_replaced_only_if_nobody_filled_in_anything(tmp_path, change, says):
    source, output = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    flags = {"rejected_is_safe": False}
    rows = [{"prompt": f"p{n}", "chosen": f"a {n}", "rejected": f"b {n + 1}"} | flags for n in range(40)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = judgments_file(output)
    judged.write_text("")
    assert label(str(source), [SafeIfEven()], output, judgments=30).judgments == 30
    written = [json.loads(line) for line in judged.read_text().splitlines()]
    judged.write_text("".join(json.dumps(row | change) + "\n" for row in written[:1]))
    if says is None:
        assert label(str(source), [SafeIfEven()], output, judgments=50).judgments == 40
        return
    with pytest.raises(BfpoError, match=says):
        label(str(source), [SafeIfEven()], output, judgments=30)


def test_the_judgments_file_may_not_be_the_source(tmp_path):
    source = tmp_path / "out.judgments.jsonl"
    source.write_text(json.dumps({"prompt": "p", "chosen": "a 1", "rejected": "b 2"}) + "\n")
    with pytest.raises(BfpoError, match="would overwrite the source"):
        label(str(source), [SafeIfEven()], tmp_path / "out.jsonl", judgments=1)
