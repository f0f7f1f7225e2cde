"""The trainer against an independent loop, and its invariance to micro-batches."""

import copy

import pytest
import torch
from peft import LoraConfig

from bfpo import BFPOConfig, BFPOTrainer, bfpo_loss
from bfpo.engine.forward import Engine
from bfpo.errors import BfpoError, RunError
from bfpo.training.training_data import Blend, TrainingSource
from models import tiny_llama, without_float32_parts
from training.rows import pairs, word_tokenizer

TOKENIZER = word_tokenizer()


def trainer(tmp_path, model=None, data=None, evaluation=None, peft_config=None, **changes):
    arguments = {
        "output_dir": str(tmp_path), "beta": 0.3, "learning_rate": 3e-3, "global_batch_size": 4, "max_steps": 4,
        "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    return BFPOTrainer(
        tiny_llama(dtype=torch.float64) if model is None else model,
        BFPOConfig(**(arguments | changes)),
        pairs(12) if data is None else data,
        evaluation,
        processing_class=TOKENIZER,
        peft_config=peft_config,
    )


def weights(model):
    return torch.cat([parameter.detach().flatten().double() for parameter in model.parameters()])


def losses(log_history):
    return [entry["loss"] for entry in log_history if "loss" in entry]


def test_fifty_steps_coincide_with_a_plain_loop(tmp_path, monkeypatch):
    """One sequence at a time, textbook log-probabilities, torch's AdamW: the same losses and weights."""
    model = tiny_llama(dtype=torch.float64)
    mine, reference = copy.deepcopy(model), copy.deepcopy(model)
    for one in (model, mine, reference):
        without_float32_parts(one, monkeypatch)
    run = trainer(
        tmp_path, model, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.01, max_steps=50, layout="shared"
    )
    run.train()

    def logp(policy, prompt, answer):
        sequence = torch.tensor([[*prompt, *answer]])
        token_logps = policy(sequence).logits.log_softmax(-1)[0, :-1].gather(1, sequence[0, 1:, None])
        return token_logps[len(prompt) - 1 :].sum()

    decayed = [p for p in mine.parameters() if p.ndim > 1]
    other = [p for p in mine.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    expected = []
    steps = [step for epoch in range(17) for step in run.plan.epoch(epoch)]
    for step in steps[:50]:
        loss = torch.zeros((), dtype=torch.float64)
        for row in (run.train_dataset[int(index)] for index in step):
            terms = [
                logp(policy, row["prompt_ids"], answer).reshape(1)
                for policy in (mine, reference)
                for answer in row["answer_ids"]
            ]
            loss = loss + bfpo_loss(*terms, *row["is_safe"], beta=0.3).sum() / len(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mine.parameters(), 1.0)
        optimizer.step()
        expected.append(loss.item())
    # The Trainer logs losses in float32.
    assert losses(run.state.log_history) == pytest.approx(expected, rel=1e-7)
    torch.testing.assert_close(weights(run.model), weights(mine), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("loss_type", ["bfpo", "dpo", "ipo"])
def test_micro_batches_change_nothing(tmp_path, loss_type):
    runs = [trainer(tmp_path / str(budget), micro_batch_tokens=budget, loss_type=loss_type) for budget in (1, 60, 9999)]
    for run in runs:
        run.train()
    for run in runs[1:]:
        assert losses(run.state.log_history) == pytest.approx(losses(runs[0].state.log_history), rel=1e-6)
        torch.testing.assert_close(weights(run.model), weights(runs[0].model), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "tokens"), [("cpu", 1536), ("cuda", 16384), ("mps", 16384)])
def test_the_device_sets_how_many_tokens_are_in_the_model_by_default(tmp_path, monkeypatch, kind, tokens):
    monkeypatch.setattr(BFPOConfig, "device", torch.device(kind))
    assert BFPOConfig(output_dir=str(tmp_path), use_cpu=True).tokens_at_once == tokens
    assert BFPOConfig(output_dir=str(tmp_path), use_cpu=True, micro_batch_tokens=77).tokens_at_once == 77


def test_sft_loss_is_the_token_mean_of_the_global_batch(tmp_path):
    data = pairs(4).remove_columns(["rejected", "chosen_is_safe", "rejected_is_safe"])
    data = data.map(lambda row: {"completion": row["chosen"]}, remove_columns="chosen")
    model = tiny_llama(dtype=torch.float64)
    run = trainer(tmp_path, copy.deepcopy(model), data, loss_type="sft", beta=None, micro_batch_tokens=20, max_steps=1)
    total = tokens = 0
    for row in run.train_dataset:
        sequence = torch.tensor([[*row["prompt_ids"], *row["answer_ids"][0]]])
        logits = model(sequence).logits[0, len(row["prompt_ids"]) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(row["answer_ids"][0]), reduction="sum").item()
        tokens += len(row["answer_ids"][0])
    run.train()
    assert losses(run.state.log_history) == [pytest.approx(total / tokens, rel=1e-6)]


def test_evaluation_loss_of_sft_is_the_token_mean_by_transformers(tmp_path):
    """However the rows are batched: the loss that transformers computes from labels, one answer at a time."""
    data = pairs(7, seed=3).remove_columns(["rejected", "chosen_is_safe", "rejected_is_safe"])
    data = data.map(lambda row: {"completion": row["chosen"]}, remove_columns="chosen")
    model = tiny_llama(dtype=torch.float64)
    run = trainer(
        tmp_path, copy.deepcopy(model), data, data, loss_type="sft", beta=None, micro_batch_tokens=20, max_steps=2,
        per_device_eval_batch_size=3,
    )  # fmt: skip

    def by_transformers(policy):
        total = tokens = 0
        for row in data:
            prompt, answer = (TOKENIZER(row[name])["input_ids"] for name in ("prompt", "completion"))
            ids, scored = [*prompt, *answer, TOKENIZER.eos_token_id], len(answer) + 1
            labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
            total += policy(torch.tensor([ids]), labels=labels).loss.item() * scored
            tokens += scored
        return total / tokens

    before = run.evaluate()
    assert before["eval_loss"] == pytest.approx(by_transformers(model), rel=1e-6)
    run.train()
    after = run.evaluate()
    assert after["eval_loss"] == pytest.approx(by_transformers(run.model.eval()), rel=1e-6)
    assert after["eval_loss"] < before["eval_loss"]


def test_evaluation_is_against_the_reference_from_before_training(tmp_path):
    run = trainer(tmp_path, evaluation=pairs(5, seed=3))
    before = run.evaluate()
    assert before["eval_rewards/margins"] == pytest.approx(0.0, abs=1e-9)
    targets = {"SS": 0.5, "SU": 1.0, "US": 1.0, "UU": 0.5}
    cells = [cell for cell in targets if f"eval_cells/{cell}/count" in before]
    assert sum(before[f"eval_cells/{cell}/count"] for cell in cells) == 5
    for cell in cells:
        assert before[f"eval_cells/{cell}/gap"] == pytest.approx(targets[cell], abs=1e-6)
    run.train()
    after = run.evaluate()
    assert abs(after["eval_rewards/margins"]) > 1e-4


def test_a_run_of_one_step_is_not_all_warmup(tmp_path):
    """A share of the steps, rounded up, would be the only one, and a warmup starts at 0."""
    run = trainer(tmp_path, max_steps=1)
    assert run.args.warmup_steps == 0.1
    before = weights(run.model)
    run.train()
    assert not weights(run.model).equal(before)
    assert BFPOConfig(output_dir=str(tmp_path), warmup_steps=0.1).get_warmup_steps(100) == 10
    assert BFPOConfig(output_dir=str(tmp_path), warmup_steps=7).get_warmup_steps(5) == 7


def test_lora_and_down_proj_train_only_their_weights(tmp_path):
    model = tiny_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer(tmp_path / "down", model, trainable="down_proj")
    run.train()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(2)}

    model = tiny_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer(tmp_path / "lora", model, peft_config=LoraConfig(target_modules="all-linear", r=2))
    adapter = {name: value.clone() for name, value in run.model.state_dict().items() if "lora_" in name}
    assert len(adapter) == 2 * 7 * 2  # two matrices beside each of the seven linear ones of both layers
    run.train()
    after = run.model.get_base_model().state_dict()
    base = {name.replace(".base_layer.", "."): value for name, value in after.items() if "lora_" not in name}
    assert base.keys() == before.keys()
    assert not [name for name, value in base.items() if not value.equal(before[name])]
    assert not [
        name for name, value in run.model.state_dict().items() if "lora_" in name and value.equal(adapter[name])
    ]


def test_bf16_keeps_trained_weights_in_float32(tmp_path):
    model = tiny_llama(dtype=torch.bfloat16)
    run = trainer(tmp_path, model, trainable="down_proj", bf16=True)
    run.train()
    dtypes = {name: parameter.dtype for name, parameter in run.model.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if "down_proj" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if "down_proj" not in name} == {torch.bfloat16}


def test_buffer_and_main_rows_share_every_step(tmp_path):
    blend = Blend([TrainingSource(pairs(6), "safety"), TrainingSource(pairs(3, seed=2), "helpful", "buffer")])
    run = trainer(tmp_path, data=blend)
    seen = [sum(len(batch.groups) for batch in step["batches"]) for step in run.get_train_dataloader()]
    assert seen == [4, 4, 4]
    assert (run.training_data.main, run.training_data.buffer) == (6, 3)


def test_missing_safety_is_refused_by_bfpo_and_no_matter_to_dpo(tmp_path):
    with pytest.raises(BfpoError, match="row 1: the objective needs the safety"):
        trainer(tmp_path, data=pairs(4, safety=False))
    trainer(tmp_path, data=pairs(4, safety=False), loss_type="dpo", max_steps=1).train()


def test_options_that_the_objective_does_not_read_are_refused(tmp_path):
    with pytest.raises(BfpoError, match="does not read the option 'alpha'"):
        trainer(tmp_path, loss_type="dpo", alpha=0.3)


def test_saved_models_hold_no_pickle(tmp_path):
    run = trainer(tmp_path / "run", max_steps=1)
    run.train()
    run.save_model(str(tmp_path / "model"))
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), None])
def test_running_out_of_memory_says_what_to_change(tmp_path, monkeypatch, error):
    run = trainer(tmp_path, micro_batch_tokens=77)

    def too_much(*_):
        if error is not None:
            raise error
        torch.empty(2**60)

    monkeypatch.setattr(Engine, "loss", too_much)
    with pytest.raises(RunError, match=r"while training: lower micro_batch_tokens \(now 77\).*lora"):
        run.train()


def test_other_errors_stay_what_they_are(tmp_path, monkeypatch):
    run = trainer(tmp_path)

    def fails(*_):
        raise RuntimeError("shapes")

    monkeypatch.setattr(Engine, "loss", fails)
    with pytest.raises(RuntimeError, match="shapes"):
        run.train()


def test_several_gpus_need_a_process_each(tmp_path, monkeypatch):
    monkeypatch.setattr(BFPOConfig, "n_gpu", property(lambda arguments: 2))
    with pytest.raises(BfpoError, match="several GPUs need one process each: start with 'accelerate launch"):
        trainer(tmp_path)


def test_fp16_is_refused_where_it_would_be_ignored(tmp_path):
    with pytest.raises(BfpoError, match="fp16 needs a GPU: leave it out, or set bf16=True"):
        trainer(tmp_path, fp16=True)
