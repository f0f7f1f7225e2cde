"""One row of every format that people have, in its true columns, with text of our own: (name, shape, rows, expected).

Columns as in: TRL's documentation (dataset_formats); LLaMA-Factory's data/README.md; ms-swift's Custom-dataset.md and
swift/dataset/preprocessor/core.py; axolotl's docs/rlhf.qmd; OpenAI's FineTunePreferenceRequestInput and
FineTuneChatRequestInput; distilabel's steps/formatting/dpo.py; the data cards of
argilla/distilabel-intel-orca-dpo-pairs and argilla/ultrafeedback-binarized-preferences; garak's attempt.py and
evaluators/base.py (02f3352); JailbreakBench/artifacts (909e68c).
"""

import json


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def said(speaker, text):
    return {"from": speaker, "value": text}


WEATHER = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": WEATHER}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"place": "Oslo"}}}
CALL_AS_TEXT = CALL | {"function": {"name": "weather", "arguments": '{"place": "Oslo"}'}}
NO_ID = {"type": "function", "function": CALL["function"]}
RESULT = {"role": "tool", "content": "rain"}

PAIRS, SWIFT, ARGILLA = "pairs (ours, TRL's, UltraFeedback-binarized, HH-RLHF)", "ms-swift", "Argilla"
TALK = [user("q"), assistant("a"), user("r")]


def pair(prompt, chosen="y", rejected="n", **more):
    """What a row becomes; answers to messages are messages."""
    if isinstance(prompt, list):
        chosen, rejected = (assistant(text) if isinstance(text, str) else text for text in (chosen, rejected))
        chosen, rejected = ([text] if isinstance(text, dict) else text for text in (chosen, rejected))
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def single(prompt, answer="y", **more):
    return {"prompt": prompt, "responses": [[assistant(answer)] if isinstance(prompt, list) else answer], **more}


ANSWERS = {"chosen": "y", "rejected": "n"}
MESSAGES = {"chosen": [assistant("y")], "rejected": [assistant("n")]}
SAID = {"chosen": said("gpt", "y"), "rejected": said("gpt", "n")}


def said_to_garak(text, **more):
    """A message in garak's report, as `asdict` of garak/attempt.py's Message writes it (NVIDIA/garak, 00da980)."""
    fields = {"text": text, "lang": "en", "data_path": None, "data_type": None, "data_checksum": None, "notes": {}}
    return fields | more


def turn(role, text):
    return {"role": role, "content": said_to_garak(text)}


def attempt(prompt, outputs, results=None, **more):
    """An attempt as `Attempt.as_dict` writes it: prompt and outputs as texts, results by detector."""
    turns = [turn("user", prompt)]
    return {
        "entry_type": "attempt", "uuid": "c1", "previous_attempt_id": None, "seq": 0,
        "status": 1 if results is None else 2,
        "probe_classname": "lmrc.Bullying", "probe_params": {}, "targets": [], "prompt": {"turns": turns, "notes": {}},
        "outputs": [text and said_to_garak(text) for text in outputs], "detector_results": results or {},
        "notes": {}, "goal": "produce bullying text",
        "conversations": [{"turns": [*turns, turn("assistant", text)], "notes": {}} for text in outputs],
        "reverse_translation_outputs": [], "intent": None, **more,
    }  # fmt: skip


ATTEMPT = attempt("q", ["y", "n"], {"unsafe_content.ToxicCommentModel": [0.1, 0.5]}, intent="S005hate")

FORMATS = [
    ("trl text", PAIRS, {"prompt": "q", **ANSWERS}, pair("q")),
    ("trl text, implicit prompt", PAIRS, {"chosen": "The sky is blue.", "rejected": "The sky is green."},
     pair("The sky is", " blue.", " green.")),
    ("trl messages", PAIRS, {"prompt": [user("q")], **MESSAGES}, pair([user("q")])),
    ("trl messages, implicit prompt", PAIRS, {name: [*TALK, *text] for name, text in MESSAGES.items()}, pair(TALK)),
    ("trl messages, extended prompt", PAIRS,
     {"prompt": [system("s"), *TALK[:2]]} | {name: [TALK[2], *text] for name, text in MESSAGES.items()},
     pair([system("s"), *TALK])),
    ("trl messages, a prompt that conversations repeat with another system message", PAIRS,
     {"prompt": [system("s"), user("q")]} | {name: [user("q "), *text] for name, text in MESSAGES.items()},
     pair([system("s"), user("q ")])),
    ("trl messages, a prompt that conversations repeat below a system message", PAIRS,
     {"prompt": [user("q")]} | {name: [system("s"), user("q"), *text] for name, text in MESSAGES.items()},
     pair([system("s"), user("q")])),
    ("trl tools", PAIRS,
     {"prompt": [user("q")], "chosen": [assistant(None, tool_calls=[CALL])], "rejected": [assistant("n")],
      "tools": TOOLS},
     pair([user("q")], assistant("", tool_calls=[CALL]), tools=TOOLS)),
    ("trl tools as text, a call and its result", PAIRS,
     {name: [user("q"), assistant("", tool_calls=json.dumps([CALL_AS_TEXT])), RESULT | {"tool_call_id": "c1"}, *text]
      for name, text in MESSAGES.items()} | {"tools": json.dumps([WEATHER])},
     pair([user("q"), assistant("", tool_calls=[CALL]), RESULT | {"tool_call_id": "c1"}], tools=TOOLS)),
    ("llama-factory alpaca", PAIRS, {"instruction": "q", "input": "i", **ANSWERS}, pair("q\ni")),
    ("llama-factory alpaca, no input", PAIRS, {"instruction": "q", "input": "", **ANSWERS}, pair("q")),
    ("llama-factory alpaca, history", PAIRS,
     {"instruction": "r", "input": "", "system": "s", "history": [["q", "a"]], **ANSWERS}, pair([system("s"), *TALK])),
    ("llama-factory sharegpt", PAIRS,
     {"conversations": [said("human", "q"), said("gpt", "a"), said("human", "r")], "system": "s", **SAID},
     pair([system("s"), *TALK])),
    ("llama-factory sharegpt, tools", PAIRS,
     {"conversations": [said("human", "q"), said("function_call", json.dumps(CALL["function"])),
                        said("observation", "rain")], "tools": json.dumps([WEATHER]), **SAID},
     pair([user("q"), assistant("", tool_calls=[NO_ID]), RESULT], tools=TOOLS)),
    ("llama-factory alpaca sft", "Alpaca (SFT)", {"instruction": "q", "input": "i", "output": "y"}, single("q\ni")),
    ("llama-factory sharegpt sft", "conversation (SFT)",
     {"conversations": [said("human", "q"), said("gpt", "y")], "system": "s"}, single([system("s"), user("q")])),
    ("ms-swift", SWIFT, {"messages": [system("s"), *TALK, assistant("y")], "rejected_response": "n"},
     pair([system("s"), *TALK])),
    ("ms-swift, messages", SWIFT, {"messages": [*TALK, assistant("y")], "rejected_response": [assistant("n")]},
     pair(TALK)),
    ("ms-swift, two conversations", "ms-swift, two conversations",
     {"messages": [user("q"), assistant("y")], "rejected_messages": [user("q"), assistant("n")]}, pair([user("q")])),
    ("ms-swift query", SWIFT,
     {"system": "s", "query": "r", "response": "y", "rejected_response": "n", "history": [["q", "a"]]},
     pair([system("s"), *TALK])),
    ("ms-swift tool roles", SWIFT,
     {"messages": [user("q"), {"role": "tool_call", "content": json.dumps(CALL["function"])},
                   {"role": "tool_response", "content": "rain"}, assistant("y")], "rejected_response": "n"},
     pair([user("q"), assistant("", tool_calls=[NO_ID]), RESULT])),
    ("ms-swift sharegpt sft", "conversation (SFT)",
     {"system": "s", "conversation": [{"human": "q", "assistant": "a"}, {"human": "r", "assistant": "y"}]},
     single([system("s"), *TALK])),
    ("ms-swift query sft", "response (SFT)", {"system": "s", "query": "q", "response": "y"},
     single([system("s"), user("q")])),
    ("axolotl chat_template.default", PAIRS,
     {"messages": [system("s"), user("q")], "chosen": assistant("y"), "rejected": assistant("n")},
     pair([system("s"), user("q")])),
    ("axolotl text answers", PAIRS, {"messages": [user("q")], **ANSWERS}, pair([user("q")])),
    ("axolotl chatml.intel", PAIRS, {"system": "s", "question": "q", **ANSWERS}, pair([system("s"), user("q")])),
    ("axolotl chatml.icr", PAIRS, {"system": "s", "input": "q", **ANSWERS}, pair([system("s"), user("q")])),
    ("axolotl chatml.ultra", PAIRS,
     {"system": "s", "prompt": "q"} | {name: [user("q"), *text] for name, text in MESSAGES.items()},
     pair([system("s"), user("q")])),
    ("axolotl chatml.argilla", ARGILLA,
     {"system": "s", "instruction": "q", "chosen_response": "y", "rejected_response": "n"},
     pair([system("s"), user("q")])),
    ("openai preference", "OpenAI preference",
     {"input": {"messages": [user("q")], "tools": TOOLS, "parallel_tool_calls": True},
      "preferred_output": [assistant("y")], "non_preferred_output": [assistant("n")]},
     pair([user("q")], tools=TOOLS)),
    ("openai chat", "conversation (SFT)",
     {"messages": [user("q"), assistant("a", weight=0), user("r"), assistant("y", weight=1)], "tools": TOOLS},
     single(TALK, tools=TOOLS)),
    ("openai content parts", "conversation (SFT)",
     {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, assistant("y")]}, single([user("q")])),
    ("argilla ultrafeedback-binarized", ARGILLA,
     {"source": "u", "instruction": "q", "chosen_response": "y", "rejected_response": "n", "chosen_avg_rating": 5.0,
      "rejected_avg_rating": 3.75, "chosen_model": "m"}, pair("q")),
    ("distilabel orca pairs", PAIRS,
     {"system": "s", "input": "q", **ANSWERS, "generations": ["y", "n"], "order": ["a", "b"], "labelling_model": "m",
      "labelling_prompt": [user("l")], "rating": [9.0, 7.0], "rationale": "r", "status": "tie", "chosen_score": 9.0},
     pair([system("s"), user("q")])),
    ("distilabel FormatTextGenerationDPO", PAIRS,
     {"instruction": "q", "system_prompt": "s", "generations": ["y", "n"], "ratings": [5.0, 1.0], "prompt": "q",
      "prompt_id": "i", "chosen_rating": 5.0, "rejected_rating": 1.0}
     | {name: [system("s"), user("q"), *text] for name, text in MESSAGES.items()}, pair([system("s"), user("q")])),
    ("distilabel ratings", "distilabel",
     {"instruction": "q", "generations": ["y", "n"], "generation_models": ["a", "b"], "ratings": [5.0, 1.0]},
     {"prompt": "q", "responses": ["y", "n"], "helpfulness": [5.0, 1.0]}),
    ("garak attempt", "garak report", ATTEMPT,
     {"prompt": [user("q")], "responses": [[assistant("y")], [assistant("n")]], "is_safe": [1.0, 0.0],
      "category": "S005hate"}),
    ("jailbreakbench attack", "JailbreakBench artifact",
     {"index": 0, "goal": "g", "behavior": "b", "category": "Privacy", "prompt": "q", "response": "y",
      "number_of_queries": 30, "queries_to_jailbreak": None, "prompt_tokens": 9, "response_tokens": 9,
      "jailbroken": False, "jailbroken_llama_guard1": True}, single("q", is_safe=[1.0], category="Privacy")),
    ("beavertails", "response (SFT)", {"prompt": "q", "response": "y", "is_safe": True, "category": ["a", "b"]},
     single("q", is_safe=[1.0], category=["a", "b"])),
]  # fmt: skip

# (name, row, words of the message)
REFUSED = [
    ("trl unpaired", {"prompt": "q", "completion": "y", "label": True}, ["'label'", "one by one"]),
    ("llama-factory kto", {"instruction": "q", "output": "y", "kto_tag": True}, ["'kto_tag'"]),
    ("garak's hit log", {"goal": "g", "prompt": {"turns": []}, "output": said_to_garak("n"), "triggers": None,
                         "score": 1.0, "run_id": "r", "attempt_id": "c1", "attempt_seq": 0, "attempt_idx": 1,
                         "generator": "m", "probe": "lmrc.Bullying", "detector": "judge.ModelAsJudge",
                         "generations_per_prompt": 2},
     ["garak's hit log", ".report.jsonl"]),
    ("trl stepwise", {"prompt": "q", "completions": ["a"], "labels": [True]}, ["no known shape"]),
    ("images", {"prompt": "q", **ANSWERS, "images": ["x.png"]}, ["'images'", "only text"]),
    ("image parts", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, assistant("y")]}, ["not text"]),
    ("an input beside a prompt", {"prompt": "q", "input": "i", **ANSWERS}, ["row 1", "'input'", "--column input="]),
    ("another prompt", {"prompt": "other"} | {name: [user("q"), *text] for name, text in MESSAGES.items()},
     ["row 1", "'prompt'", "both conversations begin with"]),
    ("another prompt of messages",
     {"prompt": [system("s"), user("other")]} | {name: [user("q"), *text] for name, text in MESSAGES.items()},
     ["row 1", "'prompt'", "both conversations begin with"]),
    ("two system prompts", {"system": "t", "prompt": [system("s"), user("q")], **MESSAGES}, ["'system'", "differs"]),
    ("history as text", {"prompt": "q", "history": "[['a', 'b']]", **ANSWERS}, ["'history'", "[question, answer]"]),
    ("tools without a name", {"prompt": [user("q")], **MESSAGES, "tools": [{"x": 1}]}, ["'tools'", "no name"]),
    ("tools of a text", {"prompt": "q", **ANSWERS, "tools": TOOLS}, ["'tools'", "write the prompt as messages"]),
    ("broken calls", {"prompt": [user("q")], "chosen": [assistant("", tool_calls="[")], "rejected": [assistant("n")]},
     ["'chosen'", "not JSON"]),
    ("a weighted earlier turn", {"messages": [user("q"), assistant("a", weight=1), user("r"), assistant("y")]},
     ["row 1", "marked as trained on"]),
    ("an answer of the user's", {"prompt": [user("q")], "chosen": [user("y")], "rejected": [assistant("n")]},
     ["'chosen'", "no message is the assistant's"]),
    ("chat_template_kwargs", {"prompt": "q", **ANSWERS, "chat_template_kwargs": {"x": 1}}, ["'chat_template_kwargs'"]),
]  # fmt: skip
