"""The man pages: one for each command, and no text lost to roff."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from xnatfs import cli
from xnatfs.cli import manual


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man") / "man1"
    with pytest.raises(SystemExit) as ended:
        cli.main(["help", "--write", str(folder)])
    assert ended.value.code == 0
    return folder


def contexts() -> list[click.Context]:
    return manual.contexts(click.Context(cli.cli, info_name="xnatfs", **cli.cli.context_settings))


def test_each_command_has_a_page(pages: Path) -> None:
    expected = {"xnatfs", *(f"xnatfs-{name}" for name in cli._COMMANDS)}
    expected |= {f"xnatfs-cache-{name}" for name in ("info", "verify", "clear")}
    assert {path.stem for path in pages.iterdir()} == expected


def test_man_shows_all_that_help_says(pages: Path) -> None:
    """Every word of `--help` is on the page, in man's own output, and man warns of nothing."""
    assert shutil.which("man"), "apt-get install man-db"
    files = {path.stem: path for path in pages.iterdir()}
    for ctx in contexts():
        name = ctx.command_path.replace(" ", "-")
        done = subprocess.run(
            ["man", "--warnings", "-l", str(files[name])],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env={**os.environ, "MANWIDTH": "20000", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
        )
        assert done.stderr == ""
        shown = set(done.stdout.split())
        parameters = [one for one in ctx.command.get_params(ctx) if isinstance(one, click.Option)]
        said = [ctx.command.help or "", *(one.help or "" for one in parameters if not one.hidden)]
        said += [spelling for one in parameters if not one.hidden for spelling in one.opts]
        words = {word for text in said for word in text.split() if word.isalpha() or word.startswith("--")}
        assert {word for word in words if word not in shown and f"{word}," not in shown} == set(), name


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 0, "Usage: xnatfs [OPTIONS] COMMAND"),
        (["mount"], 0, "Usage: xnatfs mount [OPTIONS] MOUNTPOINT"),
        (["cache", "info"], 0, "Usage: xnatfs cache info"),
        (["umount"], 0, "Usage: xnatfs unmount"),
        (["mont"], 1, "xnatfs: there is no command 'mont' in xnatfs; did you mean mount or unmount?"),
        (["cache", "nfo"], 1, "xnatfs: there is no command 'nfo' in xnatfs cache; did you mean info?"),
        (["mount", "x"], 1, "xnatfs: there is no command 'x' in xnatfs mount"),
    ],
)
def test_help(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["help", *words])
    out, err = capsys.readouterr()
    assert (ended.value.code, (out + err).startswith(said)) == (code, True), out + err


def test_what_roff_takes_for_its_own_is_escaped() -> None:
    assert manual._escaped(".x -y\n'z \\n") == "\\&.x \\-y\n\\&'z \\en"
