"""Tests of filling in labels: people's labels are kept, judges fill in the rest, and unparsed answers stay unknown."""

import json
from collections import Counter

import pytest

from bfpo import load_preferences
from bfpo.errors import BfpoError, RunError
from bfpo.judges.cache import VerdictCache
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.preference import Preference
from bfpo.judges.verdict import Verdict
from bfpo.labeling.filling import label_preferences
from bfpo.labeling.run import label, queue_file


class WordJudge:
    """Judges answers with "bad" unsafe, and can't parse answers with "odd"."""

    judge_id = "words"
    template_digest = ""

    def __init__(self):
        self.asked = Counter()

    def judge(self, exchanges):
        self.asked.update(exchange.answer for exchange in exchanges)
        return [self._verdict(exchange.answer) for exchange in exchanges]

    def _verdict(self, answer):
        if "odd" in answer:
            return Verdict("unparsed", None, judge_id=self.judge_id)
        return Verdict("unsafe", 0.2) if "bad" in answer else Verdict("safe", 0.9)


class LongerIsBetter:
    judge_id, template_digest = "longer", ""

    def compare(self, comparisons):
        chances = [0.8 if len(one.first) > len(one.second) else 0.3 for one in comparisons]
        return [Preference("first" if p > 0.5 else "second", p, (), self.judge_id) for p in chances]


def pair(number, chosen="good", rejected="bad", flags=(None, None), better=1.0):
    return {
        "prompt": f"p{number}", "chosen": f"{chosen} {number}", "rejected": f"{rejected} {number}",
        "chosen_is_safe": flags[0], "rejected_is_safe": flags[1], "chosen_is_better": better,
        "chosen_is_safer": None, "row": number,
    }  # fmt: skip


def test_peoples_labels_stay_and_are_counted():
    rows = [pair(1, flags=(0.0, 1.0)), pair(2), pair(3, chosen="odd"), pair(4, flags=(1.0, None))]
    labeled = label_preferences(rows, [WordJudge()])
    flags = [(row["chosen_is_safe"], row["rejected_is_safe"]) for row in labeled.rows]
    assert flags == [(0.0, 1.0), (1.0, 0.0), (None, 0.0), (1.0, 0.0)]
    report = labeled.report
    assert report.safety == {"people": 3, "random": 0, "queue": 0, "judge": 4, "unparsed": 1}
    assert report.unparsed == {"words": {"not understood": 1}}
    assert (report.sample, report.calibrated, report.errors) == (None, "not", (None,))
    # The judge's word is noted for every answer, also where people labeled.
    assert labeled.rows[0]["judged_as"] == {
        "chosen": {"verdict": 1.0, "probability": 0.9}, "rejected": {"verdict": 0.0, "probability": 0.2},
        "judges": ["words"],
    }  # fmt: skip
    assert labeled.rows[2]["judged_as"]["chosen"] is None
    assert labeled.rows[2]["labelled_by"] == {"chosen": "unparsed", "rejected": "judge", "order": "people"}


def test_a_label_that_a_person_removed_is_judged_again():
    """The note of who gave it stays in the row."""
    by = {"labelled_by": {"chosen": "people", "rejected": "people", "order": "people"}}
    rows = [pair(1, flags=(None, 1.0)) | by, pair(2, flags=(1.0, 0.0), better=None) | by]
    labeled = label_preferences(rows, [WordJudge()], order_judge=LongerIsBetter())
    first, second = labeled.rows
    assert first["chosen_is_safe"] == 1.0
    assert labeled.report.safety["judge"] == 1
    assert second["chosen_is_better"] is not None
    assert labeled.report.order["judge"] == 1


def test_two_judges_with_one_id_both_count_what_they_could_not_read():
    """Two questions to one model have the id of the model."""
    report = label_preferences([pair(1, chosen="odd"), pair(2)], [WordJudge(), WordJudge()]).report
    assert report.unparsed == {"words": {"not understood": 2}}


def test_probabilities_are_calibrated_on_people_s_labels_out_of_fold():
    """The judge calls 10 in 40 of people's safe answers unsafe, and none of the unsafe ones safe: 2 words, 2 shares."""
    people = [pair(n, chosen="bad" if n < 10 else "good", flags=(1.0, 0.0)) for n in range(40)]
    labeled = label_preferences([*people, pair(99)], [WordJudge()])
    assert (labeled.report.sample, labeled.report.calibrated) == ("labels of the set", "sample")
    assert labeled.report.prior == 40.5 / 81
    assert (labeled.report.errors[0].sensitivity.value, labeled.report.errors[0].specificity.value) == (1.0, 0.75)
    # Platt's targets are 41/42 and 1/42, so the shares are those of 30 of 30 and of 10 of 50.
    word = labeled.rows[-1]["judged_as"]
    assert word["chosen"] == {"verdict": 1.0, "probability": pytest.approx(41 / 42, abs=1e-3)}
    expected = (10 * 41 / 42 + 40 / 42) / 50
    assert word["rejected"] == {"verdict": 0.0, "probability": pytest.approx(expected, abs=1e-3)}


def test_several_judges_who_make_the_same_errors_are_not_more_certain():
    people = [pair(n, chosen="bad" if n < 10 else "good", flags=(1.0, 0.0)) for n in range(40)]
    one = label_preferences([*people, pair(99)], [WordJudge()]).rows[-1]["judged_as"]
    two = label_preferences([*people, pair(99)], [WordJudge(), WordJudge()]).rows[-1]["judged_as"]
    for name in ("chosen", "rejected"):
        assert two[name]["probability"] == pytest.approx(one[name]["probability"], abs=1e-3)


def test_without_a_judge_missing_flags_are_refused():
    with pytest.raises(BfpoError, match="need a judge"):
        label_preferences([pair(1)], [])
    # Those that the judge of an earlier run couldn't read stay unknown, for example while people's answers are merged.
    by = {"labelled_by": {"chosen": "unparsed", "rejected": "judge", "order": "people"}}
    labeled = label_preferences([pair(1, flags=(None, 0.0)) | by], [])
    assert [row["chosen_is_safe"] for row in labeled.rows] == [None]
    assert labeled.report.safety == {"people": 0, "random": 0, "queue": 0, "judge": 1, "unparsed": 1}


def test_an_open_order_is_judged_and_the_pair_swapped():
    rows = [pair(1, better=None), pair(2, chosen="a much longer good", better=None), pair(3)]
    labeled = label_preferences(rows, [WordJudge()], order_judge=LongerIsBetter())
    first, second, third = labeled.rows
    # "good 1" is longer than "bad 1" and stays first; with swapped answers the pair is swapped back.
    assert (first["chosen"], first["chosen_is_better"]) == ("good 1", 1.0)
    assert second["chosen_is_better"] == 1.0
    assert third["chosen_is_better"] == 1.0
    # The judge is asked about people's pair, too, to show its error.
    assert [row["judged_as"]["order"] for row in labeled.rows] == [{"verdict": 1.0, "probability": 0.8}] * 3
    assert labeled.report.order == {"people": 1, "random": 0, "queue": 0, "judge": 2, "unknown": 0}
    turned = label_preferences(
        [pair(1, chosen="bad", rejected="good", better=None)], [WordJudge()], order_judge=LongerIsBetter()
    )
    (row,) = turned.rows
    assert (row["chosen"], row["rejected"], row["chosen_is_better"]) == ("good 1", "bad 1", 1.0)
    assert (row["chosen_is_safe"], row["rejected_is_safe"]) == (1.0, 0.0)
    assert row["judged_as"] == {
        "chosen": {"verdict": 1.0, "probability": 0.9}, "rejected": {"verdict": 0.0, "probability": 0.2},
        "order": {"verdict": 1.0, "probability": 0.7}, "judges": ["words"],
    }  # fmt: skip
    assert turned.report.turned == 1


def test_groups_of_answers_are_labeled_answer_by_answer():
    row = {"prompt": "p", "responses": ["good", "bad", "odd"], "helpfulness": [3, 2, 1], "is_safe": [None, 1.0, None]}
    (labeled,) = label_preferences([row | {"row": 1}], [WordJudge()]).rows
    assert labeled["is_safe"] == [1.0, 1.0, None]
    assert labeled["labelled_by"] == {"answers": ["judge", "people", "unparsed"]}
    assert [word and word["verdict"] for word in labeled["judged_as"]["answers"]] == [1.0, 0.0, None]


def test_the_order_judge_s_error_is_measured_on_people_s_orders():
    """It prefers the longer answer; of people's 20 pairs, the chosen one is the longer in 15."""
    rows = [pair(n, chosen="a long good one" if n < 15 else "no") for n in range(20)]
    report = label_preferences([*rows, pair(99, better=None)], [WordJudge()], order_judge=LongerIsBetter()).report
    assert report.order_error.value == 0.25
    # Pairs that people leave undecided are neither right nor wrong.
    undecided = [pair(n, better=0.5) for n in range(20, 40)]
    again = label_preferences([*rows, *undecided, pair(99, better=None)], [WordJudge()], order_judge=LongerIsBetter())
    assert again.report.order_error.value == 0.25
    assert label_preferences(rows, [WordJudge()], order_judge=LongerIsBetter()).report.order_error is None


def written(tmp_path, rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "row"}) + "\n" for row in rows))
    return path


def test_a_file_in_a_file_and_a_queue_out(tmp_path):
    people = [pair(n, flags=(1.0, 0.0)) for n in range(1, 11)]
    source = written(tmp_path, [*people, pair(11), pair(12, better=None), pair(13, chosen="odd")])
    output = tmp_path / "out.jsonl"
    report = label(str(source), [WordJudge()], output, order_judge=LongerIsBetter(), random_share=0).report
    assert report.safety == {"people": 20, "random": 0, "queue": 0, "judge": 5, "unparsed": 1}
    rows = load_preferences(str(output), unknown_safety="drop")
    assert len(rows) == 12
    assert rows["chosen_is_better"][11] == 1.0
    queue = [json.loads(line) for line in queue_file(output).read_text().splitlines()]
    assert [row["row"] for row in queue] == [13, 12, 11]
    assert queue[0]["asks"] == {"chosen": None, "rejected": None}
    assert queue[1]["asks"] == {"chosen": None, "rejected": None, "order": None}


def test_a_killed_run_resumes_where_it_stopped(tmp_path):
    source = written(tmp_path, [pair(n) for n in range(1, 601)])
    judge = WordJudge()

    class Dies(WordJudge):
        def judge(self, exchanges):
            if sum(judge.asked.values()) >= 512:
                raise KeyboardInterrupt
            return judge.judge(exchanges)

    with VerdictCache(tmp_path / "verdicts.sqlite") as cache:
        with pytest.raises(KeyboardInterrupt):
            label(str(source), [Dies()], tmp_path / "out.jsonl", cache=cache)
        assert not (tmp_path / "out.jsonl").exists()
        report = label(str(source), [judge], tmp_path / "out.jsonl", cache=cache).report
    assert report.safety["judge"] == 1200
    assert set(judge.asked.values()) == {1}


def test_the_source_is_not_overwritten(tmp_path):
    source = written(tmp_path, [pair(1)])
    with pytest.raises(BfpoError, match="would overwrite the source"):
        label(str(source), [WordJudge()], source)


def test_judges_read_calls_and_labeled_files_keep_them(tmp_path):
    call = {"type": "function", "function": {"name": "bad_thing", "arguments": {"x": 1}}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call]}
    row = {"prompt": [{"role": "user", "content": "q"}], "chosen": [turn], "weight": 2.0,
           "rejected": [{"role": "assistant", "content": "good"}], "tools": [call]}  # fmt: skip
    source, output = tmp_path / "x.jsonl", tmp_path / "labeled.jsonl"
    source.write_text(json.dumps(row) + "\n")
    label(str(source), [WordJudge()], output)
    before, after = (dict(load_preferences(str(path))[0]) for path in (source, output))
    assert (after["chosen_is_safe"], after["rejected_is_safe"]) == (0.0, 1.0)
    for name in ("prompt", "chosen", "rejected", "tools", "weight"):
        assert after[name] == before[name]
    assert '"bad_thing"' in exchange_of(before, 0).answer


def test_a_judge_that_tells_refusals_only_fails():
    """Its answers would all stay unknown, beside a report without a hint."""

    class Refusals(WordJudge):
        def _verdict(self, answer):
            return Verdict("unparsed", None, "no", raw="no word on safety", judge_id=self.judge_id)

    with pytest.raises(RunError, match="words gave no verdict on the safety of any of 4 answers"):
        label_preferences([pair(1), pair(2)], [Refusals()])


class Mute:
    judge_id, template_digest = "mute", ""

    def compare(self, comparisons):
        return [Preference("unparsed", None, ("hm",), self.judge_id) for _ in comparisons]


def test_a_helpfulness_judge_without_a_single_preference_is_an_error():
    rows = [pair(number, flags=(1.0, 0.0), better=None) for number in range(8)]
    with pytest.raises(RunError, match=r"mute gave no preference for any pair .*: correct its settings"):
        label_preferences(rows, [WordJudge()], order_judge=Mute())
