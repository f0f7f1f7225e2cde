"""Real pairs and a real trained model go through the trainer, and start where theory says."""

import datasets
import pytest
import torch

from bfpo import BFPOConfig, BFPOTrainer, load_preferences
from tinylm import load_tiny_model, load_tiny_tokenizer


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


def test_real_pairs_start_at_their_targets_distance_and_train(tiny, shared_data, tmp_path):
    renamed = {"chosen_safe": "chosen_is_safe", "rejected_safe": "rejected_is_safe"}
    rows = datasets.concatenate_datasets(
        [
            load_preferences(str(shared_data / "pku_saferlhf_sample/preference_train.json")),
            load_preferences(str(shared_data / "derived/xstest_pairs_safety_helpfulness_dev.jsonl")).select(range(30)),
            load_preferences(str(shared_data / "derived/pku_safety_pairs_dev.jsonl"), columns=renamed).select(
                range(30)
            ),
        ]
    )
    arguments = BFPOConfig(
        output_dir=str(tmp_path), beta=0.02, learning_rate=1e-4, max_steps=2, global_batch_size=16, max_length=512,
        micro_batch_tokens=4096, save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=1,
    )  # fmt: skip
    trainer = BFPOTrainer(tiny[0], arguments, rows, processing_class=tiny[1])
    before = trainer.evaluate(trainer.train_dataset)
    targets = {"SS": 0.5, "SU": 1.0, "US": 1.0, "UU": 0.5}
    assert sum(before[f"eval_cells/{cell}/count"] for cell in targets) == 92
    for cell, target in targets.items():
        assert before[f"eval_cells/{cell}/gap"] == pytest.approx(target, abs=1e-3)
    trainer.train()
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] < before["eval_loss"]
