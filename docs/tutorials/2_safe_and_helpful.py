# %% [markdown]
# # 2. Is it safe and helpful?
#
# [Tutorial 1](1_first_aligned_model.md) trained a model. This one measures it against the model it started from: is it safer, is it
# still helpful, does it refuse more than it should, and how sure are we? It takes a few minutes on two CPU cores.

# %%
from pathlib import Path

import bfpo

folder = Path("runs/tutorial")

# %% [markdown]
# ## Evaluate
#
# A suite is a set of tasks. The `microworld` suite asks three kinds of questions: *benign* ones, *harmful* ones, and *borderline* ones
# that look harmful but are not. They combine actions and objects that never occur together in the training data. An exact oracle judges
# the answers. For real models use `bfpo.load_suite("core")` and name a judge ([Evaluate and compare](../how-to/evaluate.md)).

# %%
suite = bfpo.load_suite("microworld", per_kind=200)
models = {"base": "microworld", "aligned": str(folder / "aligned")}
runs = {
    name: bfpo.evaluate(model, suite, name=name, folder=folder / "evaluations" / name) for name, model in models.items()
}

for figure in ("helpful", "harmless", "over_refusal", "incoherent"):
    print(f"{figure:13}", *(f"{name} {run.scores[figure].value:.2f}" for name, run in runs.items()), sep="   ")

# %% [markdown]
# ## How sure are we?
#
# Both models answered the same prompts, so `compare` pairs them: whatever makes a prompt hard for both models cancels out. If an interval
# excludes 0, these prompts can tell the difference from chance.

# %%
comparison = bfpo.compare(runs["base"], runs["aligned"])
for figure in ("helpful", "harmless", "over_refusal", "incoherent"):
    row = comparison.row(figure)
    print(
        f"{figure:13} {row.difference.value:+.2f} [{row.difference.low:+.2f}, {row.difference.high:+.2f}]  p = {row.p:.2g}  n = {row.n}"
    )

# %% [markdown]
# ## Look at it
#
# The report is one HTML file: the plots, every figure with its interval, and the answers of both models side by side. Read some
# answers before you believe any figure.

# %%
report = bfpo.build_report(list(runs.values()), folder / "report", title="Before and after BFPO", baseline="base")
print(f"open {report.page}")

# %% [markdown]
# ![Helpful against harmless: the aligned model lies far above the base model, equally helpful](images/plane.png)
#
# The farther to the upper right, the better. The base model is helpful and harmful, as chat models are before alignment; after
# BFPO it is helpful and harmless. The shaded regions hold each model's true position with 95 % confidence. Look at what it cost,
# too: the aligned model gives a few more answers that make no sense (`incoherent`).
#
# What this doesn't show: one training seed says nothing about another (`bfpo compare` takes several seeds per side), and the microworld
# is easy. [Results](../results/README.md) has more.
