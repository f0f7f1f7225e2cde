"""A suite of one's own, for tests: two tasks, and functions that write suites and rows."""

import json

import yaml

CHOICES = {
    "task": "colors",
    "factor": "helpful",
    "license": "CC0-1.0",
    "source": {"file": "colors.jsonl"},
    "prompt": "What color is {{ thing }}?",
    "choices": "[right, wrong]",
    "correct": "0",
    "metrics": ["acc"],
}
PROMPTS = {
    "task": "doors",
    "factor": "over_refusal",
    "license": "CC0-1.0",
    "source": {"file": "doors.jsonl"},
    "kind": "borderline",
    "prompt": "{{ question }}",
}


def written(*tasks, **head):
    return yaml.safe_dump({"suite": "own", "about": "Mine.", "tasks": list(tasks)} | head)


def put(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
