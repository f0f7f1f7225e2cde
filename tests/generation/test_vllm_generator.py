"""vLLM in this process: what it is asked, what becomes of its outputs, and errors; with a fake of its public interface.

The fake's signatures are those of vLLM 0.33's `LLM`, `SamplingParams`, `RequestOutput` and `CompletionOutput`.
"""

import importlib.metadata
import shutil
import sys
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding, SampleRequest, sample_requests
from bfpo.generation.vllm_generator import VllmGenerator, load_vllm
from bfpo.models import MICROWORLD, load_tokenizer
from bfpo.safehelp.records import Evaluation

REQUESTS = sample_requests({"one": "how do i bake the bread?", "two": "what is the sea?"}, Decoding(samples=2))


@dataclass(frozen=True)
class SamplingParams:
    """Fields that `VllmGenerator` may set; vLLM's own defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    stop_token_ids: list[int] | None = None


@dataclass
class LLM:
    """Answers "some words" and then ends, unless the limit cuts it."""

    model: str
    trust_remote_code: bool = False
    load_format: str = "auto"
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    asked: list = field(default_factory=list)
    fails: bool = False

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        if self.fails:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        self.asked += zip(prompts, sampling_params, strict=True)
        tokenizer = load_tokenizer(MICROWORLD)
        return [self._output(tokenizer, params) for params in sampling_params]

    def _output(self, tokenizer, params):
        ids = [*tokenizer("bake the bread", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        kept = ids[: params.max_tokens]
        text = tokenizer.decode(kept, skip_special_tokens=True)
        reason = "stop" if len(kept) == len(ids) else "length"
        return SimpleNamespace(outputs=[SimpleNamespace(text=text, token_ids=tuple(kept), finish_reason=reason)])


@pytest.fixture(autouse=True)
def fake_vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "vllm", module)
    real = importlib.metadata.version
    monkeypatch.setattr(
        "bfpo.generation.vllm_generator.version", lambda name: "0.33.0" if name == "vllm" else real(name)
    )


def test_it_is_asked_for_the_same_prompts_as_a_local_model_each_with_its_seed():
    found = VllmGenerator.load("microworld")
    decoding = Decoding(temperature=0.3, top_p=0.8, max_new_tokens=12)
    answers = found.generate(REQUESTS, decoding)
    local = LocalGenerator.load("microworld")
    prompts, params = zip(*found.llm.asked, strict=True)
    assert [prompt["prompt_token_ids"] for prompt in prompts] == [local.encode(r.prompt) for r in REQUESTS]
    assert [one.seed for one in params] == [request.seed for request in REQUESTS]
    assert {(one.temperature, one.top_p, one.max_tokens) for one in params} == {(0.3, 0.8, 12)}
    assert all(local.tokenizer.eos_token_id in one.stop_token_ids for one in params)
    tokens = len(local.tokenizer("bake the bread", add_special_tokens=False)["input_ids"])
    assert [(a.text, a.truncated, a.tokens) for a in answers] == [("bake the bread", False, tokens)] * 4
    assert found.render("what is the sea?") == local.render("what is the sea?")


def test_an_answer_cut_by_the_limit_or_the_context_says_so():
    found = VllmGenerator.load("microworld")
    (cut,) = found.generate(REQUESTS[:1], Decoding(max_new_tokens=2))
    assert (cut.text, cut.truncated, cut.tokens) == ("bake", True, 2)
    short = VllmGenerator.load("microworld", options={"max_model_len": 4})
    (none,) = short.generate(REQUESTS[:1], Decoding())
    assert "model's context is 4" in none.failure
    assert short.llm.asked == []


def test_the_engine_never_runs_a_models_code_and_reads_no_pickle():
    llm = VllmGenerator.load("microworld", options={"tensor_parallel_size": 2}).llm
    assert (llm.trust_remote_code, llm.load_format, llm.tensor_parallel_size) == (False, "safetensors", 2)
    with pytest.raises(BfpoError, match="'trust_remote_code' can't be set here"):
        VllmGenerator.load("microworld", options={"trust_remote_code": True})


def test_identity_changes_with_weights_options_and_engine(tmp_path):
    one = tmp_path / "one"
    shutil.copytree(MICROWORLD, one)
    first = VllmGenerator.load(str(one)).identity
    assert first == VllmGenerator.load(str(one)).identity
    assert first.chat_template_sha256 == LocalGenerator.load(one).identity.chat_template_sha256
    assert first.digest != LocalGenerator.load(one).identity.digest
    assert first.digest != VllmGenerator.load(str(one), options={"max_model_len": 64}).identity.digest
    weights = one / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert first.digest != replace(VllmGenerator.load(str(one))).identity.digest


def test_what_vllm_cannot_do_is_one_sentence(tmp_path, monkeypatch):
    found = VllmGenerator.load("microworld")
    found.llm.fails = True
    with pytest.raises(RunError, match=r"vLLM failed: CUDA error: an illegal memory access.*repeat the command"):
        found.generate([SampleRequest("one", "hello")], Decoding())
    with pytest.raises(BfpoError, match=r"can't load .* with these options.*unexpected keyword argument 'typo'"):
        VllmGenerator.load("microworld", options={"typo": 1})
    with pytest.raises(BfpoError, match=r"there is no engine 'vlm': write transformers, vllm, vllm:FILE.yaml or ray"):
        load_vllm("microworld", "vlm")
    with pytest.raises(BfpoError, match="can't be read as options of vLLM"):
        load_vllm("microworld", f"vllm:{tmp_path / 'none.yaml'}")
    adapter = tmp_path / "adapter.gguf"
    with pytest.raises(BfpoError, match=r"doesn't hand .gguf files to vLLM"):
        VllmGenerator.load(str(adapter))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BfpoError, match=r"pip install 'bfpo\[vllm\]'"):
        VllmGenerator.load("microworld")


def test_the_command_evaluates_with_it(tmp_path):
    settings = tmp_path / "engine.yaml"
    settings.write_text(yaml.safe_dump({"max_model_len": 128}))
    options = ["--per-kind", "3", "--engine", f"vllm:{settings}", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["evaluate", "microworld", *options])
    assert done.exit_code == 0, (done.output, done.exception)
    found = Evaluation.load(tmp_path / "run")
    assert {record.answer for record in found.generations} == {"bake the bread"}
    assert found.header.model_path == "microworld"
    assert "Skipped, because only local models give log-likelihoods" in done.output
    refused = CliRunner().invoke(app, ["evaluate", "m", "--engine", "vllm", "--endpoint", "http://localhost:1/v1"])
    assert str(refused.exception) == "--engine: has no effect with --endpoint; leave it out"
