"""Train on groups of one size and print estimated and real peak memory; a script of test_memory.py.

Usage: memory_run.py GROUPS LAYOUT TOKENS TRAINED BF16 CHECKPOINTING
"""

import json
import sys
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from bfpo.engine.cost import ModelSize, estimate_cost, kept_for_backward
from bfpo.engine.forward import Engine
from bfpo.engine.pace import Pace, Speed
from bfpo.engine.trainable import select_trainable
from bfpo.groups import GroupLabels, LossInputs, TokenGroup


def build():
    config = AutoConfig.for_model(
        "llama", vocab_size=16_384, hidden_size=384, intermediate_size=1024, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).train()


def peak():
    # Not ru_maxrss: a process inherits that from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    number, layout, tokens, trained = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    bf16, checkpointing = map(int, sys.argv[5:])
    groups = [TokenGroup([5] * 140, [[6] * 110, [7] * 110]) for _ in range(number)]
    with FakeTensorMode():
        model = build()
        select_trainable(model, trained)
        size, kept = ModelSize.of(model), kept_for_backward(model, bf16=bool(bf16), device=torch.device("cpu"))
    expected = estimate_cost(
        size, [groups], layout=layout, max_tokens=tokens, bf16=False, checkpointing=bool(checkpointing),
        reference=groups, kept=kept, pace=Pace(Speed(0, 0), Speed(0, 0), 0), device=torch.device("cpu"),
    ).memory_bytes  # fmt: skip
    before = peak()
    model = build()
    select_trainable(model, trained)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    trained_weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained_weights, lr=1e-6, fused=True)
    engine = Engine(model, layout, tokens)
    inputs = LossInputs(lambda logps, labels: logps.policy**2, GroupLabels(*[torch.zeros(0)] * 4))
    # A step on one group makes the optimizer's moments, which then are there during a step on all.
    for part in (groups[:1], groups):
        with engine.attached():
            for batch in engine.split(part):
                with torch.autocast("cpu", torch.bfloat16, enabled=bool(bf16)):
                    loss, _ = engine.loss(model, [part[i] for i in batch], inputs)
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(json.dumps([expected, peak() - before]))
