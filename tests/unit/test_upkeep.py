"""`xnatfs cache`: damage of every kind is found and removed, what is whole or in use is left alone."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import xnatfs
from xnatfs.cache import maintenance
from xnatfs.cache.contents import ContentCache
from xnatfs.cache.partial import PAGE, Partial
from xnatfs.config import Settings

KIB = 1024
SCOPE = Settings("https://xnat.example.org:8443").scope("me")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / SCOPE


@pytest.fixture
def cache(folder: Path) -> Iterator[ContentCache]:
    made = ContentCache(folder, 10**8)
    yield made
    made.close()


@pytest.fixture
def scope(folder: Path) -> maintenance.CacheScope:
    return maintenance.CacheScope(folder)


def put(cache: ContentCache, data: bytes, *, digest: bool = True, verified: str = "md5") -> str:
    """A file under the key `DigestPolicy` gives it."""
    key = f"{hashlib.md5(data).hexdigest()}-{len(data)}" if digest else hashlib.sha256(data).hexdigest()
    draft = cache.draft(len(data))
    draft.write(data)
    draft.commit(key, last_modified="", verified=verified if digest else "size")
    draft.close()
    return key


def parts(cache: ContentCache, key: str, size: int, pages: int) -> Partial:
    """An open partial file with its first pages here."""
    partial = cache.partial(key, size, "")
    cache.reserve_pages(key, pages * PAGE)
    partial.write(0, b"x" * pages * PAGE)
    partial.mark(0, pages * PAGE)
    partial.record()
    return partial


def crashed(folder: Path, program: str) -> None:
    """Run a program with a `cache` in a process that dies at once, as by kill -9."""
    imports = "import os\nfrom pathlib import Path\nfrom xnatfs.cache.contents import ContentCache\n"
    text = f"{imports}cache = ContentCache(Path({str(folder)!r}), 10**8)\n"
    done = subprocess.run([sys.executable, "-c", f"{text}{program}\nos._exit(7)"], timeout=30, check=False)
    assert done.returncode == 7


def drafts_gone(folder: Path) -> bool:
    return not list((folder / "drafts").iterdir())


# --- verify -------------------------------------------------------------------------------------------------


def test_a_whole_cache_is_all_well(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    keys = [put(cache, b"one"), put(cache, b"two" * 100_000), put(cache, b"", digest=True)]
    put(cache, b"three", digest=False)
    parts(cache, "p" * 64, 5 * PAGE + 3, 2).close()
    told: list[tuple[int, int]] = []
    found = maintenance.verify(scope, lambda done, total: told.append((done, total)))
    assert found.wrong == []
    assert (found.files, found.by_size_only, found.partials, found.in_use) == (4, 1, 1, 0)
    assert told[-1] == (300_008, 300_008)
    assert all(cache.has(key) for key in keys)


def test_a_changed_byte_is_found(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    good, bad = put(cache, b"good"), put(cache, b"x" * 200_000)
    with open(cache.path(bad), "r+b") as stream:
        stream.seek(123_456)
        stream.write(b"y")
    found = maintenance.verify(scope)
    assert len(found.wrong) == 1 and bad in found.wrong[0] and "MD5" in found.wrong[0]
    assert (cache.has(bad), cache.has(good)) == (None, "md5")
    assert not os.path.exists(cache.path(bad))
    assert cache.usage() == (1, 4, 0)
    assert maintenance.verify(scope).wrong == []


@pytest.mark.parametrize("digest", [True, False])
def test_a_cut_file_is_found(cache: ContentCache, scope: maintenance.CacheScope, digest: bool) -> None:
    key = put(cache, b"content", digest=digest)
    os.truncate(cache.path(key), 3)
    assert "3 bytes instead of 7" in maintenance.verify(scope).wrong[0]
    assert cache.usage() == (0, 0, 0)


def test_a_catalog_with_a_wrong_size_is_no_damage(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    """The key has the catalog's size; the digest is right, and so are the bytes."""
    draft = cache.draft(7)
    draft.write(b"content")
    draft.commit(f"{hashlib.md5(b'content').hexdigest()}-99", last_modified="", verified="md5")
    draft.close()
    assert maintenance.verify(scope).wrong == []


def test_what_was_not_believed_after_an_unclean_boot_is_when_it_was_read(
    cache: ContentCache, scope: maintenance.CacheScope
) -> None:
    key = put(cache, b"content", verified="")
    maintenance.verify(scope)
    assert cache.has(key) == "md5"


def test_index_and_files_are_compared_both_ways(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    missing, kept = put(cache, b"missing"), put(cache, b"kept")
    os.unlink(cache.path(missing))
    stray = cache.directory / "objects" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"stray")
    wrong = sorted(maintenance.verify(scope).wrong)
    assert (
        len(wrong) == 2
        and "not in the index" in "".join(wrong)
        and "in the index, but missing" in "".join(wrong)
    )
    assert not stray.exists() and cache.has(missing) is None and cache.has(kept)


def test_a_sum_that_is_wrong_is_mended(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    put(cache, b"content")
    cache.index.execute("UPDATE total SET bytes = 99")
    assert "sum of all bytes" in maintenance.verify(scope).wrong[0]
    assert cache.index.total() == 7


def test_partial_files_that_cannot_be_right_are_removed(
    cache: ContentCache, scope: maintenance.CacheScope
) -> None:
    for key in "abcd":
        parts(cache, key * 64, 4 * PAGE, 2).close()
    os.truncate(cache.directory / "partials" / ("a" * 64), PAGE)
    cache.index.execute("UPDATE partials SET pages = ? WHERE key = ?", b"\1" * 9, "b" * 64)
    (cache.directory / "partials" / ("c" * 64)).unlink()
    found = maintenance.verify(scope)
    assert len(found.wrong) == 3
    assert [row[0] for row in cache.index.execute("SELECT key FROM partials")] == ["d" * 64]
    assert cache.usage() == (0, 0, 2 * PAGE)


def test_pages_that_are_holes_are_not_believed(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    parts(cache, "a" * 64, 8 * PAGE, 2).close()
    cache.index.execute("UPDATE partials SET pages = ?", b"\1\1\1\1\0\0\0\1")
    assert "3 pages" in maintenance.verify(scope).wrong[0]
    row = cache.partial_row("a" * 64)
    assert row is not None and row.pages == b"\1\1\0\0\0\0\0\0"


def test_what_is_being_written_is_left_alone(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    draft = cache.draft(10)
    draft.write(b"half")
    partial = parts(cache, "a" * 64, 4 * PAGE, 1)
    pile = cache.pile(100)
    pile.begin(5)
    pile.write(b"piled")
    pile.keep(f"{hashlib.md5(b'piled').hexdigest()}-5", "md5")  # in place, but not in the index yet
    found = maintenance.verify(scope)
    assert (found.wrong, found.in_use) == ([], 3)
    pile.close()
    draft.commit(f"{hashlib.md5(b'half').hexdigest()}-4", last_modified="", verified="md5")
    draft.close()
    partial.close()
    found = maintenance.verify(scope)
    assert (found.wrong, found.files, found.partials, found.in_use) == ([], 2, 1, 0)


# --- after a crash ------------------------------------------------------------------------------------------


def test_what_a_killed_process_leaves_is_cleared_away_by_the_next(folder: Path) -> None:
    crashed(
        folder,
        """if 1:
        draft = cache.draft(100); draft.write(b"half")
        pile = cache.pile(100); pile.begin(5); pile.write(b"piled"); pile.keep("k" * 64, "crc")
        pile.begin(5); pile.write(b"pi")
        cache.index.execute("INSERT INTO objects VALUES (?, 50, '', '', 0, 0)", "z" * 64)
        """,
    )
    assert not drafts_gone(folder)
    after = ContentCache(folder, 10**8)
    assert drafts_gone(folder)
    assert list((folder / "objects").glob("*/*")) == []
    assert after.usage() == (0, 0, 0)
    after.close()
    assert maintenance.verify(maintenance.CacheScope(folder)).wrong == []


def test_pages_that_were_written_but_not_recorded_give_their_space_back(folder: Path) -> None:
    """Else they would lie on the disk without being counted against the cap."""
    crashed(
        folder,
        """if 1:
        from xnatfs.cache.partial import PAGE
        partial = cache.partial("p" * 64, 100 * PAGE, "")
        cache.reserve_pages("p" * 64, 60 * PAGE)
        partial.write(0, b"x" * 50 * PAGE); partial.mark(0, 2 * PAGE); partial.record()
        partial.mark(2 * PAGE, 50 * PAGE)
        """,
    )
    path = folder / "partials" / ("p" * 64)
    assert path.stat().st_blocks * 512 >= 50 * PAGE
    after = ContentCache(folder, 10**8)
    assert after.usage() == (0, 0, 2 * PAGE)
    assert path.stat().st_blocks * 512 <= 3 * PAGE
    after.close()


def test_only_a_crash_has_everything_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Path] = []
    monkeypatch.setattr(
        "xnatfs.cache.contents.sweep_all",
        lambda directory, index: swept.append(directory) or maintenance.sweep_all(directory, index),
    )
    one = ContentCache(folder, 10**8)
    two = ContentCache(folder, 10**8)  # beside the first: nobody crashed
    one.close()
    two.close()
    ContentCache(folder, 10**8).close()
    assert swept == []
    crashed(folder, "")
    ContentCache(folder, 10**8).close()
    assert swept == [folder]
    ContentCache(folder, 10**8).close()
    assert swept == [folder]


def test_a_hole_is_recorded_before_it_is_made(cache: ContentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two, the next mount would read zeros."""
    partial = parts(cache, "a" * 64, 8 * PAGE, 4)
    at_punch: list[bytes] = []

    def punch(fd: int, offset: int, length: int) -> bool:
        row = cache.partial_row("a" * 64)
        assert row is not None
        at_punch.append(row.pages)
        return False

    monkeypatch.setattr("xnatfs.cache.partial.punch", punch)
    assert partial.drop(0, 2 * PAGE) == 0
    assert at_punch == [b"\0\0\1\1\0\0\0\0"]
    assert partial.has(0, 4 * PAGE) and partial.present == 4 * PAGE
    partial.close()
    row = cache.partial_row("a" * 64)
    assert row is not None and row.pages == b"\1\1\1\1\0\0\0\0"


def test_a_file_of_which_a_part_was_dropped_does_not_become_an_object(cache: ContentCache) -> None:
    partial = parts(cache, "a" * 64, 4 * PAGE, 4)
    assert partial.complete
    partial.drop(0, 2 * PAGE)
    partial.commit("a" * 64, "md5")
    assert cache.has("a" * 64) is None and not partial.gone
    partial.close()


# --- clear and info -----------------------------------------------------------------------------------------


def test_clear_removes_what_nobody_writes(cache: ContentCache, scope: maintenance.CacheScope) -> None:
    key = put(cache, b"x" * 5000)
    entry = cache.open(key)
    assert entry is not None
    parts(cache, "a" * 64, 4 * PAGE, 1).close()
    held = parts(cache, "b" * 64, 4 * PAGE, 1)
    converted = scope.directory / "converted/key"
    converted.mkdir(parents=True)
    (converted / "image.nii.gz").write_bytes(bytes(77))
    assert maintenance.clear(scope) == (5000 + PAGE + 77, PAGE)
    assert not converted.exists()
    assert os.pread(entry.fd, 5000, 0) == b"x" * 5000
    entry.close()
    assert held.has(0, PAGE)
    held.close()
    assert maintenance.clear(scope) == (PAGE, 0)
    assert [
        path for path in scope.directory.rglob("*") if path.is_file() and path.parent != scope.directory
    ] == []


def test_clear_empties_the_listings_and_leaves_their_file(
    cache: ContentCache, scope: maintenance.CacheScope
) -> None:
    listings = scope.directory / "listings.sqlite"
    mount = sqlite3.connect(listings, isolation_level=None)  # a running mount has it open
    mount.execute("PRAGMA journal_mode = WAL")
    mount.execute("CREATE TABLE answers (path TEXT PRIMARY KEY, answer BLOB)")
    mount.execute('CREATE TABLE "odd ""name" (number INTEGER PRIMARY KEY AUTOINCREMENT)')
    mount.execute("INSERT INTO answers VALUES ('/data/projects', 'Anna Example')")
    mount.execute('INSERT INTO "odd ""name" DEFAULT VALUES')
    inode = listings.stat().st_ino
    maintenance.clear(scope)
    assert listings.stat().st_ino == inode
    assert mount.execute("SELECT COUNT(*) FROM answers").fetchone() == (0,)
    assert mount.execute('SELECT COUNT(*) FROM "odd ""name"').fetchone() == (0,)
    mount.execute("INSERT INTO answers VALUES ('new', '')")
    mount.close()
    assert b"Anna" not in listings.read_bytes()


def test_info_tells_what_is_there_and_changes_nothing(
    cache: ContentCache, scope: maintenance.CacheScope
) -> None:
    put(cache, b"x" * 5000)
    put(cache, b"y" * 100, digest=False)
    parts(cache, "a" * 64, 4 * PAGE, 1).close()
    draft = cache.draft(77)
    told = maintenance.info(scope)
    assert (
        told.server == "xnat.example.org:8443"
        and scope.of("https://xnat.example.org:8443/any")
        and not scope.of("https://xnat.example.org")
    )
    assert (told.files, told.bytes, told.partial_files, told.partial_bytes, told.reserved) == (
        2,
        5100,
        1,
        PAGE,
        77,
    )
    assert told.oldest_use is not None and told.newest_use is not None and told.oldest_use <= told.newest_use
    assert told.in_use and told.disk_free > 0 and told.problem == ""
    draft.close()
    cache.close()
    assert not scope.in_use


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_reports_and_its_exit_code_tells(cache: ContentCache, tmp_path: Path) -> None:
    key = put(cache, b"content")
    put(cache, b"other", digest=False)
    done = xnatfs("cache", "verify", check=True)
    assert (
        "xnat.example.org:8443: 2 files, 12 B, 1 checked by size only" in done.stdout
        and "all well" in done.stdout
    )
    Path(cache.path(key)).write_bytes(b"CONTENT")
    done = xnatfs("cache", "verify")
    assert done.returncode == 1 and key in done.stdout and "1 problem was found and fixed" in done.stdout
    told = json.loads(xnatfs("cache", "info", "--json", check=True).stdout)
    assert [(one["server"], one["files"], one["mounts"]) for one in told] == [
        ("xnat.example.org:8443", 1, [])
    ]
    assert "1 file, 5 B" in xnatfs("cache", "info", check=True).stdout
    done = xnatfs("cache", "clear")
    assert done.returncode == 1 and "--yes" in done.stderr and cache.usage()[0] == 1
    done = xnatfs(
        "cache",
        "clear",
        "--yes",
        "--server",
        "xnat.example.org:8443",
        "--cache-dir",
        str(tmp_path / "cache"),
        check=True,
    )
    assert "5 B freed" in done.stdout and cache.usage() == (0, 0, 0)


@pytest.mark.parametrize("verb", ["info", "verify", "clear"])
def test_an_empty_or_wrong_place_is_told_in_one_sentence(verb: str, tmp_path: Path) -> None:
    yes = ["--yes"] if verb == "clear" else []
    assert "nothing is cached" in xnatfs("cache", verb, *yes, check=True).stdout
    for wrong in (
        ["--cache-dir", str(tmp_path / "none")],
        ["--server", "https://other.example.org"],
        ["--server", "ftp://x"],
    ):
        done = xnatfs("cache", verb, *yes, *wrong)
        assert done.returncode == 1 and done.stderr.startswith("xnatfs: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("y", 0)])
def test_clear_asks_on_a_terminal(cache: ContentCache, answer: str, left: int) -> None:
    put(cache, b"content")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "xnatfs", "cache", "clear"],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Remove all of them" in done.stdout and done.returncode == 0, done
    assert cache.usage()[0] == left


def test_a_damaged_index_is_told_and_verify_makes_it_anew(folder: Path) -> None:
    cache = ContentCache(folder, 10**8)
    key = put(cache, b"content")
    cache.close()
    (folder / "index.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert "index cannot be read" in xnatfs("cache", "info", check=True).stdout
    xnatfs("cache", "verify")
    after = ContentCache(folder, 10**8)
    assert after.has(key) == "md5"
    after.close()
