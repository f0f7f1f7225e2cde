"""Seeded damage to files: wrong values inside of JSON and YAML, and wrong bytes in anything."""

import contextlib
import csv
import io
import json
import random

import yaml

BOMB = "[" + ", ".join(["*a"] * 9) + "]"
# YAML whose aliases stand for 9 ** 9 values.
ALIASES = "a: &a [x, x]\n" + "".join(f"b{n}: &a {BOMB}\n" for n in range(9))
TOKENS = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\xed\xa0\x80", b'"', b"'", b"{", b"}", b"[", b"]",
    b",", b":", b"- ", b"[" * 3000, b'{"a":' * 1500, b"&a ", b"*a", b"!!python/object/apply:os.getcwd []", b"%YAML 9\n",
    b"{{", b"{% for x in range(9) %}", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"\\ud800", b"null", b"true",
    b"\xe2\x80\xa8", b"2026-13-01", b"0x1F", b"<<: *a\n", b"\t", ALIASES.encode(),
]  # fmt: skip


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


VALUES = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e308, 1e-320, 10**30, -(10**400), float("nan"), float("inf"),
    "", " ", "\n", "\x00", "\ud800", "nan", "1e5", "true", "x" * 100_000, "é" * 70, "a.b", "../..", "/", "~", "<b>&",
    "{{ 1 / 0 }}", "{{ missing }}", "{% if %}", "'a' * 10 ** 9", "{{ 'a' * 10 ** 9 }}", "9 ** 9 ** 9", "(" * 300,
    "range(10 ** 9) | list", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "(a+)+$", "[", "http://127.0.0.1:1/v1", "no-such-name", [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": 1}},
    ["x", 1, None], [0.5, 0.5], [True, "no"], _nested(70), _nested(400), list(range(3000)),
]  # fmt: skip


def mutated(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """Damaged content of a file; ``others`` are files to take pieces from."""
    suffix = name.rpartition(".")[2]
    if suffix in _STRUCTURED and rng.random() < 0.7:
        with contextlib.suppress(RecursionError):  # too deep to be written as YAML
            return _STRUCTURED[suffix](rng, content)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        content = _bytes(rng, content, others)
    return content


def _bytes(rng, content, others):
    at = rng.randint(0, len(content))
    end = min(len(content), at + rng.choice([1, 1, 4, 40, len(content)]))
    kind = rng.randrange(7)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[end:]
    if kind == 2:
        return content[:at] + rng.randbytes(rng.choice([1, 2, 8, 64])) + content[end:]
    if kind == 3:
        return content[:at] + content[at:end] * rng.choice([2, 3, 50]) + content[end:]
    if kind == 4:
        other = rng.choice(others)
        start = rng.randint(0, len(other))
        return content[:at] + other[start : start + rng.choice([8, 80, len(other)])] + content[end:]
    if kind == 5 and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    return content[:at] + rng.choice(TOKENS) + content[at:]


def _changed(rng, value, depth=0):
    """The value with one place in it replaced, removed, doubled or renamed; containers are changed in place."""
    places = (
        list(value.keys() if isinstance(value, dict) else range(len(value))) if isinstance(value, dict | list) else []
    )
    if not places or (depth and rng.random() < 0.25):
        return rng.choice(VALUES)
    place = rng.choice(places)
    kind = rng.randrange(8)
    if kind < 4:
        value[place] = _changed(rng, value[place], depth + 1)
    elif kind == 4:
        value[place] = rng.choice(VALUES)
    elif kind == 5:
        del value[place]
    elif kind == 6:
        value[place] = value[rng.choice(places)]
    elif isinstance(value, dict):
        value[rng.choice(["", "a", "prompt", "é", "row", str(place) + " "])] = value.pop(place)
    else:
        value.insert(place, value[place])
    return value


def _json(rng, content):
    return _dumped(rng, _changed(rng, json.loads(content)))


def _dumped(rng, value):
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")


def _jsonl(rng, content):
    lines = content.splitlines()
    for _ in range(rng.choice([1, 1, 3])):
        at = rng.randrange(len(lines))
        lines[at] = _dumped(rng, _changed(rng, json.loads(lines[at]))) if b"\xed" not in lines[at] else lines[at]
    return b"\n".join(lines) + b"\n"


def _yaml(rng, content):
    changed = _changed(rng, yaml.safe_load(content))
    if rng.random() < 0.3:
        return _dumped(rng, changed)  # JSON is YAML
    try:
        text = yaml.safe_dump(changed, allow_unicode=rng.random() < 0.5)
    except RecursionError:  # nested deeper than PyYAML can write
        return _dumped(rng, changed)
    return text.encode(errors="surrogatepass")


def _csv(rng, content):
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = rng.choice(rows)
    kind = rng.randrange(3)
    if kind == 0:
        row[rng.randrange(len(row))] = str(rng.choice(VALUES))
    elif kind == 1:
        del row[rng.randrange(len(row))]
    else:
        row.insert(rng.randrange(len(row)), str(rng.choice(VALUES)))
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode(errors="surrogatepass")


_STRUCTURED = {"json": _json, "jsonl": _jsonl, "yaml": _yaml, "csv": _csv}
