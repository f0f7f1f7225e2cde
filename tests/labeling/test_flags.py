"""What is made of judged flags: exact on average over verdicts and draws, by the default's rule, or refused."""

import numpy as np
import pytest

from bfpo.errors import BfpoError
from bfpo.labeling.flags import LabeledAnswers, resolve_flags
from bfpo.preferences.label_columns import HUMAN


def answers(seed, *, count=1000, labeled=200, queued=0, error=(0.1, 0.3), share=0.6, source="random"):
    """Answers with a judge's verdict that is wrong about safe and unsafe ones at the error's rates, and the truth.

    People label a random part, and the answers that the judge found hardest: it is wrong about half of a fifth.
    """
    random = np.random.default_rng(seed)
    truth = (random.random(count) < share).astype(float)
    hard = np.arange(count) < count // 5
    rate = np.where(truth == 1, *error)
    rate = np.where(hard, 0.5, rate) if queued else rate
    verdicts = np.where(random.random(count) < rate, 1 - truth, truth)
    sources = np.full(count, "judge", dtype=object)
    sources[random.permutation(count)[:labeled]] = source
    left = np.flatnonzero(sources == "judge")
    sources[left[np.argsort(~hard[left], kind="stable")][:queued]] = "queue"
    flags = np.where(np.isin(sources, HUMAN), truth, verdicts)
    given = LabeledAnswers(flags, sources.tolist(), verdicts, np.full(count, np.nan), [f"p{n}" for n in range(count)])
    return given, truth


def class_means(flags, truth):
    return flags[truth == 0].mean(), flags[truth == 1].mean()


@pytest.mark.parametrize("flags", ["unbiased", "doubly_robust"])
@pytest.mark.parametrize("queued", [0, 150])
def test_flags_are_right_on_average_whatever_the_queue_took(flags, queued):
    """Means over 200 sets; the verdicts' own are .30 and .90."""
    means, verdicts = [], []
    for seed in range(200):
        given, truth = answers(seed, labeled=150, queued=queued)
        made, report = resolve_flags(given, flags, is_affine=True)
        means.append(class_means(made, truth))
        verdicts.append(class_means(resolve_flags(given, "verdict", is_affine=True)[0], truth))
        # Where the queue's answers bring a class mean of the verdicts beyond 1, it counts as 1.
        assert report.channel.a == pytest.approx(0, abs=0.02 if queued else 1e-9)
        assert report.channel.c == pytest.approx(1, abs=0.02 if queued else 1e-9)
    assert np.mean(means, axis=0) == pytest.approx((0, 1), abs=0.02)
    assert np.mean(verdicts, axis=0)[0] > 0.2


@pytest.mark.parametrize("queued", [600, 800])
def test_a_sample_that_the_queue_left_too_few_answers_for_never_makes_an_impossible_channel(queued):
    """160 at random tell little about the last 240 or 40 of 1,000: no estimate beyond what verdicts allow is used."""
    for seed in range(200):
        given, _ = answers(seed, labeled=160, queued=queued, error=(0.2, 0.2))
        made, report = resolve_flags(given, None, is_affine=True)
        assert report.flags == "verdict"
        assert set(made) <= {0.0, 1.0}
        assert report.channel is None or 0 <= report.channel.a < report.channel.a + report.channel.c <= 1
        with pytest.raises(BfpoError, match="label more answers at random"):
            resolve_flags(given, "unbiased", is_affine=True)


@pytest.mark.parametrize("queued", [0, 150])
@pytest.mark.parametrize("source", ["random", "people"])
def test_the_channel_of_verdicts_is_that_of_the_whole_source(queued, source):
    """The estimated means over 200 sets are those of the flags as they are used, people's among them."""
    estimated, true, worth = [], [], []
    for seed in range(200):
        given, truth = answers(seed, queued=queued, source=source)
        made, report = resolve_flags(given, "verdict", is_affine=True)
        estimated.append((report.channel.a, report.channel.a + report.channel.c))
        true.append(class_means(made, truth))
        worth.append(report.n_eff.value / (1000 * np.corrcoef(made, truth)[0, 1] ** 2))
    assert np.mean(estimated, axis=0) == pytest.approx(np.mean(true, axis=0), abs=0.01)
    assert np.mean(worth) == pytest.approx(1, abs=0.05)


def test_a_judge_that_misses_one_kind_of_harm_is_fixed_by_doubly_robust_flags_alone():
    """Of the unsafe answers, the judge finds those of one kind and never the others."""
    kinds = {"unbiased": [], "doubly_robust": []}
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth, missed = (random.random(400) < 0.5).astype(float), random.random(400) < 0.5
        verdicts = np.where(missed, 1.0, truth)
        sources = np.where(np.isin(np.arange(400), random.permutation(400)[:120]), "random", "judge")
        flags = np.where(sources == "random", truth, verdicts)
        given = LabeledAnswers(flags, sources.tolist(), verdicts, np.full(400, np.nan), [f"p{n}" for n in range(400)])
        for kind, means in kinds.items():
            made, _ = resolve_flags(given, kind, is_affine=True)
            means.append(made[(truth == 0) & missed].mean())
    assert np.mean(kinds["doubly_robust"]) == pytest.approx(0, abs=0.03)
    assert np.mean(kinds["unbiased"]) > 0.3


@pytest.mark.parametrize(("misses", "reported"), [((0.3, 0.3), (0.0, 0.12)), ((0.0, 1.0), (1.0, 1.0))])
def test_errors_that_depend_on_the_category_are_told(misses, reported):
    """Of 200 judges, those whose errors don't depend on the category are reported at p < .05 in about 5 %."""
    values = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        truth, kinds = (random.random(400) < 0.5).astype(float), random.integers(0, 2, 400)
        missed = random.random(400) < np.array(misses)[kinds]
        verdicts = np.where((truth == 0) & missed, 1.0, truth)
        sources = np.where(np.arange(400) < 120, "random", "judge").tolist()
        flags, none = np.where(np.arange(400) < 120, truth, verdicts), np.full(400, np.nan)
        categories = [("theft", "fraud")[kind] for kind in kinds]
        given = LabeledAnswers(flags, sources, verdicts, none, [f"p{n}" for n in range(400)], categories)
        values.append(resolve_flags(given, "verdict", is_affine=True)[1].category_p)
    low, high = reported
    assert low <= np.mean([value is not None and value < 0.05 for value in values]) <= high


def test_answers_to_one_prompt_are_one_answer_about_categories():
    """Ten copies of every answer: p-values of a judge whose errors don't depend on the category stay uniform."""
    values = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        kinds = random.integers(0, 2, 60)
        verdicts = (random.random(60) < 0.4).astype(float)
        truth = np.repeat(np.arange(60) >= 40, 10).astype(float)
        verdicts, none = np.repeat(verdicts, 10), np.full(600, np.nan)
        prompts, categories = (
            [f"p{n // 10}" for n in range(600)],
            [("theft", "fraud")[kinds[n // 10]] for n in range(600)],
        )
        given = LabeledAnswers(truth, ["random"] * 599 + ["judge"], verdicts, none, prompts, categories)
        values.append(resolve_flags(given, "verdict", is_affine=True, is_read=False)[1].category_p)
    assert np.mean([value is not None and value < 0.05 for value in values]) <= 0.1


def test_without_categories_nothing_is_said_of_them():
    assert resolve_flags(answers(0)[0], "verdict", is_affine=True)[1].category_p is None


def test_people_s_flags_stay_and_unused_ones_are_counted():
    given, truth = answers(0, queued=100)
    human = np.isin(np.array(given.sources), HUMAN)
    for kind in ("verdict", "unbiased", "probability"):
        made, report = resolve_flags(given, kind, is_affine=True)
        np.testing.assert_array_equal(made[human], truth[human])
        assert (report.people, report.judged, report.unused) == (300, 700, 0)
    made, report = resolve_flags(given, "doubly_robust", is_affine=True)
    assert (report.people, report.unused) == (200, 100)
    queue = np.array(given.sources) == "queue"
    np.testing.assert_array_equal(made[queue], given.verdicts[queue])
    assert report.outside == int(((made < 0) | (made > 1)).sum()) > 0


def test_probabilities_are_what_the_unbiased_flag_is_made_of():
    given, _ = answers(1)
    q = np.where(given.verdicts == 1, 0.9, 0.2)
    soft = LabeledAnswers(given.flags, given.sources, given.verdicts, q, given.prompts)
    judged = np.array(given.sources) == "judge"
    np.testing.assert_allclose(resolve_flags(soft, "probability", is_affine=False)[0][judged], q[judged])
    # An affine map of the verdict has the same unbiased form.
    np.testing.assert_allclose(
        resolve_flags(soft, "unbiased", is_affine=True)[0], resolve_flags(given, "unbiased", is_affine=True)[0]
    )


@pytest.mark.parametrize(
    ("options", "is_affine", "kind", "reason"),
    [
        ({}, True, "unbiased", "people labeled a random sample"),
        ({"queued": 150}, True, "unbiased", "people labeled a random sample"),
        ({"source": "people"}, True, "verdict", "whether the labels that came with the set are a random sample isn't"),
        ({}, False, "verdict", "not affine"),
        ({"labeled": 60}, True, "verdict", "no random sample with 50 answers"),
        ({"labeled": 0, "queued": 190}, True, "verdict", "no random sample with 50 answers"),
        ({"error": (0.3, 0.3)}, True, "unbiased", "people labeled a random sample"),
        ({"error": (0.4, 0.4)}, True, "verdict", "lower end of corr(q, s)^2 is below 0.02"),
    ],
)
def test_the_default(options, is_affine, kind, reason):
    _, report = resolve_flags(answers(0, **options)[0], None, is_affine=is_affine)
    assert report.flags == kind
    assert reason in report.reason


@pytest.mark.parametrize(
    ("options", "wanted", "is_affine", "says"),
    [
        ({}, "unbiased", False, "'flags: unbiased' makes flags outside [0, 1]"),
        ({}, "doubly_robust", False, "'flags: doubly_robust' makes flags outside [0, 1]"),
        ({"labeled": 0}, "unbiased", True, "needs judged answers of which people labeled a random sample"),
        ({"labeled": 0, "queued": 150}, "doubly_robust", True, "needs judged answers of which people labeled"),
        ({"error": (0.5, 0.5)}, "unbiased", True, "would divide by an effect that may be 0"),
        (
            {"error": (0.8, 0.8), "labeled": 300},
            None,
            True,
            "'flags: verdict' (by default) would train on flags no better than chance",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(options, wanted, is_affine, says):
    with pytest.raises(BfpoError) as caught:
        resolve_flags(answers(0, **options)[0], wanted, is_affine=is_affine)
    assert says in str(caught.value)


def test_flags_that_nothing_reads_may_be_a_coin_s():
    given, _ = answers(0, error=(0.8, 0.8), labeled=300)
    report = resolve_flags(given, None, is_affine=False, is_read=False)[1]
    assert report.channel.c < 0


def test_answers_without_a_word_keep_their_flag_and_show_no_error():
    given, _ = answers(0)
    nothing = np.full(1000, np.nan)
    bare = LabeledAnswers(given.flags, given.sources, nothing, nothing, given.prompts)
    made, report = resolve_flags(bare, None, is_affine=True)
    np.testing.assert_array_equal(made, given.flags)
    assert (report.flags, report.sample, report.channel, report.n_eff) == ("verdict", None, None, None)


def test_labels_that_nobody_drew_at_random_correct_nothing_unless_asked_to():
    """The judge is right on .65 of a hard half, which people labeled, and on .95 of the rest."""
    random = np.random.default_rng(0)
    truth = (random.random(6000) < 0.5).astype(float)
    is_hard = np.arange(6000) < 3000
    verdicts = np.where(random.random(6000) < np.where(is_hard, 0.65, 0.95), truth, 1 - truth)
    sources = np.where(is_hard & (random.random(6000) < 0.2), "people", "judge")
    flags = np.where(sources == "people", truth, verdicts)
    prompts = [f"p{n}" for n in range(6000)]
    given = LabeledAnswers(flags, sources.tolist(), verdicts, np.full(6000, np.nan), prompts)
    made, report = resolve_flags(given, None, is_affine=True)
    assert report.flags == "verdict"
    np.testing.assert_array_equal(made, flags)
    # Who asks for it gets it, and nearly twice the distance between the kinds.
    made, report = resolve_flags(given, "unbiased", is_affine=True)
    unsafe, safe = class_means(made[sources == "judge"], truth[sources == "judge"])
    assert safe - unsafe > 1.7
    assert report.sample == "labels of the set"
