"""A safety judge and a judge of refusals, each in its role; what no judge tells is absent, and never the best score."""

import json
from dataclasses import replace

import pytest

from bfpo.errors import RunError
from bfpo.generation.protocol import Completion, Generator, ModelIdentity
from bfpo.generation.recorded_answers import RecordedAnswers
from bfpo.judges.exchanges import exchange_of
from bfpo.judges.keywords import KeywordJudge
from bfpo.judges.preference import Preference
from bfpo.judges.verdict import Exchange, Verdict
from bfpo.safehelp.cautions import cautions
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.length_control import length_controlled_win_rate
from bfpo.safehelp.records import Evaluation
from bfpo.safehelp.suites import ItemMaker, Suite
from bfpo.safehelp.tasks import Task

KINDS = ("benign", "borderline", "harmful")
SUITE = Suite("own", [PromptItem("t", f"{n}", KINDS[n % 3], None, None, f"{n}", f"prompt {n}") for n in range(30)], [])


NO_HELP = (
    "no judge compares answers with references, so helpful is absent: add one with --helpfulness-judge, and a "
    "reference answer to each benign prompt."
)


class Says(Generator):
    """Answers every prompt with the same text, except for some."""

    identity = ModelIdentity(path="says")

    def __init__(self, text, **others):
        self.text, self.others = text, others

    def generate(self, batch, decoding):
        return [Completion(self.others.get(request.key.partition("/")[2], self.text), False) for request in batch]


class Guard:
    """Tells the safety of answers, and nothing about refusals."""

    judge_id, template_digest = "guard", ""

    def __init__(self, label="safe"):
        self.label = label

    def judge(self, exchanges):
        return [Verdict(self.label, 1.0, judge_id=self.judge_id) for _ in exchanges]


def run(generator, judges, **settings):
    return evaluate(generator, SUITE, judges=judges, **settings)


@pytest.mark.parametrize("text", ["I'm sorry, I can't help with that.", "I’m sorry, I can’t help with that."])
def test_a_model_that_refuses_everything_has_the_worst_over_refusal(text):
    """The keyword judge only reports refusals; its run measures no safety, neither good nor bad."""
    found = run(Says(text), [KeywordJudge()])
    assert found.scores["over_refusal"].value == 1.0
    assert "harmless" not in found.scores
    assert {row.metric for row in found.tasks} == {"over_refusal", "incoherent"}
    assert found.header.counts["unparsed"] == 0
    assert cautions(found) == [
        "no judge rates safety, so harmless and attack success are absent: add a judge that does.",
        NO_HELP,
    ]


def test_empty_answers_do_not_bring_back_what_no_judge_tells():
    found = run(Says("I'm sorry.", **{"2": ""}), [KeywordJudge()])
    assert "harmless" not in found.scores


def test_over_refusal_is_absent_where_no_judge_tells_refusals():
    found = run(Says("I'm sorry."), [Guard()])
    assert (found.scores["harmless"].value, "over_refusal" in found.scores) == (1.0, False)
    no_refusals = "no judge reports refusals, so over-refusal is absent: add one with --refusal-judge."
    assert cautions(found) == [no_refusals, NO_HELP]


def test_each_judge_has_its_role(tmp_path):
    others = {f"{n}": "Certainly." for n in range(15)}
    found = run(Says("I'm sorry.", **others), [Guard()], refusal_judge=KeywordJudge(), folder=tmp_path)
    assert found.scores["over_refusal"].value == found.scores["harmless"].value - 0.5 == 0.5
    assert cautions(found) == [NO_HELP]
    assert [judge.role for judge in found.header.judges] == ["primary", "refusal"]
    assert {record.answer_kind for record in found.generations} == {"safe-helpful", "safe-refusal"}
    assert {record.declines for record in found.generations} == {"yes", "no"}
    assert Evaluation.load(tmp_path) == found
    # What the safety judge calls unsafe may still decline.
    strict = run(Says("I'm sorry."), [Guard("unsafe")], refusal_judge=KeywordJudge())
    assert (strict.scores["over_refusal"].value, strict.scores["harmless"].value) == (1.0, 0.0)


def test_a_judge_of_refusals_that_tells_none_ends_the_run():
    with pytest.raises(RunError, match="the judge guard doesn't tell which answers decline: name another"):
        run(Says("Certainly."), [Guard()], refusal_judge=Guard())


def test_a_conversation_reaches_the_model_as_messages_and_the_judges_as_paragraphs(tmp_path):
    turns = tuple({"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c")))
    text = "user: a\n\nassistant: b\n\nuser: c"
    item = PromptItem("t", "1", "borderline", None, None, "1", text, messages=turns)

    class Repeats(Says):
        def generate(self, batch, decoding):
            return [Completion(str(list(request.prompt)), False) for request in batch]

    class Sees(Guard):
        def judge(self, exchanges):
            assert {exchange.prompt for exchange in exchanges} == {text}
            return super().judge(exchanges)

    (record,) = evaluate(Repeats(""), Suite("own", [item], []), judges=[Sees()]).generations
    assert record.answer == str(list(turns))
    assert (record.prompt, record.rendered) == (text, text)
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt": turns, "answer": "d"}) + "\n")
    recorded = RecordedAnswers.load(tmp_path / "answers.jsonl", [text])
    (record,) = evaluate(recorded, Suite("own", [item], []), judges=[Sees()]).generations
    assert record.answer == "d"


TURNS = [("user", "a"), ("assistant", "b"), ("user", "c")]


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        (TURNS, "user: a\n\nassistant: b\n\nuser: c"),
        ([("system", "s"), ("user", "a")], "system: s\n\nuser: a"),
        # A single turn of the user is judged like a prompt that is a string.
        ([("user", "a")], "a"),
    ],
)
def test_a_judge_is_measured_on_the_text_that_it_evaluates(tmp_path, turns, text):
    """The same conversation once gave two texts, and two keys of cached verdicts."""
    messages = [{"role": role, "content": content} for role, content in turns]
    task = Task(task="t", factor="harmless", license="", kind="harmful", messages="prompt")
    evaluated = ItemMaker(task, "here")(1, {"prompt": messages}).prompt
    row = {"prompt": messages, "chosen": "x", "rejected": [{"role": "assistant", "content": "y"}]}
    row |= {"chosen_is_safe": None, "rejected_is_safe": None}
    labeled = [exchange_of(row, number) for number in (0, 1)]
    assert labeled == [Exchange(text, "x"), Exchange(text, "y")]
    assert evaluated == text
    (tmp_path / "answers.jsonl").write_text(json.dumps({"prompt": messages, "answer": "d"}) + "\n")
    assert RecordedAnswers.load(tmp_path / "answers.jsonl", [text]).answers.keys() == {text}


REFERRED = Suite(
    "own",
    [PromptItem("t", f"{n}", "benign", None, None, f"{n}", f"prompt {n}", reference="Perhaps not.") for n in range(20)],
    [],
)


class Prefers:
    """Prefers every answer, or gives no preference that can be read between the prompts of some numbers."""

    judge_id, template_digest = "prefers", ""

    def __init__(self, silent=()):
        self.silent, self.asked = silent, 0

    def compare(self, pairs):
        self.asked += len(pairs)
        return [
            Preference("unparsed", None, ("[no reply]", "A"), self.judge_id)
            if pair.prompt.removeprefix("prompt ") in self.silent
            else Preference("first", 0.9, ("A", "B"), self.judge_id)
            for pair in pairs
        ]


def referred(judges, helpfulness_judge, *, text="Certainly.", **settings):
    return evaluate(Says(text), REFERRED, judges=judges, helpfulness_judge=helpfulness_judge, **settings)


def test_a_preference_that_fails_is_counted_and_asked_for_again(tmp_path):
    found = referred([Guard()], Prefers(silent=("3", "4")), folder=tmp_path)
    assert found.header.counts["uncompared"] == 2
    # They count, as what no judge found helpful, in the win rate at equal length too.
    assert found.scores["helpful"].value == pytest.approx(0.9 * 18 / 20)
    wins = [0.0 if n in (3, 4) else 0.9 for n in range(20)]
    (controlled,) = [row.estimate for row in found.tasks if row.metric == "win_rate_length_controlled"]
    assert controlled == length_controlled_win_rate(wins, [10] * 20, [12] * 20)
    assert (
        "no preference between 2 of 20 answers and their references could be read ([no reply] / A); they count as not "
        "helpful. Repeat the command to ask again."
    ) in cautions(found)
    again = Prefers()
    mended = referred([Guard()], again, folder=tmp_path)
    assert (again.asked, mended.header.counts["uncompared"]) == (2, 0)
    assert mended.scores["helpful"].value == pytest.approx(0.9)
    assert Evaluation.load(tmp_path) == mended


def test_help_is_measured_where_the_judge_tells_refusals_only():
    found = referred([KeywordJudge()], Prefers())
    assert found.scores["helpful"].value == pytest.approx(0.9)
    assert "harmless" not in found.scores
    declined = referred([KeywordJudge()], Prefers(), text="I'm sorry, I can't help with that.")
    assert declined.scores["helpful"].value == 0.0


def test_answers_without_a_word_on_refusal_are_counted():
    class SometimesSilent(KeywordJudge):
        def judge(self, exchanges):
            known = super().judge(exchanges)
            silent = [exchange.prompt in ("prompt 1", "prompt 2", "prompt 4") for exchange in exchanges]
            return [
                replace(verdict, refusal="unknown") if lost else verdict
                for lost, verdict in zip(silent, known, strict=True)
            ]

    found = run(Says("I'm sorry.", **{"7": ""}), [Guard()], refusal_judge=SometimesSilent())
    # Of the three, one is to a harmful prompt; and the empty answer is no judge's fault.
    assert found.header.counts["unknown_refusals"] == 2
    assert found.scores["over_refusal"].value == pytest.approx(0.7)
    assert (
        "no judge told whether 2 of 10 answers to borderline prompts decline; they count as not refused."
    ) in cautions(found)
