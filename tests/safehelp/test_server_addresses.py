"""A server's address is where a model runs, not what it is: runs go on elsewhere, and all addresses are recorded."""

import json

import pytest

from bfpo.endpoints import EndpointConfig
from bfpo.errors import BfpoError
from bfpo.generation.endpoint_generator import EndpointGenerator
from bfpo.generation.protocol import Decoding, without_address
from bfpo.safehelp.evaluate import evaluate
from bfpo.safehelp.suites import Suite
from bfpo.shards import Shard
from safehelp.test_evaluate import ITEMS, Says, Server

ONE, TWO = "http://localhost:1/v1 org/m", "http://localhost:2/v1 org/m"


def served_at(port, model="org/m", failing=()):
    server = Server(failing)
    server.config = EndpointConfig(url=f"http://localhost:{port}/v1", model=model)
    return EndpointGenerator(server)


def evaluated(folder, generator, **more):
    decoding = Decoding(batch_size=2)
    return evaluate(
        generator, Suite("s", ITEMS, []), name="m", folder=folder, decoding=decoding, judges=[Says("one", "safe")],
        **more,
    ).header  # fmt: skip


def test_a_run_goes_on_at_another_address_of_its_model(tmp_path):
    first = evaluated(tmp_path, served_at(1, failing=[ITEMS[-1].prompt]))
    assert (first.model_path, first.other_paths, first.counts["unanswered"]) == (ONE, (), 1)
    moved = served_at(2)
    second = evaluated(tmp_path, moved)
    assert (second.model_path, second.other_paths, second.counts["unanswered"]) == (TWO, (ONE,), 0)
    assert [request.prompt[-1]["content"] for request in moved.endpoint.requests] == [ITEMS[-1].prompt]
    assert json.loads((tmp_path / "run.json").read_text())["other_paths"] == [ONE]
    back = evaluated(tmp_path, served_at(1))
    assert (back.model_path, back.other_paths) == (ONE, (TWO,))
    with pytest.raises(BfpoError, match=r"a run with another model_path \(org/m, now org/other\)"):
        evaluated(tmp_path, served_at(1, "org/other"))


def test_parts_from_several_addresses_are_merged(tmp_path):
    parts = [tmp_path / "1", tmp_path / "2"]
    for number, part in enumerate(parts, 1):
        evaluated(part, served_at(number), shard=Shard(number, 2))
    merged = evaluated(tmp_path / "all", served_at(1), merge=parts)
    assert (merged.model_path, merged.other_paths) == (ONE, (TWO,))
    with pytest.raises(BfpoError, match=r"a part of a run with another model_path \(org/m, now org/other\)"):
        evaluated(tmp_path / "more", served_at(1, "org/other"), merge=parts)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (ONE, "org/m"), ("https://h/v1 my model", "my model"), ("org/m", "org/m"), ("runs/my model", "runs/my model"),
        ("http://h:1/v1", "http://h:1/v1"), ("httpd model", "httpd model"), (None, None),
    ],
)  # fmt: skip
def test_only_an_address_is_left_out(path, model):
    assert without_address(path) == model
