"""Tests of ``bfpo report``: a page or a model card from run folders, and one sentence for every wrong request."""

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from bfpo.cli.main import app
from bfpo.errors import BfpoError
from reports.worlds import world


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for run in world(("SFT", "BFPO"), per_task=60):
        run.save(root / run.model)
    return root


def report(*arguments):
    done = CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=True)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_page_of_saved_runs(folders, tmp_path):
    first, second = folders / "SFT", folders / "BFPO"
    done = report(first, second, "-o", tmp_path, "--baseline", second, "--title", "Ours & theirs")
    assert done.exit_code == 0
    assert str(tmp_path / "report.html") in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "<h1>Ours &amp; theirs</h1>" in page
    assert "Compared with BFPO, SFT is less safe (harmless −" in page
    assert len(list((tmp_path / "plots").glob("*.png"))) == len(list((tmp_path / "plots").glob("*.svg"))) >= 8


def test_card_of_a_saved_run(folders, tmp_path):
    path = tmp_path / "model" / "README.md"
    assert report("--card", folders / "BFPO", "-o", path).exit_code == 0
    assert ModelCard.load(path).data.model_name == "BFPO"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{runs}/SFT", "{runs}/BFPO", "--card"], "--card describes a single run"),
        (["{runs}/SFT", "--card", "-o", "{runs}"], "this is a folder; name a file for the card"),
        (["{runs}/SFT", "-o", "{runs}/SFT/run.json"], "is a file; name a folder"),
        (["{runs}/none"], "contains no evaluation"),
        (["{runs}/SFT", "--baseline", "SFY"], r"no evaluation of a model 'SFY' \(did you mean 'SFT'"),
    ],
)
def test_wrong_requests_are_refused(folders, arguments, message):
    with pytest.raises(BfpoError, match=message):
        report(*(argument.format(runs=folders) for argument in arguments))


def test_a_card_replaces_none_but_its_own(folders, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("My own words.", encoding="utf-8")
    with pytest.raises(BfpoError, match="isn't a card by 'bfpo report --card'"):
        report("--card", folders / "BFPO", "-o", path)
    assert path.read_text(encoding="utf-8") == "My own words."
    path.unlink()
    for _ in range(2):
        assert report("--card", folders / "BFPO", "-o", path).exit_code == 0
