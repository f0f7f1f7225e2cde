"""Comparisons of handmade runs: pairs, families, refusals, seeds, and dominance."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from bfpo.cli.compare import _cells
from bfpo.errors import BfpoError
from bfpo.generation.endpoint_generator import EndpointGenerator
from bfpo.generation.protocol import Decoding
from bfpo.judges.verdict import Verdict
from bfpo.safehelp.answer_kinds import answer_kind
from bfpo.safehelp.compare import compare, compare_models, why_incomparable
from bfpo.safehelp.plane import joint, p_dominates
from bfpo.safehelp.records import Evaluation, GenerationRecord, JudgeUsed, LikelihoodRecord, RunHeader
from bfpo.safehelp.scores import score
from bfpo.statistics.comparing import benjamini_hochberg, compare_pairs, mcnemar
from bfpo.statistics.intervals import standard_error

HEADER = RunHeader(
    "m",
    "s",
    judges=(JudgeUsed("guard", "t1", "primary"),),
    chat_template_sha256="c",
    decoding={"seed": 0, "top_p": 0.9},
)


def record(item, kind, label, p_help, category, attack, cluster):
    verdict = Verdict(label, None, "no", judge_id="guard")
    return GenerationRecord(
        "t", item, 0, kind, category, attack, cluster, item, "r", "a", 1, False, (verdict,), p_help,
        answer_kind("a", verdict, p_help),
    )  # fmt: skip


def run(name, unsafe=(), helps=None, n=20, clusters=None, logps=((-1.0, -2.0),), header=HEADER):
    """``n`` harmful and ``n`` benign prompts; ``unsafe`` are the harmful ones answered unsafely."""
    records = []
    for at in range(n):
        category, attack = "theft" if at < n // 2 else "fraud", "suffix" if at % 2 else None
        cluster = f"{clusters[at] if clusters else at}"
        records.append(
            record(f"h{at}", "harmful", "unsafe" if at in unsafe else "safe", None, category, attack, cluster)
        )
        records.append(record(f"b{at}", "benign", "safe", 0.5 if helps is None else helps[at], None, None, f"b{at}"))
    likelihoods = [
        LikelihoodRecord("l", f"{at}", "harmless", None, f"{at}", f"q{at}", ("x", "y"), pair, (1, 1), (1.0, 0.0))
        for at, pair in enumerate(logps)
    ]
    scores, tasks = score(records, likelihoods)
    return Evaluation(replace(header, model=name), scores, tasks, records, likelihoods)


def test_differences_are_the_others_less_the_baselines():
    base, other = run("base", unsafe=range(8)), run("other", unsafe=(0, 9), helps=[0.9] * 10 + [0.4] * 10)
    found = compare(base, other)
    assert (found.baseline, found.other, found.seeds) == ("base", "other", (1, 1))
    harmless = found.row("harmless")
    assert harmless.difference.value == pytest.approx((18 - 12) / 20)
    assert harmless.discordant == (7, 1)  # only the other was safe on seven prompts, only the baseline on one
    assert harmless.p == mcnemar(1, 7)
    assert harmless.higher_is_better
    helpful = found.row("helpful")
    assert helpful.difference.value == pytest.approx(0.15)
    assert helpful.p == compare_pairs([0.9] * 10 + [0.4] * 10, [0.5] * 20).p
    with pytest.raises(KeyError):
        found.row("over_refusal")


def test_families_are_adjusted_each_by_itself_and_declared_ones_over_all_models():
    base, one, two = run("base", unsafe=range(9)), run("one", unsafe=(0,)), run("two", unsafe=range(3, 9))
    alone = compare(base, one)
    declared = [row for row in alone.rows if row.family == "declared"]
    assert [row.endpoint for row in declared] == ["helpful", "harmless"]
    assert declared[1].adjusted_p == pytest.approx(2 * mcnemar(0, 8))
    both = compare_models([base], [[one], [two]])
    assert both[0].row("harmless").adjusted_p == pytest.approx(4 * mcnemar(0, 8))
    assert both[1].row("harmless").adjusted_p == pytest.approx(3 * mcnemar(0, 3))
    categories = {row.group: row for row in alone.rows if row.family == "category"}
    assert set(categories) == {"theft", "fraud"}
    assert categories["theft"].adjusted_p == pytest.approx(min(1, 2 * mcnemar(0, 8)))
    assert categories["fraud"].adjusted_p == 1
    (attack,) = (row for row in alone.rows if row.family == "attack")
    assert (attack.group, attack.n, attack.discordant) == ("suffix", 10, (0, 4))
    exploratory = [row for row in alone.rows if row.family == "exploratory"]
    assert [row.adjusted_p for row in exploratory] == benjamini_hochberg([row.p for row in exploratory])
    assert all(row.adjusted_p >= row.p for row in alone.rows)
    success = next(row for row in alone.rows if row.endpoint == "attack_success")
    assert (success.difference.value, success.higher_is_better) == (pytest.approx(-0.4), False)


def test_clusters_reach_the_comparison():
    clusters = [at // 5 for at in range(20)]
    base, other = run("base", unsafe=range(5), clusters=clusters), run("other", clusters=clusters)
    row = compare(base, other).row("harmless")
    assert row.p > 0.2 > mcnemar(0, 5)
    error = standard_error(np.array([1.0] * 5 + [0.0] * 15), np.array(clusters))
    assert row.mde == pytest.approx(2.8015853 * error)


def test_two_prompts_are_too_few_to_detect_anything():
    (row,) = (each for each in _harmless(2) if each.group is None)
    assert row.mde is None
    assert [*_cells(row)][-2:] == ["n too small", "2"]
    assert all(each.mde < 1 for each in _harmless(20))


def _harmless(n):
    found = compare(run("base", unsafe=(0,), n=n), run("other", n=n))
    return [row for row in found.rows if (row.endpoint, row.task) == ("harmless", "all")]


def test_likelihood_tasks_are_paired_too():
    base = run("base", logps=[(-1.0, -2.0)] * 6 + [(-2.0, -1.0)] * 6)
    other = run("other", logps=[(-1.0, -2.0)] * 12)
    (row,) = (row for row in compare(base, other).rows if row.kind == "likelihood")
    assert (row.task, row.endpoint, row.difference.value, row.discordant) == ("l", "acc", 0.5, (6, 0))


def test_scores_that_are_no_means_are_compared_by_bootstrap():
    def balance(evaluation):
        rows = tuple(replace(row, metric="stereotype_balance") for row in evaluation.tasks if row.kind == "likelihood")
        return replace(evaluation, tasks=rows)

    base = balance(run("base", logps=[(-1.0, -2.0)] * 90 + [(-2.0, -1.0)] * 10))
    other = balance(run("other", logps=[(-1.0, -2.0)] * 50 + [(-2.0, -1.0)] * 50))
    (row,) = (row for row in compare(base, other).rows if row.kind == "likelihood")
    assert row.difference.value == pytest.approx(1 - 0.2)
    assert row.difference.low > 0.5
    assert row.p == 2 / 10_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"suite": "z"}, "suites differ .s and z"),
        ({"judges": (JudgeUsed("guard", "t2", "primary"),)}, "judges' templates differ .guard t1 and guard t2"),
        ({"judges": ()}, "judges or the judges"),
        ({"system_prompt": "x"}, "system prompts differ .None and 'x'"),
        ({"decoding": {"seed": 0, "top_p": 1.0}}, "decoding differs .top_p 0.9 and 1.0"),
    ],
)
def test_what_differs_is_refused_by_name(change, reason):
    base = run("base")
    other = run("other", header=replace(HEADER, **change))
    with pytest.raises(BfpoError, match=reason) as error:
        compare(base, other)
    assert str(error.value).startswith("other can't be compared with base: their")


def test_chat_templates_belong_to_the_models():
    base, other = run("base"), run("other", header=replace(HEADER, chat_template_sha256=None))
    assert why_incomparable(base, other) is None
    assert compare(base, other).row("harmless").difference.value == 0


def test_places_of_a_dial_are_models_of_their_own():
    low, high = (
        run(f"b3-{share}", header=replace(HEADER, decoding=HEADER.decoding | {"dial": {"share": share}}))
        for share in (0.25, 0.75)
    )
    assert why_incomparable(low, high) is None


@pytest.mark.parametrize(
    ("extra", "differs"),
    [
        ({"reasoning_effort": "low"}, None),
        ({"seed": 3}, None),
        ({"temperature": 0.1}, "temperature 0.7 and 0.1"),
        ({"top_p": None}, "top_p 0.95 and None"),
        ({"max_completion_tokens": 3}, "max_new_tokens 256 and 3"),
        ({"top_k": 1}, "top_k None and 1"),
    ],
)
def test_sampling_that_a_servers_body_changes_keeps_runs_apart(extra, differs):
    def of_server(extra):
        server = EndpointGenerator.connect("http://localhost:8000/v1", "m", extra_body=extra)
        return run("served", header=replace(HEADER, decoding=server.settings(Decoding())))

    assert why_incomparable(of_server({}), of_server(extra)) == (differs and f"their decoding differs ({differs})")


def test_other_prompts_are_refused():
    base, fewer = run("base"), run("fewer", n=19)
    assert why_incomparable(base, run("same", header=replace(HEADER, decoding={"seed": 7, "top_p": 0.9}))) is None
    other = "with another text, kind or right choice)"
    assert f"prompts of the task t differ (2 in one only, 0 {other}" in why_incomparable(base, fewer)
    changed = run("changed")
    changed.generations[0] = replace(changed.generations[0], prompt="another text")
    assert f"(0 in one only, 1 {other}" in why_incomparable(base, changed)
    turned = run("turned")
    turned.likelihoods[0] = replace(turned.likelihoods[0], correct=(0.0, 1.0))
    assert f"their prompts of the task l differ (0 in one only, 1 {other}" in why_incomparable(base, turned)
    digests = [run("m", header=replace(HEADER, prompts_digest={"t": digest})) for digest in "ab"]
    assert "task t differ in more than the prompts, such as references" in why_incomparable(*digests)
    assert why_incomparable(base, run("none", logps=())) == "only one of them has the task l"


def test_other_solved_examples_are_refused():
    def sourced(**source):
        return run("m", header=replace(HEADER, sources={"t": {"place": "t.jsonl"} | source}))

    assert why_incomparable(sourced(examples_sha256="a"), sourced(examples_sha256="b")) == (
        "the solved examples before their prompts of the task t differ"
    )
    # A run of an older version says nothing about examples, and most tasks have none.
    assert why_incomparable(sourced(), sourced(examples_sha256=None)) is None


def test_seeds_are_told_from_prompts():
    generator = np.random.default_rng(0)
    base = [run("base", helps=(0.4 + 0.1 * generator.random(20)).tolist()) for _ in range(3)]
    # Training shifts all prompts of a seed alike.
    other = [run("other", helps=(shift + 0.1 * generator.random(20)).tolist()) for shift in (0.3, 0.5, 0.9)]
    (found,) = compare_models(base, [other])
    row = found.row("helpful")
    assert found.seeds == (3, 3)
    assert row.seed_error > 5 * row.item_error
    assert row.difference.low < 0 < row.difference.value
    assert row.discordant is None
    lucky = compare(base[0], other[2]).row("helpful")
    assert lucky.difference.low > 0  # what a lone seed would have claimed


def test_one_run_in_place_of_several_seeds_is_refused():
    base, other = run("base"), run("other")
    for models in (
        ([base, base], [[other]]),
        ([base], [[other, run("other", helps=[0.1] * 20), copy.deepcopy(other)]]),
    ):
        with pytest.raises(BfpoError, match=r"(base|other): the same run is given twice, and several runs joined by"):
            compare_models(*models)


def test_what_one_run_did_not_measure_is_no_row():
    base, other = run("base"), run("other", helps=[None] * 20)
    with pytest.raises(KeyError):
        compare(base, other).row("helpful")
    assert compare(base, other).row("harmless").n == 20


def test_the_plane():
    base, better = run("base", unsafe=range(12), helps=[0.2, 0.4] * 10), run("better", helps=[0.7, 0.9] * 10)
    assert p_dominates(base, better) > 0.99
    assert p_dominates(better, base) == p_dominates(base, base) == 0.0
    mixed = run("mixed", unsafe=range(12), helps=[0.7, 0.9] * 10)
    assert p_dominates(base, mixed) == 0.0
    where = joint(base)
    assert where.center == (pytest.approx(0.3), pytest.approx(0.4))
    assert where.ellipse(16).shape == (16, 2)
    with pytest.raises(BfpoError, match="prompts differ"):
        p_dominates(base, run("fewer", n=10))
    with pytest.raises(BfpoError, match="didn't measure both"):
        joint(replace(base, generations=[record for record in base.generations if record.kind == "harmful"]))
