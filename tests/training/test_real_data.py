"""Real pairs and a real trained model in the trainer, with the initial metrics that theory predicts."""

import copy

import datasets
import pytest
import torch

from bfpo import BFPOConfig, BFPOTrainer, load_preferences
from support.tinylm import load_tiny_model, load_tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(shared_data):
    """The 260K-parameter model of llama2.c, and its tokenizer."""
    folder = shared_data / "tinylm_stories260k"
    if not folder.is_dir():
        pytest.skip("the 260K model (../shared/data/tinylm_stories260k) is not on this machine")
    return load_tiny_model(folder / "stories260K.bin"), load_tiny_tokenizer(folder / "tok512.bin")


def test_converted_model_knows_its_stories(tiny, shared_data):
    """Far below the 6.2 nats per token of a model that knows nothing: weights, rotation and tokenizer are right."""
    model, tokenizer = tiny
    text = (shared_data / "gpt2_tokenizer/tinystories_sample.txt").read_text()[:600].strip()
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
    assert tokenizer.decode(ids[0, 1:]) == text
    assert model.eval()(ids, labels=ids).loss.item() < 1.7


@pytest.fixture(scope="module")
def real_pairs(shared_data):
    """All 32 rows of the PKU sample, all 671 XSTest pairs and all 2,106 PKU pairs of the development set."""
    renamed = {"chosen_safe": "chosen_is_safe", "rejected_safe": "rejected_is_safe"}
    rows = datasets.concatenate_datasets(
        [
            load_preferences(str(shared_data / "pku_saferlhf_sample/preference_train.json")),
            load_preferences(str(shared_data / "derived/xstest_pairs_safety_helpfulness_dev.jsonl")),
            load_preferences(str(shared_data / "derived/pku_safety_pairs_dev.jsonl"), columns=renamed),
        ]
    )
    assert len(rows) == 32 + 671 + 2106
    return rows


def few_short_pairs(rows):
    """The twelve shortest pairs of each safety cell, so that no cell can be learned by its frequency."""
    flags = list(zip(rows["chosen_is_safe"], rows["rejected_is_safe"], strict=True))
    length = [len(str(row["chosen"])) + len(str(row["rejected"])) + len(str(row["prompt"])) for row in rows]
    shortest = sorted(range(len(rows)), key=lambda at: (length[at], at))
    chosen = [at for cell in set(flags) for at in [at for at in shortest if flags[at] == cell][:12]]
    assert len(chosen) == 48
    return rows.select(sorted(chosen))


def a_third(rows):
    """Every third pair, and all pairs of the smallest cell, two unsafe answers."""
    flags = list(zip(rows["chosen_is_safe"], rows["rejected_is_safe"], strict=True))
    return rows.select([at for at, pair in enumerate(flags) if at % 3 == 0 or pair == (0, 0)])


@pytest.mark.parametrize(
    ("few", "settings"),
    [
        # Eight epochs of 48 pairs, context 192.
        pytest.param(
            True, {"learning_rate": 2e-3, "max_steps": 32, "global_batch_size": 12, "max_length": 192}, id="short"
        ),
        # 1.5 epochs of a third of the 2,809 pairs, context 512: about three minutes.
        pytest.param(
            False, {"learning_rate": 1e-3, "max_steps": 60, "global_batch_size": 24, "max_length": 512}, id="long",
            marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_real_pairs_start_at_their_targets_distance_and_close_it(tiny, real_pairs, tmp_path, few, settings):
    """Beta .01. Shuffled safety flags or a learning rate of 0 leave the signs of a cell right in half its pairs."""
    arguments = BFPOConfig(
        output_dir=str(tmp_path), beta=0.01, micro_batch_tokens=1024, save_strategy="no", use_cpu=True,
        disable_tqdm=True, report_to="none", **settings,
    )  # fmt: skip
    rows = few_short_pairs(real_pairs) if few else a_third(real_pairs)
    trainer = BFPOTrainer(copy.deepcopy(tiny[0]), arguments, rows, processing_class=tiny[1])
    targets = {"SS": 0.5, "SU": 1.0, "US": 1.0, "UU": 0.5}
    before = trainer.evaluate(trainer.train_dataset if few else trainer.train_dataset.select(range(0, len(rows), 10)))
    seen = [cell for cell in targets if f"eval_cells/{cell}/gap" in before]
    assert {"SS", "SU", "US"} <= set(seen)
    for cell in seen:
        assert before[f"eval_cells/{cell}/gap"] == pytest.approx(targets[cell], abs=1e-3)
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    for cell, target in targets.items():
        assert after[f"eval_cells/{cell}/count"] >= 10
        assert abs(after[f"eval_cells/{cell}/gap"]) <= 0.8 * target
        assert after[f"eval_cells/{cell}/sign_accuracy"] >= (0.8 if few else 0.7)
