"""The decisive study: its labels, the search for settings, and the order of its runs."""

import json
from collections import Counter
from dataclasses import asdict, replace

import pytest

from bfpo.microworld.data import safety_set
from bfpo.microworld.oracle import judge
from bfpo.microworld.worlds import WORLDS
from bfpo.quickstart import Scale
from studies.decisive import jobs, planning
from studies.decisive.data import as_pair, by_safer_choice, labeled_set, partly_labeled, with_rewards, wrong_orders
from studies.decisive.jobs import SFT, Job, run_job
from studies.decisive.labels_report import write_labels
from studies.decisive.methods import ALL_WORLDS, ARMS, METHODS
from studies.decisive.report import write_report
from studies.sharing import lock

SMALL = Scale(chat=8, safety=16, helpful=8, answers=2, sft_steps=1, steps=1, batch_size=4)


def is_safe(row, name):
    return judge(row["prompt"], row[name]).is_safe


def test_a_tenth_of_an_erring_worlds_pairs_has_peoples_flags_and_the_rest_errs():
    rows = labeled_set(WORLDS["W2"], 1000, 3)
    by_people = [row for row in rows if row["labelled_by"]["chosen"] == "random"]
    judged = [row for row in rows if row["labelled_by"]["chosen"] == "judge"]
    assert len(by_people) == 100
    for row in by_people:
        assert [row["chosen_is_safe"], row["rejected_is_safe"]] == [is_safe(row, "chosen"), is_safe(row, "rejected")]
    wrong = [row[f"{name}_is_safe"] != is_safe(row, name) for row in judged for name in ("chosen", "rejected")]
    assert sum(wrong) / len(wrong) == pytest.approx(0.3, abs=0.03)
    assert all(row["judged_as"]["chosen"]["verdict"] in (0, 1) for row in rows)


def test_worlds_without_errors_keep_their_sets_columns():
    assert "better_response_id" in labeled_set(WORLDS["W0"], 4, 0)[0]
    assert "response_0_severity_level" in labeled_set(WORLDS["W4"], 4, 0)[0]


@pytest.mark.parametrize("world", ["W0", "W2"])
def test_the_safer_choice_is_made_from_the_labels_alone(world):
    rows = [as_pair(row) if "chosen" not in row else row for row in labeled_set(WORLDS[world], 400, 1)]
    firsts = Counter()
    for row, given in zip(by_safer_choice(rows, 1), rows, strict=True):
        first = "chosen" if row["chosen"] == given["chosen"] else "rejected"
        flags = given["chosen_is_safe"], given["rejected_is_safe"]
        if flags[0] != flags[1]:
            assert given[f"{first}_is_safe"]
        elif not flags[0]:
            assert first == "rejected"
        else:
            firsts[first] += 1
    assert 0.35 < firsts["chosen"] / firsts.total() < 0.65


def test_people_alone_are_a_random_share_and_fitted_judges_know_nothing_else():
    rows = safety_set(400, 0)
    alone = partly_labeled(rows, 0.1, 3, fitted=False)
    assert len(alone) == 40
    assert all(is_safe(row, name) == row[f"{name}_is_safe"] for row in alone for name in ("chosen", "rejected"))
    assert len(partly_labeled(rows, 1.0, 3, fitted=False)) == 400
    assert alone != partly_labeled(rows, 0.1, 4, fitted=False)

    filled = partly_labeled(rows, 0.1, 3, fitted=True)
    assert Counter(row["labelled_by"]["order"] for row in filled) == {"people": 40, "judge": 360}
    assert [row["prompt"] for row in filled[:40]] == [row["prompt"] for row in alone]
    judged = [(row, name) for row in filled for name in ("chosen", "rejected") if row["labelled_by"][name] == "judge"]
    assert len(judged) == 720
    right = sum(is_safe(row, name) == row[f"{name}_is_safe"] for row, name in judged) / len(judged)
    assert 0.6 < right < 0.99
    # Neither judge sees a label of the others: with these turned around, it says the same.
    turned = [
        row
        if row["prompt"] in {one["prompt"] for one in alone}
        else row | {f"is_response_{at}_safe": not row[f"is_response_{at}_safe"] for at in (0, 1)}
        for row in rows
    ]
    assert partly_labeled(turned, 0.1, 3, fitted=True) == filled


def test_rewards_are_the_flags():
    for row in with_rewards(labeled_set(WORLDS["W3"], 20, 0)):
        assert (row["chosen_reward"], row["rejected_reward"]) == (row["chosen_is_safe"], row["rejected_is_safe"])


def test_wrong_orders_are_those_of_the_peoples_sample():
    assert wrong_orders(WORLDS["W0"], 500, 0) == 0
    # Wrong if the two flags, 30 % of each wrong, lead to the other answer.
    assert 0.15 < wrong_orders(WORLDS["W2"], 4000, 0) < 0.45


@pytest.mark.parametrize(
    ("world", "safe_first", "choice"), [("W0", (1, 1), (1, 1)), ("W2", (0.45, 0.55), (0.74, 0.84))]
)
def test_shares_of_right_orders_that_the_page_tells(world, safe_first, choice):
    rows = [as_pair(row) for row in safety_set(4000, 0, world=WORLDS[world])]
    mixed = [row for row in rows if is_safe(row, "chosen") != is_safe(row, "rejected")]
    judged = [(row["chosen_is_safe"], row["rejected_is_safe"]) for row in mixed]
    by_flags = [("rejected" if flags[0] < flags[1] else "chosen") for flags in judged]
    right = sum(is_safe(row, name) for row, name in zip(mixed, by_flags, strict=True)) / len(mixed)
    assert safe_first[0] <= right <= safe_first[1]
    chosen = sum(is_safe(row, "chosen") for row in by_safer_choice(mixed, 0)) / len(mixed)
    assert choice[0] <= chosen <= choice[1]


def results_of(method, utility):
    """Results of all validation runs at the points asked for so far, and again until no more are asked for."""
    results = {}
    for _ in range(20):
        points = planning.grid(method, results)
        new = [job for point in points for job in planning.tuning_jobs(method, point) if job not in results]
        if not new:
            return results, points
        for job in new:
            figures = {"U": utility(job.learning_rate, job.beta, job.level), "kl": 1 / job.beta}
            results[job] = {"job": asdict(job), "figures": figures}
    raise AssertionError("the grid never ends")


@pytest.mark.parametrize("best", [(3e-4, 0.1, 0.1), (1.5e-4, 0.0125, 0.4), (1.2e-3, 0.8, 0.0015625)])
def test_the_grid_grows_until_the_best_point_is_inside(best):
    def utility(*point):
        return -sum(abs(planning.np.log(own / of_best)) for own, of_best in zip(point, best, strict=True))

    results, points = results_of("BFPO", utility)
    assert planning.chosen("BFPO", results) == pytest.approx(best)
    for axis, value in enumerate(best):
        assert min(point[axis] for point in points) < value < max(point[axis] for point in points)
    # A variant takes the settings of the method that it varies.
    assert planning.chosen("BFPO-neutral", results) == planning.chosen("BFPO", results)


def test_a_loss_of_another_scale_starts_at_another_level():
    assert {point[2] for point in planning.grid("BFPO", {})} == {0.1}
    assert {point[2] for point in planning.grid("DPO-mix", {})} == {0.003}


def test_a_grid_without_an_end_stops():
    _, points = results_of("BFPO", lambda rate, beta, level: -beta - rate - level)
    assert len(points) == 3 * (3 + planning.MOST_EXTENSIONS) - 2


def test_no_test_seed_tunes_and_every_world_has_its_seeds():
    results, _ = results_of("BFPO", lambda rate, beta, level: -abs(planning.np.log(beta / 0.1)))
    wanted = list(planning.wanted(results))
    assert {job.seed for job in wanted if job.split == "validation"} == set(planning.TUNING_SEEDS)
    tested = [job for job in wanted if job.split == "test" and job.method == "BFPO"]
    assert {job.beta for job in tested} == {0.1}
    assert {(job.world, job.seed) for job in tested} == {
        (world, seed) for world in ALL_WORLDS for seed in planning.TEST_SEEDS[world]
    }
    assert not {seed for seeds in planning.TEST_SEEDS.values() for seed in seeds} & set(planning.TUNING_SEEDS)


@pytest.mark.parametrize(
    ("world", "method"),
    [
        ("W2", SFT),
        ("W2", "BFPO"),
        ("W2", "rDPO-safe-first"),
        ("W6", "BFPO-common-price"),
        ("W4", "additive"),
        ("W0", "DPO-mix"),
        ("W2", "BFPO-8-answers"),
        ("W0", "people-30"),
        ("W0", "fitted-30"),
    ],
)  # fmt: skip
def test_a_run_leaves_its_figures_and_nothing_else(tmp_path, monkeypatch, world, method):
    monkeypatch.setattr(jobs, "PER_KIND", {"validation": 4, "test": 4})
    job = Job(world, method, 1e-4, 0.1, 0.1, 0, "validation")
    scale = replace(SMALL, safety=160) if method == "fitted-30" else SMALL
    result = run_job(job, tmp_path / "runs", tmp_path / "results", scale)
    written = json.loads((tmp_path / "results" / f"{job.name}.json").read_text())
    assert Job(**written["job"]) == job
    assert written["figures"] == result["figures"]
    assert ("kl" in written["figures"]) == (method != SFT)
    assert not list((tmp_path / "runs").glob(f"*/{job.name}"))
    if method == "BFPO":
        assert (
            written["labels"][0]["flags"]["sample"] == "random part" or written["labels"][0]["flags"]["sample"] is None
        )


def test_the_comparison_at_equal_distance_runs_where_distances_were_tuned():
    results, _ = results_of("BFPO", lambda rate, beta, level: -abs(planning.np.log(beta / 0.1)))
    results |= results_of("IPO-safe-first", lambda rate, beta, level: -abs(planning.np.log(beta / 0.2)))[0]
    tested = [job for job in planning.wanted(results) if job.split == "test" and job.method == "IPO-safe-first"]
    assert {job.world for job in tested if job.beta == 0.2} == set(ALL_WORLDS)
    assert {job.world for job in tested if job.beta == 0.1} == {"W0", "W2"}


def test_two_processes_never_take_the_same_run(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(planning, "run_job", lambda job, *_: taken.append(job) or {})
    first = next(iter(planning.wanted({})))
    with lock(tmp_path, first.name):
        planning.run_next(tmp_path, tmp_path / "results", SMALL)
    assert taken == [replace(first, seed=101)]


def test_every_method_says_what_it_is():
    assert all(method.summary for method in METHODS.values())
    assert {name for name, method in METHODS.items() if method.worlds == ALL_WORLDS} >= {"BFPO", "DPO-safe-first"}


def test_the_page_says_what_holds_fails_and_is_missing(tmp_path):
    """All runs of BFPO and one rival exist; BFPO is better by .2 in W2, with noise that pairing removes."""
    results = {}

    def value(job):
        gain = 0.2 if job.method == "BFPO" and job.world == "W2" else 0.0
        return 0.6 + gain + 0.05 * (job.seed % 5) - abs(planning.np.log(job.beta / 0.1)) / 100

    for _ in range(20):
        new = [job for job in planning.wanted(results) if job not in results
               and job.method in ("BFPO", "DPO-safe-first") and job.learning_rate]  # fmt: skip
        for job in new:
            results[job] = {"job": asdict(job), "figures": {"U": value(job), "kl": 1.0, "helpful": 1.0}}
    text = write_report(tmp_path, results).read_text()
    assert "| 1 | W2 | U: BFPO - DPO-safe-first > 0.1 | holds | +0.200 [+0.200, +0.200] **holds**" in text
    assert "| 4 | W4 | U: BFPO - DPO-safe-first > 0 | holds | +0.000 [+0.000, +0.000] **fails**" in text
    assert "| 2 | W2 | U: BFPO - rDPO-safe-first > 0 | holds | not run |" in text
    # Claims 1 and 4 of twelve, of which the two numbered 10 are one; claim 7 and 8 have no bound.
    assert "tally of the 12 claims with a bound is 1 confirmed, 1 refuted and 10 untested" in text
    assert "Mean U above" not in text
    assert (tmp_path / "decisive.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("lost_help", "over_refusal", "tally"),
    [(0.2, 0.0, "1 confirmed, 0 refuted"), (0.0, 0.2, "1 confirmed, 0 refuted"), (0.0, 0.0, "0 confirmed, 1 refuted")],
)
def test_one_of_two_alternatives_is_enough_and_a_better_rival_is_named(tmp_path, lost_help, over_refusal, tally):
    results = {}
    for _ in range(20):
        for job in [job for job in planning.wanted(results) if job not in results]:
            if job.method not in ("BFPO", "BFPO-no-buffer") or not job.learning_rate:
                continue
            other = job.method == "BFPO-no-buffer"
            utility = 0.6 - abs(planning.np.log(job.beta / 0.1)) / 100 + 0.1 * other
            figures = {"U": utility, "kl": 1.0, "helpful": 0.9 - lost_help * other,
                       "over_refusal": 0.1 + over_refusal * other}  # fmt: skip
            results[job] = {"job": asdict(job), "figures": figures}
    text = write_report(tmp_path, results).read_text()
    assert f"tally of the 12 claims with a bound is {tally}" in text
    assert "- W0: BFPO-no-buffer +0.100" in text


def test_the_page_of_labels_compares_arms_that_are_tuned_by_themselves(tmp_path):
    """U falls by .01 with judges for nine tenths, and by .1 without; one arm is missing."""
    results, lost = {}, {"people-100": 0.0, "fitted-10": 0.01, "people-10": 0.1}
    assert "Not known yet. 9 of 9 arms are missing." in write_labels(tmp_path, {}).read_text()
    assert not (tmp_path / "label-efficiency.png").exists()
    for _ in range(20):
        for job in [job for job in planning.wanted(results, ARMS) if job not in results and job.method in lost]:
            utility = 0.9 - lost[job.method] + 0.01 * job.seed % 5 - abs(planning.np.log(job.beta / 0.2)) / 100
            figures = dict.fromkeys(("helpful", "harmless", "over_refusal", "incoherent", "kl"), 0.5) | {"U": utility}
            results[job] = {"job": asdict(job), "figures": figures, "labels": [{"flags": {"flags": "unbiased"}}]}
    assert {job.world for job in results} == {"W0"}
    assert {job.beta for job in results if job.split == "test"} == {0.2}
    text = write_labels(tmp_path, results).read_text()
    assert "from that with all labels by -0.010 [-0.010, -0.010] (a small loss at most)" in text
    assert "the tenth alone by +0.090 [+0.090, +0.090]" in text
    assert f"{len(ARMS) - 3} of {len(ARMS)} arms are missing" in text
    assert "| 1% | not run | not run | not run | not run |" in text
    assert "| fitted-10 | 0.0003 | 0.2 | 0.1 | unbiased |" in text
    assert (tmp_path / "label-efficiency.png").stat().st_size > 1000
