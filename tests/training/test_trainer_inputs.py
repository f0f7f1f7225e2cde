"""What users of TRL pass to a trainer: it works as they expect, or one sentence says what to pass instead."""

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, TrainingArguments

from bfpo import BFPOConfig, BFPOTrainer, load_model
from bfpo.engine.trainable import dropouts, prepare_model
from bfpo.errors import BfpoError
from bfpo.objectives.bfpo import BFPO
from bfpo.objectives.registry import OBJECTIVES
from bfpo.preferences.grouping import group_by_prompt, with_equal_pairs
from bfpo.preferences.loading import convert
from bfpo.preferences.reading import dataset_source
from bfpo.training.training_data import Blend, TrainingSource
from models import tiny_llama, tiny_model
from training.rows import pairs, word_tokenizer


def trainer(tmp_path, model=None, data=None, evaluation=None, peft_config=None, **changes):
    arguments = {
        "output_dir": str(tmp_path), "beta": 0.3, "learning_rate": 3e-3, "global_batch_size": 4, "max_steps": 2,
        "save_strategy": "no", "logging_steps": 1, "use_cpu": True, "disable_tqdm": True, "reference_cache": None,
    }  # fmt: skip
    return BFPOTrainer(
        model or tiny_llama(),
        BFPOConfig(**(arguments | changes)),
        pairs(8) if data is None else data,
        evaluation,
        processing_class=word_tokenizer(),
        peft_config=peft_config,
    )


def adapted(**options):
    return get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"), **options)


def test_a_peft_model_trains_its_adapter(tmp_path):
    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = trainer(tmp_path, model)
    run.train()
    changed = {name for name, value in run.model.state_dict().items() if not value.equal(before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


def test_adapters_that_cannot_train_are_named(tmp_path):
    with pytest.raises(BfpoError, match="has an adapter already: leave out peft_config"):
        trainer(tmp_path, adapted(), peft_config=LoraConfig(target_modules="all-linear"))
    frozen = adapted()
    frozen.requires_grad_(False)
    with pytest.raises(BfpoError, match="no weight of the model is trainable: load its adapter with is_trainable=True"):
        trainer(tmp_path, frozen)
    with pytest.raises(BfpoError, match="'trainable' would train weights that are not saved with it"):
        trainer(tmp_path, trainable="down_proj", peft_config=LoraConfig(r=2, target_modules="all-linear"))
    attached = tiny_llama()
    attached.add_adapter(LoraConfig(target_modules="all-linear"))
    with pytest.raises(BfpoError, match=r"attached an adapter.*is_trainable=True"):
        trainer(tmp_path, attached)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            datasets.DatasetDict(train=pairs(4), test=pairs(4)),
            "train_dataset must be a datasets.Dataset or a Blend, not a DatasetDict, one of whose splits it takes: "
            "train, test",
        ),
        ([{"prompt": "w1", "chosen": "w2", "rejected": "w3"}], "not a list"),
        (pairs(4).to_iterable_dataset(), "not a IterableDataset"),
        (pairs(0), "^train_dataset has no rows: check how they were loaded or selected$"),
        (Blend([TrainingSource(pairs(4), "safety"), TrainingSource(pairs(0), "help", "buffer")]), "^help has no rows"),
    ],
)
def test_other_types_of_data_are_named(tmp_path, data, message):
    with pytest.raises(BfpoError, match=message):
        trainer(tmp_path, data=data)


def test_no_data_is_named(tmp_path):
    with pytest.raises(BfpoError, match=r"train_dataset must be .* not a NoneType"):
        BFPOTrainer(tiny_llama(), BFPOConfig(output_dir=str(tmp_path)), None, processing_class=word_tokenizer())
    with pytest.raises(BfpoError, match="eval_dataset must be a"):
        trainer(tmp_path, evaluation=[])
    with pytest.raises(BfpoError, match="eval_dataset has no rows"):
        trainer(tmp_path, evaluation=pairs(4).select([]))
    for sources in ([], [TrainingSource(pairs(4), role="buffer")]):
        with pytest.raises(BfpoError, match="a Blend needs at least one source with the role 'main'"):
            Blend(sources)


def test_several_evaluation_sets_have_their_own_figures(tmp_path):
    sets = {"near": pairs(4, seed=2), "far": pairs(4, seed=3)}
    found = trainer(tmp_path, evaluation=sets).evaluate()
    for name, rows in sets.items():
        assert found[f"eval_{name}_loss"] == pytest.approx(trainer(tmp_path, evaluation=rows).evaluate()["eval_loss"])
    assert found["eval_near_loss"] != found["eval_far_loss"]


def test_rows_without_a_reference_are_refused_in_one_sentence(tmp_path):
    run = trainer(tmp_path, evaluation=pairs(4, seed=2))
    with pytest.raises(BfpoError, match="evaluate only rows that were given to the trainer as eval_dataset"):
        run.evaluate(pairs(4, seed=3))
    with pytest.raises(BfpoError, match="has no predictions"):
        run.predict(pairs(4))
    with pytest.raises(BfpoError, match="evaluate only rows"):
        trainer(tmp_path).evaluate()


def test_half_precision_weights_are_converted_where_nothing_else_would_keep_their_updates(tmp_path):
    model = tiny_llama(dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="converted to float32; set bf16=True"):
        run = trainer(tmp_path, model, learning_rate=5e-7, lr_scheduler_type="constant", warmup_steps=0)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    assert {value.dtype for value in run.model.state_dict().values()} == {torch.float32}
    assert all(not value.equal(before[name]) for name, value in run.model.named_parameters())


@pytest.mark.parametrize("trainable", ["all", "down_proj"])
def test_a_model_trained_in_bf16_is_saved_in_bf16(tmp_path, trainable):
    run = trainer(tmp_path, tiny_llama(dtype=torch.bfloat16), bf16=True, trainable=trainable)
    run.save_model(str(tmp_path / "saved"))
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert AutoConfig.from_pretrained(tmp_path / "saved").dtype == torch.bfloat16
    assert load_model(tmp_path / "saved").dtype == torch.bfloat16
    assert run.model.dtype == torch.float32 or trainable == "down_proj"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "doesn't read label_smoothing_factor: leave the default"),
        ({"dataloader_num_workers": 2, "neftune_noise_alpha": 5.0}, "neftune_noise_alpha, dataloader_num_workers"),
        ({"torch_empty_cache_steps": 3}, "doesn't read torch_empty_cache_steps"),
        ({"eval_use_gather_object": True}, "doesn't read eval_use_gather_object"),
        ({"accelerator_config": {"split_batches": True}}, "doesn't read accelerator_config.split_batches"),
        ({"torch_compile": True}, "torch_compile would compile the model again for almost every micro-batch"),
        ({"remove_unused_columns": True}, "remove_unused_columns would remove the answers"),
        ({"report_to": "wandb"}, "report_to: wandb is not installed; install it"),
        ({"report_to": ["wandbb"]}, "report_to: transformers knows no tracker 'wandbb'.*did you mean 'wandb'"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type cosine_with_min_lr can't be made: .*min_lr"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "requires an eval strategy: correct the arguments"),
        ({"optim_args": "amsgrad=True"}, "optim adamw_torch.* doesn't read optim_args 'amsgrad=True'"),
        ({"save_only_model": True}, "save_only_model leaves the optimizer out"),
        ({"push_to_hub": True}, "doesn't read push_to_hub"),
        ({"include_for_metrics": ["inputs"]}, "doesn't read include_for_metrics"),
        ({"include_num_input_tokens_seen": True}, "doesn't read include_num_input_tokens_seen"),
        ({"optim": "schedule_free_adamw"}, "optim schedule_free_adamw isn't supported"),
    ],
)
def test_arguments_that_would_be_ignored_or_fail_late_are_refused_first(tmp_path, changes, message):
    with pytest.raises(BfpoError, match=message) as error:
        trainer(tmp_path, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("beta", "0.1", "input should be a valid number, not '0.1'"),
        ("b1", True, "input should be a valid number, not True"),
        ("buffer_ratio", -1, "input should be greater than 0, not -1"),
        ("buffer_ratio", float("nan"), "input should be a finite number, not nan"),
        ("global_batch_size", 0, "input should be greater than 0, not 0"),
        ("global_batch_size", 2.5, "input should be a valid integer, not 2.5"),
        ("max_steps", 0, "0 would train nothing; write -1 for whole epochs"),
        ("max_steps", -7, "-7 would train nothing; write -1 for whole epochs"),
        ("seed", 2**32, "input should be less than or equal to 4294967295, not 4294967296"),
        ("loss_type", None, "input should be a valid string, not None"),
        ("disable_dropout", "no", "input should be a valid boolean, not 'no'"),
        # Of transformers, which takes some of these silently.
        ("weight_decay", -1, "input should be greater than or equal to 0, not -1"),
        ("max_grad_norm", float("inf"), "input should be a finite number, not inf"),
        ("logging_steps", "10", "input should be a valid number, not '10'"),
        ("save_total_limit", True, "input should be a valid integer, not True"),
    ],
)
def test_numbers_of_another_type_or_out_of_bounds_are_refused_at_once(tmp_path, argument, value, message):
    with pytest.raises(BfpoError) as error:
        BFPOConfig(output_dir=str(tmp_path), **{argument: value})
    assert str(error.value) == f"BFPOConfig: {argument}: {message}"


def test_numbers_of_numpy_and_none_are_taken_and_all_wrong_ones_are_named(tmp_path):
    given = {"max_steps": np.int64(3), "beta": np.float32(0.5), "learning_rate": 1, "global_batch_size": None}
    arguments = BFPOConfig(output_dir=str(tmp_path), alpha=-0.5, **given)
    assert (arguments.max_steps, arguments.objective()) == (3, BFPO(beta=0.5, alpha=-0.5))
    with pytest.raises(BfpoError, match=r"beta: .* not 'x'; max_length: .* not 0$"):
        BFPOConfig(output_dir=str(tmp_path), max_length=0, beta="x")


@pytest.mark.parametrize("name", ["compute_loss", "prediction_step"])
def test_a_loss_that_nothing_would_call_is_refused(name):
    with pytest.raises(BfpoError, match=f"^Own overrides {name}, which BFPOTrainer never calls: write the loss as"):
        type("Own", (BFPOTrainer,), {name: lambda *_: 0.0})


def test_an_objective_of_ones_own_trains_by_a_subclass_of_the_configuration(tmp_path):
    class Doubled(BFPO):
        def __call__(self, logps, labels):
            return 2 * super().__call__(logps, labels)

    class OwnConfig(BFPOConfig):
        def objective(self):
            return Doubled(beta=0.3)

    options = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "reference_cache": None}
    own = BFPOTrainer(tiny_llama(), OwnConfig(**options), pairs(8), pairs(8), processing_class=word_tokenizer())
    plain = trainer(tmp_path, evaluation=pairs(8))
    assert own.evaluate()["eval_loss"] == pytest.approx(2 * plain.evaluate()["eval_loss"])


def test_other_arguments_than_ours_are_refused(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(BfpoError, match="args is TrainingArguments: pass a BFPOConfig"):
        BFPOTrainer(tiny_llama(), arguments, pairs(8), processing_class=word_tokenizer())


def test_the_configuration_documents_every_objective():
    assert [name for name in OBJECTIVES if f'"{name}"' not in BFPOConfig.__doc__] == []


def test_sft_trains_on_the_chosen_answer_of_a_pair(tmp_path):
    rows = pairs(8)
    both = trainer(tmp_path, data=rows, loss_type="sft", beta=None, remove_unused_columns=False)
    chosen = rows.rename_column("chosen", "completion").select_columns(["prompt", "completion"])
    alone = trainer(tmp_path, data=chosen, loss_type="sft", beta=None)
    assert both.train_dataset["answer_ids"][:] == alone.train_dataset["answer_ids"][:]


def test_dropout_is_disabled_wherever_a_model_has_it_and_an_adapter_keeps_its_own(tmp_path):
    config = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.3)
    model = trainer(tmp_path, tiny_model("llama", torch.float32, attention_dropout=0.2), peft_config=config).model
    assert {layer.self_attn.attention_dropout for layer in model.get_base_model().model.layers} == {0.0}
    chances = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert chances
    assert set(chances) == {0.3}
    # OPT calls dropout as a function, with numbers of its modules.
    opt = AutoConfig.for_model(
        "opt", vocab_size=64, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, dropout=0.2,
        attention_dropout=0.2, layerdrop=0.2, word_embed_proj_dim=32, max_position_embeddings=256,
    )  # fmt: skip
    torch.manual_seed(0)
    dropped = AutoModelForCausalLM.from_config(opt).train()
    ids = torch.arange(3, 40)[None]
    assert not dropped(ids).logits.equal(dropped(ids).logits)
    assert dropouts(dropped)
    trained = prepare_model(dropped, "all", None, disable_dropout=True, mixed=False).train()
    assert trained(ids).logits.equal(trained(ids).logits)
    assert not dropouts(trained)


def test_unbiased_flags_are_refused_with_their_row_where_flags_are_multiplied(tmp_path):
    rows = convert(dataset_source("rows", pairs(8)))[0]
    rows = rows.map(lambda row: row | {"chosen_is_safe": 1.2 if row["row"] == 3 else row["chosen_is_safe"]})
    data = Blend([TrainingSource(rows, "judged")])
    trainer(tmp_path, data=data)
    with pytest.raises(BfpoError, match=r"judged, row 3: the objective multiplies flags .* outside \[0, 1\]"):
        trainer(tmp_path, data=data, unsafe_pairs="drop")


def rewarded(rows):
    """The rows with a reward of each answer, which only MODPO reads."""
    return rows.map(lambda row: {"chosen_reward": len(row["chosen"]), "rejected_reward": len(row["rejected"])})


WHOLE = {"global_batch_size": 8, "max_steps": 3, "warmup_steps": 0, "lr_scheduler_type": "constant"}


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "sft"])
def test_every_objective_has_the_same_losses_in_any_layout(tmp_path, name):
    """The fused head, chunk by chunk in small micro-batches, and all rows at once, padded: in three steps."""
    data, losses = rewarded(pairs(8)), []
    for kind, tokens in (("shared", 30), ("padded", 10_000)):
        options = WHOLE | {"loss_type": name, "layout": kind, "micro_batch_tokens": tokens}
        run = trainer(tmp_path / kind, tiny_llama(dtype=torch.float64), data, **options)
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert len(set(losses[0])) == 3


def test_grouped_pairs_train_with_an_anchored_level(tmp_path):
    """The anchor has no gradient at the start, so the second step's losses differ by the anchor alone."""
    rows = convert(dataset_source("rows", datasets.concatenate_datasets([pairs(8), pairs(8)])))[0]
    rows = rows.map(lambda row: row | {"chosen": f"{row['chosen']} w{row['row'] % 7}"})
    grouped, counts = group_by_prompt(rows)
    assert (counts.groups, counts.pairs) == (8, 16)
    [grouped] = with_equal_pairs([grouped])
    second = []
    for gamma in (0.0, 2.0):
        run = trainer(tmp_path, tiny_llama(dtype=torch.float64), Blend([TrainingSource(grouped)]), level=gamma, **WHOLE)
        run.train()
        second.append(run.state.log_history[1])
    assert second[0]["level"] == pytest.approx(second[1]["level"], rel=1e-9)
    # The mean of squares is at least the square of the mean.
    assert second[1]["loss"] - second[0]["loss"] > 2 * second[0]["level"] ** 2 > 0
