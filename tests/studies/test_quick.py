"""The study behind the quickstart: betas chosen by U, differences paired over seeds, one scale per folder."""

import json
from dataclasses import asdict, replace
from functools import partial

import pytest

from bfpo.errors import BfpoError
from bfpo.quickstart import METHODS, Scale
from bfpo.safehelp.figures import HEADLINE
from bfpo.training.recipe import load_recipe
from studies import quick
from studies.quick import Job, chosen_betas, run_job, run_study, summary
from studies.quick_report import write_study

TOY = Scale(chat=12, safety=24, helpful=8, sft_steps=1, steps=2, batch_size=8)


def test_a_study_does_not_mix_scales(tmp_path):
    (tmp_path / "scale.json").write_text(json.dumps(asdict(Scale())))
    with pytest.raises(BfpoError, match="runs of another scale"):
        run_study(tmp_path, TOY, [0, 1], 1, print)


def test_a_job_trains_from_its_seed_s_sft_model_and_its_result_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(quick, "load_suite", partial(quick.load_suite, per_kind=2))
    job = Job("BFPO", 0.4, 3, "validation")
    result = run_job(job, tmp_path, TOY)
    assert result["U"] == (result["helpful"] + result["harmless"]) / 2
    assert load_recipe(tmp_path / "seed3" / "recipes" / "BFPO-0.4.yaml").recipe.model == str(tmp_path / "seed3" / "SFT")
    monkeypatch.setattr(quick, "train", None)
    assert run_job(job, tmp_path, TOY) == result


def figures(helpful, harmless):
    return dict(zip(HEADLINE, (helpful, harmless, 0.0, 0.0), strict=True)) | {"U": (helpful + harmless) / 2}


def test_betas_are_chosen_by_u_and_differences_paired(tmp_path):
    selection = {
        Job(method, beta, 0, "validation"): figures(0.8, 0.5 + (beta == chosen) * 0.1)
        for method, chosen in zip(METHODS, (0.1, 0.2, 0.4, 0.05), strict=True)
        for beta in (0.05, 0.1, 0.2, 0.4)
    }
    betas = chosen_betas(selection)
    assert betas == {"BFPO": 0.1, "DPO-H": 0.2, "DPO-S": 0.4, "DPO": 0.05}
    final = {Job("SFT", None, seed, "test"): figures(0.9 + 0.01 * seed, 0.2) for seed in (0, 1)}
    for method, gain in zip(METHODS, (0.30, 0.0, 0.1, 0.25), strict=True):
        for seed in (0, 1):
            final[Job(method, betas[method], seed, "test")] = figures(0.8 + 0.1 * seed, 0.5 + gain)
    made = summary(replace(TOY), [0, 1], betas, selection, final)
    assert made["best_rival"] == "DPO"
    difference = made["differences"]["U, BFPO - DPO"]
    assert difference["value"] == pytest.approx(0.025)
    # Both vary alike over the seeds, so the paired difference does not vary at all.
    assert difference["high"] - difference["low"] == pytest.approx(0, abs=1e-9)
    page = write_study(tmp_path, made).read_text()
    assert "| BFPO | 0.1 |" in page
    assert (tmp_path / "study-quick.png").exists()
    assert json.loads((tmp_path / "study-quick.json").read_text())["betas"] == betas
