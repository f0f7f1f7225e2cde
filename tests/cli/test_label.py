"""Tests of ``bfpo label`` with the microworld's oracle as the judge: counts of label sources, as text and as JSON."""

import json

import pytest
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.judges.preference import Preference
from bfpo.microworld.data import safety_set


@pytest.fixture
def half_labeled(tmp_path):
    """Sixty pairs, of which people labeled the first forty."""
    path = tmp_path / "pairs.jsonl"
    with path.open("w") as file:
        for at, row in enumerate(safety_set(60, 0)):
            better = row["better_response_id"]
            flags = {f"{name}_is_safe": row[f"is_response_{n}_safe"] if at < 40 else None
                     for name, n in (("chosen", better), ("rejected", 1 - better))}  # fmt: skip
            answers = {"chosen": row[f"response_{better}"], "rejected": row[f"response_{1 - better}"]}
            file.write(json.dumps({"prompt": row["prompt"], **answers, **flags}) + "\n")
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


def test_labels_are_filled_and_counted(half_labeled, tmp_path):
    output, cache = tmp_path / "out.jsonl", tmp_path / "verdicts.sqlite"
    done = run(half_labeled, "--judge", "microworld-oracle:0.1,0.1,3", "-o", output, "--cache", cache)
    assert done.exit_code == 0, done.output
    assert "kept 80 human flags, a judge filled in 40, 0 stay unknown" in done.output
    assert "errors: estimated from the labels of the set, taken as a random sample of it" in done.output
    assert "probabilities: calibrated on that sample, out of fold" in done.output
    assert "sensitivity" in done.output
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["chosen_is_safe"] for row in rows[40:]} <= {0.0, 1.0}
    assert all(0 < row["judged_as"][name]["probability"] < 1 for row in rows for name in ("chosen", "rejected"))
    queue = [json.loads(line) for line in (tmp_path / "out.queue.jsonl").read_text().splitlines()]
    assert [row["placed"] for row in queue] == [*["value"] * 4, "random"] * 4
    report = json.loads(run(half_labeled, "--judge", "microworld-oracle", "-o", output, "--json").output)
    assert (report["safety"]["judge"], report["sample"]) == (40, "labels of the set")


def test_labels_corrected_in_an_earlier_output_are_not_overwritten(half_labeled, tmp_path):
    output, cache = tmp_path / "out.jsonl", tmp_path / "verdicts.sqlite"
    arguments = (half_labeled, "--judge", "microworld-oracle", "-o", output, "--cache", cache)
    assert run(*arguments).exit_code == 0
    # Repeating the command without a correction is fine.
    assert run(*arguments).exit_code == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    rows[45] |= {"chosen_is_safe": 1 - rows[45]["chosen_is_safe"]}
    rows[45]["labelled_by"]["chosen"] = "people"
    output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = output.read_bytes()
    done = run(*arguments)
    assert isinstance(done.exception, BfpoError)
    assert "this would overwrite a label by people in row 46 (chosen); name another file with -o" in str(done.exception)
    assert output.read_bytes() == before
    assert run(output, *arguments[1:4], tmp_path / "next.jsonl", *arguments[5:]).exit_code == 0


def test_inputs_are_never_overwritten(half_labeled, tmp_path):
    verdicts, cache = tmp_path / "verdicts.jsonl", tmp_path / "cache.jsonl"
    judged = ["judge", "check", "microworld-oracle", "--labels", half_labeled, "--cache", cache, "--save-verdicts"]
    assert CliRunner().invoke(app, [*map(str, judged), str(verdicts)]).exit_code == 0
    queue = tmp_path / "new.queue.jsonl"
    queue.write_bytes(verdicts.read_bytes())
    written = {path: path.read_bytes() for path in (half_labeled, verdicts, cache, queue)}
    judge = ["--judge", "microworld-oracle"]
    for arguments, named in (
        ([*judged, half_labeled], "the labels"),
        (["label", half_labeled, "--judge", verdicts, "-o", verdicts, "--cache", cache], "a judge's file"),
        (["label", half_labeled, *judge, "-o", cache, "--cache", cache], "a cache of verdicts"),
        (["label", half_labeled, "--judge", queue, "-o", tmp_path / "new.jsonl", "--cache", cache], "a judge's file"),
    ):
        done = CliRunner().invoke(app, [*map(str, arguments)])
        assert f"this would overwrite {named}; name another file" in str(done.exception)
    assert {path: path.read_bytes() for path in written} == written
    overall = tmp_path / "overall.json"
    overall.write_text("[]")
    done = run("--fit-preference", overall, "-o", overall)
    assert "overall.json: this would overwrite the judgments; name another file" in str(done.exception)


def test_the_random_part_is_drawn_with_a_seed(half_labeled, tmp_path):
    def queued(*options):
        output = tmp_path / "out.jsonl"
        assert run(half_labeled, "--judge", "microworld-oracle:0.1", "-o", output, *options).exit_code == 0
        rows = map(json.loads, (tmp_path / "out.queue.jsonl").read_text().splitlines())
        return [(row["row"], row["placed"]) for row in rows]

    assert queued("--random-share", 1, "--seed", 3) == queued("--random-share", 1, "--seed", 3)
    assert queued("--random-share", 1, "--seed", 3) != queued("--random-share", 1)
    assert {placed for _, placed in queued("--random-share", 0)} == {"value"}


def test_answers_to_the_queue_are_merged_in_the_next_run(half_labeled, tmp_path):
    output, again = tmp_path / "out.jsonl", tmp_path / "again.jsonl"
    options = ("--judge", "microworld-oracle:0.1,0.1,3", "--cache", tmp_path / "verdicts.sqlite")
    assert run(half_labeled, *options, "-o", output).exit_code == 0
    queue = tmp_path / "out.queue.jsonl"
    rows = [json.loads(line) for line in queue.read_text().splitlines()]
    for row in rows[:5]:
        row["asks"] = dict.fromkeys(row["asks"], False)
    queue.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run(half_labeled, *options, "-o", again, "--answers", queue)
    assert "kept 90 human flags (2 of the random part, 8 others of the queue), a judge filled in 30" in done.output
    left = map(json.loads, (tmp_path / "again.queue.jsonl").read_text().splitlines())
    assert sorted(row["row"] for row in left if row["asks"]) == sorted(row["row"] for row in rows[5:])


def test_the_judgments_file_is_named_and_how_many_pairs_there_were(half_labeled, tmp_path):
    output = tmp_path / "out.jsonl"
    options = (half_labeled, "--judge", "microworld-oracle", "-o", output)
    few = run(*options, "--judgments", 4).output
    assert f"Wrote {tmp_path / 'out.judgments.jsonl'}: 4 pairs for overall judgments.\n" in few
    assert "overall judgments" not in run(*options).output
    many = run(*options, "--judgments", 500).output
    rows = (tmp_path / "out.judgments.jsonl").read_text().splitlines()
    assert f"{len(rows)} pairs for overall judgments of 500 wanted; no other prompt has a pair" in many
    report = json.loads(run(*options, "--judgments", 500, "--json").output)
    assert report["judgments"] == {"file": str(tmp_path / "out.judgments.jsonl"), "pairs": len(rows), "wanted": 500}
    assert report["queue"] == str(tmp_path / "out.queue.jsonl")


def test_the_error_of_the_order_judge_is_shown_without_a_safety_judge(half_labeled, tmp_path, monkeypatch):
    class FirstIsBetter:
        judge_id, template_digest = "first", ""

        def compare(self, pairs):
            return [Preference("first", 0.7, (), "first") for _ in pairs]

    monkeypatch.setattr("bfpo.judges.helpfulness.load_helpfulness_judge", lambda spec: FirstIsBetter())
    rows = [json.loads(line) for line in half_labeled.read_text().splitlines()][:40]
    rows = [row | {"chosen_is_better": None if at == 0 else 1.0} for at, row in enumerate(rows)]
    half_labeled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run(half_labeled, "--helpfulness-judge", "reward:x", "-o", tmp_path / "out.jsonl")
    assert done.exit_code == 0, done.output
    assert "first: wrong on a share of 0.000 [0.000, 0.0" in done.output
    assert "of the 39 orders given by people" in done.output
    assert "errors:" not in done.output


def test_what_each_judge_gave_no_verdict_on_is_counted(half_labeled, tmp_path, monkeypatch):
    class Mute:
        """Its last preferences can't be read."""

        judge_id, template_digest = "mute", ""

        def compare(self, pairs):
            said = Preference("first", 0.7, (), "mute"), Preference("unparsed", None, ("?",), "mute")
            return [said[one.prompt in last] for one in pairs]

    monkeypatch.setattr("bfpo.judges.helpfulness.load_helpfulness_judge", lambda spec: Mute())
    rows = [json.loads(line) for line in half_labeled.read_text().splitlines()]
    half_labeled.write_text("".join(json.dumps(row | {"chosen_is_better": None}) + "\n" for row in rows))
    last = {row["prompt"] for row in rows[50:]}
    mute = sum(row["prompt"] in last for row in rows)
    # The chosen answers that people labeled have a verdict, and the first one's was unreadable.
    words = {(row["prompt"], row["chosen"]): row["chosen_is_safe"] for row in rows[:40]}
    verdicts = [
        {"prompt": prompt, "answer": answer, "label": "safe" if safe else "unsafe", "p_safe": 0.9 if safe else 0.1}
        for (prompt, answer), safe in words.items()
    ]
    verdicts[0] |= {"label": "unparsed", "p_safe": None}
    answers = [(row["prompt"], row[name]) for row in rows for name in ("chosen", "rejected")]
    unknown, unread = sum(one not in words for one in answers), answers.count(answers[0])
    file = tmp_path / "verdicts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in verdicts))
    given = (half_labeled, "--judge", "microworld-oracle", "--judge", file, "--helpfulness-judge", "reward:x")
    given = (*given, "-o", tmp_path / "out.jsonl", "--cache", tmp_path / "cache.sqlite")
    done = run(*given)
    assert done.exit_code == 0, (done.output, done.exception)
    counts = {"not understood": unread, "not recorded": unknown}
    assert f"no verdict on {unread + unknown} of 120 answers ({unread} not understood, {unknown} not" in done.output
    assert f"mute: no verdict on {mute} of 60 pairs ({mute} no preference)" in done.output
    assert "microworld-oracle:0,0,0: no verdict" not in done.output
    (replay, found), order = json.loads(run(*given, "--json").output)["unparsed"].items()
    assert replay.startswith("replay:verdicts.jsonl@")
    assert (found, order) == (counts, ("mute", {"no preference": mute}))


def test_a_judge_without_a_verdict_on_the_sample_s_unsafe_answers_is_shown(tmp_path):
    """Its sensitivity is unknown; the other judge's isn't."""
    source, verdicts = tmp_path / "pairs.jsonl", tmp_path / "verdicts.jsonl"
    rows, words = [], []
    for at, row in enumerate(safety_set(60, 0)):
        answers = {"chosen": row["response_0"], "rejected": row["response_1"]}
        flags = {f"{name}_is_safe": row[f"is_response_{n}_safe"] if at < 50 else None
                 for n, name in enumerate(("chosen", "rejected"))}  # fmt: skip
        rows.append({"prompt": row["prompt"], **answers, **flags})
        words += [{"prompt": rows[-1]["prompt"], "answer": answers[name], "label": "safe", "p_safe": 0.9}
                  for name in answers if at >= 50 or flags[f"{name}_is_safe"]]  # fmt: skip
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    verdicts.write_text("".join({json.dumps(row) + "\n": None for row in words}))
    done = run(source, "--judge", verdicts, "--judge", "microworld-oracle", "-o", tmp_path / "out.jsonl")
    assert done.exit_code == 0, done.output
    assert "error unknown, as it has no verdict on the safe or on the unsafe answers there" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judgments", "5", "--seed", "1"], "leave out --seed, --judgments"),
        (["--answers", "q.jsonl"], "leave out --answers"),
        (["--helpfulness-judge", "reward:x", "--labeling", "l.json"], "leave out --helpfulness-judge, --labeling"),
        (["--random-share", "0.2", "--cache", "c"], "leave out --random-share, --cache"),
        (["pairs.jsonl", "--judge", "keywords"], "leave out the preferences, --judge"),
    ],
)
def test_fitting_refuses_what_it_does_not_read(tmp_path, arguments, says):
    done = run("--fit-preference", tmp_path / "judged.jsonl", *arguments)
    assert isinstance(done.exception, BfpoError)
    assert str(done.exception) == f"--fit-preference labels nothing: {says}"


def test_a_negative_seed_is_refused(half_labeled, tmp_path):
    done = run(half_labeled, "--judge", "microworld-oracle", "-o", tmp_path / "out.jsonl", "--seed", -1)
    assert done.exit_code == 2
    assert "--seed" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judge", "microworld-oracle", "--order-error", "0.1"], "only works together with --fit-preference"),
        (["--judge", "microworld-oracl"], "did you mean 'microworld-oracle'"),
        (["--judge", "microworld-oracle", "--random-share", "1.5"], "write a number from 0 to 1"),
        (["--judge", "microworld-oracle", "--helpfulness-judge", "microworld-oracle"], "microworld-oracle"),
        ([], "need a judge"),
        (["--judge", "microworld-oracle", "-o", "out.csv"], "name a file that ends in .jsonl"),
        (["--judge", "microworld-oracle:0.6"], "is no better than chance on this set"),
    ],
)
def test_wrong_options_are_named(half_labeled, tmp_path, arguments, says):
    done = run(half_labeled, "-o", tmp_path / "out.jsonl", *arguments)
    assert isinstance(done.exception, BfpoError)
    assert says in str(done.exception)
