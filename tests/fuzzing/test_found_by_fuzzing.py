"""Faults that the fuzzer found, each with the error that it should have been."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from bfpo.endpoints import CompletionRequest, Endpoint, EndpointConfig, Failure
from bfpo.errors import BfpoError
from bfpo.judges import load_judge
from bfpo.labeling.fitted import load_labeling
from bfpo.models import load_model
from bfpo.preferences.loading import load_preferences
from fuzzing.targets import EXCHANGES, TARGETS, TEXTS
from support.mock_server import serving


def refusal(name, folder, sample):
    """The error of a target for a folder with these files."""
    folder.mkdir(exist_ok=True)
    for file, content in sample.items():
        (folder / file).write_bytes(content)
    with pytest.raises(BfpoError) as caught:
        TARGETS[name].use(folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("run.json", lambda text: text[:-20], "run.json: can't be read as the header of an evaluation (Expecting"),
        (
            "run.json",
            lambda text: text.replace(b"fixture", b"\xc1"),
            "run.json: can't be read as the header of an evaluation ('utf-8' codec",
        ),
        ("run.json", lambda text: b"[" * 100_000, "header of an evaluation (it is nested too deeply)"),
        (
            "run.json",
            lambda text: text.replace(b'"suite": "fixture"', b'"suite": 5'),
            "(suite: input should be a valid",
        ),
        (
            "scores.json",
            lambda text: b"{}",
            "scores.json: can't be read as the scores of an evaluation (the key 'scores' is missing",
        ),
        (
            "scores.json",
            lambda text: text.replace(b'"low"', b'"lower"', 1),
            "lower' (did you mean 'low'?)",
        ),
        ("generations.jsonl", lambda text: b"7\n" + text, "should be an object with keys, not 7"),
        ("generations.jsonl", lambda text: text.replace(b'"benign"', b'"bening"'), "(kind: input should be"),
        (
            "generations.jsonl",
            lambda text: text.replace(b'"p_help"', b'"p_helps"'),
            "unknown key 'p_helps' (did you mean 'p_help'?)",
        ),
        (
            "likelihoods.jsonl",
            lambda text: text.replace(b'"logps": [', b'"logps": ["x", '),
            "(logps.0: input should be",
        ),
        (
            "likelihoods.jsonl",
            lambda text: text.replace(b'"correct": [1.0, 0.0]', b'"correct": []'),
            "its choices, logps, bytes and correct are not of the same number",
        ),
        (
            "scores.json",
            lambda text: text.replace(b'"metric": "acc"', b'"metric": "(acc"'),
            "a score of the run ('(acc'",
        ),
        (
            "scores.json",
            lambda text: text.replace(b'"task": "truthfulqa_mc2"', b'"task": "truthfulqa"'),
            "of the task 'truthfulqa') has no items",
        ),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, file, damage, says):
    sample = dict(TARGETS["runs"].samples()["run 0"])
    sample[file] = damage(sample[file])
    assert says in refusal("runs", tmp_path / "run", sample)


def test_a_run_without_its_scores_is_named(tmp_path):
    sample = {name: content for name, content in TARGETS["runs"].samples()["run 0"].items() if name != "scores.json"}
    assert "scores.json: can't be read as the scores of an evaluation (No such file" in refusal(
        "runs", tmp_path / "run", sample
    )


@pytest.mark.parametrize(
    ("name", "sample", "says"),
    [
        ("suites", {"suite.yaml": b"suite: \x96"}, "suite.yaml: can't be read as a suite ('utf-8' codec"),
        ("preferences", {"r.jsonl": b'{"messages": [{"role": "user", "content": "q"}]}\n{}\n'}, "column 'messages'"),
        ("prompts", {"p.txt": b"one\xff"}, "byte 3 is not UTF-8"),
        ("prompts", {"p.jsonl": b'{"prompt": [{"role": "user"}]}'}, "row 1, column 'prompt': it is missing or neither"),
        ("answers", {"q.jsonl": b'{"row": 2, "prompt": "q", "responses": 7, "asks": {"0": 1}}'}, "asks.0"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, sample, says):
    assert says in refusal(name, tmp_path / "input", sample)


def test_stored_verdicts_may_lack_a_probability_but_not_have_a_list_as_behavior(tmp_path):
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps(TEXTS[0] | {"label": "unparsed"}))
    assert load_judge(str(path)).judge(EXCHANGES[:1])[0].p_safe is None
    path.write_text(json.dumps(TEXTS[0] | {"label": "unparsed", "behavior": ["x"]}))
    with pytest.raises(BfpoError, match="row 1, column 'behavior'"):
        load_judge(str(path))


def test_a_damaged_description_of_a_reference_cache_is_named(tmp_path):
    sample = TARGETS["caches"].samples()["reference"]
    for content in (b"{", b"[]", b"\xff"):
        said = refusal("caches", tmp_path / "cache", sample | {"model.json": content})
        assert "model.json" in said
        assert "delete its folder" in said


def test_a_name_that_no_file_can_have_is_an_unknown_name():
    for load in (load_judge, load_model, load_preferences):
        with pytest.raises(BfpoError):
            load("x" * 5000)


def test_a_reply_of_brackets_alone_is_not_json():
    with serving(lambda body, attempt: (200, {}, b"[" * 100_000)) as server:
        config = EndpointConfig(url=server.url, model="m", attempts=1)
        (reply,) = Endpoint(config).complete([CompletionRequest("q")])
    assert isinstance(reply, Failure)
    assert "the reply is malformed" in reply.reason


@pytest.mark.parametrize("damaged", [b"prompt", b"a text"])
def test_parquet_with_a_name_or_a_text_that_is_not_utf_8_is_damaged(tmp_path, damaged):
    path = tmp_path / "pairs.parquet"
    table = pyarrow.table({"prompt": ["a text"], "chosen": ["b"], "rejected": ["c"]})
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(damaged, b"\xdf" + damaged[1:]))
    with pytest.raises(BfpoError, match="it is not Parquet"):
        load_preferences(str(path))


def test_a_labeling_with_a_number_beyond_all_floats_is_refused(tmp_path):
    labeling = {"format": 1, "b1": 3.0, "alpha": 0.5, "prices": {}, "record": {}}
    for change in ({"b1": 10**400}, {"prices": {"theft": 10**400}}):
        (tmp_path / "labeling.json").write_text(json.dumps(labeling | change))
        with pytest.raises(BfpoError, match=r"(b1|prices.theft): input should be a valid number"):
            load_labeling(tmp_path / "labeling.json")


def test_a_cache_of_verdicts_whose_schema_is_not_utf_8_is_damaged(tmp_path):
    sample = TARGETS["caches"].samples()["verdicts"]
    schema = sample["v.sqlite"].replace(b"CREATE TABLE verdicts", b"CREATE TABLE verdict\xd3")
    assert "this is not a cache of verdicts, or it is damaged" in refusal(
        "caches", tmp_path / "cache", sample | {"v.sqlite": schema}
    )
