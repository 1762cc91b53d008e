"""What collecting a table remembers: where files lie, and who asked since a refresh."""

from __future__ import annotations

from typing import BinaryIO

from xnatfs.server.records import FileRecord, Owner
from xnatfs.tables.engine.known_paths import KnownPaths
from xnatfs.tables.engine.recheck import Rechecks
from xnatfs.tables.spec import Input, Parsed, SessionInfo

FIRST = SessionInfo("X_E1", "sub01_MR1", "sub01")
SECOND = SessionInfo("X_E2", "sub02_MR1", "sub02")


def parse(_: BinaryIO, __: str) -> Parsed:
    return Parsed((), [])


ASEG = Input("aseg", "*/aseg.stats", parse)
TREE = 40  # files
REST = [f"a/b{number}.txt" for number in range(TREE - 1)]
NEWEST = Input("report", "*.json", parse, prefer=str)


def listed(*paths: str) -> list[FileRecord]:
    return [FileRecord(Owner("experiment", "X_E1"), 1, "FS", path, 5, "") for path in paths]


def test_a_path_serves_the_other_sessions_under_their_names() -> None:
    paths = KnownPaths((ASEG,))
    assert not paths.known and paths.candidates(ASEG, SECOND, TREE) == []
    paths.learn([("aseg", "sub01_MR1/sub01/stats/aseg.stats")], FIRST, TREE)
    assert paths.known
    assert paths.candidates(ASEG, SECOND, TREE) == ["sub02_MR1/sub02/stats/aseg.stats"]


def test_a_listing_shows_paths_and_says_so() -> None:
    paths = KnownPaths((ASEG, NEWEST))
    known: list[bool] = []
    paths.on_learnt = lambda: known.append(paths.known)
    paths.learn_from(listed("a/aseg.stats", *REST), FIRST, TREE)
    assert known == [True]
    assert paths.candidates(ASEG, SECOND, TREE) == ["a/aseg.stats"]
    assert paths.candidates(NEWEST, SECOND, TREE) == []  # which is the newest only a listing says


def test_a_path_is_not_tried_where_another_file_may_match_as_well() -> None:
    """The first in the catalogue is read, and which that is only a listing says."""
    paths = KnownPaths((ASEG,))
    paths.learn_from(listed("a/aseg.stats", *REST), FIRST, TREE)
    assert paths.candidates(ASEG, SECOND, TREE)
    for count in (TREE + 1, TREE - 1, 2 * TREE, None):
        assert paths.candidates(ASEG, SECOND, count) == []


def test_a_listing_of_two_that_match_lets_no_path_be_tried() -> None:
    paths = KnownPaths((ASEG,))
    paths.learn_from(listed("old/aseg.stats", "run/aseg.stats", *REST[1:]), FIRST, TREE)
    assert paths.known
    assert paths.candidates(ASEG, SECOND, TREE) == []


def test_a_listing_that_is_not_what_the_server_counts_lets_no_path_be_tried() -> None:
    paths = KnownPaths((ASEG,))
    paths.learn_from(listed("a/aseg.stats", *REST), FIRST, TREE + 5)
    assert paths.candidates(ASEG, SECOND, TREE) == paths.candidates(ASEG, SECOND, TREE + 5) == []


def test_in_a_handful_of_files_nothing_is_guessed() -> None:
    """Of so few one may be there twice and another lack, and the count stays."""
    paths = KnownPaths((ASEG,))
    paths.learn_from(listed("a/aseg.stats", "x.json"), FIRST, 2)
    assert paths.candidates(ASEG, SECOND, 2) == []


def test_guessing_ends_where_it_has_failed_too_often() -> None:
    paths = KnownPaths((ASEG,))
    paths.learn([("aseg", "a/aseg.stats")], FIRST, TREE)
    for _ in range(3):
        paths.score("aseg", right=False)
    assert paths.candidates(ASEG, SECOND, TREE)
    paths.score("aseg", right=False)
    assert paths.candidates(ASEG, SECOND, TREE) == []
    paths.score("aseg", right=True)
    assert paths.candidates(ASEG, SECOND, TREE)


def test_a_path_that_an_earlier_pattern_would_beat_is_not_guessed() -> None:
    either = Input("either", ("new.csv", "old.csv"), parse)
    paths = KnownPaths((either,))
    paths.learn([("either", "old.csv")], FIRST, TREE)
    assert paths.candidates(either, SECOND, TREE) == []
    paths.learn([("either", "new.csv")], FIRST, TREE)
    assert paths.candidates(either, SECOND, TREE) == ["new.csv"]


def test_every_table_is_due_once_after_a_refresh() -> None:
    rechecks = Rechecks()
    assert not rechecks.due("P", "a", ())
    rechecks.request()
    assert rechecks.due("P", "a", ("E1", "E2"))
    rechecks.note("P", "a", ("E2", "E1"), rechecks.requested + 1)
    assert not rechecks.due("P", "a", ("E1", "E2")) and rechecks.due("P", "a", ())


def test_a_build_that_began_before_a_refresh_does_not_count() -> None:
    rechecks = Rechecks()
    rechecks.request()
    rechecks.note("P", "a", (), rechecks.requested - 1)
    assert rechecks.due("P", "a", ())
