"""The benchmark on a GPU, as far as it runs without one: tiny parts, what is chosen and repeated, and the report."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytest.importorskip("trl")


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark's modules, with a tiny shape among its models'."""
    sys.path.insert(0, str(BENCHMARKS))
    import gpu
    import gpu_parts
    import gpu_report
    import workload

    workload.SHAPES["tiny"] = {
        "model_type": "qwen2", "vocab_size": 500, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    gpu_report.MODEL["tiny"] = "tiny"
    yield gpu, gpu_parts, gpu_report
    sys.path.remove(str(BENCHMARKS))


def names(gpu, only=(), skip=()):
    return [part.name for part in gpu.chosen(gpu.parts(), only, skip)]


def test_parts_are_chosen_by_words_of_their_names(benchmark):
    gpu, *_ = benchmark
    everything = names(gpu)
    assert len(set(everything)) == len(everything) > 20
    assert names(gpu, ["card", "qwen2.5-1.5b lora"]) == [
        "card", *(f"qwen2.5-1.5b lora {side}" for side in ("ours", "compact", "shipped"))
    ]  # fmt: skip
    assert names(gpu, ["tests"], ["training", "head"]) == [
        "tests float32", "tests bfloat16", "tests streams", "tests generation"
    ]  # fmt: skip
    profiled = [part.case for part in gpu.chosen(gpu.parts(), ["profile"], [])]
    assert [(case.side, case.trained, case.workload.model) for case in profiled] == [
        ("ours", "all", "qwen2.5-1.5b"), ("ours", "qlora", "llama-2-7b")
    ]  # fmt: skip


def test_too_little_memory_is_tried_again_with_half_and_other_errors_are_kept(benchmark, monkeypatch):
    gpu, *_ = benchmark
    ran = []

    def executed(command, limit):
        case = json.loads(command[-1])
        ran.append(case["tokens"])
        if case["tokens"] > 4096:
            return 1, "", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"
        return 0, 'some line\n{"losses": [1.0]}\n', ""

    monkeypatch.setattr(gpu, "executed", executed)
    part = gpu.speed("tiny", "all", "ours", batch=4)
    result = gpu.run(part, 100)
    assert ran == [16_384, 8192, 4096]
    assert result["losses"] == [1.0]
    assert result["case"]["tokens"] == 4096
    assert [tried["tokens"] for tried in result["tried"]] == [16_384, 8192]
    monkeypatch.setattr(gpu, "executed", lambda *_: (1, "", "ValueError: something else"))
    assert gpu.run(part, 100)["error"] == "ValueError: something else"
    monkeypatch.setattr(gpu, "executed", lambda *_: (None, "", ""))
    assert gpu.run(part, 100)["error"] == "took longer than 100 s"
    theirs = gpu.speed("tiny", "all", "compact", batch=4, parts=2).case
    assert gpu.less_memory(theirs).parts == 4
    assert gpu.less_memory(gpu.less_memory(theirs)) is None


def test_failed_tests_and_changed_runs_are_run_again(benchmark):
    gpu, *_ = benchmark
    part = gpu.speed("tiny", "all", "ours", batch=4)
    case = json.loads(json.dumps(asdict(part.case)))
    assert gpu.is_done(part, {"case": case, "losses": [1.0]})
    # Less in memory is the same run, other rows are not.
    assert gpu.is_done(part, {"case": case | {"tokens": 8192}, "losses": [1.0]})
    assert not gpu.is_done(part, {"case": case | {"workload": case["workload"] | {"batches": 0}}, "losses": [1.0]})
    assert not gpu.is_done(part, {"case": case, "error": "out of memory"})
    tests = gpu.Part("tests head", "tests")
    outcomes = [{"outcome": "passed"}, {"outcome": "skipped"}]
    assert gpu.is_done(tests, {"tests": outcomes})
    assert not gpu.is_done(tests, {"tests": [*outcomes, {"outcome": "failed"}]})


def test_results_of_two_cards_are_not_mixed(benchmark, monkeypatch):
    gpu, *_ = benchmark
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "one card")
    gpu.check_card({}, Path("gpu.json"))
    gpu.check_card({"card": {"device": "one card"}}, Path("gpu.json"))
    with pytest.raises(SystemExit, match=r"gpu\.json has results of another card, and this is one card: .* --out"):
        gpu.check_card({"card": {"device": "another card"}}, Path("gpu.json"))


def test_batches_are_those_of_a_large_set_that_is_grouped_by_length(benchmark):
    """As transformers' own sampler groups it, with as little padding; random batches of the same pairs have more."""
    from transformers.trainer_pt_utils import get_length_grouped_indices

    from workload import SORTED_TOGETHER, Workload, make_batches, make_texts

    def lengths(texts):
        return [len(prompt.split()) + max(len(answer.split()) for answer in answers) for prompt, answers in texts]

    def padded(found, size):
        batches = [found[at : at + size] for at in range(0, len(found), size)]
        return sum(max(batch) * len(batch) for batch in batches) / sum(found)

    size, workload = 8, Workload(batches=6)
    own = lengths(make_batches(workload, size))
    assert len(own) == 6 * size
    everything = lengths(make_texts(Workload(prompts=4 * SORTED_TOGETHER * size)))
    order = get_length_grouped_indices(everything, size, generator=torch.Generator().manual_seed(0))
    grouped = padded([everything[at] for at in order], size)
    assert padded(own, size) == pytest.approx(grouped, abs=0.05)
    shuffled = [own[at] for at in torch.randperm(len(own), generator=torch.Generator().manual_seed(0))]
    assert padded(shuffled, size) > grouped + 0.3
    assert sum(own) / len(own) == pytest.approx(sum(everything) / len(everything), rel=0.1)


@pytest.mark.long
def test_a_process_that_takes_too_long_is_ended_and_files_of_tests_are_read(benchmark):
    gpu, *_ = benchmark
    assert gpu.executed([sys.executable, "-c", "import time; print('x', flush=True); time.sleep(60)"], 1.0)[0] is None
    if torch.cuda.is_available():
        pytest.skip("the tests would run")
    found = gpu.run_tests("test_gpu_generation.py", "greedy", 120)
    [test] = found["tests"]
    assert test["outcome"] == "skipped"
    assert "there is no CUDA device" in test["message"]


def test_time_without_a_kernel_is_idle_and_kinds_are_told_by_name(benchmark):
    _, parts, _ = benchmark
    found = parts.summary([("nvjet_gemm", 0, 10), ("triton_tem_fused_flex", 5, 20), ("vectorized_kernel", 30, 40)])
    assert found["idle"] == 0.25
    assert found["kinds_us"] == {"attention": 15, "matrix products": 10, "element by element": 10}
    assert found["longest"][0] == {"name": "triton_tem_fused_flex", "calls": 1, "us": 15}
    with pytest.raises(ValueError, match="no kernel"):
        parts.summary([])


@pytest.mark.long
def test_the_report_holds_every_part(benchmark, tmp_path, monkeypatch):
    gpu, parts, report = benchmark
    from side import Case, measure
    from workload import Workload

    cpu = torch.device("cpu")
    monkeypatch.setattr(parts.head_module, "_MORE_ON_GPU", 1)
    tiny = Workload(prompt=24, answer=16, prompts=8, model="tiny")
    results = {
        "card": {"kind": "card"} | parts.card(cpu, 64, 2**12) | {"device": "a card", "memory_gb": 80.0},
        "lengths tiny": {"kind": "lengths"} | parts.lengths(cpu, "tiny", (64,), 256, 2),
        "heads": {"kind": "heads"} | parts.heads(cpu, "tiny", 4, (1, 4)),
        "profile": {"kind": "profiled", "case": asdict(Case("ours", "bf16", workload=tiny))}
        | parts.summary([("nvjet_gemm", 0, 10)]),
        "failed": {"kind": "speed", "error": "Traceback\nValueError: why"},
        "tests head": {
            "kind": "tests",
            "tests": [
                {"name": "test_it", "outcome": "passed", "seconds": 1.0, "message": "", "figures": {"apart": "1e-7"}}
            ],
        },
    }
    assert "FlexAttention" in results["lengths tiny"]["rows"][0]["blocks_error"]
    for trained in ("lora", "qlora", "all"):
        for side in ("ours", "compact") if trained != "qlora" else ("ours",):
            case = Case(side, "bf16", trained, tiny, steps=2, batch=4, tokens=2048)
            results[f"tiny {trained} {side}"] = {"kind": "speed", "case": gpu.asdict(case)} | measure(case)
    losses = {name: one["losses"][0] for name, one in results.items() if "losses" in one}
    assert losses == pytest.approx(dict.fromkeys(losses, 25.0), rel=1e-3)
    for side, loss in (("ours", 2.0), ("compact", 2.0002)):
        results[f"agreement {side}"] = {"kind": "losses", "case": {"side": side}, "losses": [1.0, loss]}
    results = json.loads(json.dumps(results))
    report.write_report({}, tmp_path)
    assert not list(tmp_path.iterdir())
    report.write_report(results, tmp_path)
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for words in (
        "a card, 80 GB", "1 tests passed", "apart: 1e-7", "| tiny | QLoRA | bfpo |", "x for tiny, LoRA, against TRL",
        "agree with bfpo's to a relative 1e-04 (TRL at its best)",
        "attention by pieces", "| matrix products | 0 | 100 % |", "failed: ValueError: why", "x 2^23 logits",
    ):  # fmt: skip
        assert words in text, words
