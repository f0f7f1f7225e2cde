"""The bundled model evaluated as a user would, by function, by server and by command."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.endpoints import EndpointConfig, Failure, Reply, Usage
from bfpo.errors import BfpoError, RunError
from bfpo.generation.endpoint_generator import EndpointGenerator
from bfpo.generation.protocol import ChoiceLogps, Completion, Decoding, Generator, ModelIdentity
from bfpo.judges.preference import Preference
from bfpo.judges.unjudged import NO_REPLY, unjudged
from bfpo.judges.verdict import Verdict
from bfpo.models import load_tokenizer
from bfpo.safehelp.cautions import cautions
from bfpo.safehelp.evaluate import evaluate, runnable
from bfpo.safehelp.items import ChoiceItem, PromptItem
from bfpo.safehelp.judge_panel import JudgePanel
from bfpo.safehelp.records import Evaluation, GenerationRecord, RunHeader
from bfpo.safehelp.scores import score
from bfpo.safehelp.suites import Suite, load_suite
from bfpo.statistics.judge_error import ErrorRates


def test_the_bundled_model_starts_helpful_and_harmful():
    result = evaluate("microworld", load_suite("microworld", per_kind=60), name="base")
    assert result.scores["helpful"].value > 0.7
    assert result.scores["harmless"].value < 0.45
    assert result.scores["incoherent"].value < 0.05
    assert result.scores["likelihood/helpful"].value > 0.9
    assert {(row.task, row.metric) for row in result.tasks} >= {
        ("microworld", "attack_success"), ("microworld_harmless", "acc"), ("microworld_harmless", "acc_bytes"),
    }  # fmt: skip
    record = result.generations[0]
    assert record.rendered == load_tokenizer("microworld").apply_chat_template(
        [{"role": "user", "content": record.prompt}], tokenize=False, add_generation_prompt=True
    )
    assert record.tokens == len(load_tokenizer("microworld")(record.answer)["input_ids"])
    header = result.header
    assert [judge.judge_id for judge in header.judges] == ["microworld-oracle"]
    assert (header.model, header.model_path) == ("base", "microworld")
    assert (header.counts["answers"], header.counts["unparsed"], header.finished) == (180, 0, True)
    assert len(header.model_digest or "") == len(header.chat_template_sha256 or "") == 64


class Says:
    """A judge with a constant verdict."""

    template_digest = "t"

    def __init__(self, judge_id, label, refusal="no"):
        self.judge_id, self._verdict = judge_id, Verdict(label, None, refusal, judge_id=judge_id)

    def judge(self, exchanges):
        return [self._verdict] * len(exchanges)


class Prefers:
    judge_id, template_digest = "prefers", ""

    def compare(self, comparisons):
        assert {pair.second for pair in comparisons} == {"theirs"}
        values = [0.9 if "good" in pair.first else None if "odd" in pair.first else 0.2 for pair in comparisons]
        choices = {0.9: "first", 0.2: "second", None: "unparsed"}
        return [Preference(choices[p_first], p_first, (), self.judge_id) for p_first in values]


ITEMS = [
    PromptItem("attack", "1", "harmful", "theft", "suffix", "a", "q1", behavior="b"),
    PromptItem("refuse", "1", "borderline", None, None, "1", "q2"),
    PromptItem("help", "1", "benign", None, None, "1", "q3", reference="theirs"),
    PromptItem("help", "2", "benign", None, None, "2", "q4", reference="theirs"),
    PromptItem("help", "3", "benign", None, None, "3", "q5", reference="theirs"),
]


def test_verdicts_help_and_behaviors_reach_their_answers():
    judging = JudgePanel(Suite("s", ITEMS, []), [Says("one", "safe"), Says("two", "unsafe")], Prefers())
    judged = judging.judge(ITEMS, ["bad", "good", "good", "odd", "bad"])
    assert [answer.p_help for answer in judged] == [None, None, 0.9, None, 0.2]
    assert [verdict.label for verdict in judged[0].verdicts] == ["safe", "unsafe"]
    assert [(used.judge_id, used.role) for used in judging.used] == [
        ("one", "primary"), ("two", "second"), ("prefers", "helpfulness"),
    ]  # fmt: skip
    # An empty answer loses to its reference, also if all answers of a task are empty.
    empty = judging.judge(ITEMS, ["", "", "", " ", "good"])
    assert [answer.p_help for answer in empty] == [None, None, 0.0, 0.0, 0.9]
    with pytest.raises(BfpoError, match="need a judge"):
        JudgePanel(Suite("s", ITEMS, []))


def test_a_named_judge_takes_the_oracles_place_but_not_its_measure_of_help():
    suite = load_suite("microworld", per_kind=2)
    judged = JudgePanel(suite, [Says("one", "unsafe")]).judge(suite.prompts[:1], ["nonsense"])[0]
    assert (judged.verdicts[0].judge_id, judged.detail, judged.p_help) == ("one", "incoherent", 0.0)


class Server:
    """Stands for `bfpo.endpoints.Endpoint`: the protocol's own replies, without a network."""

    config = EndpointConfig(url="http://localhost:8000/v1/", model="org/m")

    def __init__(self, failing=()):
        self.requests, self.failing = [], failing

    def complete(self, requests):
        for request in requests:
            self.requests.append(request)
            prompt = request.prompt[-1]["content"]
            if prompt in self.failing:
                yield Failure("HTTP 500", 6)
            else:
                yield Reply(f" good answer to {prompt} \ud800", "length" if prompt == "q2" else "stop")


def test_a_server_is_asked_with_seeds_and_its_failures_are_counted(tmp_path):
    suite, server = Suite("s", ITEMS, []), Server()
    settings = {"judges": [Says("one", "safe")], "helpfulness_judge": Prefers()}
    settings["decoding"] = Decoding(samples=2, batch_size=3, max_new_tokens=9)
    result = evaluate(EndpointGenerator(server, "brief"), suite, folder=tmp_path / "run", **settings)
    assert len({request.seed for request in server.requests}) == len(server.requests) == 10
    assert {(request.max_tokens, request.temperature, request.top_p) for request in server.requests} == {(9, 0.7, 0.95)}
    header, first = result.header, result.generations[0]
    assert (header.model, header.model_path) == ("m", "http://localhost:8000/v1 org/m")
    assert (header.model_digest, header.system_prompt) == (None, "brief")
    assert first.rendered == "system: brief\n\nuser: q1"
    assert first.answer == "good answer to q1 ?"
    assert [record.truncated for record in result.generations if record.prompt == "q2"] == [True, True]
    assert result.scores["helpful"].value == pytest.approx(0.9)
    assert Evaluation.load(tmp_path / "run") == result
    found = evaluate(EndpointGenerator(Server(["q4"])), suite, folder=tmp_path / "b", **settings)
    assert [record.failure for record in found.generations if record.prompt == "q4"] == ["HTTP 500"] * 2
    assert (found.header.counts["answers"], found.header.counts["unanswered"]) == (10, 2)
    assert found.scores["helpful"].value == pytest.approx(0.6)  # of 3 prompts, one of which has no answer
    assert any("2 of 10 prompts got no answer (HTTP 500)" in caution for caution in cautions(found))
    # The next run asks again for what is missing, and only for that.
    mended = Server()
    again = evaluate(EndpointGenerator(mended), suite, folder=tmp_path / "b", **settings)
    assert [request.prompt[-1]["content"] for request in mended.requests] == ["q4", "q4"]
    assert (tmp_path / "b" / "generations.jsonl").read_bytes().count(b"good answer to q4") == 2
    assert (again.header.counts["unanswered"], again.scores["helpful"].value) == (0, pytest.approx(0.9))
    with pytest.raises(RunError, match=r"none of 10 prompts got an answer \(HTTP 500\)"):
        evaluate(EndpointGenerator(Server([item.prompt for item in ITEMS])), suite, **settings)
    with pytest.raises(BfpoError, match="only likelihood tasks"):
        evaluate(EndpointGenerator(server), replace(suite, prompts=[]), **settings)


class Replies(Server):
    """A server with a reply for every prompt."""

    def __init__(self, **by_prompt):
        super().__init__()
        self.by_prompt = by_prompt

    def complete(self, requests):
        for request in requests:
            self.requests.append(request)
            yield self.by_prompt.get(request.prompt[-1]["content"], Reply("fine", "stop"))


def test_thinking_refusals_and_tokens_are_recorded_and_only_the_answer_is_judged(tmp_path):
    server = Replies(
        q1=Reply("", "content_filter", refusal="HTTP 400: filtered", usage=Usage(10, 0, 0)),
        q2=Reply("", "stop", refusal="I can't."),
        q3=Reply("Sure.", "stop", thinking="Let me see.", usage=Usage(10, 9, 7)),
        q4=Reply("", "length", thinking="Let me", usage=Usage(10, 5, 5)),
        q5=Reply("<think>Not told apart by the server.</think> Fine.", "stop"),
    )
    judge = Says("one", "safe")
    found = evaluate(EndpointGenerator(server), Suite("s", ITEMS, []), folder=tmp_path, judges=[judge])
    by_prompt = {record.prompt: record for record in found.generations}
    kinds = {prompt: record.answer_kind for prompt, record in by_prompt.items()}
    assert kinds == {
        "q1": "provider-refusal", "q2": "provider-refusal", "q3": "safe-helpful", "q4": "incoherent",
        "q5": "safe-helpful",
    }  # fmt: skip
    assert by_prompt["q1"].refusal == "HTTP 400: filtered"
    assert [by_prompt[q].thinking for q in ("q3", "q4", "q5")] == [
        "Let me see.", "Let me", "Not told apart by the server.",
    ]  # fmt: skip
    assert (by_prompt["q3"].answer, by_prompt["q5"].answer) == ("Sure.", "Fine.")
    assert (by_prompt["q3"].tokens, by_prompt["q3"].usage) == (2, {"prompt": 10, "completion": 9, "reasoning": 7})
    assert (by_prompt["q4"].only_thinking, by_prompt["q4"].finish_reason) == (True, "length")
    counts = found.header.counts
    assert (counts["provider_refusals"], counts["only_thinking"], counts["unanswered"]) == (2, 1, 0)
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["reasoning_tokens"]) == (30, 14, 12)
    # The provider's refusal is safe, is over-refusal of a borderline prompt, and is not the model's.
    assert (found.scores["harmless"].value, found.scores["over_refusal"].value) == (1.0, 1.0)
    told = " ".join(cautions(found))
    assert "1 of 5 outputs ended before the model stopped thinking: raise max_new_tokens" in told
    assert "2 of 5 answers are refusals by the provider's filter" in told
    assert Evaluation.load(tmp_path) == found


class Silent(Says):
    """A judge that gives no reply to some answers."""

    def __init__(self, *mute):
        super().__init__("silent", "safe")
        self.mute, self.asked = mute, []

    def judge(self, exchanges):
        self.asked += [exchange.prompt for exchange in exchanges]
        given = super().judge(exchanges)
        return [
            unjudged(self, NO_REPLY, "[HTTP 400: no]") if exchange.prompt in self.mute else verdict
            for exchange, verdict in zip(exchanges, given, strict=True)
        ]


def test_missing_verdicts_are_counted_and_asked_for_again_and_none_at_all_fails(tmp_path):
    suite, generator = Suite("s", ITEMS, []), EndpointGenerator(Replies())
    found = evaluate(generator, suite, folder=tmp_path, judges=[Silent("q1")])
    assert found.header.counts["unparsed"] == 1
    assert any("verdicts on 1 of 5 answers can't be read (no reply: 1)" in caution for caution in cautions(found))
    asked, mended = len(generator.endpoint.requests), Silent()
    again = evaluate(generator, suite, folder=tmp_path, judges=[mended])
    assert (again.header.counts["unparsed"], mended.asked, len(generator.endpoint.requests)) == (0, ["q1"], asked)
    with pytest.raises(
        RunError, match=r"the judge silent gave no verdict on any answer \(no reply; \[HTTP 400: no\]\)"
    ):
        evaluate(generator, suite, judges=[Silent(*(item.prompt for item in ITEMS))])


def test_a_judge_or_server_that_never_answers_ends_the_run_at_the_first_batch(tmp_path):
    suite, settings = Suite("s", ITEMS, []), {"decoding": Decoding(samples=8, batch_size=8)}
    server = Replies()
    with pytest.raises(RunError, match="gave no verdict"):
        evaluate(
            EndpointGenerator(server), suite, folder=tmp_path, judges=[Silent(*(i.prompt for i in ITEMS))], **settings
        )
    assert (len(server.requests), (tmp_path / "generations.jsonl").exists()) == (8, False)
    dead = Replies(**{item.prompt: Failure("HTTP 400: no.", 1, permanent=True) for item in ITEMS})
    with pytest.raises(RunError, match=r"none of 8 prompts got an answer \(HTTP 400: no\)"):
        evaluate(EndpointGenerator(dead), suite, folder=tmp_path / "b", judges=[Says("one", "safe")], **settings)
    assert len(dead.requests) == 8


def test_another_body_is_another_run(tmp_path):
    suite = Suite("s", ITEMS, [])
    evaluate(EndpointGenerator(Replies()), suite, folder=tmp_path, judges=[Says("one", "safe")])
    server = Replies()
    server.config = server.config.model_copy(update={"extra_body": {"reasoning_effort": "low"}})
    with pytest.raises(BfpoError, match="another extra_body"):
        evaluate(EndpointGenerator(server), suite, folder=tmp_path, judges=[Says("one", "safe")])


class Echo(Generator):
    """An engine written from docs/how-to/evaluate.md, "Your own engine"; with ``batches`` it dies after that many."""

    identity = ModelIdentity(path="engines/echo", digest="v1", system_prompt="Be brief.")

    def __init__(self, batches=None):
        self.batches = batches

    def generate(self, batch, decoding):
        if self.batches == 0:
            raise KeyboardInterrupt
        self.batches = None if self.batches is None else self.batches - 1
        texts = [f"{request.prompt} {request.seed} {decoding.temperature}" for request in batch]
        return [Completion(text[: decoding.max_new_tokens], truncated=False) for text in texts]


def test_an_engine_of_ones_own_is_evaluated_and_resumed(tmp_path):
    suite = load_suite("microworld", per_kind=4)
    settings = {"decoding": Decoding(samples=2, batch_size=5, temperature=0.3)}
    with pytest.warns(UserWarning, match="left out: microworld_helpful, microworld_harmless, microworld_over_refusal"):
        whole = evaluate(Echo(), suite, folder=tmp_path / "whole", **settings)
    suite, left_out = runnable(suite, Echo())
    assert len(left_out) == 3
    with pytest.raises(KeyboardInterrupt):
        evaluate(Echo(batches=2), suite, folder=tmp_path / "killed", **settings)
    assert len((tmp_path / "killed" / "generations.jsonl").read_text().splitlines()) == 10
    resumed = evaluate(Echo(), suite, folder=tmp_path / "killed", **settings)
    for name in ("generations.jsonl", "scores.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    times = {"started": "", "seconds": 0.0}
    assert replace(resumed.header, **times) == replace(whole.header, **times)
    assert (whole.header.model, whole.header.model_digest, whole.header.system_prompt) == ("echo", "v1", "Be brief.")
    assert whole.header.decoding["temperature"] == 0.3
    assert len(whole.generations) == len({record.answer for record in whole.generations}) == 24
    assert whole.generations[0].rendered == f"system: Be brief.\n\nuser: {suite.prompts[0].prompt}"
    unnamed = Echo()
    unnamed.identity = ModelIdentity()
    with pytest.raises(BfpoError, match="pass name="):
        evaluate(unnamed, suite)


def test_an_engine_that_scores_texts_runs_likelihood_tasks(tmp_path):
    class Scorer(Echo):
        def score_choices(self, requests, done=frozenset()):
            for request in requests:
                if request.key not in done:
                    yield [ChoiceLogps(request.key, tuple(-float(len(text)) for text in request.choices), True)]

    item = ChoiceItem("t", "1", "harmless", "c", "k", "the", ("tea", "Ü"), (0.0, 1.0), ("other", "biased"))
    suite = Suite("s", [], [item, replace(item, item="2")])
    result = evaluate(Scorer(), suite, folder=tmp_path)
    first, second = result.likelihoods
    assert (first.task, first.item, first.factor, first.category, first.cluster) == ("t", "1", "harmless", "c", "k")
    assert (first.choices, first.logps, first.bytes) == (item.choices, (-3.0, -1.0), (3, 2))
    assert (first.correct, first.labels, first.truncated) == ((0.0, 1.0), item.labels, True)
    assert second == replace(first, item="2")
    assert evaluate(Scorer(), suite, folder=tmp_path).likelihoods == [first, second]


def test_known_errors_of_the_judge_correct_attack_success():
    suite = load_suite("microworld", per_kind=4)
    error = ErrorRates.from_counts(90, 100, 95, 100)
    result = evaluate("microworld", suite, judge_error=error)
    (attack,) = (row.estimate.value for row in result.tasks if row.metric == "attack_success")
    corrected = result.scores["attack_success/corrected"]
    assert corrected.value == pytest.approx(min(1.0, max(0.0, (attack - 0.05) / 0.85)))
    assert corrected.low <= corrected.value <= corrected.high


def test_commands_evaluate_and_compare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["evaluate", "microworld", "--per-kind", "10", "--max-new-tokens", "20"]
    # Once in a separate process, as for a user.
    done = subprocess.run(
        [sys.executable, "-m", "bfpo", *small, "-o", "a", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["helpful"]["n"] == 20
    assert len((tmp_path / "a" / "generations.jsonl").read_text().splitlines()) == 30
    assert json.loads((tmp_path / "a" / "run.json").read_text())["command"].startswith("bfpo evaluate microworld")

    def bfpo(*arguments):
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False).output

    output = bfpo(*small, "-o", "b", "--seed", "1", "--name", "again", "--temperature", "0.7")
    assert "points in harmless (10 prompts)" in output
    assert "Scores and a record for every answer are in b." in output
    assert "again less microworld" in bfpo("compare", "a", "b")
    assert "microworld less again" in bfpo("compare", "a", "b", "--baseline", "b")
    for same in ("b/", "./b", str(tmp_path / "b")):
        assert bfpo("compare", "a", "b", "--baseline", same).count(" less again") == 1
    found = json.loads(bfpo("compare", "a", "a,b", "--json"))[0]
    assert found["seeds"] == [1, 2]
    assert {row["endpoint"] for row in found["rows"] if row["family"] == "declared"} == {
        "helpful",
        "harmless",
        "over_refusal",
    }


def test_a_model_that_got_worse_can_fail_a_check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suite = load_suite("microworld", per_kind=10)
    for name, text in (("good", "refusal"), ("bad", "nonsense")):
        records = []
        for item in suite.prompts:
            exact = suite.judge(item.prompt, "I can't help with that." if text == "refusal" else text)
            verdict = Verdict("unsafe" if name == "bad" else "safe", None, "no")
            records.append(
                GenerationRecord(item.task, item.item, 0, item.kind, None, None, item.item, item.prompt, "", text, 1,
                                 False, (verdict,), exact.p_help, "unsafe" if name == "bad" else "partial")
            )  # fmt: skip
        scores, tasks = score(records, [])
        Evaluation(RunHeader(name, "microworld"), scores, tasks, records, []).save(tmp_path / name)
    arguments = ["compare", "good", "bad", "--fail-if-worse"]
    assert isinstance(CliRunner().invoke(app, arguments).exception, RunError)
    assert CliRunner().invoke(app, ["compare", "bad", "good", "--fail-if-worse"]).exit_code == 0
    # What the baseline measured and the model didn't is no pass.
    records = [replace(record, p_help=None) for record in Evaluation.load(tmp_path / "good").generations]
    Evaluation(RunHeader("silent", "microworld"), *score(records, []), records, []).save(tmp_path / "silent")
    found = CliRunner().invoke(app, ["compare", "good", "silent", "--fail-if-worse"]).exception
    assert str(found) == "silent can't be compared with good in helpful"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "no/such/model", "--suite", "microworld"], "there is no model at 'no/such/model'"),
        (["evaluate", "microworld", "--suite", "x"], "no suite"),
        (["evaluate", "microworld", "--split", "tset"], "did you mean 'test'"),
        (["evaluate"], "name a model"),
        (["evaluate", "microworld", "--data", "x"], "TASK=FILE"),
        (["evaluate", "microworld", "--judge-errors", "1/2"], "four counts"),
        (["evaluate", "microworld", "--judge-errors", "3/2,1/2"], "0 <= A <= B"),
        (["evaluate", "microworld", "--second-judge", "keywords"], "name a first one"),
        (["compare", "a"], "at least two runs"),
        (["compare", "a", "b"], "contains no evaluation"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, BfpoError), result.output
    assert message in str(result.exception)
