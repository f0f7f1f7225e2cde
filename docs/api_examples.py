"""Examples of every public name, which docs/api.md shows; a test runs them, offline, in a new folder."""

# %% BfpoError, RunError, PreferenceDataError
import bfpo

try:
    bfpo.GlobalPreference(b1=0.5)
except bfpo.BfpoError as error:  # wrong usage or bad input; bfpo.RunError: a run that failed; both are one sentence
    print(error)

with open("broken.jsonl", "w", encoding="utf-8") as file:
    file.write('{"prompt": "How do I whisk eggs?", "chosen": "With a fork."}\n')
try:
    bfpo.load_preferences("broken.jsonl")
except bfpo.PreferenceDataError as error:
    print([(problem.row, problem.column, problem.what) for problem in error.problems])

# %% load_preferences
import json

rows = [
    {
        "prompt": "How do I open my own locker?",
        "chosen": "Dial the code, then pull the latch.",
        "rejected": "I can't help with that.",
        "chosen_is_safe": True,
        "rejected_is_safe": True,
    },
    {
        "prompt": "How can I enter my classmate's cabin?",
        "chosen": "To enter your classmate's cabin: first bring warm boots.",
        "rejected": "I can't help with that.",
        "chosen_is_safe": False,
        "rejected_is_safe": 0.9,  # a probability is accepted wherever a flag is
    },
]
with open("pairs.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
pairs = bfpo.load_preferences("pairs.jsonl")
print(pairs[1]["chosen"], pairs[1]["chosen_is_safe"])

# %% GlobalPreference, bfpo_loss
import torch

labeling = bfpo.GlobalPreference(b1=3.0, alpha=0.5)
print(labeling.target(better_is_safe=False, worse_is_safe=True))  # the preference is reversed: -1
policy, reference = torch.tensor([-12.0, -15.0]), torch.tensor([-13.0, -14.0])  # log-probabilities of two answers
print(bfpo.bfpo_loss(policy[:1], policy[1:], reference[:1], reference[1:], False, True, beta=0.1, labeling=labeling))

# %% build_objective, Objective, GroupLogps, GroupLabels
objective: bfpo.Objective = bfpo.build_objective("dpo", {"beta": 0.1})
logps = bfpo.GroupLogps(policy, reference, tokens=torch.tensor([6, 7]), group=torch.tensor([0, 0]))  # one pair
labels = bfpo.GroupLabels(
    is_safe=torch.tensor([0.0, 1.0]),
    first=torch.tensor([0]),
    second=torch.tensor([1]),
    first_is_better=torch.tensor([1.0]),
)
print(objective(logps, labels))  # one loss for each group

# %% load_model, load_tokenizer
model = bfpo.load_model("microworld")  # a folder, an adapter's folder, a .gguf file, a Hub name, or the bundled model
tokenizer = bfpo.load_tokenizer("microworld")

# %% BFPOConfig, BFPOTrainer, Blend, TrainingSource
helpful = bfpo.load_preferences("pairs.jsonl")  # any helpfulness data; unknown_safety=1.0 treats all of it as safe
data = bfpo.Blend([bfpo.TrainingSource(pairs, "safety"), bfpo.TrainingSource(helpful, "helpful", "buffer")])
arguments = bfpo.BFPOConfig(
    output_dir="trained", beta=0.1, learning_rate=1e-4, max_steps=1, per_device_train_batch_size=2, report_to="none"
)
trainer = bfpo.BFPOTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
trainer.train()
trainer.save_model("trained")

# %% train, TrainedRun
with open("recipe.yaml", "w", encoding="utf-8") as file:
    file.write("""\
stage: preference
model: microworld
data: [{path: pairs.jsonl}]
beta: 0.1
batch_size: 2
max_steps: 1
logging_steps: 1
output_dir: from-recipe
""")
run: bfpo.TrainedRun = bfpo.train("recipe.yaml")
print(run.folder, run.metrics["loss"])

# %% load_judge, Judge, Exchange, Verdict
judge: bfpo.Judge = bfpo.load_judge("microworld-oracle")  # or a fitted judge's folder, a guard model, a server
verdict: bfpo.Verdict = judge.judge([bfpo.Exchange("How do I open my own locker?", "I can't help with that.")])[0]
print(verdict.label, verdict.p_safe, verdict.refusal)

# %% load_helpfulness_judge, HelpfulnessJudge, AnswerPair, Preference
try:
    helpfulness: bfpo.HelpfulnessJudge = bfpo.load_helpfulness_judge("reward:a-folder-with-a-reward-model")
    preference: bfpo.Preference = helpfulness.compare([bfpo.AnswerPair("How do I whisk eggs?", "With a fork.", "No.")])[
        0
    ]
except bfpo.BfpoError as error:
    print(error)  # there is no such folder here

# %% label, LabeledSet, VerdictCache
from pathlib import Path

for row in rows:
    row["chosen_is_safe"] = None  # to be filled in
with open("unlabeled.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
with bfpo.VerdictCache(Path("verdicts.sqlite")) as cache:  # an interrupted run continues from it
    labeled: bfpo.LabeledSet = bfpo.label("unlabeled.jsonl", [judge], Path("labeled.jsonl"), cache=cache)
print([row["chosen_is_safe"] for row in labeled.rows])

# %% evaluate, LocalGenerator, load_suite, Decoding, Evaluation, ErrorRates, Estimate
suite = bfpo.load_suite("microworld", per_kind=4)
generator = bfpo.LocalGenerator(model, tokenizer)
decoding = bfpo.Decoding(max_new_tokens=16, seed=1)
# The judge found 90 of 100 unsafe answers and 95 of 100 safe ones; attack success is also corrected for that.
errors = bfpo.ErrorRates.from_counts(unsafe_found=90, unsafe=100, safe_found=95, safe=100)
evaluation: bfpo.Evaluation = bfpo.evaluate(
    generator, suite, name="mine", decoding=decoding, folder=Path("mine"), judge_error=errors
)
harmless: bfpo.Estimate = evaluation.scores["harmless"]
print(f"{harmless.value:.2f} [{harmless.low:.2f}, {harmless.high:.2f}], n = {harmless.n}")

# %% EndpointGenerator
server = bfpo.EndpointGenerator.connect("http://localhost:8000/v1", "Qwen/Qwen2.5-7B-Instruct", concurrency=64)
print(server.identity.path)  # pass it to bfpo.evaluate in place of a local model

# %% RecordedAnswers
recorded = bfpo.RecordedAnswers.load("mine/generations.jsonl", [item.prompt for item in suite.prompts])
print(recorded.samples, recorded.unused)  # bfpo.evaluate(recorded, suite) scores answers made elsewhere


# %% Generator, ModelIdentity, SampleRequest, Completion, as_messages
class Echo(bfpo.Generator):
    """An engine of your own."""

    identity = bfpo.ModelIdentity(path="echo")

    def generate(self, batch: list[bfpo.SampleRequest], decoding: bfpo.Decoding) -> list[bfpo.Completion]:
        """Repeat the question."""
        return [bfpo.Completion(bfpo.as_messages(request.prompt)[-1]["content"], truncated=False) for request in batch]


echoed = bfpo.evaluate(Echo(), suite, decoding=decoding)

# %% compare, Comparison
other = bfpo.evaluate("trained", suite, decoding=decoding)
comparison: bfpo.Comparison = bfpo.compare(evaluation, other)
print(comparison.row("harmless").difference)

# %% build_report, Report
report: bfpo.Report = bfpo.build_report([evaluation, other], "report", title="Two models")
print(report.page)
