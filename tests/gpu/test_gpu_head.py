"""The fused head on a GPU against logits computed plainly in float64."""

import pytest
import torch

from bfpo.engine import head as head_module
from bfpo.engine.head import FusedLoss, LogitShape, group_losses
from bfpo.engine.layout import build_stream
from bfpo.groups import GroupLogps
from engine.losses import loss_inputs
from gpu_models import CUDA, DEVICE, VOCABULARY, groups, relative

pytestmark = CUDA
BATCH = groups(5, most=80)
SHAPES = {"plain": LogitShape(), "capped": LogitShape(0.5, 3.0)}


def test_no_chunk_waits_for_the_device(monkeypatch):
    """Neither for a value that is read back, nor for a copy from memory that isn't pinned."""
    monkeypatch.setattr(head_module, "LOGITS_AT_ONCE", 20 * VOCABULARY // 16)
    stream = build_stream(BATCH, "shared", DEVICE)
    torch.manual_seed(0)
    hidden = torch.randn(len(stream.targets), 64, device=DEVICE, requires_grad=True)
    weight = torch.randn(VOCABULARY, 64, device=DEVICE, requires_grad=True)
    arguments = (hidden, weight, stream, loss_inputs(BATCH), SHAPES["plain"])
    waited, _ = FusedLoss.apply(*arguments)
    torch.cuda.synchronize()
    # PyTorch then raises an error at any wait.
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss, _ = FusedLoss.apply(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert relative(loss.detach(), waited.detach()) < 1e-5


@pytest.mark.parametrize("chunk", ["one chunk", "many chunks"])
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize(("hidden_dtype", "head_dtype", "values", "slopes"), [
    (torch.float32, torch.float32, 1e-5, 1e-4),
    (torch.bfloat16, torch.float32, 1e-2, 3e-2),
    (torch.bfloat16, torch.bfloat16, 1e-2, 3e-2),
])  # fmt: skip
def test_loss_and_gradients(monkeypatch, hidden_dtype, head_dtype, values, slopes, shape, chunk, record_property):
    torch.backends.cuda.matmul.allow_tf32 = False
    if chunk == "many chunks":
        monkeypatch.setattr(head_module, "LOGITS_AT_ONCE", 20 * VOCABULARY // 16)
    stream = build_stream(BATCH, "shared", DEVICE)
    torch.manual_seed(0)
    hidden = torch.randn(len(stream.targets), 64, device=DEVICE).to(hidden_dtype).requires_grad_()
    weight = (0.3 * torch.randn(VOCABULARY, 64, device=DEVICE)).to(hidden_dtype).to(head_dtype).requires_grad_()
    loss, policy = FusedLoss.apply(hidden, weight, stream, loss_inputs(BATCH), SHAPES[shape])
    found = torch.autograd.grad(loss, (hidden, weight))

    wide = [part.detach().double().requires_grad_() for part in (hidden, weight)]
    logps = SHAPES[shape](wide[0] @ wide[1].T).log_softmax(-1).gather(1, stream.targets[:, None])[:, 0]
    sums = logps.new_zeros(len(stream.tokens)).index_add(0, stream.answer, logps)
    expected = group_losses(GroupLogps(sums, None, stream.tokens, stream.group), loss_inputs(BATCH)).sum()
    plain = torch.autograd.grad(expected, wide)
    apart = [relative(policy, sums.detach()), *(relative(one, other) for one, other in zip(found, plain, strict=True))]
    record_property("values, gradients", ", ".join(f"{one:.1e}" for one in apart))
    assert policy.dtype == torch.float32
    assert [part.dtype for part in found] == [hidden_dtype, head_dtype]
    assert apart[0] < values
    assert max(apart[1:]) < slopes
