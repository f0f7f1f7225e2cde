"""The step plan's promises: ratio in every step, one pass an epoch, a buffer that cycles fairly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bfpo.errors import BfpoError
from bfpo.training.step_plan import StepLoader, StepPlan, StepSampler

ratios = st.sampled_from([(1.0, 2), (1.0, 8), (0.5, 3), (0.5, 12), (2.0, 6), (3.0, 4), (0.25, 5)])


@given(st.integers(1, 60), st.integers(1, 40), ratios, st.integers(0, 3))
def test_every_step_holds_the_ratio_and_every_epoch_all_main_rows(main, buffer, ratio_and_batch, seed):
    ratio, batch = ratio_and_batch
    plan = StepPlan(main, buffer, batch, ratio, seed)
    for epoch in range(3):
        steps = plan.epoch(epoch)
        assert len(steps) == plan.steps_per_epoch
        assert sorted(row for step in steps for row in step if row < main) == list(range(main))
        for step in steps[:-1]:
            assert len(step) == batch
            assert ratio * (step < main).sum() == (step >= main).sum()
        last_main, last_buffer = (steps[-1] < main).sum(), (steps[-1] >= main).sum()
        assert ratio * last_main <= last_buffer < ratio * last_main + 1


@given(st.lists(st.integers(1, 20_000), min_size=1, max_size=40), st.integers(1, 6))
def test_the_largest_steps_come_first_and_steps_stay_the_same(tokens, batch):
    plan = StepPlan(len(tokens), 0, batch)
    ordered = plan.largest_first(np.array(tokens))
    steps = [tuple(step) for step in ordered.epoch(0)]
    assert sorted(steps) == sorted(tuple(step) for step in plan.epoch(0))
    assert [step.tolist() for step in ordered.epoch(1)] == [step.tolist() for step in plan.epoch(1)]
    sums = [sum(tokens[row] for row in step) for step in steps]
    longest = [max(tokens[row] for row in step) for step in steps]
    if max(sums) <= 16_384:
        assert sums[:2] == sorted(sums, reverse=True)[:2]
    if min(sums) >= 16_384 or max(longest) >= 16_384:
        assert longest[0] == max(longest)


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 3))
def test_buffer_rows_are_used_equally_often_across_epochs(main, buffer, seed):
    plan = StepPlan(main, buffer, 4, 1.0, seed)
    used = Counter(
        dict.fromkeys(range(main, main + buffer), 0)
        | Counter(row for epoch in range(4) for step in plan.epoch(epoch) for row in step.tolist() if row >= main)
    )
    assert used.total() == 4 * main
    assert max(used.values()) - min(used.values()) <= 1


@given(st.integers(1, 50), st.integers(0, 20), st.integers(1, 4), st.integers(0, 3))
def test_processes_share_each_step_without_loss_or_overlap(main, buffer, processes, epoch):
    plan = StepPlan(main, buffer, 6, 1.0, 7)
    samplers = [StepSampler(plan, process, processes) for process in range(processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    for step, *shares in zip(plan.epoch(epoch), *samplers, strict=True):
        assert sorted(row for share in shares for row in share) == sorted(step)


def test_order_depends_on_seed_and_epoch_and_nothing_else():
    def order(seed, epoch):
        return np.concatenate(StepPlan(40, 10, 8, 1.0, seed).epoch(epoch)).tolist()

    assert order(1, 2) == order(1, 2)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@given(st.integers(2, 40), st.floats(0.1, 5))
def test_a_batch_that_cannot_hold_the_ratio_is_refused(batch, ratio):
    share = batch / (1 + ratio)
    assume(abs(share - round(share)) > 1e-6)
    with pytest.raises(BfpoError, match="exactly"):
        StepPlan(10, 10, batch, ratio)


def test_nothing_to_train_on_is_refused():
    with pytest.raises(BfpoError, match="no row to train on"):
        StepPlan(0, 10, 2)


def test_workers_that_load_ahead_do_not_change_the_order():
    plan = StepPlan(20, 6, 4, 1.0, 3)

    def loaded(workers):
        sampler = StepSampler(plan, 0, 1)
        loader = StepLoader(list(range(26)), batch_sampler=sampler, collate_fn=list, num_workers=workers)  # pyright: ignore
        loader.set_epoch(1)
        return list(loader)

    assert loaded(0) == loaded(2) == [step.tolist() for step in plan.epoch(1)]
