"""The output head: losses from hidden states, without holding the logits of a whole batch in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from bfpo.engine.layout import Stream
from bfpo.groups import GroupLogps, LossInputs, moved

# Largest number of logits in memory at once, unless a single group has more.
LOGITS_AT_ONCE = 2**23
# On a GPU so many times more, 512 MB in float32: every chunk reads and writes the head's whole gradient.
_MORE_ON_GPU = 16


def logits_at_once(device: torch.device) -> int:
    """Largest number of logits in a device's memory at once, unless a single group has more."""
    return LOGITS_AT_ONCE * (1 if device.type == "cpu" else _MORE_ON_GPU)


@dataclass(frozen=True)
class LogitShape:
    """A model's transformation of its head's output: ``softcap * tanh(scale * output / softcap)``."""

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitShape:
        """The transformation in a model's configuration (Cohere multiplies, Granite divides, Gemma 2 caps)."""
        text = config.get_text_config()
        scale = getattr(text, "logit_scale", None) or 1.0
        return cls(
            scale / (getattr(text, "logits_scaling", None) or 1.0), getattr(text, "final_logit_softcapping", None)
        )

    def __call__(self, output: Tensor) -> Tensor:
        """The logits."""
        logits = output if self.scale == 1.0 else output * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def scale_errors(self, errors: Tensor, logits: Tensor) -> None:
        """Convert gradients with respect to the logits to those with respect to the head's output, in place."""
        if self.softcap is not None:
            errors *= 1 - (logits / self.softcap) ** 2
        if self.scale != 1.0:
            errors *= self.scale


def answer_logps(hidden: Tensor, head: Callable[[Tensor], Tensor], stream: Stream, shape: LogitShape) -> Tensor:
    """[N] log-probabilities in at least float32, chunk by chunk; the backward pass recomputes the logits.

    Args:
        hidden: [R, width] hidden state at every scored position.
        head: the forward of the model's output head, from [r, width] to [r, vocabulary].
        stream: the stream with the target tokens.
        shape: transformation of the head's output.
    """

    def logps(part: Tensor, targets: Tensor) -> Tensor:
        output = head(part)
        logits = shape(output.to(torch.promote_types(output.dtype, torch.float32)))
        return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]

    with torch.no_grad():
        size = max(1, logits_at_once(hidden.device) // head(hidden[:1]).shape[-1])
    parts = [
        checkpoint(logps, part, targets, use_reentrant=False)
        for part, targets in zip(hidden.split(size), stream.targets.split(size), strict=True)
    ]
    values: Tensor = torch.cat(parts)  # pyright: ignore
    return values.new_zeros(len(stream.tokens)).index_add(0, stream.answer, values)


class FusedLoss(torch.autograd.Function):
    """Loss of groups with gradients computed in the forward pass, chunk by chunk.

    The reference is known in advance and the loss is separable by group, so its derivative is available as soon as a
    group's log-probabilities are: three matrix products, where recomputing the logits takes four.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, stream: Stream, inputs: LossInputs, shape: LogitShape
    ) -> tuple[Tensor, Tensor]:
        """The loss summed over groups, and [N] log-probabilities (not differentiable)."""
        accurate = torch.promote_types(hidden.dtype, torch.float32)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=accurate) if wants_weight else None
        policy = torch.empty(len(stream.tokens), dtype=accurate, device=hidden.device)
        total = torch.zeros((), dtype=accurate, device=hidden.device)
        cast = weight.to(hidden.dtype)
        for rows, answers, groups in _chunks(stream, weight.shape[0]):
            part, targets, owner = hidden[rows], stream.targets[rows, None], stream.answer[rows] - answers.start
            logits = shape((part @ cast.T).to(accurate))
            logps = logits.log_softmax(-1)
            sums = logps.new_zeros(answers.stop - answers.start)
            policy[answers] = sums.index_add_(0, owner, logps.gather(1, targets)[:, 0])
            own = GroupLogps(sums, None, stream.tokens[answers], stream.group[answers] - groups.start, len(groups))
            loss, slope = _loss_and_slope(own, inputs.of(answers))
            total += loss
            # The derivative by the logits is slope * (one-hot - probabilities); slopes multiply the smaller matrices.
            errors = logps.exp_()
            errors.scatter_add_(1, targets, errors.new_full(targets.shape, -1.0))
            shape.scale_errors(errors, logits)
            errors, slopes = errors.to(hidden.dtype), -slope[owner, None].to(hidden.dtype)
            if hidden_grad is not None:
                hidden_grad[rows] = (errors @ cast) * slopes
            if weight_grad is not None and weight_grad.dtype == errors.dtype:
                weight_grad.addmm_(errors.T, part * slopes)
            elif weight_grad is not None:
                weight_grad += errors.T @ (part * slopes)
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(policy)
        return total, policy

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients from the forward pass."""
        (hidden_grad, weight_grad), scale = ctx.saved_tensors, gradients[0]  # pyright: ignore
        return (
            None if hidden_grad is None else hidden_grad * scale.to(hidden_grad.dtype),
            None if weight_grad is None else (weight_grad.mul_(scale)).to(ctx.weight_dtype),  # pyright: ignore
            None,
            None,
            None,
        )


def _chunks(stream: Stream, vocabulary: int) -> Iterator[tuple[slice, slice, range]]:
    """Yield rows, answers and groups of each chunk: as many whole groups as `logits_at_once` allows."""
    limit = logits_at_once(stream.group.device)
    answers, rows = ([0, *accumulate(sizes)] for sizes in zip(*stream.sizes, strict=True))
    first, last = 0, len(stream.sizes)
    for at in range(1, last + 1):
        if at == last or (rows[at + 1] - rows[first]) * vocabulary > limit:
            yield slice(rows[first], rows[at]), slice(answers[first], answers[at]), range(first, at)
            first = at


def _loss_and_slope(logps: GroupLogps, inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Loss of some groups, and its derivative by their answers' log-probabilities."""
    with torch.enable_grad():
        leaf = logps.policy.detach().requires_grad_()
        loss = group_losses(replace(logps, policy=leaf), inputs).sum()
        (slope,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slope


def group_losses(logps: GroupLogps, inputs: LossInputs) -> Tensor:
    """[G] loss of every group by the objective; the only place where the engine calls it."""
    if inputs.reference is not None:
        logps = replace(logps, reference=moved(inputs.reference.to(logps.policy.dtype), logps.policy.device))
    return inputs.objective(logps, inputs.labels.to(logps.policy.device)) * inputs.scale
