"""TRL's own losses, called with log-probabilities in place of a model's."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

pytest.importorskip("trl")
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

# What a model's output has for the metrics only.
LOGGED = ("entropy", "mean_logits", "log_sum_sq_probs", "is_top1")


def dpo_loss(loss_type, policy, reference, tokens, beta, label_smoothing=0.0):
    """Loss of one pair by `DPOTrainer`: summed log-probabilities of chosen and rejected, and their tokens."""
    width = max(tokens)
    # A token's log-probability in the first scored place; the others are scored with 0.
    log_probs = torch.zeros(2, width, dtype=torch.float64)
    log_probs[:, 0] = torch.tensor(policy, dtype=torch.float64)
    mask = torch.tensor([[0] + [1] * count + [0] * (width - count) for count in tokens])
    outputs = SimpleNamespace(log_probs=log_probs, **dict.fromkeys(LOGGED, torch.zeros(2, width, dtype=torch.long)))
    trainer = MagicMock(
        loss_types=[loss_type], loss_weights=[1.0], beta=beta, label_smoothing=label_smoothing, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", use_weighting=False, aux_loss_enabled=False,
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    trainer.accelerator.gather_for_metrics = lambda value: value
    trainer.accelerator.device = torch.device("cpu")
    inputs = {
        "input_ids": torch.zeros(2, width + 1, dtype=torch.long), "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": torch.tensor(reference[:1], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor(reference[1:], dtype=torch.float64),
    }  # fmt: skip
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False).item()


def kto_loss(ratios, labels, mismatched, beta, weights):
    """Loss of single answers by `KTOTrainer`: log-ratios, whether each is desirable, and mismatched log-ratios."""
    made = iter([mismatched, ratios])

    def model(**_):
        log_probs = torch.zeros(len(labels), 1, dtype=torch.float64)
        log_probs[:, 0] = torch.tensor(next(made), dtype=torch.float64)
        return SimpleNamespace(log_probs=log_probs, **dict.fromkeys(LOGGED, torch.zeros(len(labels), 1)))

    trainer = MagicMock(
        loss_type="kto", beta=beta, desirable_weight=weights[0], undesirable_weight=weights[1], calculate_KL=True,
        precompute_ref_logps=True, aux_loss_enabled=False, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    trainer._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(trainer, model, batch)
    trainer.accelerator.gather_for_metrics = lambda value: value
    trainer.accelerator.device = torch.device("cpu")
    ids, mask = torch.zeros(len(labels), 2, dtype=torch.long), torch.tensor([[0, 1]] * len(labels))
    inputs = {
        "input_ids": ids, "attention_mask": mask, "completion_mask": mask, "KL_input_ids": ids,
        "KL_attention_mask": mask, "KL_completion_mask": mask, "label": torch.tensor(labels),
        "ref_logps": torch.zeros(len(labels)), "ref_KL_logps": torch.zeros(len(labels)),
    }  # fmt: skip
    return KTOTrainer._compute_loss(trainer, model, inputs, return_outputs=False).item()


def simpo_loss(means, beta, gamma):
    """Loss of one pair by `CPOTrainer` from mean log-probabilities of tokens."""
    trainer = MagicMock(loss_type="simpo", beta=beta, simpo_gamma=gamma, label_smoothing=0.0, alpha=0.0)
    trainer.accelerator.device = torch.device("cpu")
    chosen, rejected = torch.tensor(means, dtype=torch.float64).split(1)
    return CPOTrainer.cpo_loss(trainer, chosen, rejected)[0].item()


def odds_ratio_term(means, beta):
    """beta log sigmoid of the log odds ratio, which ORPO subtracts from its NLL."""
    trainer = MagicMock(beta=beta)
    trainer.accelerator.device = torch.device("cpu")
    chosen, rejected = torch.tensor(means, dtype=torch.float64).split(1)
    return ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0].item()
