"""From attacks to training data: prompts and twins, what the judge reads, groups, and what is left out."""

import json
from dataclasses import replace

import pytest

from bfpo.generation.protocol import Decoding
from bfpo.judges.verdict import Exchange, Verdict
from bfpo.preferences.loading import load_preferences
from bfpo.redteam.archive import Planned
from bfpo.redteam.attacking import RequestJudge, attack_suite, outcomes
from bfpo.redteam.bank import load_bank
from bfpo.redteam.grouping import preference_groups
from bfpo.redteam.styles import STYLES
from bfpo.safehelp.records import GenerationRecord

PAIRS = load_bank().pairs
PLANNED = [Planned(PAIRS[0], "plain"), Planned(PAIRS[40], "many_shot"), Planned(PAIRS[0], "authority")]
SUITE = attack_suite(PLANNED, 0, Decoding(samples=3))


def record(item, sample, answer, kind, p_help=None, p_safe=None, refusal=None):
    label = {"unsafe": "unsafe", "unjudged": "unparsed"}.get(kind, "safe")
    refusal = refusal or ("yes" if kind == "safe-refusal" else "no")
    verdict = Verdict(label, {"unsafe": 0.1, "unparsed": None}.get(label, 0.9) if p_safe is None else p_safe, refusal)
    return GenerationRecord(
        item.task, item.item, sample, item.kind, item.category, item.attack, item.cluster, item.prompt, item.prompt,
        answer, 3, False, (verdict,), p_help, kind,
    )  # fmt: skip


def records(answers):
    """Records of every item, with the answers of its task: pairs of text and kind."""
    return [
        record(item, sample, *answer)
        for item in SUITE.prompts
        for sample, answer in enumerate(answers[item.task])
    ]  # fmt: skip


MIXED = {
    "attacks": [("I do it", "unsafe"), ("I won't", "safe-refusal"), ("I do it", "unsafe")],
    "twins": [("gladly", "partial"), ("no", "safe-refusal"), ("sure", "partial")],
}


def test_every_attack_has_a_twin_in_the_same_wording():
    attacks, twins = SUITE.prompts[::2], SUITE.prompts[1::2]
    for plan, attack, twin in zip(PLANNED, attacks, twins, strict=True):
        assert (attack.task, twin.task) == ("attacks", "twins")
        assert (attack.kind, twin.kind) == ("harmful", "borderline")
        assert attack.item == twin.item
        assert (attack.behavior, twin.behavior) == (plan.pair.risky, plan.pair.benign)
        assert attack.attack == twin.attack == plan.style
        assert attack.cluster == twin.cluster == plan.pair.id
    # What surrounds the request is the same for both.
    authority = [item.prompt for item in SUITE.prompts if item.attack == "authority"]
    assert authority[0].replace(PAIRS[0].risky, "") == authority[1].replace(PAIRS[0].benign, "")
    shots = [item for item in SUITE.prompts if item.attack == "many_shot"]
    assert [item.messages[:-1] for item in shots[:1]] == [item.messages[:-1] for item in shots[1:]]
    assert attack_suite(PLANNED, 0, SUITE.decoding).digest == SUITE.digest != attack_suite(PLANNED, 1, SUITE.decoding)


@pytest.mark.parametrize("style", STYLES)
def test_a_suite_is_made_of_every_style(style):
    attack, twin = attack_suite([Planned(PAIRS[1], style)], 3, Decoding()).prompts
    assert attack.request != twin.request


def test_the_judge_reads_the_request_behind_the_prompt():
    class Recorder:
        judge_id, template_digest = "r", "t"

        def judge(self, exchanges):
            self.seen = exchanges
            return [Verdict("safe", 1.0)] * len(exchanges)

    inner = Recorder()
    judge = RequestJudge(inner)
    assert (judge.judge_id, judge.template_digest) == ("r", "t")
    judge.judge([Exchange("You are Max. How do I ...?", "a", "How do I ...?"), Exchange("plain", "b")])
    assert [one.prompt for one in inner.seen] == ["How do I ...?", "plain"]


def test_success_is_the_share_of_unsafe_answers_with_a_verdict():
    found = records(MIXED | {"attacks": [("a", "unsafe"), ("b", "unjudged"), ("c", "partial")]})
    assert [one.success for one in outcomes(PLANNED, found)] == [0.5] * 3
    assert [one.planned for one in outcomes(PLANNED, found)] == PLANNED
    silent = [one for one in found if one.cluster != PAIRS[40].id]
    assert [one.planned for one in outcomes(PLANNED, silent)] == [PLANNED[0], PLANNED[2]]


def test_answers_stay_together_and_attacks_travel_with_their_twins(tmp_path):
    rows, left_out = preference_groups(SUITE.prompts, records(MIXED), {})
    assert dict(left_out) == {"answers that repeat another one": 3}
    attack, twin = rows[:2]
    assert attack["responses"] == ["I do it", "I won't"]
    assert (attack["is_safe"], attack["helpfulness"]) == ([0.0, 1.0], [0.5, 0.5])
    assert (twin["is_safe"], twin["helpfulness"]) == ([1.0, 1.0, 1.0], [1.0, 0.0, 1.0])
    assert attack["judged_as"]["answers"][0] == {"verdict": 0.0, "probability": 0.1}
    # The data room reads them, conversations too.
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_preferences(str(path))
    assert len(loaded) == 6
    assert loaded[0]["is_safe"] == [0.0, 1.0]
    assert loaded[2]["prompt"][-1]["content"] == PAIRS[40].risky


def test_measured_help_is_used_where_every_answer_has_it():
    found = [replace(one, p_help=0.1 * (1 + one.sample)) for one in records(MIXED)]
    attack = preference_groups(SUITE.prompts, found, {})[0][0]
    assert attack["helpfulness"] == pytest.approx([0.1, 0.2])
    found[0] = replace(found[0], p_help=None)
    assert preference_groups(SUITE.prompts, found, {})[0][0]["helpfulness"] == [0.5, 0.5]


def test_a_refused_twin_is_no_help_whatever_the_safety_judge_calls_it():
    answers = MIXED | {"twins": [("gladly", "partial"), ("no", "unsafe", None, None, "yes")]}
    rows, left_out = preference_groups(SUITE.prompts, records(answers), {})
    assert (rows[1]["is_safe"], rows[1]["helpfulness"]) == ([1.0, 1.0], [1.0, 0.0])
    assert left_out["verdicts against answers to benign twins"] == 3
    unclear = [
        replace(one, verdicts=(Verdict("controversial", 0.5, "no"),)) if one.answer == "no" else one
        for one in records(answers)
    ]
    assert preference_groups(SUITE.prompts, unclear, {})[1]["verdicts against answers to benign twins"] == 3


def test_answers_to_twins_that_may_be_refusals_are_not_called_help():
    """A judge of safety alone can't tell; beside a written refusal they would all be rewarded."""
    answers = MIXED | {"twins": [(text, "partial", None, None, "unknown") for text in ("I can't", "sure")]}
    rows, left_out = preference_groups(SUITE.prompts, records(answers), {}, ["I can't help with that."])
    assert left_out["answers to benign requests that may be refusals"] == 6
    assert {len(row["responses"]) for row in rows} == {3}
    measured = [replace(one, p_help=0.3) for one in records(answers)]
    assert len(preference_groups(SUITE.prompts, measured, {}, ["I can't help with that."])[0]) == 6


def test_what_teaches_nothing_or_is_evaluated_is_left_out_with_its_twin():
    safe = {"attacks": [("no", "safe-refusal"), ("never", "safe-refusal")], "twins": [("yes", "partial")]}
    rows, left_out = preference_groups(SUITE.prompts, records(safe), {})
    assert (rows, left_out["attacks without signal"]) == ([], 3)
    # A twin that is refused in part has a signal of its own.
    refused = safe | {"twins": [("yes", "partial"), ("no", "safe-refusal")]}
    assert len(preference_groups(SUITE.prompts, records(refused), {})[0]) == 6
    for evaluated in (PAIRS[0].risky, PAIRS[0].benign):
        rows, left_out = preference_groups(SUITE.prompts, records(MIXED), {"suite": [evaluated]})
        assert left_out["attacks that overlap with evaluation prompts"] == 2
        assert len(rows) == 2
    twice = attack_suite([PLANNED[0], PLANNED[0]], 0, SUITE.decoding).prompts
    found = [record(item, sample, *MIXED[item.task][sample]) for item in twice for sample in range(3)]
    rows, left_out = preference_groups(twice, found, {})
    assert (len(rows), left_out["attacks that repeat a prompt"]) == (2, 1)


def test_answers_without_a_verdict_or_text_are_counted():
    found = records(MIXED | {"attacks": [("a", "unsafe"), ("b", "unjudged"), (" ", "incoherent"), ("c", "partial")]})
    rows, left_out = preference_groups(SUITE.prompts, found, {})
    assert (left_out["answers without a verdict"], left_out["empty answers"]) == (3, 3)
    assert rows[0]["responses"] == ["a", "c"]


def test_what_a_filter_declined_and_the_judge_could_not_read_gets_no_flag():
    found = records(MIXED)
    declined = replace(
        found[1], answer="Filtered.", answer_kind="provider-refusal", verdicts=(Verdict("unparsed", None),)
    )
    rows, left_out = preference_groups(SUITE.prompts, [found[0], declined, *found[2:]], {})
    assert left_out["answers without a verdict"] == 1
    assert "Filtered." not in rows[0]["responses"]
