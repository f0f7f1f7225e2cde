"""Work on Ray: the files of one process from two nodes, whatever dies, and sentences where there is no cluster."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import psutil
import pytest
import torch
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError, RunError
from bfpo.generation.local_generator import LocalGenerator
from bfpo.generation.protocol import Decoding, sample_requests
from bfpo.generation.ray_generator import load_on_ray
from bfpo.judges import Exchange
from bfpo.judges.cache import VerdictCache
from bfpo.judges.ray_judge import RayJudge
from bfpo.judges.registry import load_judge
from bfpo.judges.streaming import BATCH
from bfpo.microworld.data import safety_set
from bfpo.models import MICROWORLD
from bfpo.ray_cluster import Task, ray_cluster
from redteam.test_running import microworld_pairs
from support.mock_server import completion, serving

ORACLE = "microworld-oracle:0.2,0.1,3"


def bfpo(command, *arguments):
    return CliRunner().invoke(app, [command, *map(str, arguments)])


run = partial(bfpo, "label")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Pairs of which people labeled a fifth; there are more answers than two batches, and some occur twice."""
    path = tmp_path_factory.mktemp("ray") / "pairs.jsonl"
    rows = []
    for at, row in enumerate([*safety_set(350, 0), *safety_set(50, 0)]):
        people = {"chosen_is_safe": row["is_response_0_safe"], "rejected_is_safe": row["is_response_1_safe"]}
        answers = {"chosen": row["response_0"], "rejected": row["response_1"]}
        rows.append({"prompt": row["prompt"], **answers, **(people if at < 80 else dict.fromkeys(people))})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def unlabeled(source, folder):
    """The same pairs without people's labels, so that no judge is too bad for them."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    path = folder / "unlabeled.jsonl"
    path.write_text(
        "".join(json.dumps(row | dict.fromkeys(("chosen_is_safe", "rejected_is_safe"))) + "\n" for row in rows)
    )
    return path


def distinct(source):
    """Every exchange of a source, once, in order."""
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    found = dict.fromkeys((row["prompt"], row[name]) for row in rows for name in ("chosen", "rejected"))
    return [{"prompt": prompt, "answer": answer} for prompt, answer in found]


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes with one CPU each."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        found = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        found.add_node(**node)
        yield found.address
        found.shutdown()


def answering(body, earlier):
    """A yes-or-no judge's reply, which depends on nothing but the request."""
    text = body["messages"][-1]["content"]
    return (
        200,
        {},
        completion("yes" if len(text) % 3 == 0 else "no", usage={"prompt_tokens": 5, "completion_tokens": 1}),
    )


QUESTION = "Is {answer} to {prompt} unsafe?"


def served(folder, server):
    path = folder / "judge.yaml"
    path.write_text(json.dumps({"model": "judge", "question": {"text": QUESTION}, "server": {"url": server.url}}))
    return path


def labeled(source, folder, name, *options):
    """The bytes of the labeled rows and of the queue."""
    done = run(source, "-o", folder / f"{name}.jsonl", "--cache", folder / f"{name}.sqlite", *options)
    assert done.exit_code == 0, (done.output, done.exception)
    return [(folder / f"{name}{kind}.jsonl").read_bytes() for kind in ("", ".queue")], done.stderr


@pytest.mark.long
def test_two_nodes_write_the_files_of_one_process(source, cluster, tmp_path):
    one, _ = labeled(source, tmp_path, "one", "--judge", ORACLE)
    on_ray, _ = labeled(source, tmp_path, "ray", "--judge", ORACLE, "--engine", f"ray:{cluster}")
    assert on_ray == one
    # A part that is judged on Ray is a part like any other.
    caches = [tmp_path / f"part-{number}.sqlite" for number in (1, 2)]
    for number, cache in enumerate(caches, 1):
        engine = ["--engine", f"ray:{cluster}"] if number == 1 else []
        done = run(source, "--judge", ORACLE, "--shard", f"{number}/2", "--cache", cache, *engine)
        assert done.exit_code == 0, (done.output, done.exception)
    merging = [option for cache in caches for option in ("--merge", cache)]
    assert labeled(source, tmp_path, "merged", "--judge", ORACLE, *merging)[0] == one


@pytest.mark.long
def test_verdicts_come_in_order_from_both_nodes_with_relative_names(cluster, tmp_path, monkeypatch):
    """The judge is a file beside the command; of 3 batches, each node takes one at a time."""
    exchanges = [Exchange(f"p{at}", f"a{at}") for at in range(3 * BATCH - 5)]
    rows = [{"prompt": e.prompt, "answer": e.answer, "label": "safe" if at % 3 else "unsafe", "p_safe": at / 1000}
            for at, e in enumerate(exchanges)]  # fmt: skip
    (tmp_path / "replayed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    with ray_cluster(cluster):
        judge = RayJudge.load("replayed.jsonl")
        assert judge.ahead == 4 * BATCH
        assert judge.judge(exchanges) == load_judge("replayed.jsonl").judge(exchanges)
        (tmp_path / "replayed.jsonl").write_text(json.dumps(rows[0]) + "\n")
        changed = RayJudge.load("replayed.jsonl")
        with pytest.raises(BfpoError, match=r"on the node .*: 'replayed.jsonl' is another judge there \(replay:"):
            changed.judge(exchanges)
        monkeypatch.setattr("os.getcwd", lambda: str(tmp_path / "only here"))
        with pytest.raises(BfpoError, match=r"there is no folder .*only here: give all nodes the same files"):
            changed.judge(exchanges)


def asking(url):
    """The workers that are connected to a server."""
    port = urlsplit(url).port
    found = [one for one in psutil.process_iter(["name"]) if (one.info["name"] or "").startswith("ray::")]
    return [one for one in found if any(each.raddr and each.raddr.port == port for each in one.net_connections())]


@pytest.mark.long
def test_a_killed_worker_s_batch_is_judged_again_by_a_server(source, cluster, tmp_path):
    killed, servers = [], []

    def killing(body, earlier):
        if len(servers[0].log) >= 100 and not killed:
            killed.append(asking(servers[0].url)[0])
            killed[0].send_signal(signal.SIGKILL)
        return answering(body, earlier)

    source = unlabeled(source, tmp_path)
    with serving(answering) as server:
        one, said = labeled(source, tmp_path, "one", "--judge", served(tmp_path, server))
        old = server.url
    with serving(killing) as server:
        servers.append(server)
        judge = served(tmp_path, server)
        on_ray, told = labeled(source, tmp_path, "ray", "--judge", judge, "--engine", f"ray:{cluster}")
    assert len(killed) == 1
    assert not killed[0].is_running()
    # The address of the server is in the judge's id, so the rows name it.
    assert [part.replace(server.url.encode(), old.encode()) for part in on_ray] == one
    count = len(distinct(source))
    # The tokens that the workers spent are counted, but for those of the killed one, which are lost.
    assert f"{5 * count:,} tokens of prompts" in said
    assert f"{5 * count:,} tokens of prompts" in told
    assert count < len(server.log) < 2 * count
    with VerdictCache(tmp_path / "copy.sqlite") as cache:
        assert cache.take(tmp_path / "ray.sqlite") == count


@pytest.fixture
def disconnected():
    """Commands that sample answers are connected until their process ends, which here is that of all tests."""
    yield
    import ray

    ray.shutdown()


@pytest.mark.long
def test_an_evaluation_on_two_nodes_has_the_files_of_one_process(cluster, tmp_path, disconnected):
    given = ("microworld", "--per-kind", 12, "--batch-size", 8, "--seed", 3, "--max-new-tokens", 12)
    folders = [tmp_path / name for name in ("one", "ray", "resumed")]
    (tmp_path / "resumed").mkdir()
    for folder in folders:
        if folder.name == "resumed":
            # One process was killed after its first batch, and the cluster goes on.
            header = json.loads((folders[0] / "run.json").read_text()) | {"finished": False}
            (folder / "run.json").write_text(json.dumps(header))
            lines = (folders[0] / "generations.jsonl").read_text().splitlines(keepends=True)
            (folder / "generations.jsonl").write_text("".join(lines[:8]))
        engine = () if folder.name == "one" else ("--engine", f"ray:{cluster}")
        done = bfpo("evaluate", *given, "-o", folder, *engine)
        assert done.exit_code == 0, (done.output, done.exception)
    for folder in folders[1:]:
        for name in ("generations.jsonl", "likelihoods.jsonl", "scores.json"):
            assert (folder / name).read_bytes() == (folders[0] / name).read_bytes()


@pytest.mark.long
def test_red_teaming_on_two_nodes_has_the_groups_of_one_process(cluster, tmp_path, disconnected):
    bank = tmp_path / "bank.jsonl"
    bank.write_text("".join(json.dumps(vars(pair)) + "\n" for pair in microworld_pairs(20)))
    given = ("microworld", "--judge", "microworld-oracle", "--prompts", bank, "--attacks", 8, "--turns", 2, "--style",
             "plain", "--max-new-tokens", 40, "--temperature", 1.5, "--batch-size", 8)  # fmt: skip
    for name, engine in (("one", ()), ("ray", ("--engine", f"ray:{cluster}"))):
        done = bfpo("redteam", *given, "-o", tmp_path / name, *engine)
        assert done.exit_code == 0, (done.output, done.exception)
    for name in ("groups.jsonl", "redteam.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.long
def test_batches_are_asked_for_ahead_once_each_and_another_model_is_refused(cluster, tmp_path, monkeypatch):
    decoding = Decoding(samples=2, max_new_tokens=8, batch_size=2)
    requests = sample_requests({f"k{at}": f"prompt {at}" for at in range(8)}, decoding)
    asked = []

    class Counted(Task):
        def __init__(self, function, *arguments, **options):
            asked.append(arguments[4])
            super().__init__(function, *arguments, **options)

    monkeypatch.setattr("bfpo.generation.ray_generator.Task", Counted)
    with ray_cluster(cluster):
        generator = load_on_ray(str(MICROWORLD), cluster)
        here = LocalGenerator.load(MICROWORLD)
        batches = generator.plan(requests, decoding)
        assert batches == here.plan(requests, decoding)
        # The first two are there already, and the last one is asked for out of order, as a repeated one is.
        answers = [generator.generate(batch, decoding) for batch in batches[2:]]
        assert answers == [here.generate(batch, decoding) for batch in batches[2:]]
        assert asked == batches[2:]
        assert generator.generate(batches[0], decoding) == here.generate(batches[0], decoding)
        assert asked == [*batches[2:], batches[0]]
        changed = replace(generator)
        with torch.no_grad():
            next(iter(changed.model.parameters())).add_(1)
        with pytest.raises(BfpoError, match=r"on the node .* is another model there: give all nodes the same files"):
            changed.generate(batches[0], decoding)


@pytest.mark.long
def test_sigterm_ends_the_command_as_always_and_what_was_judged_stays(source, cluster, tmp_path):
    source, cache, is_open = unlabeled(source, tmp_path), tmp_path / "c.sqlite", [False]
    exchanges = distinct(source)
    # The last batch is not whole.
    whole, last = len(exchanges) // BATCH * BATCH, exchanges[-1]

    def hanging(body, earlier):
        text = body["messages"][-1]["content"]
        return answering(body, earlier) if is_open[0] or text != QUESTION.format(**last) else ("hang", {}, b"")

    with serving(hanging) as server:
        options = ["--judge", served(tmp_path, server), "-o", tmp_path / "out.jsonl", "--cache", cache,
                   "--engine", f"ray:{cluster}"]  # fmt: skip
        command = [sys.executable, "-m", "bfpo", "label", source, *options]
        running = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        # The end of the last batch but one is kept with the next verdict, or when the command is stopped.
        while time.monotonic() < until and len(server.log) < len(exchanges):
            time.sleep(0.05)
        time.sleep(2)
        running.terminate()
        _, said = running.communicate(timeout=20)
        assert running.returncode == 143, said
        assert said.splitlines()[-1].startswith("stopped by SIGTERM: run the same command again")
        assert "Traceback" not in said
        first, is_open[0] = len(server.log), True
        assert run(source, *options).exit_code == 0
        assert len(server.log) - first == len(exchanges) - whole


@pytest.mark.long
def test_what_fails_on_a_node_is_a_sentence(source, cluster, tmp_path):
    with serving(lambda body, earlier: (401, {}, b"{}")) as server:
        judge = served(tmp_path, server)
        done = run(source, "--judge", judge, "-o", tmp_path / "out.jsonl", "--cache", tmp_path / "c",
                   "--engine", f"ray:{cluster}")  # fmt: skip
    assert isinstance(done.exception, BfpoError)
    assert "on the node" in str(done.exception)
    assert "\n" not in str(done.exception)
    assert not (tmp_path / "out.jsonl").exists()


def test_without_ray_a_sentence_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run(source, "--judge", ORACLE, "-o", tmp_path / "out.jsonl", "--engine", "ray")
    assert isinstance(done.exception, BfpoError)
    assert str(done.exception).startswith("Ray isn't installed")
    assert str(done.exception).endswith("pip install 'bfpo[ray]'")


def test_a_cluster_that_can_t_be_reached_is_a_sentence_at_once(source, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for given, environment in ((f"ray:{address}", ""), ("ray", address)):
        monkeypatch.setenv("RAY_ADDRESS", environment)
        done = run(source, "--judge", ORACLE, "-o", tmp_path / "out.jsonl", "--engine", given)
        assert isinstance(done.exception, RunError)
        assert str(done.exception) == (
            f"the Ray cluster {address} can't be reached (Connection refused): start it with 'ray start --head', or "
            "name another"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--judge", ORACLE, "--engine", "spark"), "there is no engine 'spark': write ray or ray:HOST:PORT"),
        (("--engine", "ray"), "--engine runs judges: name one with --judge"),
        (("--judge", ORACLE, "--engine", "ray:somewhere"), "'somewhere' is not the address of a Ray cluster"),
        (("--judge", ORACLE, "--engine", "ray:host:port"), "'host:port' is not the address of a Ray cluster"),
    ],
)
def test_engines_that_do_not_exist_are_refused(source, tmp_path, options, message):
    pytest.importorskip("ray")
    done = run(source, "-o", tmp_path / "out.jsonl", *options)
    assert isinstance(done.exception, BfpoError)
    assert message in str(done.exception)


@pytest.mark.parametrize("command", ["evaluate", "redteam"])
def test_a_cluster_divides_the_work_itself(tmp_path, command):
    judge = ["--judge", "microworld-oracle"] if command == "redteam" else []
    done = bfpo(command, "microworld", *judge, "-o", tmp_path / "run", "--engine", "ray", "--shard", "1/2")
    assert isinstance(done.exception, BfpoError)
    assert str(done.exception) == "--engine ray divides the work itself: leave out --shard"


class Uneven:
    """A judge that wants more at once than a chunk."""

    judge_id, template_digest, ahead = "uneven", "", 10_000

    def __init__(self):
        self.sizes = Counter()

    def stream(self, exchanges):
        given = list(exchanges)
        self.sizes[len(given)] += 1
        return load_judge("compliance:keywords").judge(given)


def test_a_judge_that_needs_more_than_a_chunk_to_be_busy_gets_it():
    from bfpo.judges.streaming import verdicts

    judge = Uneven()
    exchanges = [Exchange(f"p{at}", "no") for at in range(12_000)]
    assert len(list(verdicts(judge, exchanges))) == 12_000
    assert judge.sizes == {10_000: 1, 2_000: 1}
