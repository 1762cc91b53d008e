"""`scripts/tools`: docs/tools.md is that of the catalogue, and the checks find what is wrong, on ordinary
folders.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.test_bench import REPOSITORY, SCRIPTS

sys.path.insert(0, str(SCRIPTS))

from benchmark.host import Host
from tooling import checks, page
from tooling.catalogue import CATALOGUE
from tooling.program import Attempt, Program, WrongError

PROGRAMS = [one for group in CATALOGUE.values() for one in group]
PAGE = (REPOSITORY / "docs/tools.md").read_text(encoding="utf-8")
ROWS = page.parse(PAGE)


def test_the_page_has_the_programs_of_the_catalogue() -> None:
    """A program, a command or a remark that was changed without running `scripts/tools`."""
    assert page.differences(CATALOGUE, ROWS) == []
    assert len(ROWS) == len(PROGRAMS), "two rows of the catalogue are the same"


def test_forty_programs_find_what_is_true() -> None:
    good = {row.tool.partition(",")[0] for row in ROWS.values() if row.good}
    assert len(good) >= 40
    assert {"mc", "polars", "mount --bind", "a line of fstab"} <= good


def test_each_row_says_what_was_run_and_what_came_of_it() -> None:
    assert [key for key, row in ROWS.items() if not (row.version[:1].isdigit() and row.result)] == []
    expected = {one.key for one in PROGRAMS if one.fails}
    assert {key for key, row in ROWS.items() if not row.good} == expected
    assert [row.tool for row in ROWS.values() if not row.good and not row.remark] == []


def test_a_difference_between_page_and_catalogue_is_seen() -> None:
    first, second, *rest = PROGRAMS
    changed = dataclasses.replace(second, command="another command")
    found = page.differences({"": [dataclasses.replace(first, remark="another"), changed, *rest]}, ROWS)
    assert sorted(found) == sorted(
        [
            f"{first.tool} has another remark: {first.remark}",
            f"{second.tool} has no row for its command: another command",
            f"{second.tool} has a row that the catalogue has not: {second.command}",
        ]
    )


def test_a_page_is_read_as_it_was_written() -> None:
    odd = Program("a|b", "", "cat x | wc -l; echo 'a\\|b'", checks.prints("1"), "with | and `code`")
    row = page.Row(odd.tool, "1.0", odd.command, "prints `a|b`", "12", odd.remark)
    assert page.parse(page.render({"Some": [odd]}, {odd.key: row}, 1)) == {odd.key: row}
    assert page.render(CATALOGUE, ROWS, 1).partition("## ")[2] == PAGE.partition("## ")[2]


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    """A home whose mount is an ordinary folder, with the same two files as in `copy`."""
    for folder in ("home/xnat/d", "home/copy/d", "work"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        for root in ("xnat", "copy"):
            (tmp_path / "home" / root / "d" / name).write_text(f"the text of {name}\n")
    host = Host(tmp_path, 20.0)
    environment = {"HOME": str(tmp_path / "home"), "XNAT_HOST": "http://127.0.0.1:1"}
    yield Attempt(host, tmp_path / "home", tmp_path / "work", environment)
    host.close()


def tried(attempt: Attempt, program: Program) -> str:
    attempt.output = attempt.run(program.command)
    return program.check(program, attempt)


CHECKED = [
    Program("cp", "", "cp -r ~/xnat/d .", checks.copied("~/xnat/d", "d")),
    Program("cp", "", "cp ~/xnat/d/a .", checks.one_file("~/xnat/d/a", "a")),
    Program("tar", "", "tar -cf t -C ~/xnat d", checks.unpacked("~/xnat/d", "tar -xf t", "d")),
    Program("cat", "", "cat ~/xnat/d/*", checks.same_output("text")),
    Program("cp", "", "cp ~/xnat/d/a made", checks.same_made("made")),
    Program("cat", "", "cat ~/xnat/d/a", checks.prints("the text of a")),
    Program("cat", "", "cat ~/xnat/d/a", checks.shows("text of a")),
    Program("diff", "", "diff -r ~/xnat/d ~/copy/d || true", checks.prints_nothing("no difference")),
]


@pytest.mark.parametrize("number", range(len(CHECKED)))
def test_a_check_finds_a_wrong_byte(attempt: Attempt, number: int) -> None:
    program = CHECKED[number]
    assert tried(attempt, program)
    (attempt.mount / "d/a").write_text("the test of a\n")
    with pytest.raises(WrongError):
        tried(attempt, program)


@pytest.mark.parametrize("number", [0, 2, 3, 7])
def test_a_check_finds_a_missing_file(attempt: Attempt, number: int) -> None:
    os.remove(attempt.mount / "d/b")
    with pytest.raises(WrongError):
        tried(attempt, CHECKED[number])


def test_nothing_to_compare_is_no_success(attempt: Attempt) -> None:
    for name in ("a", "b"):
        for root in (attempt.mount, attempt.copy):
            os.remove(root / "d" / name)
    for program in (CHECKED[0], Program("ls", "", "ls ~/xnat/d", checks.same_output())):
        with pytest.raises(WrongError):
            tried(attempt, program)
