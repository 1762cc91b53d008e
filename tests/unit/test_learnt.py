"""What outlives the cache."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

import pytest

from xnatfs.cache.corrections import Corrections


def test_what_was_learnt_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "learnt.sqlite"
    learnt = Corrections(path)
    learnt.put("size", "f", "12")
    learnt.put("size", "f", "13")
    learnt.put("size", "f", "13")
    learnt.put("bad digest", "f", "x")
    learnt.close()
    again = Corrections(path)
    assert again.get("size", "f") == "13"
    assert again.get("size", "g") is None
    assert again.of("size") == {"f": "13"}
    assert again.of("bad digest") == {"f": "x"}
    again.close()


def test_it_is_private(tmp_path: Path) -> None:
    Corrections(tmp_path / "d" / "learnt.sqlite").close()
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "d" / "learnt.sqlite").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", [b"no database" * 500, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_started_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "learnt.sqlite"
    path.write_bytes(damage)
    learnt = Corrections(path)
    learnt.put("size", "f", "12")
    learnt.close()
    again = Corrections(path)
    assert again.get("size", "f") == "12"
    again.close()


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "ALTER TABLE learnt ADD COLUMN more"])
def test_a_file_of_another_version_is_started_anew(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "learnt.sqlite"
    learnt = Corrections(path)
    learnt.put("size", "f", "12")
    learnt.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 0")
        database.execute(statement)
        database.commit()
    again = Corrections(path)
    assert again.get("size", "f") is None and "were started anew" in again.renewed
    again.put("size", "f", "13")
    again.close()
    third = Corrections(path)
    assert third.get("size", "f") == "13" and third.renewed == ""
    third.close()


def test_a_state_directory_that_cannot_be_written_costs_only_the_memory_of_it(tmp_path: Path) -> None:
    learnt = Corrections(tmp_path / "learnt.sqlite")
    learnt._database.execute("DROP TABLE learnt")
    learnt.put("size", "f", "12")
    assert learnt.get("size", "f") == "12"
    learnt.close()
