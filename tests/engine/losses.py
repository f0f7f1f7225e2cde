"""A loss of groups that depends on everything, by the engine and by the plain padded forward, and its gradients."""

import torch

from bfpo.engine.head import group_losses
from bfpo.engine.padded import padded_logps
from bfpo.groups import GroupLabels, LossInputs, TokenGroup

BATCH = [
    TokenGroup([5, 6, 7, 8, 9], [[10, 11, 12], [13, 14, 15, 16, 17, 18, 2]]),
    TokenGroup([11], [[12], [13], [14, 15, 16, 2]]),
    TokenGroup(list(range(3, 63)) * 2, [[7] * 30 + [8] * 20, [9], list(range(20, 60))]),
    TokenGroup([4, 5], [[6, 7, 2]]),
]


def squared_residuals(logps, labels):
    """Squared residuals of every answer and pair, some over 1, that depend on all labels and the reference."""
    answers = (0.1 * logps.policy - 0.2 * logps.reference + 0.3 * logps.tokens - 3.0 * labels.is_safe) ** 2
    ratios = 0.1 * (logps.policy - logps.reference)
    pairs = (ratios[labels.first] - ratios[labels.second] - labels.first_is_better - labels.cost[labels.second]) ** 2
    return logps.summed(answers) + logps.summed(pairs, logps.group[labels.first])


def loss_inputs(batch):
    """Labels and a reference that differ from answer to answer and pair to pair, the last of a group with itself."""
    sizes = [len(group.answers) for group in batch]
    last = torch.tensor(sizes).cumsum(0) - 1
    answers = torch.arange(sum(sizes))
    after = torch.where(torch.isin(answers, last), answers, answers + 1)
    values = answers.double().cos()
    labels = GroupLabels(values, answers, after, values**2, 2 + values)
    return LossInputs(squared_residuals, labels, -10 * values.exp(), scale=0.7)


def padded_loss(model, batch=None):
    batch = batch or BATCH
    return group_losses(padded_logps(model, batch), loss_inputs(batch)).sum()


def gradients(model, loss):
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(wanted, torch.autograd.grad(loss, wanted, allow_unused=True), strict=True)
    ]


def loss_by(engine, model, batch, head):
    with engine.attached():
        if head == "fused":
            loss, logps = engine.loss(model, batch, loss_inputs(batch))
        else:
            logps = engine.logps(model, batch)
            loss = group_losses(logps, loss_inputs(batch)).sum()
        return loss, logps.policy.detach(), gradients(model, loss)
