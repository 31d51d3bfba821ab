# SPDX-License-Identifier: Apache-2.0
"""The documents say what is there: commands and options in docs/CLI.md, the examples of README.md, links."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pycow.cli import cli, run
from pycow.cli._app import Exit

ROOT = Path(__file__).resolve().parents[2]
CLI_DOC = ROOT / "docs" / "CLI.md"
README = ROOT / "README.md"


def _commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def _documented() -> dict[str, set[str]]:
    """{command: options} of docs/CLI.md; "" are the global ones."""
    found: dict[str, set[str]] = {"": set()}
    name = ""
    for line in CLI_DOC.read_text().splitlines():
        if line.startswith("### pycow "):
            words = line.removeprefix("### pycow ").split()
            name = " ".join(word for word in words if re.fullmatch("[a-z]+", word))
            assert name not in found, f"{name} is described twice"
            found[name] = set()
        elif line.startswith("#"):
            name = ""
        elif line.startswith("| `-"):
            cell = line.split("|")[1]
            found[name] |= {quoted.split()[0] for quoted in re.findall("`(-[^`]+)`", cell)}
    return found


def _options(command: click.Command) -> set[str]:
    options = {name for p in command.params if isinstance(p, click.Option) for name in p.opts + p.secondary_opts}
    return options - {"--store", "--json", "--version"}


def test_every_command_and_option_is_documented_and_every_documented_one_exists() -> None:
    documented = _documented()
    assert documented.pop("") == {"--store", "--json", "-h", "--help", "--version"}
    assert documented == {name: _options(command) for name, command in _commands(cli)}


def test_every_exit_code_is_documented() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", CLI_DOC.read_text(), re.MULTILINE)}
    assert codes == {int(code) for code in Exit}


def test_every_command_has_help_a_file_and_a_test() -> None:
    for name, command in _commands(cli):
        assert command.help, name
        first = name.split()[0]
        assert (ROOT / "pycow" / "cli" / f"cmd_{first}.py").exists()
        assert (ROOT / "tests" / "python" / "cli" / f"test_cli_{first}.py").exists()


@pytest.mark.parametrize("document", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]), ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def _blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def _add(tar: tarfile.TarFile, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode = len(content), kind, 0o755
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what the examples mention: image.tar with /big.bin and /tmp, notes.txt."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, "tmp", kind=tarfile.DIRTYPE)
        _add(tar, "big.bin", bytes(1 << 20))
    diff_id = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "ADD rootfs.tar /"}],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": ["busybox:latest"], "Layers": ["layer.tar"]}]
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        _add(tar, name, config)
        _add(tar, "layer.tar", layer.getvalue())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    (tmp_path / "notes.txt").write_text("remember\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYCOW_STORE", str(tmp_path / "store"))
    return tmp_path


@pytest.mark.parametrize("code", _blocks(README, "python"))
def test_the_python_examples_run(workplace: Path, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, str(README), "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert "Usage(size=4101, " in out
    assert "[Change(kind='C', path='/big.bin'), Change(kind='A', path='/out.txt')]" in out
    assert "True 1" in out


@pytest.mark.parametrize("document", [README, CLI_DOC], ids=lambda p: p.name)
def test_the_command_examples_run(workplace: Path, document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in _blocks(document, "console") for line in block.splitlines()]
    assert lines
    out = ""
    for line in lines:
        if line.startswith("$ "):
            program, *arguments = shlex.split(line.removeprefix("$ "))
            assert program == "pycow"
            assert run(arguments) == 0, line
            out = capsys.readouterr().out
        else:
            assert line in out.splitlines()
