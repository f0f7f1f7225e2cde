"""Choice of the layout: each candidate is compared with the plain padded forward on the first rows.

Wrong positions or masks raise no error, so only the numbers show whether a model supports a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bfpo.engine.attention import Attention
from bfpo.engine.forward import Engine
from bfpo.engine.layout import Layout
from bfpo.engine.out_of_memory import is_out_of_memory
from bfpo.engine.pace import shortest
from bfpo.engine.padded import padded_logps
from bfpo.engine.trainable import dropouts
from bfpo.errors import BfpoError
from bfpo.groups import TokenGroup

WantedLayout = Literal["auto", "shared", "packed", "padded"]

# Tolerated root mean square of a token's difference, in nats. Models compute some parts (norms, routers) in float32 in
# any dtype. In bfloat16, rounding alone makes .03 to .08 in SmolLM2, on a processor with bfloat16 instructions.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.02}
_GROUPS = 3


@dataclass(frozen=True)
class LayoutChoice:
    """The chosen layout, the reason in one line, and the attention implementation."""

    layout: Layout
    reason: str
    attention: Attention = "pieces"


def choose_layout(
    base: PreTrainedModel,
    model: nn.Module,
    groups: Sequence[TokenGroup],
    wanted: WantedLayout = "auto",
    max_tokens: int = 4096,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    longest: TokenGroup | None = None,
    only: Attention | None = None,
) -> LayoutChoice:
    """The fastest layout whose log-probabilities equal the padded forward's: shared, else packed, else padded.

    On a GPU both attention implementations are tried and timed.

    Args:
        base: the causal language model without wrappers.
        model: the same model with its wrappers.
        groups: the data's first groups; three of them, including the longest, are compared.
        wanted: the layout to use, or "auto".
        max_tokens: tokens of the micro-batch on which attention is timed; fewer if memory doesn't suffice.
        autocast: the context of training's forward passes, in which attention is timed, and compared if the model's
            weights have several types.
        longest: the longest group of all, which is compared, too: only long rows show some wrong masks.
        only: the attention implementation to use; None for the fastest.

    Raises:
        BfpoError: if the wanted layout is unknown or gives different numbers, or the model isn't causal.
        torch.OutOfMemoryError: if memory doesn't suffice for an answer in the padded layout, or for a group in another.
    """
    if wanted not in get_args(WantedLayout):
        raise BfpoError(f"layout must be one of {', '.join(get_args(WantedLayout))}, not {wanted!r}")
    failures = ["as set"] if wanted == "padded" else []
    sample = [*_sample(groups), *([longest] if longest else [])]
    precision = _precision(model, autocast)
    expected = _padded(model, sample, precision)
    streams: Sequence[Layout] = () if wanted == "padded" else ("shared", "packed") if wanted == "auto" else (wanted,)
    for layout in streams:
        exact: dict[Attention, float] = {}
        for attention in (only,) if only else _attentions(model):
            difference, failure = _compare(model, sample, Engine(base, layout, 0, attention), precision, expected)
            if failure is None:
                exact[attention] = difference
            else:
                failures.append(f"{layout} {failure}" if attention == "pieces" else f"{layout} by blocks {failure}")
        if exact:
            fastest = next(iter(exact))
            if len(exact) > 1:
                engines = [Engine(base, layout, max_tokens, one) for one in exact]
                fastest = _fastest(engines, model, groups, autocast)
            equal = f"equal to the padded forward within {exact[fastest]:.0e} nats per token"
            faster = [f"attention by {fastest} was faster"] if len(exact) > 1 else []
            return LayoutChoice(layout, "; ".join([*failures, equal, *faster]), fastest)
    if wanted not in ("auto", "padded"):
        raise BfpoError(f"layout {wanted!r} is not possible with this model ({failures[0]}): use layout 'auto'")
    _check_causal(Engine(base, "padded", max_tokens), model, sample, precision, expected)
    return LayoutChoice("padded", "; ".join(failures))


def _attentions(model: nn.Module) -> tuple[Attention, ...]:
    """Attention implementations for a model: FlexAttention has no backward on CPU and no dropout."""
    on_gpu = next(model.parameters()).is_cuda
    return ("pieces", "blocks") if on_gpu and not dropouts(model) else ("pieces",)


def _fastest(engines: Sequence[Engine], model: nn.Module, groups: Sequence[TokenGroup], autocast: Any) -> Attention:
    """The attention of the fastest engine, on half the tokens, and half of these, if memory doesn't suffice.

    Training may fit where this pass doesn't, since checkpointing is not on yet.
    """
    while engines[0].max_tokens > 1:
        try:
            return min(engines, key=lambda engine: _seconds(engine, model, groups, autocast)).attention
        except torch.OutOfMemoryError:
            engines = [replace(engine, max_tokens=engine.max_tokens // 2) for engine in engines]
        model.zero_grad()
        torch.accelerator.empty_cache()
    return engines[-1].attention


def _seconds(engine: Engine, model: nn.Module, groups: Sequence[TokenGroup], autocast: Any) -> float:
    """Time of the fastest of three forward and backward passes over a micro-batch, in seconds."""
    batch = [groups[index] for index in engine.split(groups)[0]]
    trains = any(parameter.requires_grad for parameter in model.parameters())

    def run() -> None:
        with engine.attached(), torch.set_grad_enabled(trains):
            with autocast():
                loss = engine.logps(model, batch).policy.sum()
            if trains:
                loss.backward()
            loss.item()

    [seconds] = shortest(run)
    model.zero_grad()
    return seconds


def _sample(groups: Sequence[TokenGroup]) -> list[TokenGroup]:
    """The longest group, preferably one with several answers, and the first others."""
    longest = max(range(len(groups)), key=lambda index: (len(groups[index].answers) > 1, groups[index].width))
    rest = [group for index, group in enumerate(groups) if index != longest]
    return [groups[longest], *rest[: _GROUPS - 1]]


_Precision = Callable[[], AbstractContextManager[object]]


def _dtypes(model: nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}


def _precision(model: nn.Module, autocast: _Precision) -> _Precision:
    """Weights of one type are compared in it, float32 ones without bfloat16's rounding; several need autocast."""
    return autocast if len(_dtypes(model)) > 1 else nullcontext


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def _padded(model: nn.Module, groups: Sequence[TokenGroup], precision: _Precision) -> tuple[Tensor, Tensor]:
    """[N] log-probabilities of all answers by the padded forward, and their numbers of tokens, one answer at a time."""
    alone = [
        TokenGroup(group.prompt, [answer], [group.context[at]] if len(group.context) else ())
        for group in groups
        for at, answer in enumerate(group.answers)
    ]
    with _evaluating(model), precision():
        found = [padded_logps(model, [group]) for group in alone]
    return torch.cat([one.policy for one in found]), torch.cat([one.tokens for one in found])


@torch.no_grad()
def _check_causal(
    engine: Engine,
    model: nn.Module,
    groups: Sequence[TokenGroup],
    precision: _Precision,
    expected: tuple[Tensor, Tensor],
) -> None:
    """Refuse a model whose numbers depend on the padding that follows an answer, as those of encoders do."""
    order = torch.tensor([at for batch in engine.split(groups) for at in batch])
    with _evaluating(model), precision():
        found = [padded_logps(model, [groups[at] for at in batch]).policy for batch in engine.split(groups)]
    sizes = torch.tensor([len(group.answers) for group in groups])
    answers = torch.arange(int(sizes.sum())).split(sizes.tolist())
    places = torch.cat([answers[at] for at in order])
    logps, tokens = expected
    difference = _difference(torch.cat(found), (logps[places], tokens[places]))
    # NaN means that training diverged, which is said where the numbers are used.
    if difference > _tolerance(model):
        raise BfpoError(
            f"{type(engine.model).__name__}: the log-probabilities of its tokens depend on what follows them, by "
            f"{difference:.1e} nats per token: name a causal language model"
        )


def _tolerance(model: nn.Module) -> float:
    return max(_TOLERANCE[dtype] for dtype in _dtypes(model))


def _difference(found: Tensor, expected: tuple[Tensor, Tensor]) -> float:
    """Root mean square of a token's difference in nats."""
    logps, tokens = expected
    return ((found - logps).square().sum() / tokens.sum()).sqrt().item()


@torch.no_grad()
def _compare(
    model: nn.Module,
    groups: Sequence[TokenGroup],
    engine: Engine,
    precision: _Precision,
    expected: tuple[Tensor, Tensor],
) -> tuple[float, str | None]:
    """Root mean square of a token's difference in nats, and the reason if the layout is rejected.

    Only sums over an answer's n tokens are known. Differences by rounding, which are independent, add up to the square
    root of n times one; those of a wrong mask or position, which have a common sign, to n times one, so that they stand
    out the more, the longer the answers are. The largest mean over an answer would mistake a short one's rounding for
    a fault.
    """
    if getattr(engine.model.config, "output_router_logits", False):
        return 0.0, "would balance the experts over fewer tokens than the padded forward does (output_router_logits)"
    if engine.layout == "shared" and dropouts(model):
        return 0.0, "would let all answers of a prompt share its dropout"
    tolerance = _tolerance(model)
    attends_itself = not getattr(engine.model, "_supports_attention_backend", True)
    if engine.layout == "shared" and attends_itself and tolerance > _TOLERANCE[torch.float32]:
        # Rounding may hide the wrong mask.
        return 0.0, "is not checked in half precision, as the model attends by code of its own"
    try:
        with _evaluating(model), precision(), engine.attached():
            found = engine.logps(model, groups).policy
    # A model that raises any error in this layout doesn't support it, unless it is for want of memory.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return 0.0, f"fails with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    difference = _difference(found, expected)
    # With "not", a NaN counts as a difference.
    if not difference <= tolerance:
        return difference, f"differs from the padded forward by {difference:.1e} nats per token"
    return difference, None
