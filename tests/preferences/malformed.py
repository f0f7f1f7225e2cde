"""Malformed preference files, as (name, content, words that the message must contain)."""

import gzip
import io
import json

import pyarrow
import pyarrow.parquet

GOOD = {
    "prompt": "a",
    "chosen": "b",
    "rejected": "c",
    "chosen_is_safe": True,
    "rejected_is_safe": False,
}
PKU = {
    "prompt": "a",
    "response_0": "b",
    "response_1": "c",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
    "better_response_id": 0,
    "safer_response_id": 0,
}

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(table):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), buffer)
    return buffer.getvalue()


def without(row, *names):
    return {name: value for name, value in row.items() if name not in names}


MALFORMED = [
    ("truncated.jsonl.gz", gzip.compress(lines(*[GOOD] * 200))[:60], ["not a complete gzip file", "compress it again"]),
    ("not_gzip.jsonl.gz", lines(GOOD), ["not a complete gzip file"]),
    ("broken.jsonl", lines(GOOD) + b'{"prompt": "a", \n', ["row 2", "not JSON", "fix the line"]),
    ("array.jsonl", lines(GOOD, [1, 2]), ["row 2", "a list, not an object"]),
    ("broken.json", b'[{"prompt": "a"', ["not JSON", "line 1"]),
    ("lines.json", lines(GOOD, GOOD), ["rename it to .jsonl"]),
    ("object.json", b'{"prompt": "a"}', ["a dict, not a list"]),
    ("empty.jsonl", b"", ["it is empty"]),
    ("blank.jsonl", b"\n\n  \n", ["it is empty"]),
    ("no_rows.json", b"[]", ["it has no rows"]),
    ("latin1.jsonl", lines(GOOD) + b'{"prompt": "caf\xe9"}\n', ["row 2", "not UTF-8", "save the file as UTF-8"]),
    ("latin1_header.csv", "prompt,chosen,rejected,größe\n".encode("latin-1"), ["not UTF-8", "save the file as UTF-8"]),
    ("utf16.csv", "prompt,chosen,rejected\na,b,c\n".encode("utf-16"), ["not UTF-8", "save the file as UTF-8"]),
    ("old_mac.csv", b"prompt,chosen,rejected\ra,b,c\r", ["not CSV", "a line end after every row"]),
    ("not_parquet.parquet", b"PAR1 or not", ["not Parquet"]),
    ("text.txt", b"hello", ["'.txt' is not supported", ".jsonl"]),
    ("null.jsonl", lines(GOOD, GOOD | {"chosen": None}), ["row 2", "'chosen'", "it is null"]),
    ("blank_answer.jsonl", lines(GOOD | {"rejected": "  "}), ["no row can be used", "pairs with an empty answer: 1"]),
    ("blank_prompt.jsonl", lines(GOOD | {"prompt": "  "}), ["row 1", "'prompt'", "it is"]),
    ("numbers.jsonl", lines(PKU | {"prompt": [0, 1]}), ["row 1", "'prompt'", "a message without role and content"]),
    ("number.jsonl", lines(GOOD | {"prompt": 7}), ["row 1", "'prompt'", "it is a int"]),
    ("nan.jsonl", b'{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_is_safe": NaN, "rejected_is_safe": 1}\n',
     ["row 1", "'chosen_is_safe'", "nan is not a probability"]),
    ("above_one.jsonl", lines(GOOD, GOOD | {"chosen_is_better": 1.7}), ["row 2", "'chosen_is_better'", "1.7"]),
    ("word_flag.jsonl", lines(GOOD | {"rejected_is_safe": "maybe"}), ["row 1", "'maybe' is not a probability"]),
    ("mistyped.jsonl", lines({"prompt": "a", "choosen": "b", "rejected": "c"}), ["'choosen'", "'chosen' mistyped"]),
    ("flag_column.jsonl", lines(without(GOOD, "chosen_is_safe") | {"chosen_safe": True}),
     ["'chosen_safe'", "'chosen_is_safe' mistyped"]),
    ("other_shape.jsonl", lines({"question": "a", "good": "b"}), ["no known shape", "question"]),
    ("identical.jsonl", lines(GOOD | {"rejected": "b"}), ["no row can be used", "pairs of two identical answers: 1"]),
    ("contradiction.jsonl", lines(PKU | {"safer_response_id": 1}), ["row 1", "'safer_response_id'", "correct"]),
    ("better_id.jsonl", lines(PKU, PKU | {"better_response_id": 2}), ["row 2", "2, not 0 or 1"]),
    ("some_flags.jsonl", lines(GOOD, GOOD | {"chosen_is_safe": None}), ["row 2", "unknown", "unknown_safety"]),
    ("no_prompt.jsonl", lines(without(GOOD, "prompt")), ["row 1", "'prompt'", "it is missing"]),
    ("mixed.jsonl", lines(GOOD, GOOD | {k: [{"role": "user", "content": v}] for k, v in
     {"prompt": "a", "chosen": "b", "rejected": "c"}.items()}), ["row 2", "string in some rows"]),
    ("no_content.jsonl", lines(GOOD | {"prompt": [{"role": "user"}]}), ["row 1", "a message has no content"]),
    ("scores.jsonl", lines({"prompt": "a", "responses": ["b", "c"], "helpfulness": [1.0]}),
     ["row 1", "'helpfulness'", "list of 2"]),
    ("unscored.jsonl", lines({"prompt": "a", "responses": ["b", "c"]}), ["row 1", "'helpfulness'", "missing"]),
    ("turns.jsonl", lines({"messages": [{"role": "user", "content": "a"}]}), ["row 1", "'messages'", "assistant"]),
    ("half_emoji.jsonl", lines(GOOD) + b'{"prompt": "p", "chosen": "a \\ud83d", "rejected": "b"}\n',
     ["row 2", "'chosen'", "half of a surrogate pair"]),
    ("half_emoji.json", b'[{"prompt": "p", "chosen": "a", "rejected": "b \\uDE00"}]', ["row 1", "'rejected'", "half"]),
    ("half_emoji_inside.jsonl", lines({"messages": [{"role": "user", "content": "a"}] * 2, "tools": '["\\ud83d"]'}),
     ["row 1", "'messages'"]),
    ("no_columns.jsonl", b"{}\n{}\n", ["no row has a column"]),
    ("some_empty.jsonl", lines(GOOD, {}), ["row 2", "'chosen'", "it is null"]),
    ("digits.jsonl", lines(GOOD).replace(b"false", b"9" * 400), ["row 1", "'rejected_is_safe'", "inf is not a prob"]),
    ("many_digits.jsonl",
     lines({"prompt": "a", "responses": ["b", "c"], "helpfulness": [1, 7]}).replace(b"7", b"7" * 5000),
     ["row 1", "'helpfulness'", "inf is not a number"]),
    ("deep.jsonl", lines(GOOD) + b'{"prompt": ' + b"[" * 3000 + b"]" * 3000 + b"}\n", ["row 2", "nested too deeply"]),
    ("deep.json", b"[" * 100_000 + b"]" * 100_000, ["nested too deeply"]),
    ("rather_deep.json", b'[{"prompt": ' + b"[" * 90 + b"]" * 90 + b"}]", ["row 1", "'prompt'", "nested too deeply"]),
    ("categories.jsonl", lines(GOOD | {"category": ["a", 1]}), ["row 1", "'category'", "list of names"]),
    ("weights.jsonl", lines(GOOD | {"weight": 1}, GOOD | {"weight": -1}), ["row 2", "'weight'", "-1 is not a weight"]),
    ("infinite_weight.jsonl", lines(GOOD | {"weight": float("inf")}), ["row 1", "'weight'", "finite"]),
    ("true_weight.jsonl", lines(GOOD | {"weight": True}), ["row 1", "'weight'", "True is not a weight"]),
    ("order.jsonl", lines(PKU | {"better_response_id": None}), ["row 1", "'chosen_is_better'", "unknown_order"]),
    ("no_turns.jsonl", lines({"messages": TURNS}, {}), ["row 2", "'messages'", "it is missing"]),
    ("rejected_number.jsonl", lines({"messages": TURNS, "rejected_response": 7}), ["row 1", "'rejected'", "is a int"]),
    ("rejected_null.jsonl", lines({"chosen": TURNS, "rejected": None}), ["row 1", "'rejected'", "it is null"]),
    ("cells.csv", b"prompt,chosen,rejected\na,b,c\na,b\n", ["row 2", "3 cells"]),
    ("null_better.parquet", parquet({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"], "chosen_is_better": [None]}),
     ["row 1", "'chosen_is_better'", "null"]),
]  # fmt: skip
