"""BFPO on real pairs and a real trained model: it learns what it is told to, in every safety cell."""

import datasets
import pytest

from bfpo import BFPOConfig, BFPOTrainer, load_preferences
from tinylm import load_tiny_model, load_tiny_tokenizer

BETA, STEPS = 0.5, 60


@pytest.mark.slow
def test_gap_closes_and_signs_are_right_on_real_pairs(shared_data, tmp_path):
    folder = shared_data / "tinylm_stories260k"
    if not folder.is_dir():
        pytest.skip("the 260K model (../shared/data/tinylm_stories260k) is not on this machine")
    renamed = {"chosen_safe": "chosen_is_safe", "rejected_safe": "rejected_is_safe"}
    rows = datasets.concatenate_datasets(
        [
            load_preferences(str(shared_data / "pku_saferlhf_sample/preference_train.json")),
            load_preferences(str(shared_data / "derived/xstest_pairs_safety_helpfulness_dev.jsonl")),
            load_preferences(str(shared_data / "derived/pku_safety_pairs_dev.jsonl"), columns=renamed),
        ]
    )
    arguments = BFPOConfig(
        output_dir=str(tmp_path), beta=BETA, learning_rate=3e-3, max_steps=STEPS, global_batch_size=64,
        max_length=512, micro_batch_tokens=4096, save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=25,
    )  # fmt: skip
    trainer = BFPOTrainer(
        load_tiny_model(folder / "stories260K.bin"), arguments, rows,
        processing_class=load_tiny_tokenizer(folder / "tok512.bin"),
    )  # fmt: skip
    trainer.train()
    after = trainer.evaluate(trainer.train_dataset)
    print({name: round(value, 3) for name, value in after.items() if "cells" in name})
    start = {"SS": 0.5, "SU": 1.0, "US": 1.0, "UU": 0.5}
    right = pairs = 0.0
    for cell, gap in start.items():
        count = after[f"eval_cells/{cell}/count"]
        pairs += count
        right += count * after[f"eval_cells/{cell}/sign_accuracy"]
        if count >= 10:
            assert after[f"eval_cells/{cell}/gap"] <= 0.8 * gap, cell
    assert pairs == len(trainer.train_dataset)
    assert right / pairs >= 0.8
