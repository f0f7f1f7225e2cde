"""The short way to the loss: which files a real step enters, how long they are, and that calls only go down."""

import sys
from pathlib import Path

import datasets
import pytest

import bfpo
from bfpo import BFPOConfig, BFPOTrainer
from bfpo.microworld.data import safety_set
from bfpo.models import load_model, load_tokenizer

PACKAGE = Path(bfpo.__file__).parent
# From the top down; a file may call its own row and those below it. The vocabulary, groups.py, lies below all.
LEVELS = (
    ("training/trainer.py",),
    ("engine/forward.py",),
    ("engine/layout.py", "engine/attention.py", "engine/head.py"),
    ("objectives/bfpo.py",),
    ("groups.py",),
)


def traced(function):
    """Calls a function; also returns (calling file, called file) of the package's calls, None for who called first."""
    calls = set()

    def profile(frame, event, _):
        if event == "call" and (called := inside(frame)):
            caller = frame.f_back
            while inside(caller) is None and caller.f_code is not traced.__code__:
                caller = caller.f_back
            calls.add((inside(caller), called))

    sys.setprofile(profile)
    try:
        return function(), calls
    finally:
        sys.setprofile(None)


def inside(frame):
    path = Path(frame.f_code.co_filename)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Calls of the third step of a BFPO run on the microworld, when everything is warm."""
    steps = []

    class Traced(BFPOTrainer):
        def training_step(self, *args, **kwargs):
            loss, calls = traced(lambda: super(Traced, self).training_step(*args, **kwargs))
            steps.append(calls)
            return loss

    arguments = BFPOConfig(
        output_dir=str(tmp_path_factory.mktemp("short")), global_batch_size=8, max_steps=3, save_strategy="no",
        use_cpu=True, disable_tqdm=True, report_to="none",
    )  # fmt: skip
    rows = datasets.Dataset.from_list(safety_set(24, 0))
    Traced(load_model("microworld"), arguments, rows, processing_class=load_tokenizer("microworld")).train()
    assert len(steps) == 3
    return steps[-1]


def test_the_way_to_the_loss_is_seven_files_and_1200_lines(calls):
    files = {called for _, called in calls}
    lines = {name: len((PACKAGE / name).read_text().splitlines()) for name in sorted(files)}
    print(len(files), sum(lines.values()), lines)
    assert {"training/trainer.py", "engine/forward.py", "engine/head.py", "objectives/bfpo.py"} <= files
    assert len(files) <= 7, lines
    assert sum(lines.values()) <= 1200, lines


def test_calls_only_go_down(calls):
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    climbs = {(caller, called) for caller, called in calls if caller and level[caller] > level[called]}
    assert not climbs
    into_objectives = {caller for caller, called in calls if called == "objectives/bfpo.py" and caller != called}
    assert into_objectives == {"engine/head.py"}
