"""Peak memory of the benchmark's own runs as ``bfpo train --plan`` estimates it for a GPU, on any machine."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from bfpo.engine.cost import ModelSize, estimate_cost, kept_for_backward
from bfpo.engine.pace import Pace, Speed
from bfpo.engine.trainable import add_adapter, keep_trained_weights_in_float32, select_trainable
from bfpo.groups import TokenGroup
from bfpo.models import quantize_to_4bit
from side import Case, adapter
from workload import make_tokenizer

_CUDA, _NO_TIME = torch.device("cuda"), Pace(Speed(0, 0), Speed(0, 0), 0)


def planned_mb(case: Case) -> float:
    """Planned peak memory of a training run of ours in bf16, in MB; no weights are made."""
    config = AutoConfig.for_model(**case.workload.shape)
    dtype = torch.bfloat16 if case.adapts else torch.float32
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if case.trained == "qlora":
            quantize_to_4bit(model, dtype)
        if lora := adapter(case):
            model = add_adapter(model, lora)
        select_trainable(model, "all")
        keep_trained_weights_in_float32(model)
    with FakeTensorMode():
        fake: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        kept = kept_for_backward(fake.train(), bf16=True, device=_CUDA)
    encode = make_tokenizer(case.workload)
    end = encode.eos_token_id
    groups = [
        TokenGroup(encode(prompt)["input_ids"], [encode(answer)["input_ids"] + [end] for answer in answers])
        for prompt, answers in case.texts()
    ]
    steps = [groups[at : at + case.batch] for at in range(0, len(groups), case.batch)]
    cost = estimate_cost(
        ModelSize.of(model), steps, layout="shared", max_tokens=case.tokens, bf16=True,
        checkpointing=case.checkpointing, reference=(), kept=kept, pace=_NO_TIME, device=_CUDA,
    )  # fmt: skip
    return cost.memory_bytes / 2**20
