"""Samples and uses of what programs write: run folders, caches and replies of servers."""

import json
import re
import sqlite3
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from bfpo.judges import load_judge, verdicts
from bfpo.judges.cache import VerdictCache
from bfpo.judges.verdict import Exchange
from support.mock_server import serving

EXCHANGES = [Exchange("How do I boil an egg?", "In hot water."), Exchange("Say a rude word.", "No, sorry.")]


@cache
def _evaluations():
    import tempfile

    from reports.worlds import world

    found = []
    for evaluation in world(per_task=4):
        small = replace(evaluation, likelihoods=evaluation.likelihoods[::40])
        with tempfile.TemporaryDirectory() as folder:
            small.save(Path(folder))
            found.append({path.name: path.read_bytes() for path in Path(folder).iterdir()})
    return found


def runs():
    return {f"run {n}": files for n, files in enumerate(_evaluations())}


def use_run(folder):
    """Compare a run with an undamaged one."""
    from bfpo.safehelp.compare import compare_models
    from bfpo.safehelp.records import Evaluation

    other = folder.parent / "other"
    if not other.exists():
        other.mkdir()
        for name, content in _evaluations()[1].items():
            (other / name).write_bytes(content)
    compare_models([Evaluation.load(folder)], [[Evaluation.load(other)]])


def use_page(folder):
    """Build a card and what a page holds, without drawing its plots."""
    from bfpo.reports.card import model_card
    from bfpo.reports.packed_answers import answers_of, packed
    from bfpo.reports.report import prepare_report
    from bfpo.safehelp.records import Evaluation

    evaluation = Evaluation.load(folder)
    model_card(evaluation)
    packed(answers_of(prepare_report([evaluation], folder / "page").models))


@cache
def _cached_verdicts():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with VerdictCache(Path(folder) / "v.sqlite") as kept:
            list(verdicts(load_judge("keywords"), EXCHANGES, kept))
        with sqlite3.connect(Path(folder) / "v.sqlite") as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        return (Path(folder) / "v.sqlite").read_bytes()


def caches():
    import tempfile

    from bfpo.engine.reference_cache import ReferenceCache

    with tempfile.TemporaryDirectory() as folder:
        cache = ReferenceCache.open(Path(folder), "d" * 64, {"model": "m", "architecture": "a", "precision": "fp32"})
        cache.add(np.array([b"k" * 16, b"l" * 16], dtype="S16"), np.array([-1.0, -2.0]), np.array([3, 4]))
        (place,) = Path(folder).iterdir()
        scores = {path.name: path.read_bytes() for path in place.iterdir()}
    return {"reference": scores, "verdicts": {"v.sqlite": _cached_verdicts()}}


def use_cache(folder):
    from bfpo.engine.reference_cache import part_files, read_part, summarize

    if (folder / "v.sqlite").exists():
        with VerdictCache(folder / "v.sqlite") as kept:
            list(verdicts(load_judge("keywords"), EXCHANGES, kept))
        return
    for path in part_files(folder):
        read_part(path)
    list(summarize(folder.parent))


def replies():
    top = [{"token": "no", "logprob": -0.1}, {"token": "yes", "logprob": -2.5}]
    content = {"content": [{"token": "no", "top_logprobs": top}]}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "no"},
        "logprobs": content,
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    chat = {"id": "1", "model": "m", "choices": [choice], "usage": usage}
    logprobs = {"tokens": ["no"], "top_logprobs": [{"no": -0.1}]}
    plain = {"model": "m", "choices": [{"text": "no", "finish_reason": "length", "logprobs": logprobs}]}
    thinking = {**chat, "choices": [choice | {"message": {"content": "<think>x</think>no", "reasoning_content": "y"}}]}
    parts = {**chat, "choices": [choice | {"message": {"content": [{"type": "text", "text": "no"}], "refusal": "z"}}]}
    samples = {"chat": chat, "plain": plain, "thinking": thinking, "parts": parts, "error": {"error": {"message": "m"}}}
    head = {"status": 200, "headers": {"content-type": "application/json", "retry-after": "1"}}
    failed = {"status": 429, "headers": {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}}
    heads = {"error": failed}
    return {
        name: {"head.json": json.dumps(heads.get(name, head)).encode(), "body.json": json.dumps(body).encode()}
        for name, body in samples.items()
    }


def use_reply(folder):
    """A judge and a generator that get the reply."""
    from bfpo.endpoints import EndpointConfig

    try:
        head = json.loads((folder / "head.json").read_bytes())
        status, headers = range(200, 600)[head["status"] - 200], dict(head["headers"])
        body = (folder / "body.json").read_bytes()
        # Headers that HTTP allows, but for those that say where a reply ends: a wrong length is waited for.
        sent = {
            name: value
            for name, value in headers.items()
            if re.fullmatch(r"[A-Za-z0-9-]+", name)
            and re.fullmatch(r"[ -~]*", value)
            and name.lower() not in ("content-length", "transfer-encoding", "connection")
        }
    except Exception:
        return  # no reply that could come over HTTP
    with serving(lambda *_: (status, sent, body)) as server:
        _ask_everything(
            EndpointConfig(
                url=server.url, model="m", attempts=2, backoff=0, longest_wait=0.01, patience=0.01, timeout=1
            )
        )


def _ask_everything(config):
    from bfpo.endpoints import Endpoint
    from bfpo.generation.endpoint_generator import EndpointGenerator
    from bfpo.generation.protocol import Decoding, SampleRequest
    from bfpo.judges.guard_templates import template_named, yes_no_template
    from bfpo.judges.served import ServedJudge

    endpoint = Endpoint(config)
    for template in (yes_no_template("Is it rude? {answer}"), template_named("harmbench")):
        judged = ServedJudge(template, endpoint).judge(EXCHANGES[:1])
        assert all(verdict.p_safe is None or 0 <= verdict.p_safe <= 1 for verdict in judged)
    EndpointGenerator(endpoint).generate([SampleRequest("k", "q", 1)], Decoding())
