"""Every JSON file that is read: whatever is wrong with it, one sentence says what, where and what to do."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bfpo.claims import claimed
from bfpo.config import CLOSED, read_json
from bfpo.engine.reference_cache import summarize
from bfpo.errors import BfpoError
from bfpo.generation.dial_file import load_dial
from bfpo.generation.protocol import Generator, ModelIdentity
from bfpo.judges.fitted import PACKAGED, load_fitted, load_packaged
from bfpo.labeling.fitted import load_labeling
from bfpo.redteam.archive import Planned
from bfpo.redteam.attacker import STYLE, Attacker
from bfpo.redteam.bank import Pair
from bfpo.reports.attacked import load_red_teaming
from bfpo.safehelp.records import Evaluation, RunHeader, read_generations, read_header, read_likelihoods, write_header
from bfpo.safehelp.training_records import training_record
from bfpo.smollm2 import make_smollm2
from bfpo.training.checkpoints import check_intact
from bfpo.training.run_record import read_record
from reports.attacks import write_attacks


class Silent(Generator):
    """Is never asked."""

    identity = ModelIdentity(path="silent")


def reword(path):
    Attacker(Silent()).reword([Planned(Pair("p", "c", "risky", "benign"), STYLE)], 0, path)


def load_scores(path):
    write_header(path.parent, RunHeader("m", "s"))
    Evaluation.load(path.parent)


def load_vocabulary(path):
    settings = path.with_name("judge.json")
    settings.write_bytes((PACKAGED / "judge.json").read_bytes())
    load_fitted(str(path.parent))


def attacks_with(**changed):
    def wrong(path):
        return write_attacks(path.parent) | changed

    return wrong


@dataclass
class Reader:
    """A file that is read, and how.

    Attributes:
        file: its name.
        read: reads it.
        remedy: words of what to do.
        wrong: content with a 7 where there should be a text or an object; None if any object is right.
        needed: whether it is an error if there is none.
    """

    file: str
    read: Callable[[Path], Any]
    remedy: str
    wrong: Any = None
    needed: bool = True


RUN = {"finished": True, "data": [], "model": {}, "mix": {}}
READERS = {
    "labeling": Reader(
        "labeling.json", load_labeling, "make it with 'bfpo label", {"format": 1, "b1": 3, "alpha": 0, "prices": 7}
    ),
    "dial": Reader(
        "dial.json", load_dial, "make it with 'bfpo dial'",
        {"format": "bfpo-dial-1", "low": 7, "high": "b", "b3": 0.5, "share": 0.5},
    ),
    "wordings": Reader(
        "wordings.json", reword, "remove it", {"wanted": {}, "answers": {"p 0": [7]}}, needed=False
    ),
    "claim": Reader(
        "rounds.json", lambda path: claimed(path, {"seed": 3}, "rounds"), "move it away", {"settings": 7}, needed=False
    ),
    "record": Reader(
        "run.json", lambda path: read_record(path.parent), "move it away", {"config": {"seed": 7}} | RUN, needed=False
    ),
    "trained": Reader(
        "run.json", lambda path: training_record(str(path.parent)), "copy the model's folder again", needed=False
    ),
    "red teaming": Reader(
        "redteam.json", lambda path: load_red_teaming([path.parent]), "bfpo redteam", attacks_with(groups_sha256=7)
    ),
    "judge": Reader(
        "judge.json", lambda path: load_fitted(str(path.parent)), "fit",
        lambda path: json.loads((PACKAGED / "judge.json").read_text()) | {"name": 7},
    ),
    "vocabulary": Reader("vocabulary.json", load_vocabulary, "fit it again", [["a", 7]]),
    "header": Reader(
        "run.json", lambda path: read_header(path.parent), "evaluate again", {"model": 7, "suite": "s"}, needed=False
    ),
    "scores": Reader("scores.json", load_scores, "evaluate again", {"scores": {"harmless": 7}, "tasks": []}),
    "answers": Reader("generations.jsonl", read_generations, "evaluate again", {"task": 7}, needed=False),
    "likelihoods": Reader("likelihoods.jsonl", read_likelihoods, "evaluate again", {"task": 7}, needed=False),
    "checkpoint": Reader(
        "complete", lambda path: check_intact(path.parent), "delete this folder", {"model.safetensors": 7}
    ),
    "cache": Reader("model.json", lambda path: list(summarize(path.parents[1])), "delete its folder", needed=False),
}  # fmt: skip
DEEP = b"[" * 200_000
DAMAGES = {
    "a folder": lambda path: path.mkdir(),
    "not UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "not JSON": lambda path: path.write_bytes(b'{"a": '),
    "deep nesting": lambda path: path.write_bytes(DEEP),
    "a number of 5,000 digits": lambda path: path.write_bytes(b'{"a": 1' + b"0" * 5_000 + b"}"),
    "a list": lambda path: path.write_bytes(b"[[7]]"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["missing", *DAMAGES, "wrong"])
def test_whatever_is_wrong_is_one_sentence(tmp_path, name, damage):
    reader = READERS[name]
    path = tmp_path / "some" / reader.file
    path.parent.mkdir()
    if damage in DAMAGES:
        DAMAGES[damage](path)
    elif damage == "wrong":
        if reader.wrong is None:
            pytest.skip("any object is right")
        content = reader.wrong(path) if callable(reader.wrong) else reader.wrong
        path.write_text(json.dumps(content), encoding="utf-8")
    elif not reader.needed:
        pytest.skip("there may be none")
    if (name, damage) == ("trained", "a folder"):
        assert training_record(str(path.parent)) == {}  # no file, no record
        return
    with pytest.raises(BfpoError) as caught:
        reader.read(path)
    sentence = str(caught.value)
    assert str(path.parent) in sentence
    assert reader.remedy in sentence
    assert "\n" not in sentence
    assert len(sentence) < 1_000
    if damage == "wrong":
        assert "7" in sentence.replace(str(path), "")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_whose_source_is_damaged_is_no_smollm2(tmp_path, damage):
    DAMAGES[damage](tmp_path / "source.json")
    with pytest.raises(BfpoError, match="exists and isn't this model; name a new folder"):
        make_smollm2(tmp_path)


@dataclass
class Part:
    size: int


@dataclass
class Whole:
    __pydantic_config__ = CLOSED

    parts: dict[str, Part]


def test_a_closed_record_refuses_unknown_keys_at_any_depth(tmp_path):
    path = tmp_path / "whole.json"
    path.write_text('{"parts": {"a": {"size": 1, "sizes": 2}}}')
    with pytest.raises(BfpoError, match=r"unknown key 'parts.a.sizes' \(did you mean 'size'\?\)\); mend it$"):
        read_json(path, Whole, "a whole", "mend it")
    path.write_text('{"parts": {"a": {"size": 1}}}')
    assert read_json(path, Whole, "a whole", "mend it") == Whole({"a": Part(1)})


def test_the_problems_of_a_long_file_are_counted(tmp_path):
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({"parts": {str(at): {} for at in range(12)}}))
    with pytest.raises(BfpoError, match=r"'parts.4.size' is missing; and 7 more\); mend it$"):
        read_json(path, Whole, "a whole", "mend it")


def test_a_wrong_value_that_is_nested_deeply_is_shortened(tmp_path):
    path = tmp_path / "whole.json"
    path.write_text('{"parts": ' + "[" * 500 + "]" * 500 + "}")
    with pytest.raises(BfpoError, match=r"parts: input should be a valid dictionary, not \[\[\[\[\[\[\[\.\.\.\]"):
        read_json(path, Whole, "a whole", "mend it")


def test_a_claim_names_every_setting_that_differs(tmp_path):
    path = tmp_path / "record.json"
    settings = {"seed": 3, "styles": ("a", "b"), "model_digest": "x"}
    assert claimed(path, settings, "a run") == {"settings": {"seed": 3, "styles": ["a", "b"], "model_digest": "x"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 2}))
    assert claimed(path, settings, "a run")["seconds"] == 2
    with pytest.raises(
        BfpoError, match=r"contains a run with other settings \(seed, model digest\); name another folder$"
    ):
        claimed(path, settings | {"seed": 4, "model_digest": "y"}, "a run")


def test_the_packaged_judge_has_its_digest():
    assert load_packaged().judge_id.startswith("fitted:")
