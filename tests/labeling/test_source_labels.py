"""Labels of a recipe's source from a labeled file to what trains, with the record of what they amount to."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from bfpo.errors import BfpoError
from bfpo.labeling.filling import label_preferences
from bfpo.labeling.source_labels import label_record, resolve_labels
from bfpo.microworld.grammar import requests
from bfpo.microworld.judge import OracleJudge
from bfpo.preferences.label_columns import labeling_judges
from bfpo.preferences.loading import load_preferences
from bfpo.preferences.ordering import swapped

ERROR, ORDER_ERROR = 0.2, 0.25


def judged_file(tmp_path, count=400, people=120, seed=0, unsure=(), order_error=ORDER_ERROR):
    """Pairs as `bfpo label` writes them: a judge of flags and one of orders, which people checked at random."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        is_people, row = number < people, {"prompt": f"p{number}", "labelled_by": {}, "judged_as": {}, "truth": {}}
        for name in ("chosen", "rejected"):
            safe = draw.random() < 0.6
            verdict = float(safe != (draw.random() < ERROR))
            word = {"verdict": verdict, "probability": 0.85 if verdict else 0.25}
            row |= {name: f"{name} {number}", f"{name}_is_safe": float(safe) if is_people else verdict}
            row["labelled_by"][name], row["judged_as"][name] = "random" if is_people else "judge", word
        right = float(draw.random() >= order_error)
        row["chosen_is_better"] = 1.0
        row["judged_as"]["order"] = {"verdict": right if is_people else 1.0, "probability": 0.8}
        row["labelled_by"]["order"] = "random" if is_people else "judge"
        if number in unsure:
            row["chosen_is_safe"], row["labelled_by"]["chosen"], row["judged_as"]["chosen"] = None, "unparsed", None
        del row["truth"]
        rows.append(row)
    path = tmp_path / "labeled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_judged_flags_and_orders_become_unbiased_and_people_s_stay(tmp_path):
    rows, flags, order = resolve_labels(load_preferences(judged_file(tmp_path)), "unbiased", "unbiased", is_affine=True)
    assert not {"labelled_by", "judged_as"} & set(rows.column_names)
    values = np.array([rows["chosen_is_safe"][:], rows["rejected_is_safe"][:]])
    assert set(values[:, :120].ravel()) == {0.0, 1.0}
    low, high = sorted(set(values[:, 120:].ravel()))
    assert low < 0 < 1 < high
    assert flags.channel.c == pytest.approx(1)
    assert (flags.people, flags.judged, flags.sample) == (240, 560, "random part")
    assert flags.outside == 560
    better = rows["chosen_is_better"][:]
    assert set(better[:120]) == {1.0}
    assert better[120:] == pytest.approx([(1 - order.error.value) / (1 - 2 * order.error.value)] * 280)
    assert order.error.low <= ORDER_ERROR <= order.error.high
    assert (order.people, order.judged, order.outside) == (120, 280, 280)


def test_by_default_flags_are_unbiased_where_they_may_and_orders_as_they_are(tmp_path):
    path = judged_file(tmp_path)
    rows, flags, order = resolve_labels(load_preferences(path), None, None, is_affine=True)
    assert (flags.flags, order.order) == ("unbiased", "verdict")
    assert set(rows["chosen_is_better"][:]) == {1.0}
    rows, flags, _ = resolve_labels(load_preferences(path), None, None, is_affine=False)
    assert flags.flags == "verdict"
    assert set(rows["chosen_is_safe"][:]) == {0.0, 1.0}


def test_k_answers(tmp_path):
    rows = []
    for number in range(300):
        safe = [float((number + at) % 3 > 0) for at in range(3)]
        names = ["people" if number < 150 else "judge"] * 3
        words = [{"verdict": flag, "probability": 0.9 if flag else 0.3} for flag in safe]
        rows.append({"prompt": f"p{number}", "responses": [f"{at} {number}" for at in range(3)],
                     "helpfulness": [3, 2, 1], "is_safe": safe, "labelled_by": {"answers": names},
                     "judged_as": {"answers": words}})  # fmt: skip
    path = tmp_path / "k.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made, flags, order = resolve_labels(load_preferences(str(path)), "probability", None, is_affine=True)
    assert made["is_safe"][150] == pytest.approx([0.3, 0.9, 0.9])
    assert made["is_safe"][0] == [0.0, 1.0, 1.0]
    assert (flags.people, flags.judged, order) == (450, 450, None)
    assert flags.channel.a + flags.channel.c == pytest.approx((1.0 + 0.9) / 2)


def test_a_flag_that_the_recipe_fills_in_is_neither_people_s_nor_judged(tmp_path):
    rows, flags, _ = resolve_labels(
        load_preferences(judged_file(tmp_path, unsure=(7, 300)), unknown_safety=0.5), "unbiased", None, is_affine=True
    )
    assert [rows["chosen_is_safe"][at] for at in (7, 300)] == [0.5, 0.5]
    assert (flags.people, flags.judged) == (239, 559)


def test_files_without_judged_labels_stay_as_they_are(tmp_path):
    path = tmp_path / "plain.jsonl"
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": 0.3, "rejected_is_safe": True}
    path.write_text(json.dumps(row) + "\n")
    loaded = load_preferences(str(path))
    rows, flags, order = resolve_labels(loaded, None, None, is_affine=True)
    assert (rows[0], flags, order) == (loaded[0], None, None)
    assert label_record(flags, order, 0.5, 0.1) == {}
    for wanted in ({"flags": "verdict", "order": None}, {"flags": None, "order": "unbiased"}):
        with pytest.raises(BfpoError, match="is for labels that a judge filled in"):
            resolve_labels(loaded, **wanted, is_affine=True)


def test_an_order_that_may_be_a_coin_s_is_not_unbiased(tmp_path):
    with pytest.raises(BfpoError, match=r"needs the share of wrong orders, .*there is no sample"):
        resolve_labels(load_preferences(judged_file(tmp_path, people=5)), None, "unbiased", is_affine=True)
    path = judged_file(tmp_path, order_error=0.45)
    with pytest.raises(BfpoError, match=r"it is 0\.4\d+ \[0\.\d+, 0\.5"):
        resolve_labels(load_preferences(path), None, "unbiased", is_affine=True)
    with pytest.raises(BfpoError, match="'order: unbiased' makes orders outside"):
        resolve_labels(load_preferences(judged_file(tmp_path)), None, "unbiased", is_affine=True, reads_order=False)


def test_a_flag_that_a_person_corrected_is_not_undone_silently(tmp_path):
    path = Path(judged_file(tmp_path))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[200]["rejected_is_safe"] = 1 - rows[200]["rejected_is_safe"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(BfpoError, match=r"row 201: a flag is .*, write 'people' there"):
        resolve_labels(load_preferences(str(path)), "verdict", None, is_affine=True)
    rows[200]["labelled_by"]["rejected"] = "people"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made, flags, _ = resolve_labels(load_preferences(str(path)), "verdict", None, is_affine=True)
    assert made["rejected_is_safe"][200] == rows[200]["rejected_is_safe"]
    assert flags.people == 241


def queued_orders(tmp_path, people=60, queued=60, count=400):
    """Pairs that people ordered, the judge wrong about 20 % at random; in the queue it is always wrong."""
    path = judged_file(tmp_path, count=count, people=people)
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for at, row in enumerate(rows):
        name = "random" if at < people else "queue" if at < people + queued else "judge"
        right = at >= people + queued or (name == "random" and at % 5 > 0)
        row["labelled_by"]["order"], row["judged_as"]["order"] = name, {"verdict": float(right), "probability": 0.6}
    path = tmp_path / "queued.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_error_of_orders_that_is_judged_recorded_and_used_is_one(tmp_path):
    """By the random part (12 of 60) 80 of the 400 orders are wrong; 12 and the queue's 30 are known."""
    loaded = load_preferences(queued_orders(tmp_path, queued=30))
    rows, _, order = resolve_labels(loaded, None, "unbiased", is_affine=True)
    rest = (12 * 400 / 60 - 12 - 30) / (400 - 60 - 30)
    assert order.error.value == pytest.approx(rest)
    assert order.error.low < rest < order.error.high < 0.5
    assert rows["chosen_is_better"][-1] == pytest.approx((1 - rest) / (1 - 2 * rest))
    # With 75 in the queue, the share of the rest would be below 0.
    rows, _, order = resolve_labels(load_preferences(queued_orders(tmp_path, queued=75)), None, None, is_affine=True)
    assert order.error.value == 0
    assert order.error.high > 0.1


def test_orders_of_a_rest_that_the_sample_cannot_tell_are_not_unbiased(tmp_path):
    loaded = load_preferences(queued_orders(tmp_path, queued=320))
    with pytest.raises(BfpoError, match=r"needs the share of wrong orders, .*it is 0\.000 \[0\.000, 1\.000\]"):
        resolve_labels(loaded, None, "unbiased", is_affine=True)


def test_the_record_holds_what_training_amounts_to(tmp_path):
    """Equation (3) with the channel of the verdicts as they are used."""
    _, flags, order = resolve_labels(load_preferences(judged_file(tmp_path)), "verdict", None, is_affine=True)
    record = label_record(flags, order, 0.5, 0.1)
    a, c = flags.channel.a, flags.channel.c
    # People label 30 % of the answers; the judge is wrong about 20 % of the others.
    assert (a, c) == pytest.approx((0.14, 0.72), abs=0.05)
    assert record["flags"]["alpha_eff"] == pytest.approx((0.5 - a) / c)
    assert record["flags"]["beta_eff"] == pytest.approx(0.1 / c)
    assert "alpha_eff" not in label_record(flags, order, None, None)["flags"]
    json.dumps(record)


def judged_rows(tmp_path, judges, source="judge"):
    word = {"verdict": 1.0, "probability": 0.9}
    kept = {} if judges is None else {"judges": judges}
    rows = [
        {"prompt": "p", "responses": ["a", "b"], "helpfulness": [1, 0], "is_safe": [1.0, 1.0],
         "labelled_by": {"answers": [source] * 2}, "judged_as": {"answers": [word] * 2} | kept},
    ]  # fmt: skip
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_preferences(str(path))


def test_the_judges_of_the_flags_are_named(tmp_path):
    named = judged_rows(tmp_path, ["b", "a"])
    assert resolve_labels(named, None, None, is_affine=True)[1].judges == ("a", "b")
    assert resolve_labels(judged_rows(tmp_path, None), None, None, is_affine=True)[1].judges == ()
    # A judge that only read what people labeled labeled nothing.
    assert resolve_labels(judged_rows(tmp_path, ["a"], "people"), None, None, is_affine=True)[1] is None
    for wrong in ("a", [1], {"a": 1}):
        with pytest.raises(BfpoError, match="judged_as"):
            judged_rows(tmp_path, wrong)


def test_bfpo_label_names_its_judges(tmp_path):
    judge = OracleJudge(0.1)
    asked = [one for one in requests("train") if one.kind == "harmful"][:3]
    rows = [
        {"prompt": one.text, "chosen": "I can't help with that.", "rejected": f"To {one.task}: just do it.",
         "chosen_is_safe": None, "rejected_is_safe": None, "chosen_is_better": 0.0, "row": number}
        for number, one in enumerate(asked)
    ]  # fmt: skip
    labeled = label_preferences(rows, [judge]).rows
    assert [labeling_judges(row) for row in labeled] == [[judge.judge_id]] * 3
    # They stay when a pair is swapped.
    assert labeling_judges(swapped(labeled[0], 0.0)) == [judge.judge_id]
