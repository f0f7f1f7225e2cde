"""Loading of a recipe's sources: draws, balance, overlap and labeling constants, with their records."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bfpo import GlobalPreference
from bfpo.errors import BfpoError
from bfpo.labeling.fitted import FittedLabeling
from bfpo.objectives.registry import build_objective
from bfpo.preferences.encoding import EncodingCounts, encode
from bfpo.training.batches import as_rows, group_labels
from bfpo.training.recipe import resolve
from bfpo.training.recipe_data import load_blend
from bfpo.training.run import training_arguments
from bfpo.training.run_record import describe_run
from bfpo.training.training_data import KnownTokens, prepare
from training.rows import word_tokenizer

CELLS = [(1, 1)] * 4 + [(1, 0)] * 2 + [(0, 1)] * 2


def written(tmp_path, name, count=8, **more):
    path = tmp_path / name
    lines = [
        {
            "prompt": f"{name} w{at}", "chosen": "w1", "rejected": "w2",
            "chosen_is_safe": float(CELLS[at % 8][0]), "rejected_is_safe": float(CELLS[at % 8][1]), **more,
        }
        for at in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def recipe(sources, **more):
    values = {"stage": "preference", "model": "m", "data": sources, "output_dir": "o", **more}
    return resolve(values, {}, "recipe")


def test_weights_draw_from_each_role_and_the_record_says_what_was_repeated_or_left(tmp_path):
    sources = [
        {"name": "a", "path": written(tmp_path, "a.jsonl", 8), "weight": 3},
        {"name": "b", "path": written(tmp_path, "b.jsonl", 24), "weight": 1},
        {"name": "c", "path": written(tmp_path, "c.jsonl", 8), "role": "buffer"},
    ]
    loaded = load_blend(recipe(sources))
    blend, records = loaded.blend, loaded.records
    assert [len(source.rows) for source in blend.sources] == [24, 8, 8]
    assert records[0]["draws"] == {"rows": 8, "drawn": 24, "repeats": 16, "leftovers": 0}
    assert records[1]["draws"] == {"rows": 24, "drawn": 8, "repeats": 0, "leftovers": 16}
    assert "draws" not in records[2]
    encoding = asdict(EncodingCounts(rows=1))
    mix = {"main_groups_per_step": 1, "groups_per_step": 2, "steps_per_epoch": 1}
    mix |= {"encoding": dict.fromkeys("abc", encoding)}
    record = {"data": records, "mix": mix, "reference": {}, "layout": {"layout": "padded", "reason": "r"}}
    lines = list(describe_run(record | {"model": {"name": "m"}}))
    assert "repeats of weighing 16" in lines[0]
    assert "leftovers of weighing 16" in lines[1]


def test_a_source_has_its_own_seed_and_balance(tmp_path):
    def drawn(**more):
        loaded = load_blend(recipe([{"path": written(tmp_path, "a.jsonl", 64), "limit": 32, **more}]))
        return loaded.blend.sources[0].rows["row"][:], loaded.records[0]

    assert drawn(seed=1)[0] == drawn(seed=1)[0] != drawn(seed=2)[0]
    rows, record = drawn(balance="leave_out", seed=1)
    assert record["balance"]["leftovers"] == 32 - len(rows)
    assert len(set(Counter(CELLS[(row - 1) % 8] for row in rows).values())) == 1


@pytest.mark.parametrize(
    ("sources", "more", "message"),
    [
        ([{"path": "a", "weight": 1}, {"path": "b"}], {}, "give one to each"),
        ([{"path": "a"}], {"eval_data": {"path": "b", "weight": 1}}, "is not part of the blend"),
        ([{"path": "a"}], {"labeling": "f.json", "b1": 2.0}, "sets b1 and alpha"),
        ([{"path": "a"}], {"labeling": "f.json", "loss_type": "dpo"}, "does not read 'labeling'"),
    ],
)
def test_contradictions_are_named(sources, more, message):
    with pytest.raises(BfpoError, match=message):
        recipe(sources, **more)


def test_evaluation_prompts_are_refused_unless_allowed_by_name(tmp_path):
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("something else\nA.JSONL w3?\n")
    sources = [{"path": written(tmp_path, "a.jsonl")}]
    suites = {"microworld": ["not in there"]}
    with pytest.raises(BfpoError, match=r"contains 1 of the 2 evaluation prompts of .*held_out.txt"):
        load_blend(recipe(sources, evaluation_prompts=[str(held_out)]), suites)
    allowed = recipe(sources, evaluation_prompts=[str(held_out)], allow_overlap=[str(held_out)])
    assert load_blend(allowed, suites).records[0]["overlap"][0]["same"] == 1
    with pytest.raises(BfpoError, match="contains 1 of the 1 evaluation prompts of 'microworld'"):
        load_blend(recipe(sources), {"microworld": ["a.jsonl w0"]})
    with pytest.raises(BfpoError, match="did you mean 'microworld'"):
        load_blend(recipe(sources, allow_overlap=["microwold"]), suites)


def test_a_fitted_labeling_sets_b1_and_alpha(tmp_path):
    fitted = tmp_path / "fitted.json"
    FittedLabeling(GlobalPreference(2.5, 0.4)).save(fitted)
    resolved = recipe([{"path": "a"}], labeling=str(fitted))
    # It is read when the recipe is resolved, and never again.
    fitted.unlink()
    arguments = training_arguments(resolved)
    assert (arguments.b1, arguments.alpha) == (2.5, 0.4)
    with pytest.raises(BfpoError, match=r"No such file.*; make it"):
        recipe([{"path": "a"}], labeling=str(fitted))


def judged(tmp_path, count=300):
    """Pairs whose flags a judge filled in, wrong about one in five; people labeled the first half at random."""
    rows = []
    for at in range(count):
        row = {"prompt": f"judged w{at}", "chosen": "w1", "rejected": "w2", "judged_as": {}, "labelled_by": {}}
        for name, offset in (("chosen", 0), ("rejected", 1)):
            truth = (at + offset) % 2
            verdict = float(truth != (at % 5 == offset))
            row[f"{name}_is_safe"] = float(truth) if at < count // 2 else verdict
            row["labelled_by"][name] = "random" if at < count // 2 else "judge"
            row["judged_as"][name] = {"verdict": verdict, "probability": verdict}
        row["labelled_by"]["order"] = "people"
        rows.append(row)
    path = tmp_path / "judged.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_judged_flags_are_what_the_recipe_makes_of_them_and_the_record_says_so(tmp_path):
    path = judged(tmp_path)
    loaded = load_blend(recipe([{"path": path, "name": "a"}], beta=0.1))
    values = set(loaded.blend.sources[0].rows["chosen_is_safe"][150:])
    assert sorted(values) == pytest.approx([-1 / 3, 4 / 3])
    labels = loaded.records[0]["labels"]
    assert (labels["flags"]["flags"], labels["flags"]["alpha_eff"]) == ("unbiased", pytest.approx(0.5))
    assert labels["flags"]["beta_eff"] == pytest.approx(0.1)
    assert labels["flags"]["n_eff"]["value"] < 600
    verdicts = load_blend(recipe([{"path": path, "name": "a", "flags": "verdict"}], beta=0.1)).records[0]["labels"]
    # Half of the flags are people's, and one in five of the others is wrong.
    assert verdicts["flags"]["beta_eff"] == pytest.approx(0.1 / 0.8)
    mix = {"main_groups_per_step": 1, "groups_per_step": 1, "steps_per_epoch": 1}
    mix |= {"encoding": {"a": asdict(EncodingCounts(rows=1))}}
    record = {"data": loaded.records, "mix": mix, "reference": {}, "layout": {"layout": "padded", "reason": "r"}}
    lines = list(describe_run(record | {"model": {"name": "m"}}))
    assert lines[1].startswith(
        "a: flags unbiased (people labeled a random sample with 50 answers of each kind): 300 by"
    )
    assert "a: a 0.000, c 1.000, alpha_eff 0.5, beta_eff 0.1, n_eff " in lines[2]
    assert "ignored" not in lines[0]


def test_alpha_eff_is_recorded_only_where_the_label_is_affine(tmp_path):
    path = judged(tmp_path)
    for source, more in (({}, {"unsafe_pairs": "drop"}), ({}, {"unsafe_pairs": "neutral"}), ({"prefer": "safer"}, {})):
        flags = load_blend(recipe([{"path": path} | source], **more)).records[0]["labels"]["flags"]
        assert flags["channel"] is not None
        assert "alpha_eff" not in flags
        assert "beta_eff" not in flags


def test_a_judge_at_chance_matters_only_where_its_flags_are_read(tmp_path):
    path = Path(judged(tmp_path))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for name in ("chosen", "rejected"):
            row["judged_as"][name] = {key: 1 - value for key, value in row["judged_as"][name].items()}
            if row["labelled_by"][name] == "judge":
                row[f"{name}_is_safe"] = 1 - row[f"{name}_is_safe"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[75:]), encoding="utf-8")
    sources = [{"path": str(path)}]
    assert load_blend(recipe(sources, loss_type="dpo")).records[0]["labels"]["flags"]["flags"] == "verdict"
    for changes, more in (({}, {}), ({"prefer": "safe_first"}, {"loss_type": "dpo"})):
        with pytest.raises(BfpoError, match=r"'flags: verdict' \(by default\) would train on flags no better"):
            load_blend(recipe([sources[0] | changes], **more))


def test_the_mean_target_of_unbiased_flags_is_the_true_one(tmp_path):
    """Through encoding to BFPO's label: per cell of true flags, the mean over judged pairs equals T."""
    rows = load_blend(recipe([{"path": judged(tmp_path, 600)}])).blend.sources[0].rows
    labels = group_labels(as_rows(encode(rows, word_tokenizer(), 64).dataset))
    found = build_objective("bfpo", {}).target(labels)
    first = torch.tensor([row - 1 for row in rows["row"]]) % 2
    for truth in (0, 1):
        members = (first == truth) & (torch.arange(600) >= 300)
        expected = GlobalPreference().target(float(truth), 1.0 - truth)
        torch.testing.assert_close(found[members].mean(), expected, atol=1e-5, rtol=0)


def test_flags_are_resolved_before_rows_are_drawn(tmp_path):
    """A subset's flags come from the error of the whole source."""
    sources = [{"path": judged(tmp_path), "limit": 20}]
    rows = load_blend(recipe(sources)).blend.sources[0].rows
    judged_ones = [flag for flag, at in zip(rows["chosen_is_safe"], rows["row"], strict=True) if at > 150]
    assert judged_ones
    assert all(min(abs(flag + 1 / 3), abs(flag - 4 / 3)) < 1e-9 for flag in judged_ones)


@pytest.mark.parametrize(
    ("source", "more", "says"),
    [
        ({"flags": "unbiased"}, {"unsafe_pairs": "drop"}, "'flags: unbiased' makes flags outside"),
        ({"flags": "doubly_robust"}, {"unsafe_pairs": "neutral"}, "'flags: doubly_robust' makes flags outside"),
        ({"flags": "unbiased", "prefer": "safer"}, {}, "'flags: unbiased' makes flags outside"),
        ({"flags": "unbiased"}, {"loss_type": "dpo"}, "'flags: unbiased' makes flags outside"),
        ({"order": "unbiased"}, {}, "judged: 'order: unbiased' is for labels that a judge filled in"),
        ({"order": "unbiased"}, {"unsafe_pairs": "drop"}, "'order: unbiased' makes orders outside"),
        ({"order": "unbiased"}, {"unsafe_pairs": "neutral"}, "'order: unbiased' makes orders outside"),
        ({"order": "unbiased"}, {"loss_type": "safedpo"}, "'order: unbiased' makes orders outside"),
    ],
)
def test_bilinear_labels_refuse_flags_outside_the_unit_interval(tmp_path, source, more, says):
    with pytest.raises(BfpoError) as caught:
        load_blend(recipe([{"path": judged(tmp_path), "name": "judged"} | source], **more))
    assert says in str(caught.value)
    # Without a wish they get verdicts, and say why.
    plain = {key: value for key, value in source.items() if key == "prefer"}
    if more or plain:
        labels = load_blend(recipe([{"path": judged(tmp_path)} | plain], **more)).records[0]["labels"]
        assert labels["flags"]["flags"] == "verdict"
        assert "not affine" in labels["flags"]["reason"]


def test_a_recipe_says_what_becomes_of_rows_without_an_order(tmp_path):
    path = written(tmp_path, "a.jsonl", 8, chosen_is_better=None)
    with pytest.raises(BfpoError, match="set unknown_order"):
        load_blend(recipe([{"path": path}]))
    loaded = load_blend(recipe([{"path": path, "unknown_order": 0.5}]))
    assert loaded.records[0]["filled_unordered"] == 8
    assert set(loaded.blend.sources[0].rows["chosen_is_better"]) == {0.5}


def test_a_system_prompt_precedes_every_prompt_without_one(tmp_path):
    own = [{"role": "system", "content": "w7"}, {"role": "user", "content": "w8"}]
    answers = {name: [{"role": "assistant", "content": word}] for name, word in (("chosen", "w1"), ("rejected", "w2"))}
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"prompt": own, "chosen_is_safe": True, "rejected_is_safe": True, **answers}) + "\n")
    sources = [{"path": written(tmp_path, "texts.jsonl", 2)}, {"path": str(chats)}]
    texts, chat = load_blend(recipe(sources, system_prompt="w9")).blend.sources
    assert texts.rows["prompt"][0] == [
        {"role": "system", "content": "w9"}, {"role": "user", "content": "texts.jsonl w0"}
    ]  # fmt: skip
    assert texts.rows["chosen"][0] == [{"role": "assistant", "content": "w1"}]
    assert chat.rows["prompt"][0] == own


def test_a_share_of_the_prompts_is_held_out_for_evaluation(tmp_path):
    twice = tmp_path / "twice.jsonl"
    twice.write_text(2 * Path(written(tmp_path, "a.jsonl", 40)).read_text(encoding="utf-8"))
    loaded = load_blend(recipe([{"path": str(twice)}], eval_fraction=0.25))
    train, held_out = loaded.blend.sources[0].rows, loaded.evaluation.blend.sources[0].rows
    assert (len(train), len(held_out)) == (60, 20)
    assert not set(train["prompt"]) & set(held_out["prompt"])
    assert loaded.records[0]["held_out"] == 20
    assert sum(loaded.records[0]["cells"].values()) == 60
    again = load_blend(recipe([{"path": str(twice)}], eval_fraction=0.25)).evaluation.blend.sources[0].rows
    assert again["prompt"][:] == held_out["prompt"][:]
    other = load_blend(recipe([{"path": str(twice)}], eval_fraction=0.25, seed=1)).evaluation.blend.sources[0].rows
    assert other["prompt"][:] != held_out["prompt"][:]


def test_a_prompt_held_out_of_one_source_is_in_none(tmp_path):
    """The same prompts in two main sources and the buffer, whose seeds differ."""
    path = written(tmp_path, "a.jsonl", 40)
    sources = [
        {"path": path, "name": "one"}, {"path": path, "name": "two", "seed": 7},
        {"path": path, "name": "help", "role": "buffer"},
    ]  # fmt: skip
    loaded = load_blend(recipe(sources, eval_fraction=0.25))
    evaluated = [one.rows["prompt"][:] for one in loaded.evaluation.blend.sources]
    held_out = {*evaluated[0]}
    assert len(held_out) == 10
    assert [set(prompts) for prompts in evaluated] == [held_out] * 2
    assert [len(source.rows) for source in loaded.blend.sources] == [30] * 3
    assert not held_out & {prompt for source in loaded.blend.sources for prompt in source.rows["prompt"]}
    assert [record["held_out"] for record in loaded.records] == [10] * 3


def test_rows_of_any_two_forms_are_held_out_together(tmp_path):
    """Texts, messages and K answers can't be one table."""
    chats, groups = tmp_path / "chats.jsonl", tmp_path / "groups.jsonl"
    pair = {name: [{"role": "assistant", "content": word}] for name, word in (("chosen", "w1"), ("rejected", "w2"))}
    flags = {"chosen_is_safe": True, "rejected_is_safe": True}
    chats.write_text("".join(
        json.dumps({"prompt": [{"role": "user", "content": f"w{at}"}], **pair, **flags}) + "\n" for at in range(20)
    ))  # fmt: skip
    groups.write_text("".join(
        json.dumps({"prompt": f"x{at}", "responses": ["w1", "w2", "w3"], "helpfulness": [3, 2, 1],
                    "is_safe": [1, 0, 1]}) + "\n" for at in range(20)
    ))  # fmt: skip
    weighted = written(tmp_path, "weighted.jsonl", 20, weight=0.5)
    loaded = load_blend(recipe([{"path": str(path)} for path in (weighted, chats, groups)], eval_fraction=0.5))
    held_out = loaded.evaluation.blend
    assert loaded.evaluation.record == {"source": "eval_fraction", "used": 30}
    objective, tokenizer = build_objective("bfpo", {}), word_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    data = prepare(held_out, tokenizer, 64, objective, KnownTokens(len(tokenizer), []))
    assert [len(one.rows) for one in held_out.sources] == [part.rows for part in data.counts.values()]
    assert data.main == 30


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ({"fraction": 0.01}, {}, "no row is left after 'fraction: 0.01'; raise it"),
        ({"fraction": 0.01, "balance": "repeat"}, {}, "no row is left after 'fraction: 0.01'; raise it"),
        ({"balance": "leave_out"}, {"eval_fraction": 0.99}, "no row is left after 'eval_fraction'; lower it"),
    ],
)
def test_a_source_without_rows_says_what_left_it_none(tmp_path, source, more, message):
    with pytest.raises(BfpoError, match=message):
        load_blend(recipe([{"path": written(tmp_path, "a.jsonl"), **source}], **more))


def test_cells_are_those_of_the_rows_used(tmp_path):
    sources = [{"path": written(tmp_path, "a.jsonl", 64), "limit": 10}]
    assert sum(load_blend(recipe(sources)).records[0]["cells"].values()) == 10


def test_a_source_is_grouped_by_prompt_on_request(tmp_path):
    path = Path(written(tmp_path, "a.jsonl", 8))
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text.replace('"chosen": "w1"', '"chosen": "w3"'), encoding="utf-8")
    loaded = load_blend(recipe([{"name": "a", "path": str(path), "group_by_prompt": True}]))
    record, rows = loaded.records[0], loaded.blend.sources[0].rows
    assert record["grouping"] == {"pairs": 16, "groups": 8, "answers": 24, "largest": 3, "averaged": 0}
    assert record["cells"] == {"SS": 8, "SU": 4, "US": 4}
    assert (len(rows), sum(rows["weight"])) == (8, 8.0)
    assert encode(rows, word_tokenizer(), 64).dataset["first"][0] == [0, 2]
    encoding = asdict(EncodingCounts(rows=8))
    mix = {"main_groups_per_step": 1, "groups_per_step": 1, "steps_per_epoch": 1, "encoding": {"a": encoding}}
    made = {"data": [record], "mix": mix, "reference": {}, "layout": {"layout": "padded", "reason": "r"}}
    line = next(describe_run(made | {"model": {"name": "m"}}))
    assert "pairs grouped by prompt 16, answers in the largest group 3, repeated answers merged 8" in line
    for wrong, message in (({"stage": "sft"}, "the sft stage has none"), ({"eval_data": 1}, "pair by pair")):
        source = {"path": str(path), "group_by_prompt": True}
        with pytest.raises(BfpoError, match=message):
            recipe([source], **({"eval_data": source} if "eval_data" in wrong else wrong))


def test_grouping_one_source_leaves_every_source_its_share_of_the_loss(tmp_path):
    """Of the sum of weights, which every group's mean loss is multiplied by; the buffer's mean weight stays 1."""
    path = tmp_path / "few.jsonl"
    lines = [{"prompt": f"w{at % 4}", "chosen": f"w{10 + at}", "rejected": "w9"} for at in range(24)]
    path.write_text("".join(json.dumps(line | {"chosen_is_safe": 1, "rejected_is_safe": 0}) + "\n" for line in lines))
    plain = written(tmp_path, "plain.jsonl", 24)

    def shares(*, weights, grouped):
        """The share of every source in its role's sum of weights, and the roles' mean weights."""
        sources = [
            {"name": "few", "path": str(path), "group_by_prompt": grouped, "weight": weights and weights[0]},
            {"name": "plain", "path": plain, "weight": weights and weights[1]},
            {"name": "buffer", "path": str(path), "role": "buffer", "group_by_prompt": grouped},
        ]
        found = [one.rows for one in load_blend(recipe(sources)).blend.sources]
        sums = [sum(rows["weight"]) if "weight" in rows.column_names else len(rows) for rows in found]
        main = len(found[0]) + len(found[1])
        return [sums[0] / (sums[0] + sums[1]), (sums[0] + sums[1]) / main, sums[2] / len(found[2])]

    for weights, share in ((None, 0.5), ((3, 1), 0.75)):
        for grouped in (False, True):
            assert shares(weights=weights, grouped=grouped) == pytest.approx([share, 1.0, 1.0])


def test_prompts_with_a_single_answer_are_left_out_of_pairwise_training_and_counted(tmp_path):
    path = tmp_path / "groups.jsonl"
    rows = [{"prompt": f"w{n}", "responses": ["w1", "w2", "w3"][:n], "helpfulness": [1, 2, 3][:n]} for n in (1, 2, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_blend(recipe([{"path": str(path), "unknown_safety": 1.0}]))
    assert loaded.blend.sources[0].rows["row"][:] == [2, 3]
    assert loaded.records[0]["unread"]["prompts with a single answer, left out"] == 1
    single = load_blend(recipe([{"path": str(path), "unknown_safety": 1.0}], stage="sft"))
    assert len(single.blend.sources[0].rows) == 3
    assert single.records[0]["unread"]["prompts with a single answer, left out"] == 0
