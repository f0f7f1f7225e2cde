"""Tests that labeling loses nothing that people did: answered queues, labels told apart from a judge's, bad judges."""

import json

import pytest

from bfpo.errors import BfpoError
from bfpo.judges.preference import Preference
from bfpo.judges.verdict import Verdict
from bfpo.labeling.filling import label_preferences
from bfpo.labeling.run import label, queue_file
from bfpo.preferences.label_sources import rows_with_sources
from bfpo.preferences.schema import PreferenceDataError


class WordJudge:
    """Judges answers with "bad" unsafe."""

    judge_id = "words"
    template_digest = ""
    p_safe = (0.2, 0.9)

    def judge(self, exchanges):
        found = [self.p_safe["bad" not in exchange.answer] for exchange in exchanges]
        return [Verdict("safe" if p > 0.5 else "unsafe", p, judge_id=self.judge_id) for p in found]


class OtherJudge(WordJudge):
    judge_id = "other words"
    p_safe = (0.1, 0.8)


class FirstIsBetter:
    judge_id, template_digest = "first", ""

    def compare(self, pairs):
        return [Preference("first", 0.7, (), self.judge_id) for _ in pairs]


PAIRS = [
    {"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}", "chosen_is_better": None if n == 3 else 1.0,
     "chosen_is_safe": True if n < 2 else None, "rejected_is_safe": None}
    for n in range(4)
]  # fmt: skip


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def first(tmp_path):
    """The output of a first run."""
    source, output = written(tmp_path / "pairs.jsonl", PAIRS), tmp_path / "out.jsonl"
    label(str(source), [WordJudge()], output, order_judge=FirstIsBetter())
    return output


def answer(output, **answers):
    """Let people answer the first row of the queue."""
    queue = queue_file(output)
    rows = read(queue)
    rows[0]["asks"] |= answers
    written(queue, rows)
    return queue, rows[0]


@pytest.mark.parametrize("named", [True, False])
def test_people_s_answers_are_never_overwritten(first, tmp_path, named):
    queue, _ = answer(first, rejected=False)
    before = queue.read_bytes(), first.read_bytes()
    with pytest.raises(BfpoError, match=r"queue.jsonl: this would overwrite"):
        label(str(tmp_path / "pairs.jsonl"), [WordJudge()], first, answers=[str(queue)] if named else [])
    assert (queue.read_bytes(), first.read_bytes()) == before
    other = tmp_path / "next.jsonl"
    report = label(str(tmp_path / "pairs.jsonl"), [WordJudge()], other, answers=[str(queue)]).report
    assert (report.safety["people"], report.safety["queue"]) == (2, 1)


def test_answers_that_people_give_while_a_judge_works_are_kept(first, tmp_path):
    """Judging takes hours, and nobody waits for it to go on with an earlier queue."""

    class Slow(WordJudge):
        judge_id = "slow"

        def judge(self, exchanges):
            answer(first, rejected=False)
            return super().judge(exchanges)

    before = first.read_bytes()
    with pytest.raises(BfpoError, match=r"queue.jsonl: this would overwrite people's answers"):
        label(str(tmp_path / "pairs.jsonl"), [Slow()], first)
    assert first.read_bytes() == before
    assert any(False in row["asks"].values() for row in read(queue_file(first)))


@pytest.mark.parametrize("name", ["out.jsonl", "out.queue.jsonl", "out.judgments.jsonl"])
@pytest.mark.parametrize(
    "content", ['{"prompt": "p0", "chosen": "a"}\n', "some notes\n", '{"asks": 1}\n{"asked": []}\n']
)
def test_a_file_that_is_no_earlier_output_is_not_overwritten(tmp_path, name, content):
    source, judge = written(tmp_path / "pairs.jsonl", PAIRS), WordJudge()
    (tmp_path / name).write_text(content)
    judge.judge = None  # It is found before anything is judged.
    with pytest.raises(
        BfpoError, match=f"{name}: this would overwrite a file that is not an earlier output of 'bfpo la"
    ):
        label(str(source), [judge], tmp_path / "out.jsonl", order_judge=FirstIsBetter(), judgments=2)
    assert [path.name for path in tmp_path.iterdir() if path.read_text() == content] == [name]
    (tmp_path / name).write_text("")
    label(str(source), [WordJudge()], tmp_path / "out.jsonl", order_judge=FirstIsBetter(), judgments=2)


def test_labels_of_other_rows_are_not_overwritten(first, tmp_path):
    before, more = first.read_bytes(), {"prompt": "p4", "chosen": "good 4", "rejected": "bad 4"}
    for rows, number in ((PAIRS[:3], 4), ([*PAIRS[:2], PAIRS[3]], 3), ([PAIRS[0] | {"prompt": "?"}, *PAIRS[1:]], 1)):
        other = written(tmp_path / "other.jsonl", rows)
        with pytest.raises(
            BfpoError, match=f"overwrite labels of other rows, as row {number} there isn't in the source"
        ):
            label(str(other), [WordJudge()], first, order_judge=FirstIsBetter())
        assert first.read_bytes() == before
    label(str(written(tmp_path / "other.jsonl", [*PAIRS, more])), [WordJudge()], first, order_judge=FirstIsBetter())
    assert [row["prompt"] for row in read(first)] == ["p0", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize("extra", [{}, {"tool_calls": "[]"}])
def test_pairs_of_messages_without_an_order_are_queued(tmp_path, extra):
    def turns(text):
        return [{"role": "assistant", "content": text, **extra}, {"role": "user", "content": "and?"}] * 2 + [
            {"role": "assistant", "content": text}
        ]

    rows = [
        {"prompt": [{"role": "user", "content": f"p{n}"}], "chosen": turns(f"good {n}"), "rejected": turns(f"bad {n}"),
         "chosen_is_better": None}
        for n in range(6)
    ]  # fmt: skip
    output = tmp_path / "out.jsonl"
    label(str(written(tmp_path / "pairs.jsonl", rows)), [WordJudge()], output)
    queued = read(queue_file(output))
    assert sorted(row["prompt"][0]["content"] for row in queued) == [f"p{n}" for n in range(6)]
    # Their texts alone decide the order in which people see them.
    assert {row["chosen"][-1]["content"].split()[0] for row in queued} == {"good", "bad"}


def test_a_queue_without_answers_and_an_earlier_output_may_be_replaced(first, tmp_path):
    label(str(tmp_path / "pairs.jsonl"), [WordJudge()], first)
    assert len(read(queue_file(first))) == 4


def test_inputs_are_not_overwritten(first):
    with pytest.raises(BfpoError, match="would overwrite the source"):
        label(str(first), [WordJudge()], first)
    with pytest.raises(BfpoError, match="would overwrite the source"):
        label(str(queue_file(first)), [WordJudge()], first)


@pytest.mark.parametrize("name", ["full.csv", "full.jsonl.gz", "full.json", "full"])
def test_the_name_says_the_format(first, name):
    with pytest.raises(BfpoError, match=r"name a file that ends in \.jsonl"):
        label(str(first), [WordJudge()], first.with_name(name))
    assert not first.with_name(name).exists()


def test_a_judge_s_labels_never_become_people_s(first, tmp_path):
    again = label(str(first), [OtherJudge()], tmp_path / "again.jsonl", order_judge=FirstIsBetter()).report
    assert again.safety == {"people": 2, "random": 0, "queue": 0, "judge": 6, "unparsed": 0}
    assert again.order == {"people": 3, "random": 0, "queue": 0, "judge": 1, "unknown": 0}
    # Six flags and an order.
    assert again.rejudged == 7
    rows = read(tmp_path / "again.jsonl")
    assert [row["chosen_is_safe"] for row in rows] == [1.0] * 4
    assert [row["judged_as"]["chosen"]["probability"] for row in rows] == [0.8] * 4
    assert rows[0]["labelled_by"] == {"chosen": "people", "rejected": "judge", "order": "people"}
    assert {row["row"] for row in read(tmp_path / "again.queue.jsonl")} == {1, 2, 3, 4}


def test_without_a_judge_an_earlier_judge_s_labels_stay_and_are_still_its(first, tmp_path):
    report = label(str(first), [], tmp_path / "again.jsonl").report
    assert {name: count for name, count in report.safety.items() if count} == {"people": 2, "judge": 6}
    assert {name: count for name, count in report.order.items() if count} == {"people": 3, "judge": 1}
    assert report.rejudged == 0
    same = ("chosen_is_safe", "rejected_is_safe", "chosen_is_better", "labelled_by", "judged_as")
    assert [{name: row[name] for name in same} for row in read(tmp_path / "again.jsonl")] == [
        {name: row[name] for name in same} for row in read(first)
    ]


class ShorterIsUnreadable(FirstIsBetter):
    """Can't be read on pairs with a short prompt."""

    judge_id = "mute"

    def compare(self, pairs):
        return [Preference("unparsed", None, (), self.judge_id) if "p3" in pair.prompt or "p1" in pair.prompt
                else Preference("first", 0.6, (), self.judge_id) for pair in pairs]  # fmt: skip


def test_an_earlier_order_judge_s_words_don_t_outlive_it(first, tmp_path):
    """Its error isn't reported without a judge, and a new judge's unreadable word doesn't leave the old one."""
    rows = read(first)
    assert [row["judged_as"]["order"]["probability"] for row in rows] == [0.7] * 4
    extra = [rows[0] | {"prompt": f"more {n}"} for n in range(20)]
    written(first, [*rows, *extra])
    assert label(str(first), [], tmp_path / "none.jsonl").report.order_error is None
    report = label(str(first), [], tmp_path / "again.jsonl", order_judge=ShorterIsUnreadable()).report
    assert report.order_error.n == 22
    rows = read(tmp_path / "again.jsonl")
    assert [(row["judged_as"].get("order") or {}).get("probability") for row in rows[:4]] == [0.6, None, 0.6, None]
    assert (rows[3]["chosen_is_better"], rows[3]["labelled_by"]["order"]) == (None, "unknown")


def test_people_may_contradict_a_judge_but_not_people(first, tmp_path):
    """Answers to the queue of a labeled file, merged into that file."""
    queue, row = answer(first, rejected=True)
    # People don't see what the judge says.
    assert row["rejected_is_safe"] is None
    assert "judged_as" not in row
    report = label(str(first), [WordJudge()], tmp_path / "again.jsonl", answers=[str(queue)]).report
    assert {name: count for name, count in report.safety.items() if count} == {"people": 2, "queue": 1, "judge": 5}
    (merged,) = (one for one in read(tmp_path / "again.jsonl") if one["row"] == row["row"])
    assert (merged["rejected_is_safe"], merged["labelled_by"]["rejected"]) == (1.0, "queue")
    rows = read(first)
    rows[row["row"] - 1]["labelled_by"]["rejected"] = "people"
    written(first, rows)
    with pytest.raises(PreferenceDataError, match="contradicts rejected_is_safe"):
        label(str(first), [WordJudge()], tmp_path / "third.jsonl", answers=[str(queue)])


def test_a_label_written_where_the_judge_gave_none_is_people_s(first):
    rows = read(first)
    rows[2]["labelled_by"]["chosen"] = "unparsed"
    report = label_preferences(rows_with_sources(str(written(first, rows))), [WordJudge()]).report
    assert report.safety["people"] == 3


WORD = {"verdict": 1, "probability": 0.7}


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("labelled_by", "people", "doesn't name the sources"),
        ("labelled_by", {"chosen": "people"}, "doesn't name the sources"),
        ("labelled_by", {"chosen": "me", "rejected": "judge", "order": "judge"}, "doesn't name the sources"),
        ("judged_as", {"chosen": WORD, "rejected": {"verdict": 1.5}}, "doesn't hold a verdict and a probability"),
        ("judged_as", {"chosen": WORD, "rejected": WORD, "odrer": WORD}, "doesn't hold a verdict and a probability"),
        ("judged_as", {"answers": [WORD, WORD]}, "doesn't hold a verdict and a probability"),
        ("judged_as", 3, "doesn't hold a verdict and a probability"),
    ],
)
def test_wrong_notes_are_named(first, column, value, says):
    rows = read(first)
    rows[1][column] = value
    with pytest.raises(PreferenceDataError, match=rf"row 2, column '{column}': .* {says}"):
        rows_with_sources(str(written(first, rows)))


def test_sources_of_k_answers_and_of_csv(tmp_path):
    group = {"prompt": "p", "responses": ["good", "bad"], "helpfulness": [2, 1], "is_safe": [0.9, True]}
    path = written(tmp_path / "k.jsonl", [group | {"labelled_by": {"answers": ["judge", "people"]}}])
    (row,) = label_preferences(rows_with_sources(str(path)), [OtherJudge()]).rows
    assert (row["is_safe"], row["labelled_by"]) == ([1.0, 1.0], {"answers": ["judge", "people"]})
    by = '"{""chosen"": ""judge"", ""rejected"": ""people"", ""order"": ""people""}"'
    csv = tmp_path / "x.csv"
    csv.write_text(f"prompt,chosen,rejected,chosen_is_safe,rejected_is_safe,labelled_by\np,good,bad,0.7,false,{by}\n")
    (row,) = rows_with_sources(str(csv))
    assert row["labelled_by"]["chosen"] == "judge"


PEOPLE = [
    {"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}", "chosen_is_safe": float(n % 2),
     "rejected_is_safe": float(n % 2), "chosen_is_better": 1.0, "chosen_is_safer": None, "row": n}
    for n in range(1, 41)
]  # fmt: skip
OPEN = PEOPLE[0] | {"row": 41, "chosen_is_safe": None, "rejected_is_safe": None}


def test_a_judge_at_chance_is_refused():
    with pytest.raises(BfpoError, match=r"words is no better than chance .* sensitivity 0.500 and specificity 0.500"):
        label_preferences([*PEOPLE, OPEN], [WordJudge()])
    # Nothing to fill in: it only measures.
    assert label_preferences(PEOPLE, [WordJudge()]).report.safety["people"] == 80


def test_a_judge_at_chance_is_refused_beside_a_good_one():
    """The probabilities of both together rank, but this judge's own don't."""

    class Coin(WordJudge):
        judge_id = "coin"

        def judge(self, exchanges):
            return [Verdict("safe", 0.6, judge_id="coin") for _ in exchanges]

    rows = [row | {"chosen_is_safe": 1.0, "rejected_is_safe": 0.0} for row in PEOPLE]
    with pytest.raises(BfpoError, match="coin is no better than chance"):
        label_preferences([*rows, OPEN], [WordJudge(), Coin()])


def test_answers_that_no_judge_gave_a_word_on_are_no_sample():
    """Of 20 labeled pairs, the judge has a word on nine."""

    class OftenMute(WordJudge):
        def judge(self, exchanges):
            said = super().judge(exchanges)
            mute = [int(exchange.prompt[1:]) % 2 and int(exchange.prompt[1:]) != 41 for exchange in exchanges]
            return [Verdict("unparsed", None) if no else one for no, one in zip(mute, said, strict=True)]

    rows = [row | {"chosen_is_safe": 1.0, "rejected_is_safe": 0.0} for row in PEOPLE[:19]]
    report = label_preferences([*rows, OPEN | {"prompt": "p41"}], [OftenMute()]).report
    assert (report.sample, report.errors) == (None, (None,))
    assert label_preferences([*rows, OPEN | {"prompt": "p41"}], [WordJudge()]).report.sample == "labels of the set"


def test_probabilities_that_rank_are_noted_although_the_words_are_at_chance():
    class Doubtful(WordJudge):
        p_safe = (0.6, 0.9)

    rows = [row | {"chosen_is_safe": 1.0, "rejected_is_safe": 0.0} for row in PEOPLE]
    filled = label_preferences([*rows, OPEN], [Doubtful()]).rows[-1]
    assert (filled["chosen_is_safe"], filled["rejected_is_safe"]) == (1.0, 1.0)
    assert filled["judged_as"]["chosen"]["probability"] > 0.9
    assert filled["judged_as"]["rejected"]["probability"] < 0.1


def test_labels_of_people_are_found_in_answers_that_an_order_judge_turned(tmp_path):
    class SecondIsBetter(FirstIsBetter):
        def compare(self, pairs):
            return [Preference("second", 0.3, (), self.judge_id) for _ in pairs]

    source = written(tmp_path / "open.jsonl", [PAIRS[0] | {"chosen_is_better": None}])
    output = tmp_path / "out.jsonl"
    label(str(source), [WordJudge()], output)
    label(str(source), [WordJudge()], output, order_judge=SecondIsBetter())
    [row] = read(output)
    assert (row["chosen"], row["labelled_by"]["rejected"], row["labelled_by"]["chosen"]) == ("bad 0", "people", "judge")
    # And back.
    label(str(source), [WordJudge()], output)
