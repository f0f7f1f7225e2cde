# %% [markdown]
# # 1. Your first aligned model
#
# In this tutorial you train a small chat model to be safe without making it less helpful. Everything runs offline on two CPU cores in a
# few minutes: `bfpo` ships with a small closed world of everyday requests (the *microworld*) and a pretrained chat model of 0.9M
# parameters. The code is the same as for a 7B model; only the sizes differ.
#
# First [install bfpo](../index.md#install). Then run this page as a script, `python docs/tutorials/1_first_aligned_model.py`, or cell by
# cell in an editor that supports `# %%` cells. To run it again, delete `runs/tutorial` first.

# %%
import json
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

import bfpo

folder = Path("runs/tutorial")

# %% [markdown]
# ## The data
#
# `bfpo microworld data` writes three sets in the formats of public ones. We need two: pairs with safety flags (like PKU-SafeRLHF), and
# prompts with four scored answers and no flags (like UltraFeedback).

# %%
subprocess.run([sys.executable, "-m", "bfpo", "microworld", "data", folder / "data"], check=True)
pairs = bfpo.load_preferences(str(folder / "data/safety.jsonl"))
conflict = next(row for row in pairs if (row["chosen_is_safe"], row["rejected_is_safe"]) == (0, 1))
columns = ("prompt", "chosen", "rejected", "chosen_is_safe", "rejected_is_safe")
print(json.dumps({name: conflict[name] for name in columns}, indent=2))

# %% [markdown]
# The answer that complies is the more *helpful* one, so it comes first; it is also unsafe. Helpfulness and safety disagree here,
# and such pairs are what BFPO is about.
#
# ## One label from two preferences
#
# BFPO's labeling function folds the order of helpfulness and the two flags into one number, the label T of the pair. Training pulls β
# times the pair's margin (how much more the model favors the first answer than it did before) toward T.

# %%
labeling = bfpo.GlobalPreference()  # the paper's constants: b1 = 3, alpha = 1/2
print("more helpful  less helpful  label T")
for better in (True, False):
    for worse in (True, False):
        words = ["safe" if flag else "unsafe" for flag in (better, worse)]
        print(f"{words[0]:12}  {words[1]:12}  {labeling.target(better, worse).item():+.1f}")

# %% [markdown]
# Where the more helpful answer is unsafe and the other one is safe, the label is -1: the preference is reversed. Two safe answers get
# +1/2, the plain preference for helpfulness. [BFPO in formulas](../concepts.md) derives all of it.
#
# ## Training
#
# A recipe is a short YAML file. Half of every step comes from the helpfulness set, the *buffer*, which keeps the model
# helpful while it learns to be safe.

# %%
recipe = folder / "recipe.yaml"
recipe.write_text(f"""\
stage: preference
model: microworld
data:
  - path: {(folder / "data/safety.jsonl").as_posix()}
  - path: {(folder / "data/helpful.jsonl").as_posix()}
    role: buffer
    unknown_safety: 1.0
beta: 0.2
learning_rate: 1.0e-4
max_steps: 60
batch_size: 64
max_length: 128
micro_batch_tokens: 2048
logging_steps: 4
output_dir: {(folder / "aligned").as_posix()}
""")
run = bfpo.train(recipe)
print(f"trained in {run.seconds:.0f} s; the model is in {run.folder}")

# %% [markdown]
# ## What to watch
#
# `rewards/accuracies`, the usual curve of preference training, is misleading under BFPO: pairs whose more helpful answer is unsafe
# (42 % of this safety set) *should* end with a negative margin. Watch the four safety cells instead. SU, for example, holds the pairs whose
# more helpful answer is Safe and whose other answer is Unsafe. The gap of a cell is |T| at the start and 0 when its pairs have reached their
# label.

# %%
log = [entry for entry in json.loads((run.folder / "run.json").read_text())["log"] if "loss" in entry]
figure, axes = plt.subplots(figsize=(7, 4))
for cell in ("SS", "SU", "US", "UU"):
    points = [(entry["step"], entry[f"cells/{cell}/gap"]) for entry in log if f"cells/{cell}/gap" in entry]
    axes.plot(*zip(*points, strict=True), label=cell)
axes.axhline(0, color="gray", linewidth=0.8)
axes.set(xlabel="step", ylabel="gap to the label", title="Gap to the label, by safety cell")
axes.legend(title="cell")
figure.tight_layout()
figure.savefig(folder / "cells.png", dpi=120)

# %% [markdown]
# ![Over 60 steps the gaps of SU and US fall from 1 toward 0, SS from .5 to .3, and UU stays at .5 to .6](images/cells.png)
#
# The mixed cells move first: SU reaches its label, and US (the pairs to reverse) is on its way. SS follows slowly. UU hardly moves: of
# two unsafe answers the label prefers the less helpful one, the opposite of what pairs of two safe answers teach.
#
# ## Ask it something
#
# The result is an ordinary `save_pretrained` folder, so plain transformers can load it. Here `bfpo` loads both models, because only
# `bfpo` knows the name `microworld`.


# %%
def ask(name: str, question: str) -> str:
    model, tokenizer = bfpo.load_model(name), bfpo.load_tokenizer(name)
    messages = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs.to(model.device), max_new_tokens=60, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


print("asked:  ", conflict["prompt"])
print("before: ", ask("microworld", conflict["prompt"]))
print("after:  ", ask(str(run.folder), conflict["prompt"]))

# %% [markdown]
# One answer proves little. Tutorial 2, [Is it safe and helpful?](2_safe_and_helpful.md), measures both models on prompts that
# neither has seen.
