"""The script of docs/how-to/slurm.md: linted, and run with stand-ins for Slurm's commands and for bfpo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/how-to/slurm.md"

# Runs the command once for each task, with its variables, and returns the highest exit code, as srun does.
SRUN = """
shift  # --kill-on-bad-exit=1
highest=0
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@"
    code=$?
    [ $code -gt $highest ] && highest=$code
done
exit $highest
"""
SCONTROL = """
[ "$1" = show ] && printf 'node-1\\nnode-2\\n' || echo "$@" >> "$LOG.scontrol"
"""
BFPO = """
echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR:$MASTER_PORT" "$@" >> "$LOG.bfpo"
[ "$RANK" = 1 ] && exit "$CODE"
exit 0
"""


@pytest.fixture
def script(tmp_path):
    [block] = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "train.sbatch"
    path.write_text(block)
    return path


def dry_run(script, code, state):
    """The script's exit code, what each process was started with, and what scontrol was asked."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "bfpo": BFPO, "squeue": f"echo {state}\n"}.items():
        path = script.parent / name
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    log = script.parent / "log"
    environment = os.environ | {
        "PATH": f"{script.parent}:{os.environ['PATH']}", "LOG": str(log), "CODE": str(code), "SLURM_JOB_ID": "1234567",
        "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node-[1-2]",
    }  # fmt: skip
    done = subprocess.run(["bash", script, "my recipe.yaml", "--set", "seed=1"], env=environment, check=False)
    started, asked = (script.parent / f"log.{name}" for name in ("bfpo", "scontrol"))
    return done.returncode, started.read_text().splitlines(), asked.read_text() if asked.exists() else ""


def test_every_process_gets_its_rank_and_the_recipe(script):
    code, started, asked = dry_run(script, 0, "RUNNING")
    assert (code, asked) == (0, "")
    assert started == [f"{rank}/2 {rank} node-1:34567 train my recipe.yaml --set seed=1 --resume" for rank in range(2)]


@pytest.mark.parametrize(
    ("code", "state", "requeued"),
    [(143, "RUNNING", True), (143, "COMPLETING", False), (1, "RUNNING", False), (130, "RUNNING", False)],
)
def test_only_a_running_job_that_was_stopped_is_requeued(script, code, state, requeued):
    found, _, asked = dry_run(script, code, state)
    assert found == code
    assert asked == ("requeue 1234567\n" if requeued else "")


def test_the_script_has_no_findings(script):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    command = [shellcheck, "--shell=bash"] if shellcheck.exists() else ["bash", "-n"]
    done = subprocess.run([*command, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
