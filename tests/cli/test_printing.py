"""What a text from a server, a file or a model can do to the terminal: nothing."""

import ast
import io
import json
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

import bfpo.cli
from bfpo.cli.main import app
from bfpo.cli.printing import Console, echo, printable

# A title, a clipboard write, a link, colors, a cleared screen, an 8-bit sequence, a bell, a reversed text.
EVIL = "\x1b]0;t\x07\x1b]52;c;aGk=\x1b\\\x1b]8;;http://h\x1b\\\x1b[31ma\x1b[2J\x9b31mb\x07\r\u202ec\x1bM\x1b(B\x00"


def test_control_sequences_are_left_out_and_texts_stay():
    assert printable(EVIL) == "a31mbc"
    assert printable("tab\tline\nüñ 你好 👍🏽 \ud83d") == "tab\tline\nüñ 你好 👍🏽 ?"


def test_the_consoles_own_styles_stay():
    out = io.StringIO()
    table = Table("column", title=EVIL)
    table.add_row(f"[bold]{EVIL}[/bold]")
    Console(file=out, force_terminal=True, color_system="standard", width=60).print(table)
    shown = out.getvalue()
    assert "\x1b[1m" in shown  # bold
    for sequence in ("\x1b]", "\x1b[31m", "\x1b[2J", "\x9b", "\x07", "\r", "\u202e", "\x00"):
        assert sequence not in shown


def test_echo_leaves_them_out(capsys):
    echo(EVIL, err=True)
    echo(EVIL)
    assert capsys.readouterr() == ("a31mbc\n", "a31mbc\n")


@pytest.mark.parametrize("file", sorted(Path(bfpo.cli.__file__).parent.glob("*.py")), ids=lambda file: file.stem)
def test_commands_print_by_these_ways_alone(file):
    if file.stem == "printing":
        return
    tree = ast.parse(file.read_text())
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert not calls & {"typer.echo", "typer.secho", "print", "sys.stdout.write", "sys.stderr.write"}
    assert not {name for name in imported if name in ("rich.console.Console", "rich.print")}


def test_names_in_files_and_errors_are_printed_without_them(tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_is_safe": True, "rejected_is_safe": True}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row | {"category": EVIL, EVIL: 1}) + "\n")
    for command in (["data", "check"], ["data", "show"]):
        done = CliRunner().invoke(app, [*command, str(tmp_path / "pairs.jsonl")])
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(done.output)
