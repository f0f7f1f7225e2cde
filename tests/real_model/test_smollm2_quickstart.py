"""The quickstart on SmolLM2 at a tiny scale: real answers are cut, labeled, trained on and shown."""

import json

import pytest

from bfpo.real_quickstart import REFUSALS, RealScale, run_real_quickstart
from bfpo.safehelp.records import Evaluation

pytestmark = pytest.mark.real_model

TINY = RealScale(
    pairs=4, plain=2, held_out_pairs=2, held_out_plain=1, max_new_tokens=12, sft_steps=1, steps=2, batch_size=5
)


def test_smollm2_from_red_teaming_to_the_page(smollm2, folder):
    run = folder / "quickstart"
    result = run_real_quickstart(str(smollm2), run, 0, TINY)
    rows = [json.loads(line) for line in (run / "red-team" / "groups.jsonl").read_text().splitlines()]
    assert len(rows) == result.groups
    assert all(row["responses"][-1] in REFUSALS for row in rows)
    start, bfpo = (Evaluation.load(run / "evaluations" / name) for name in ("start", "BFPO"))
    assert [one.answer for one in start.generations] != [one.answer for one in bfpo.generations]
    assert "What happened" in result.report.page.read_text()
    assert result.peak_memory < 8 * 2**30
    # Nothing is done again.
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    run_real_quickstart(str(smollm2), run, 0, TINY)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before
