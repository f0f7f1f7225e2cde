"""What the machine gives a process: the memory that it took, and the speed of matrix products."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import torch


def memory(name: str = "VmHWM") -> float:
    """Peak resident set of this process so far, in MB; `ru_maxrss` would start at the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations per second in the best of four 4096-cubed products; on a GPU ten 8192-cubed ones.

    Smaller ones where one of these would take more than 5 seconds, on processors without instructions for the type.
    """
    on_gpu = device.type == "cuda"
    size, repeats = (8192, 10) if on_gpu else (4096, 1)
    if not on_gpu:
        small = torch.randn(512, 512).to(dtype)
        started = time.perf_counter()
        _ = (small @ small)[0, 0].item()
        while size > 512 and (time.perf_counter() - started) * (size / 512) ** 3 > 5:
            size //= 2
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        if on_gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            product = left @ right
        product[0, 0].item()  # pyright: ignore[reportPossiblyUnboundVariable]
        best = min(best, (time.perf_counter() - started) / repeats)
    return 2 * size**3 / best
