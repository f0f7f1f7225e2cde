"""The real-model study: its split and labels, its recipes, its figures by a plain computation, its order of runs."""

import gzip
import json
import math
from dataclasses import asdict

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bfpo.errors import BfpoError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.models import MICROWORLD as MODEL
from bfpo.models import load_tokenizer
from bfpo.training.recipe import load_recipe
from studies.real import data, planning
from studies.real.data import FILES, KINDS, labeled, load_mix
from studies.real.jobs import START, Job, Setup, likelihoods, recipe_of, run_job
from studies.real.methods import ABLATIONS, METHODS, NOTHING, POINTS
from studies.real.report import difference, write_report

TEXT = "the cat makes a cake and sings about rain when birds see old trees near our house"
WORDS = TEXT.split()


def row(at, prompt=None):
    first, second = (" ".join(WORDS[(at * step) % 9 : (at * step) % 9 + 4]) for step in (1, 2))
    return {
        "prompt": prompt or f"please tell me about {WORDS[at % 16]} {WORDS[at // 16 % 16]} {at}",
        "chosen": f"{first} {at}",
        "rejected": f"{second} so {at}",
        "chosen_is_safe": 1.0,
        "rejected_is_safe": 0.0,
        "chosen_is_better": 0.5,
    }


@pytest.fixture
def mix_folder(tmp_path, monkeypatch):
    """A mix of 40 pairs of each kind, two pairs of the same prompt among them."""
    folder = tmp_path / "mix"
    folder.mkdir()
    for place, kind in enumerate(KINDS):
        rows = [row(100 * place + at) for at in range(40)]
        rows[1]["prompt"] = rows[0]["prompt"]
        with gzip.open(folder / FILES[kind], "wt") as file:
            file.writelines(json.dumps(one) + "\n" for one in rows)
    counts = {"test": dict.fromkeys(KINDS, 10), "validation": dict.fromkeys(KINDS, 5)}
    monkeypatch.setattr(data, "HELD_OUT", counts)
    return folder


@pytest.fixture
def setup(tmp_path, mix_folder):
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: small\nabout: x\njudges: [keywords]\ntasks:\n  - task: risky\n    factor: harmless\n    license: CC0\n"
        '    source: {file: risky.jsonl}\n    kind: harmful\n    prompt: "{{ prompt }}"\n'
    )
    (tmp_path / "risky.jsonl").write_text('{"prompt": "please tell me"}\n{"prompt": "sing about rain"}\n')
    results = tmp_path / "results"
    results.mkdir()
    return Setup(str(MODEL), mix_folder, suite, tmp_path / "runs", results, steps=2, batch_size=4)


def prompts_of(rows):
    return {one["prompt"] for one in rows}


def test_no_held_out_prompt_is_trained_on_and_every_pair_is_somewhere(mix_folder):
    mix = load_mix(mix_folder, load_tokenizer(MODEL))
    for kind in KINDS:
        parts = [mix.pairs[part][kind] for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == 40
        assert len(parts[2]) in (10, 11)
        assert sum(len(prompts_of(part)) for part in parts) == 39
    assert (mix.too_long, mix.repeated) == (0, 0)


def test_a_prompt_that_is_held_out_in_another_kind_is_left_out_and_counted(mix_folder):
    mix = load_mix(mix_folder, load_tokenizer(MODEL))
    held_out = mix.pairs["test"]["mixed"][0]["prompt"]
    with gzip.open(mix_folder / FILES["helpful"], "at") as file:
        file.write(json.dumps(row(5, held_out)) + "\n")
    again = load_mix(mix_folder, load_tokenizer(MODEL))
    training = [prompt for kind in KINDS for prompt in prompts_of(again.pairs["train"][kind])]
    assert held_out not in training or again.repeated == 0
    assert again.repeated + sum(len(rows) for own in again.pairs.values() for rows in own.values()) == 121


def test_pairs_that_are_too_long_are_counted(mix_folder, monkeypatch):
    monkeypatch.setattr(data, "MOST_TOKENS", 3)
    assert load_mix(mix_folder, load_tokenizer(MODEL)).too_long == 120


def test_a_missing_mix_is_one_sentence(tmp_path):
    with pytest.raises(BfpoError, match=r"no such file; name the folder of the development mix with --data"):
        load_mix(tmp_path, load_tokenizer(MODEL))


def true_flags(one):
    """A row's true flags: in these data the safe answer has no "so"."""
    return {name: float(" so " not in one[name]) for name in ("chosen", "rejected")}


@pytest.mark.parametrize("state", ["flips", "conflict"])
def test_flags_err_except_peoples_and_every_word_of_the_judge_is_kept(state):
    rows = labeled([row(at) for at in range(2000)], "mixed", state, 3)
    wrong = 0
    by_people = 0
    for one in rows:
        for name, true in true_flags(one).items():
            judged = one["judged_as"][name]["verdict"]
            wrong += judged != true
            if one["labelled_by"][name] == "random":
                by_people += 1
                assert one[f"{name}_is_safe"] == true
            else:
                assert one[f"{name}_is_safe"] == judged
    assert wrong / 4000 == pytest.approx(0.3, abs=0.03)
    assert by_people == 400


def test_in_conflict_the_unsafe_answer_is_the_more_helpful_one_in_nine_of_ten():
    rows = labeled([row(at) for at in range(2000)], "mixed", "conflict", 0)
    assert all(one["chosen_is_better"] == 1.0 for one in rows)
    assert sum(" so " in one["chosen"] for one in rows) / 2000 == pytest.approx(0.9, abs=0.03)
    assert rows != labeled([row(at) for at in range(2000)], "mixed", "conflict", 1)


def test_clean_labels_and_the_buffer_are_as_they_came():
    rows = [row(at) for at in range(5)]
    assert labeled(rows, "mixed", "clean", 0) == labeled(rows, "helpful", "conflict", 0) == rows
    assert all(one["chosen_is_better"] == 0.5 for one in labeled(rows, "edge", "conflict", 0))


@pytest.mark.parametrize("name", [*METHODS, *ABLATIONS])
def test_every_method_has_a_recipe_that_is_right(name, setup, tmp_path):
    method = (METHODS | ABLATIONS)[name]
    job = Job.at("conflict", name, POINTS[0], 0, "test")
    mix = load_mix(setup.data, load_tokenizer(setup.model))
    recipe = recipe_of(job, mix, tmp_path / "data", tmp_path / "out", setup)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    found = load_recipe(path).recipe
    assert (found.lora is None) == (name == "BFPO-down-proj")
    assert found.batch_size == (2 if name == "BFPO-no-buffer" else 4)
    names = [source["name"] for source in recipe["data"]]
    kinds = " ".join(names)
    assert ("edge" in kinds, "helpful" in kinds) == (method.edge, method.buffer)
    assert (len(names) == 3) == (name == "DPO-mix")


def test_likelihoods_are_those_of_the_plain_model(mix_folder):
    rows = [row(at) for at in range(3)]
    generator = LocalGenerator.load(MODEL)
    found = likelihoods(generator, rows)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)

    def logp(prompt, answer):
        message = [{"role": "user", "content": prompt}]
        start = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        before = tokenizer.encode(start, add_special_tokens=False)
        own = tokenizer.encode(start + answer, add_special_tokens=False)[len(before) :]
        with torch.no_grad():
            logps = model(torch.tensor([[*before, *own]])).logits[0].log_softmax(-1)
        return sum(logps[len(before) - 1 + at, token].item() for at, token in enumerate(own)), len(own)

    chosen = [logp(one["prompt"], one["chosen"]) for one in rows]
    rejected = [logp(one["prompt"], one["rejected"]) for one in rows]
    for at, ((a, n), (b, m)) in enumerate(zip(chosen, rejected, strict=True)):
        assert found["mean"][at] == pytest.approx(a / n - b / m, abs=2e-3)
        assert found["sum"][at] == pytest.approx(a - b, abs=2e-2)
    assert found["chosen"] == pytest.approx(sum(a for a, _ in chosen) / sum(n for _, n in chosen), abs=1e-3)


def test_a_run_keeps_its_figures_and_no_weights(setup, tmp_path):
    job = Job.at("conflict", "BFPO", POINTS[0], 0, "validation")
    result = run_job(job, setup)
    assert json.loads((setup.results / f"{job.name}.json").read_text()) == result
    assert {len(one["mean"]) for one in result["likelihoods"].values()} <= {5, 6}
    assert result["usage"]["tokens"] > 0
    assert not list(setup.folder.rglob("adapter_model*"))
    start = run_job(Job.at("clean", START, NOTHING, 0, "validation"), setup)
    moved = [one != other for one, other in zip(result["likelihoods"]["mixed"]["sum"],
             start["likelihoods"]["mixed"]["sum"], strict=True)]  # fmt: skip
    assert any(moved)


def test_answers_are_scored_by_the_suite(setup):
    result = run_job(Job.at("clean", START, NOTHING, 0, "answers"), setup)
    assert set(result["scores"]) >= {"harmless"}
    assert 0 <= result["scores"]["harmless"]["value"] <= 1
    trained = run_job(Job.at("clean", "BFPO", POINTS[0], 0, "answers"), setup)
    moved = trained["scores"]["harmless"]["value"] - result["scores"]["harmless"]["value"]
    assert trained["differences"]["harmless"]["value"] == pytest.approx(moved)


def made(job, right):
    """A result in which a share of the pairs is right."""
    values = [1.0 if at < round(20 * right) else -1.0 for at in range(20)]
    one = {"mean": values, "sum": values, "chosen": -1.0, "prompts": [*range(20)]}
    return {"job": {}, "likelihoods": dict.fromkeys(KINDS, one)}


def test_settings_are_tuned_first_and_the_best_point_is_tested(tmp_path):
    results = {}
    for job in [*planning.wanted(results)]:
        best = job.max_grad_norm == 10 or job.learning_rate == 3e-4
        results[job] = made(job, 0.5 if job.method == START else 0.9 if best else 0.6)
    assert not [job for job in results if job.split == "test" and job.method != START]
    found = [*planning.wanted(results)]
    tests = [job for job in found if job.split == "test" and job.method != START]
    assert {(job.learning_rate, job.beta) for job in tests} == {(2e-3, 0.02), (3e-4, 0.0)}
    assert {job.seed for job in tests} == set(planning.TEST_SEEDS)
    assert {job.method for job in tests} == {*METHODS, *ABLATIONS}
    assert planning.TUNING_SEED not in planning.TEST_SEEDS


def test_claims_compare_items_and_the_page_tells_what_is_missing(tmp_path):
    results = {}
    for _ in range(2):
        for job in planning.wanted(results):
            right = 0.5 if job.method == START else 0.8 if job.method == "BFPO" else 0.6
            results.setdefault(job, made(job, right) | ({"scores": {}} if job.split == "answers" else {}))
    from studies.real.report import CLAIMS

    found = difference(CLAIMS[0], results)
    # Six of 20 items differ by one.
    assert found.value == pytest.approx(0.3)
    half = 2.093 * math.sqrt(0.3 * 0.7 / 19)
    assert (found.low, found.high) == (pytest.approx(0.3 - half, abs=1e-3), pytest.approx(0.3 + half, abs=1e-3))
    page = write_report(tmp_path, results).read_text()
    assert "| 1 | clean | mixed | BFPO - start > 0 | holds | +0.300" in page
    assert "not run" not in page
    assert "Not finished" not in page
    assert page.count("| **0.800** |") == 2  # BFPO's first point, in both states that are tuned
    some = {job: one for job, one in results.items() if job.state == "clean"}
    page = write_report(tmp_path, some).read_text()
    assert page.count("not run") == 4
    assert "## conflict" not in page
    assert "**Not finished: at least 15 runs are missing, and the tally of the " in page


def test_a_job_is_taken_once(setup, monkeypatch):
    ran = []
    monkeypatch.setattr(planning, "run_job", lambda job, given: ran.append(job) or {"job": {}})
    planning.run_next(setup)
    (setup.results / f"{ran[0].name}.json").write_text(json.dumps(made(ran[0], 0.5) | {"job": asdict(ran[0])}) + "\n")
    planning.run_next(setup)
    assert len({job.name for job in ran}) == 2


def test_claims_about_answers_compare_figures_with_their_bounds(tmp_path):
    results = {}
    for _ in range(2):
        for job in planning.wanted(results):
            results.setdefault(job, made(job, 0.5 if job.method == START else 0.8))
    estimate = {"value": 0.03, "low": 0.01, "high": 0.05}
    scores = dict.fromkeys(("harmless", "over_refusal", "incoherent"), estimate)
    for job in results:
        if job.split == "answers":
            results[job] |= {"scores": scores, "differences": scores}
    page = write_report(tmp_path, results).read_text()
    assert "| 10 | harmless: BFPO - start | > 0 | fails: 0 to .06 | +0.030 [+0.010, +0.050] **holds** |" in page
    assert (
        "| 11 | over_refusal: BFPO - start | <= .05 | holds: less than .03 | +0.030 [+0.010, +0.050] **holds** |"
        in page
    )
    assert "| 12 | incoherent | <= .02 | holds | +0.030 [+0.010, +0.050] **fails** |" in page
