"""The content cache: a hard cap, least recently used first, and nothing lost or leaked by a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from xnatfs.cache import index
from xnatfs.cache.contents import ContentCache, Entry
from xnatfs.errors import Cause, Failure

KIB = 1024


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ContentCache]:
    made = ContentCache(tmp_path / "c", 100 * KIB)
    yield made
    made.close()


def key(name: str) -> str:
    """A name as long as a digest, told apart by its first letters."""
    return (name * 64)[:64]


def put(cache: ContentCache, name: str, data: bytes, last_modified: str = "") -> None:
    draft = cache.draft(len(data))
    try:
        draft.write(data)
        draft.commit(key(name), last_modified=last_modified, verified="md5")
    finally:
        draft.close()


def names(cache: ContentCache) -> set[str]:
    return {row[0][0] for row in cache.keys()}  # noqa: SIM118  # no dict


def get(cache: ContentCache, name: str) -> bytes | None:
    entry = cache.open(key(name))
    if entry is None:
        return None
    try:
        return os.pread(entry.fd, entry.size + 1, 0)
    finally:
        entry.close()


def held(cache: ContentCache, name: str) -> Entry:
    entry = cache.open(key(name))
    assert entry is not None
    return entry


def on_disk(cache: ContentCache) -> int:
    return sum(path.stat().st_size for path in cache.directory.glob("*/**/*") if path.is_file())


def refused(cache: ContentCache, size: int | None) -> Failure:
    with pytest.raises(Failure) as caught:
        cache.draft(size)
    assert caught.value.cause is Cause.NO_SPACE
    return caught.value


# --- reading and writing ------------------------------------------------------------------------------------


def test_what_was_committed_is_read_again(cache: ContentCache) -> None:
    put(cache, "a", b"content", "Tue, 05 Mar 2024 06:07:08 GMT")
    assert get(cache, "a") == b"content"
    with_entry = held(cache, "a")
    assert (with_entry.size, with_entry.last_modified, with_entry.verified) == (
        7,
        "Tue, 05 Mar 2024 06:07:08 GMT",
        "md5",
    )
    with_entry.close()
    assert cache.has(key("a")) == "md5"
    assert cache.has(key("b")) is None
    many = [key(f"{number}") for number in range(1200)]  # more than one statement takes
    assert cache.present([*many, key("a"), key("b")]) == {key("a")}
    assert get(cache, "b") is None


def test_an_empty_file_can_be_kept(cache: ContentCache) -> None:
    put(cache, "a", b"")
    assert get(cache, "a") == b""


def test_a_draft_that_is_not_committed_leaves_nothing(cache: ContentCache) -> None:
    draft = cache.draft(10)
    draft.write(b"half")
    assert on_disk(cache) == 4
    draft.close()
    draft.close()
    assert on_disk(cache) == 0
    assert cache.usage() == (0, 0, 0)


def test_readers_see_a_draft_grow(cache: ContentCache) -> None:
    draft = cache.draft(6)
    draft.write(b"abc")
    assert os.pread(draft.fd, 10, 0) == b"abc"
    draft.write(b"def")
    assert os.pread(draft.fd, 10, 2) == b"cdef"
    draft.close()


def test_a_second_try_that_is_shorter_leaves_no_tail_of_the_first(cache: ContentCache) -> None:
    draft = cache.draft(6)
    draft.write(b"abcdef")
    draft.rewind()
    draft.write(b"xyz")
    draft.commit(key("a"), last_modified="", verified="size")
    draft.close()
    assert get(cache, "a") == b"xyz"


def test_a_new_version_under_the_same_key_replaces_the_old_in_the_account(cache: ContentCache) -> None:
    put(cache, "a", b"x" * 60 * KIB)
    put(cache, "a", b"y" * 30 * KIB)
    assert cache.usage() == (1, 30 * KIB, 0)
    put(cache, "b", b"z" * 70 * KIB)
    assert get(cache, "a") == b"y" * 30 * KIB


def test_who_has_a_file_open_reads_on_after_it_was_forgotten(cache: ContentCache) -> None:
    put(cache, "a", b"content")
    entry = held(cache, "a")
    cache.forget(key("a"))
    assert cache.has(key("a")) is None
    assert os.pread(entry.fd, 10, 0) == b"content"
    entry.close()
    entry.close()


def test_confirming_renews_the_time_of_the_check(cache: ContentCache) -> None:
    put(cache, "a", b"content")
    cache.index.execute("UPDATE objects SET checked = 1")
    entry = held(cache, "a")
    assert entry.checked == 1
    entry.close()
    cache.confirm(key("a"))
    entry = held(cache, "a")
    assert entry.checked > 1_000_000
    entry.close()


# --- the cap ------------------------------------------------------------------------------------------------


def test_the_cap_holds_with_drafts_counted(cache: ContentCache) -> None:
    one, other = cache.draft(60 * KIB), cache.draft(40 * KIB)
    assert "the cap is" in str(refused(cache, 1))
    one.close()
    third = cache.draft(60 * KIB)
    refused(cache, 1)
    third.close()
    other.close()
    assert cache.usage() == (0, 0, 0)


def test_the_oldest_goes_first(cache: ContentCache) -> None:
    for number, name in enumerate("abc"):
        put(cache, name, name.encode() * 30 * KIB)
        cache.index.execute("UPDATE objects SET used = ? WHERE key = ?", number, key(name))
    assert get(cache, "a") is not None  # looked at: now the youngest
    put(cache, "d", b"d" * 30 * KIB)
    assert [name for name in "abcd" if cache.has(key(name))] == ["a", "c", "d"]
    assert on_disk(cache) == 90 * KIB


def test_no_more_is_evicted_than_is_needed(cache: ContentCache) -> None:
    for name in "abcdefghij":
        put(cache, name, b"x" * 10 * KIB)
    put(cache, "k", b"x" * 15 * KIB)
    assert cache.usage()[:2] == (9, 95 * KIB)


def test_what_is_open_is_not_evicted(cache: ContentCache) -> None:
    put(cache, "a", b"a" * 60 * KIB)
    first, second = held(cache, "a"), held(cache, "a")
    first.close()
    refused(cache, 50 * KIB)
    assert os.pread(second.fd, 3, 0) == b"aaa"
    second.close()
    cache.draft(50 * KIB).close()
    assert cache.has(key("a")) is None


def test_what_is_larger_than_the_cap_is_refused_and_other_files_stay_readable(cache: ContentCache) -> None:
    put(cache, "a", b"x")
    entry = held(cache, "a")
    refused(cache, 101 * KIB)
    assert os.pread(entry.fd, 1, 0) == b"x"
    entry.close()


def test_a_draft_of_unknown_size_reserves_as_it_grows(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "c", 10 * KIB * KIB)
    draft = cache.draft(None)
    reserved = cache.usage()[2]
    assert 0 < reserved <= 10 * KIB * KIB
    piece = b"x" * KIB * KIB
    with pytest.raises(Failure) as caught:
        for _ in range(20):
            draft.write(piece)
            assert draft.written <= cache.usage()[2] <= 10 * KIB * KIB
    assert caught.value.cause is Cause.NO_SPACE
    assert draft.written >= 6 * KIB * KIB
    draft.close()
    assert cache.usage() == (0, 0, 0)
    cache.close()


def test_a_draft_that_grows_past_its_reservation_pushes_out_others(cache: ContentCache) -> None:
    cache.space.cap = 9 * KIB * KIB
    put(cache, "a", b"a" * KIB * KIB)
    draft = cache.draft(10)
    draft.write(b"x" * 11)
    assert cache.has(key("a")) is not None
    draft.write(b"x" * 5 * KIB * KIB)
    assert cache.has(key("a")) is None
    draft.close()


def test_a_full_disk_is_told_as_such(cache: ContentCache) -> None:
    draft = cache.draft(10)
    path = next((cache.directory / "drafts").iterdir())
    full = os.open("/dev/full", os.O_RDWR)
    mine, draft.fd = draft.fd, full
    with pytest.raises(Failure) as caught:
        draft.write(b"x")
    assert caught.value.cause is Cause.NO_SPACE
    draft.fd = mine
    os.close(full)
    draft.close()
    assert not path.exists()


def test_many_writers_never_pass_the_cap_together(cache: ContentCache) -> None:
    over: list[int] = []

    def work(number: int) -> None:
        for turn in range(10):
            put(cache, f"{number:x}{turn:x}", os.urandom(5 * KIB))
            count, size, reserved = cache.usage()
            if size + reserved > cache.cap or count < 1:
                over.append(size + reserved)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert over == []
    count, size, reserved = cache.usage()
    assert (size, reserved) == (count * 5 * KIB, 0)
    assert size <= cache.cap
    assert on_disk(cache) == size
    assert cache.index.total() == size


# --- crashes, other processes, privacy ----------------------------------------------------------------------


def test_everything_is_there_again_after_a_restart(cache: ContentCache) -> None:
    put(cache, "a", b"content")
    again = ContentCache(cache.directory, cache.cap)
    assert get(again, "a") == b"content"
    assert again.usage() == (1, 7, 0)
    again.close()


def test_a_lost_index_is_made_anew_from_the_files(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "c", 100 * KIB)
    put(cache, "a", b"a" * 40 * KIB)
    put(cache, "b", b"b" * 40 * KIB)
    cache.close()
    for path in cache.directory.glob("index.sqlite*"):
        path.unlink()
    again = ContentCache(cache.directory, 100 * KIB)
    assert again.usage() == (2, 80 * KIB, 0)
    assert get(again, "a") == b"a" * 40 * KIB
    assert again.has(key("a")) == ""  # nobody knows any more how it was checked
    put(again, "d", b"d" * 40 * KIB)
    assert again.usage()[1] <= 100 * KIB
    again.close()


@pytest.mark.parametrize("damage", [b"this is no database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_index_is_made_anew_from_the_files(tmp_path: Path, damage: bytes) -> None:
    cache = ContentCache(tmp_path / "c", 100 * KIB)
    put(cache, "a", b"content")
    cache.close()
    (cache.directory / "index.sqlite").write_bytes(damage)
    again = ContentCache(cache.directory, 100 * KIB)
    assert get(again, "a") == b"content"
    assert again.usage() == (1, 7, 0)
    again.close()


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "ALTER TABLE objects ADD COLUMN more"])
def test_an_index_of_another_version_is_made_anew_and_the_contents_stay(
    tmp_path: Path, statement: str
) -> None:
    """By its number, or, without one, by its columns."""
    cache = ContentCache(tmp_path / "c", 100 * KIB)
    put(cache, "a", b"content")
    assert cache.index.renewed == ""
    cache.close()
    with contextlib.closing(sqlite3.connect(cache.directory / "index.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] > 0
        database.execute("PRAGMA user_version = 0")
        database.execute(statement)
        database.commit()
    again = ContentCache(cache.directory, 100 * KIB)
    assert get(again, "a") == b"content"
    assert again.has(key("a")) == ""  # and it is checked again
    assert "made anew" in again.index.renewed
    again.close()


def test_an_index_from_before_there_were_numbers_is_used(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path / "c", 100 * KIB)
    put(cache, "a", b"content")
    cache.close()
    with contextlib.closing(sqlite3.connect(cache.directory / "index.sqlite")) as database:
        database.execute("PRAGMA user_version = 0")
    again = ContentCache(cache.directory, 100 * KIB)
    assert again.has(key("a")) == "md5" and again.index.renewed == ""
    again.close()


def test_an_object_whose_file_is_gone_is_forgotten(cache: ContentCache) -> None:
    put(cache, "a", b"content")
    Path(cache.path(key("a"))).unlink()
    assert get(cache, "a") is None
    assert cache.usage() == (0, 0, 0)


@pytest.mark.parametrize("left", [b"", b"cont"])
def test_an_object_that_was_cut_by_a_power_failure_is_dropped(cache: ContentCache, left: bytes) -> None:
    put(cache, "a", b"content")
    Path(cache.path(key("a"))).write_bytes(left)
    assert get(cache, "a") is None
    assert not Path(cache.path(key("a"))).exists()
    assert cache.usage() == (0, 0, 0)


def test_drafts_of_a_dead_process_are_removed_and_those_of_a_living_one_kept(cache: ContentCache) -> None:
    # `flock`s belong to a process's open files: the other process has to be a real one.
    program = f"""if 1:
        import sys
        from pathlib import Path
        from xnatfs.cache.contents import ContentCache
        cache = ContentCache(Path({str(cache.directory)!r}), {cache.cap})
        draft = cache.draft(30_000)
        draft.write(b"living")
        print(draft.name, flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        dead = cache.directory / "drafts" / "dead"
        dead.write_bytes(b"dead")
        cache.index.execute("INSERT INTO drafts VALUES ('dead', 50000)")
        beside = ContentCache(cache.directory, cache.cap)
        assert [path.name for path in (cache.directory / "drafts").iterdir()] == [name]
        assert beside.usage()[2] == 30_000
        refused(beside, 80_000)
        beside.close()
        other.kill()
        other.wait(10)
    after = ContentCache(cache.directory, cache.cap)
    assert list((cache.directory / "drafts").iterdir()) == []
    assert after.usage() == (0, 0, 0)
    after.close()


def test_two_caches_on_one_directory_share_files_and_cap(cache: ContentCache) -> None:
    other = ContentCache(cache.directory, cache.cap)
    put(cache, "a", b"a" * 60 * KIB)
    assert get(other, "a") == b"a" * 60 * KIB
    put(other, "b", b"b" * 60 * KIB)
    assert get(cache, "a") is None
    assert cache.usage() == (1, 60 * KIB, 0)
    other.close()


def test_nobody_else_can_look_into_the_cache(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o755)
    cache = ContentCache(tmp_path / "c", 100 * KIB)
    put(cache, "a", b"patient data")
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) for path in [cache.directory, *cache.directory.rglob("*")]
    }
    assert modes[cache.directory] == 0o700
    assert [
        path
        for path, mode in modes.items()
        if mode & 0o077 and path.suffix not in (".sqlite-wal", ".sqlite-shm")
    ] == []
    cache.close()


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure) as caught:
        ContentCache(tmp_path / "file" / "c", 1)
    assert caught.value.cause is Cause.CACHE_BROKEN


def test_a_draft_that_cannot_be_made_gives_its_reservation_back(cache: ContentCache) -> None:
    (cache.directory / "drafts").rmdir()
    (cache.directory / "drafts").write_text("")
    with pytest.raises(Failure) as caught:
        cache.draft(10)
    assert caught.value.cause is Cause.CACHE_BROKEN
    assert cache.usage() == (0, 0, 0)


def test_a_directory_that_was_removed_by_hand_is_made_again(cache: ContentCache) -> None:
    put(cache, "a", b"before")
    shutil.rmtree(cache.directory)
    assert get(cache, "a") is None
    put(cache, "b", b"after")
    assert get(cache, "b") == b"after"
    modes = [
        stat.S_IMODE(path.stat().st_mode)
        for path in [cache.directory, *cache.directory.rglob("*")]
        if path.is_dir()
    ]
    assert set(modes) == {0o700}
    assert cache.usage()[:2] == (1, 5)


@pytest.mark.parametrize("by_another", [False, True])
def test_an_index_that_is_damaged_in_the_middle_is_made_anew_from_the_files(
    cache: ContentCache, by_another: bool
) -> None:
    put(cache, "a", b"patient data")
    for path in cache.directory.glob("index.sqlite*"):
        with path.open("r+b") as file:
            file.write(b"no database" * (path.stat().st_size // 11 + 1))
    other = None
    if by_another:  # another mount notices first
        other = ContentCache(cache.directory, 10**6)
        put(other, "b", b"more")
    assert cache.has(key("a")) == ""  # to be checked again
    put(cache, "c", b"and more")
    assert names(cache) == {"a", "c"} | ({"b"} if other else set())
    if other is not None:
        assert names(other) == {"a", "b", "c"}
        other.close()


def test_an_index_that_is_locked_is_not_taken_for_damaged(
    cache: ContentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, "a", b"patient data")
    identity = (cache.directory / "index.sqlite").stat().st_ino

    def locked(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(index.Index, "_connect", locked)
        with pytest.raises(Failure):
            ContentCache(cache.directory, 10**6)
    assert (cache.directory / "index.sqlite").stat().st_ino == identity
    assert cache.has(key("a")) == "md5"


def test_a_commit_that_fails_is_told_and_frees_the_space(cache: ContentCache) -> None:
    draft = cache.draft(3)
    draft.write(b"abc")
    (cache.directory / "objects").rmdir()
    (cache.directory / "objects").write_text("in the way")
    with pytest.raises(Failure) as caught:
        draft.commit(key("a"), last_modified="", verified="size")
    assert caught.value.cause is Cause.CACHE_BROKEN
    draft.close()
    assert cache.usage() == (0, 0, 0)


def test_the_index_is_an_ordinary_database(cache: ContentCache) -> None:
    put(cache, "a", b"content")
    with sqlite3.connect(cache.directory / "index.sqlite") as index:
        assert index.execute("SELECT key, size FROM objects").fetchall() == [(key("a"), 7)]
    index.close()


def test_a_disk_that_takes_a_write_in_parts_still_gets_all_of_it(
    cache: ContentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nearly full disk takes what fits and reports it as a short write; only the next one fails."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:1000]))
    data = bytes(range(256)) * 40
    pile = cache.pile(len(data))
    pile.begin(len(data))
    pile.write(data)
    pile.keep(key("p"), "crc")
    pile.close()
    monkeypatch.undo()
    assert get(cache, "p") == data


def test_room_is_what_the_cap_and_the_disk_leave(
    cache: ContentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more than the disk has or less than what is stored; no error where the index cannot be read."""
    put(cache, "a", bytes(10 * KIB))
    assert cache.room() == (100 * KIB, 90 * KIB)

    def disk(free: int) -> None:
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free // KIB, f_frsize=KIB))

    disk(free=30 * KIB)
    cache.space.min_free = 10 * KIB
    assert cache.room() == (30 * KIB, 20 * KIB)
    disk(free=0)
    assert cache.room() == (10 * KIB, 0)
    cache.space.cap = 5 * KIB
    assert cache.room() == (10 * KIB, 0)
    monkeypatch.setattr(cache.index, "total", lambda: cache.index.execute("SELECT nothing")[0][0])
    assert cache.room() == (0, 0)
