"""Prices of harm in a recipe: the labels that they make, which answers they are read from, and what nothing reads."""

import json
from dataclasses import asdict

import datasets
import pytest
import torch

from bfpo import GlobalPreference
from bfpo.errors import BfpoError
from bfpo.labeling.fitted import FittedLabeling
from bfpo.objectives.registry import build_objective
from bfpo.preferences.encoding import EncodingCounts, encode
from bfpo.preferences.harm import HarmPrices, with_costs
from bfpo.preferences.loading import checked
from bfpo.training.batches import as_rows, group_labels
from bfpo.training.recipe_data import load_blend
from bfpo.training.run_record import describe_run
from bfpo.training.training_data import Blend, KnownTokens, TrainingSource, prepare
from training.rows import word_tokenizer
from training.test_recipe_data import recipe

ROW = {"prompt": "w8 w9", "chosen": "w2", "rejected": "w3", "chosen_is_safe": False, "rejected_is_safe": True}


def priced(tmp_path, rows, **settings):
    """The labels of rows as a recipe loads them, BFPO's targets at b1 3 and alpha 1/2, and the source's record."""
    path = tmp_path / "priced.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_blend(recipe([{"path": str(path), **settings.pop("source", {})}], **settings))
    assert not {"chosen_harm", "rejected_harm", "harm"} & set(loaded.blend.sources[0].rows.column_names)
    labels = group_labels(as_rows(encode(loaded.blend.sources[0].rows, word_tokenizer(), 64).dataset))
    return labels, build_objective("bfpo", {}).target(labels), loaded.records[0]


def test_prices_make_the_label_of_each_pair(tmp_path):
    """G = (2p - 1)((s + s')/2 - alpha) + (s - s')/2 + cost' - cost, worked out by hand."""
    rows = [
        ROW | {"chosen_harm": {"theft": 1 / 3, "lies": 1}, "rejected_harm": {}},
        ROW | {"chosen_harm": {"lies": 1}, "rejected_harm": {"theft": 0.5}, "rejected_is_safe": False},
        ROW | {"chosen_harm": {"noise": 1}, "rejected_harm": {}, "chosen_is_better": 0.25},
    ]
    labels, target, record = priced(tmp_path, rows, harm_prices={"theft": 0.3, "lies": 2.0, "default": 0.7})
    assert labels.cost.tolist() == pytest.approx([2.1, 0, 2.0, 0.15, 0.7, 0])
    assert target.tolist() == pytest.approx([-0.5 - 2.1, -0.5 + 0.15 - 2.0, -0.5 - 0.7])
    assert record["harm"] == {
        "lies": {"answers": 2, "price": 2.0, "own": True},
        "noise": {"answers": 1, "price": 0.7, "own": False},
        "theft": {"answers": 2, "price": 0.3, "own": True},
    }
    assert record["categories"] == {"lies": {"US": 1, "UU": 1}, "noise": {"US": 1}, "theft": {"US": 1, "UU": 1}}
    # Safer answers first: each keeps its own harm.
    labels, _, _ = priced(
        tmp_path, rows, harm_prices={"theft": 0.3, "lies": 2.0, "default": 0.7}, source={"prefer": "safe_first"}
    )
    assert labels.cost.tolist() == pytest.approx([0, 2.1, 2.0, 0.15, 0, 0.7])


def test_harm_of_unknown_category_has_the_row_s_price_or_b3(tmp_path):
    rows = [
        ROW | {"category": "theft"},
        ROW | {"category": ["theft", "lies"], "chosen_is_safe": 0.25},
        ROW | {"chosen_harm": None, "rejected_harm": {"theft": 1}, "rejected_is_safe": None},
    ]
    labels, target, record = priced(tmp_path, rows, harm_prices={"theft": 2.0})
    assert labels.cost.tolist() == pytest.approx([2.0, 0, 0.75 * 0.5, 0, 0.5, 2.0])
    assert labels.is_safe[5] == 0  # its harm says so
    assert target[1] == pytest.approx(0.5 * (1.25 - 1) + 0.5 * (0.25 - 1) - 0.75 * 0.5)
    assert {name: one["answers"] for name, one in record["harm"].items()} == {"theft": 2, "unknown category": 2}


@pytest.mark.parametrize("flags", [[(0, 1), (1, 0), (0, 0), (1, 1)], [(0.2, 0.9), (0.5, 0.1)]])
def test_one_price_b3_is_the_plain_label(tmp_path, flags):
    rows = [
        ROW | {"chosen_is_safe": first, "rejected_is_safe": second, "chosen_is_better": p, "category": "theft"}
        for first, second in flags
        for p in (0.3, 1)
    ]
    labels, target, _ = priced(tmp_path, rows, harm_prices={"theft": 0.5})
    plain, expected, _ = priced(tmp_path, rows)
    assert plain.cost is None
    torch.testing.assert_close(target, expected)
    torch.testing.assert_close(labels.cost, 0.5 * (1 - labels.is_safe))


def test_fitted_prices_are_read_with_their_b1_and_alpha(tmp_path):
    fitted = tmp_path / "fitted.json"
    FittedLabeling(GlobalPreference(3.0, 0.4), {"theft": 2.0}).save(fitted)
    labels, _, record = priced(tmp_path, [ROW | {"category": "theft"}, ROW], labeling=str(fitted))
    assert labels.cost.tolist() == pytest.approx([2.0, 0, 0.5, 0])
    assert record["harm"]["theft"]["own"]
    with pytest.raises(BfpoError, match="has prices by category: leave out 'harm_prices' or 'labeling'"):
        recipe([{"path": "a"}], labeling=str(fitted), harm_prices={"theft": 1})
    with pytest.raises(BfpoError, match="drops pairs whose harm prices tell apart"):
        recipe([{"path": "a"}], labeling=str(fitted), unsafe_pairs="drop")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"harm_prices": {"theft": 1}, "loss_type": "dpo"}, "does not read 'harm_prices'"),
        ({"harm_prices": {}}, "has no price"),
        ({"harm_prices": {"theft": 1}, "unsafe_pairs": "drop"}, "drops pairs whose harm prices tell apart"),
        ({"harm_prices": {"theft": -1}}, "harm_prices.theft.*greater than or equal to 0"),
        ({"harm_prices": {"default": 1}, "b1": 2.0}, "give only one"),
        ({"harm_prices": {"thefts": 1}}, "no answer has the category .thefts. .did you mean .theft.*: the data has"),
    ],
)
def test_prices_that_nothing_reads_are_refused(tmp_path, settings, message):
    with pytest.raises(BfpoError, match=message):
        priced(tmp_path, [ROW | {"category": "theft"}], **settings)


@pytest.mark.parametrize(
    ("rows", "source", "present"),
    [
        # A row with several categories says of none that an answer has it.
        ([ROW | {"category": ["theft", "lies"]}], {}, "no categories of harm"),
        # Seed 0 draws the first row only.
        ([ROW | {"category": "lies"}, ROW | {"category": "theft"}], {"limit": 1}, "lies"),
        ([ROW | {"category": "theft", "chosen_is_safe": True}, ROW | {"category": "lies"}], {}, "lies"),
    ],
)
def test_prices_are_read_from_the_answers_to_train_on(tmp_path, rows, source, present):
    with pytest.raises(BfpoError, match=f"no answer has the category 'theft': the data has {present}"):
        priced(tmp_path, rows, source=source, harm_prices={"theft": 1.0})
    fitted = tmp_path / "fitted.json"
    FittedLabeling(GlobalPreference(), {"theft": 2.0, "fraud": 1.0}).save(fitted)
    with pytest.raises(BfpoError, match=f"labeling: it has prices of theft, fraud, and no answer .* has {present}"):
        priced(tmp_path, rows, source=source, labeling=str(fitted))
    # One that is read is enough.
    *_, record = priced(tmp_path, [ROW | {"category": "fraud"}], labeling=str(fitted))
    assert record["harm"] == {"fraud": {"answers": 1, "price": 1.0, "own": True}}


def described(loaded, **more):
    """The lines about a run on this data, with made-up counts of everything else."""
    encoding = asdict(EncodingCounts(rows=1))
    mix = {"main_groups_per_step": 1, "groups_per_step": 1, "steps_per_epoch": 1}
    mix |= {"encoding": {one["name"]: encoding for one in loaded.records}}
    record = {"data": loaded.records, "mix": mix, "reference": {}, "layout": {"layout": "padded", "reason": "r"}}
    return list(describe_run(record | {"model": {"name": "m"}} | more))


def test_prices_of_a_fitted_labeling_that_nothing_reads_are_named(tmp_path):
    prices = {"default": 0.5, "prices": {"theft": 2.0, "fraud": 1.0, "lies": 1.0}}
    fitted, path = tmp_path / "fitted.json", tmp_path / "rows.jsonl"
    FittedLabeling(GlobalPreference(), prices["prices"]).save(fitted)
    path.write_text(json.dumps(ROW | {"category": "theft"}) + "\n")
    loaded = load_blend(recipe([{"path": str(path)}], labeling=str(fitted)))
    assert "harm_prices: no answer has harm of fraud, lies" in described(loaded, harm_prices=prices)


def test_harm_without_prices_and_rewards_without_a_reader_are_counted(tmp_path):
    row = ROW | {"chosen_harm": {"theft": 1}, "rejected_harm": {}, "chosen_reward": 1.0, "rejected_reward": 0.0}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"prompt": f"w{at}"}) + "\n" for at in range(3)))
    sources = [{"path": str(path)}]
    harm, rewards = "answers whose harm has no price 6", "rows whose rewards are not read 3"
    for settings, expected in (
        ({}, {harm, rewards}),
        ({"harm_prices": {"theft": 1}}, {rewards}),
        ({"loss_type": "modpo"}, {harm}),
        ({"stage": "sft"}, {harm, rewards}),
    ):
        line = described(load_blend(recipe(sources, **settings)))[0]
        assert {one for one in (harm, rewards) if one in line} == expected


def test_a_source_without_prices_beside_one_with_them_is_refused_before_training():
    """As the sources of a `Blend`, of which a recipe prices all."""
    rows = checked("priced", datasets.Dataset.from_list([ROW | {"prompt": f"w{at} w9"} for at in range(4)]))
    costs, _ = with_costs(rows, HarmPrices(0.5))
    tokenizer, objective = word_tokenizer(), build_objective("bfpo", {})
    for sources in ([costs, costs], [rows, rows], [costs, rows], [rows, costs]):
        blend = Blend([TrainingSource(one, name) for name, one in zip(("one", "two"), sources, strict=True)])
        if sources[0] is sources[1]:
            assert prepare(blend, tokenizer, 64, objective, KnownTokens(64, [])).main == 8
        else:
            name = "two" if sources[1] is rows else "one"
            with pytest.raises(BfpoError, match=f"{name}, row 1: an answer has no cost, and others have one"):
                prepare(blend, tokenizer, 64, objective, KnownTokens(64, []))
