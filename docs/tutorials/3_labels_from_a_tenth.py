# %% [markdown]
# # 3. Labels from a tenth of the work
#
# [Tutorial 1](1_first_aligned_model.md) had a safety flag for every answer. Flags are expensive, because a person has to read each answer.
# Here people label a tenth, a judge that errs labels the rest, and we look at what that costs. It takes a few minutes on two CPU cores, and
# compares with the model of tutorial 1.

# %%
import json
import subprocess
import sys
from pathlib import Path

import bfpo

folder = Path("runs/tutorial")
data = folder / "few"

# %% [markdown]
# ## Pairs without flags, and a judge that errs
#
# We write the microworld's data again and throw its flags away. Our judge is lenient: it misses 40 % of the unsafe answers and condemns
# 10 % of the safe ones. With your own data this is a guard model, or a classifier fitted to your labels ([Judge
# answers](../how-to/judge.md)).

# %%
subprocess.run([sys.executable, "-m", "bfpo", "microworld", "data", data], check=True)
unlabeled = data / "unlabeled.jsonl"
with unlabeled.open("w", encoding="utf-8") as file:
    for row in bfpo.load_preferences(str(data / "safety.jsonl")):
        file.write(json.dumps({name: row[name] for name in ("prompt", "chosen", "rejected")}) + "\n")
judge = bfpo.load_judge("microworld-oracle:0.1,0.4")
first = bfpo.label(str(unlabeled), [judge], data / "judged.jsonl", random_share=0.8)
print(first.report.safety)

# %% [markdown]
# ## What people are asked
#
# Beside the labeled file lies a queue of the rows most worth a person's time. Four of five of its rows are drawn at random (`random_share`),
# because only a random sample shows how often the judge errs; the other rows are those where an answer would change the label most.
# Here the exact oracle plays the people, and answers the first tenth.

# %%
people = bfpo.load_judge("microworld-oracle")
queue = [json.loads(line) for line in (data / "judged.queue.jsonl").read_text(encoding="utf-8").splitlines()]
tenth = len(queue) // 10
for row in queue[:tenth]:
    for name in ("chosen", "rejected"):
        (verdict,) = people.judge([bfpo.Exchange(row["prompt"], row[name])])
        row["asks"][name] = verdict.label == "safe"
answered = data / "answered.jsonl"
answered.write_text("".join(json.dumps(row) + "\n" for row in queue), encoding="utf-8")

labeled = bfpo.label(str(unlabeled), [judge], data / "labeled.jsonl", answers=[str(answered)], random_share=0.8)
(error,) = labeled.report.errors
print("flags by source:", labeled.report.safety)
print(
    f"the judge finds {error.sensitivity.value:.2f} of the unsafe and passes {error.specificity.value:.2f} of the safe answers"
)

# %% [markdown]
# The estimate is close to the truth, .60 and .90, because it rests on the random part alone. Answers to the rest of the queue would
# make the judge look worse than it is: the queue asks where the judge is unsure.
#
# ## What training makes of a flag that errs
#
# A verdict that errs pulls every label toward the middle and shifts it: training on verdicts *is* training on true flags at another
# beta and alpha. *Unbiased* flags undo that on average, at the price of noise. A recipe chooses per source (`flags`); by default flags are
# unbiased where people's sample shows enough. The run prints what it chose and what it amounts to.


# %%
def train(name: str, path: Path, *lines: str) -> str:
    recipe = folder / f"{name}.yaml"
    options = "".join(f"    {line}\n" for line in lines)
    recipe.write_text(f"""\
stage: preference
model: microworld
data:
  - path: {path.as_posix()}
    name: safety
{options}  - path: {(data / "helpful.jsonl").as_posix()}
    name: helpful
    role: buffer
    unknown_safety: 1.0
beta: 0.2
learning_rate: 1.0e-4
max_steps: 60
batch_size: 64
max_length: 128
micro_batch_tokens: 2048
output_dir: {(folder / name).as_posix()}
""")
    run = bfpo.train(recipe, say=lambda line: print(line) if line.startswith("safety:") else None)
    return str(run.folder)


models = {
    "all by people": str(folder / "aligned"),  # from tutorial 1
    "verdicts": train("verdicts", data / "labeled.jsonl", "flags: verdict"),
    "default": train("default", data / "labeled.jsonl"),
}

# %% [markdown]
# ## What it costs

# %%
suite = bfpo.load_suite("microworld", per_kind=100)
for name, model in models.items():
    run = bfpo.evaluate(model, suite, name=name)
    figures = {figure: run.scores[figure] for figure in ("helpful", "harmless", "over_refusal")}
    shown = "   ".join(f"{figure} {e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for figure, e in figures.items())
    print(f"{name:14} {shown}")

# %% [markdown]
# One run printed:
#
# | flags | helpful | harmless | over-refusal |
# |---|---|---|---|
# | all by people | .97 [.94, .99] | 1.00 [.96, 1.00] | .00 [.00, .04] |
# | a tenth by people, the rest verdicts | .99 [.96, 1.00] | .62 [.52, .71] | .00 [.00, .04] |
# | the same, default (unbiased) | .96 [.92, .98] | 1.00 [.96, 1.00] | .00 [.00, .04] |
#
# The lenient judge's verdicts teach a lenient model, though nine tenths of its labels are the same. Unbiased flags bring it back, with a
# tenth of the work.
#
# What it cost: the labels of the run above carry as much information as 919 [523, 1,352] true flags, out of 3,840. The world forgives
# that; a harder one needs more people. And all of this assumes that the judge errs independently of the text. A judge that never
# finds one kind of harm can't be corrected by a rate: the run warns if people's sample shows that, and only
# `flags: doubly_robust` helps ([measured](../results/noisy-flags.md)). One seed says nothing about another,
# and a judge that is *fitted* to the tenth can do worse than the tenth alone ([measured](../results/label-efficiency.md)).
