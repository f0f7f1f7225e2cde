"""Items with the same text are one cluster, whatever their names, tasks and declared clusters."""

from dataclasses import replace

from bfpo.safehelp.clusters import joined
from bfpo.safehelp.figures import HEADLINE, items_of
from bfpo.safehelp.items import PromptItem
from bfpo.safehelp.planning import detectable
from bfpo.safehelp.suites import Suite
from reports.worlds import evaluation


def test_clusters_with_a_text_in_common_are_one():
    assert joined(["a", "b", "c"], ["x", "y", "z"]) == ["a", "b", "c"]
    assert joined(["a", "b", "c"], ["x", "y", "x"]) == ["a", "b", "a"]
    # b and c are linked through a text, c and a through another one.
    assert joined(["b", "c", "c", "a", "d"], ["x", "x", "y", "y", "z"]) == ["b", "b", "b", "b", "d"]
    # The first of the items names a cluster, also where a larger one joins it later.
    assert joined(["a", "b", "c", "d", "a"], ["w", "x", "x", "x", "x"]) == ["a"] * 5
    assert joined([], []) == []


def test_repeated_prompts_do_not_count_as_independent():
    run = evaluation("A", per_task=40)
    harmful = [replace(r, cluster=r.item, attack=None) for r in run.generations if r.kind == "harmful"]
    again = [replace(record, task="copy", item=f"again {record.item}") for record in harmful]
    once, twice = (items_of(records, HEADLINE["harmless"]) for records in (harmful, [*harmful, *again]))
    assert len(set(twice.clusters)) == len(set(once.clusters)) == 40
    a, b = once.estimate(), twice.estimate()
    assert b.value == a.value
    assert b.high - b.low >= 0.95 * (a.high - a.low)


def test_the_plan_counts_them_alike():
    prompts = [PromptItem("t", f"{n}", "harmful", None, None, f"{n}", f"prompt {n % 10}") for n in range(40)]
    assert {row.clusters for row in detectable(Suite("s", prompts, []), False)} == {10}
