"""Real pairs and a real trained model go through the trainer, and start where theory says."""

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
    """Far below the 6.2 nats a token of a model that knows nothing: weights, rotation and tokenizer are right."""
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


@pytest.mark.longest
def test_real_pairs_start_at_their_targets_distance_and_close_it(tiny, real_pairs, tmp_path):
    """Beta .01, learning rate 1e-3, 60 steps of 64 pairs (1.4 epochs), context 512."""
    arguments = BFPOConfig(
        output_dir=str(tmp_path), beta=0.01, learning_rate=1e-3, max_steps=60, global_batch_size=64, max_length=512,
        micro_batch_tokens=1024, save_strategy="no", use_cpu=True, disable_tqdm=True, report_to="none",
    )  # fmt: skip
    trainer = BFPOTrainer(tiny[0], arguments, real_pairs, processing_class=tiny[1])
    targets = {"SS": 0.5, "SU": 1.0, "US": 1.0, "UU": 0.5}
    before = trainer.evaluate(trainer.train_dataset.select(range(0, len(trainer.train_dataset), 20)))
    for cell, target in targets.items():
        if f"eval_cells/{cell}/gap" in before:
            assert before[f"eval_cells/{cell}/gap"] == pytest.approx(target, abs=1e-3)
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    for cell, target in targets.items():
        assert after[f"eval_cells/{cell}/count"] >= 10
        assert abs(after[f"eval_cells/{cell}/gap"]) <= 0.8 * target
        assert after[f"eval_cells/{cell}/sign_accuracy"] >= 0.8
