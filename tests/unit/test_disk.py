"""Files of this machine (`xnatfs.disk`)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from xnatfs import disk
from xnatfs.cache import writers
from xnatfs.cache.contents import ContentCache
from xnatfs.errors import Cause, Failure


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_used_up_quota_are_alike(number: int) -> None:
    failure = disk.disk_failure(OSError(number, "full"), "/cache")
    assert (failure.cause, failure.errno, failure.subject) == (Cause.NO_SPACE, errno.ENOSPC, "/cache")


def test_another_error_of_the_disk_is_not_taken_for_a_full_one() -> None:
    assert disk.disk_failure(OSError(errno.EROFS, ""), "").cause is Cause.CACHE_BROKEN


def test_a_database_tells_a_full_disk_and_a_used_up_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one word for the first, and none for the second: "disk I/O error" is what it says."""
    full = sqlite3.OperationalError("database or disk is full")
    broken = sqlite3.OperationalError("disk I/O error")
    folder = tmp_path / "cache"
    folder.mkdir()
    path = str(folder / "index.sqlite")
    assert disk.disk_failure(full, path).cause is Cause.NO_SPACE
    assert disk.disk_failure(broken, path).cause is Cause.CACHE_BROKEN

    def refuse(*_: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(disk.os, "pwrite", refuse)
    assert disk.disk_failure(broken, path).cause is Cause.NO_SPACE
    assert disk.disk_failure(broken, str(folder)).cause is Cause.NO_SPACE
    assert disk.disk_failure(sqlite3.OperationalError("no such table"), path).cause is Cause.CACHE_BROKEN
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kernel", ["whole", "in parts", "between disks", "full"])
def test_a_part_is_copied_by_the_kernel_or_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """The same bytes either way, and no file that looks whole where the disk is full."""
    real, data = os.copy_file_range, os.urandom(3 * 2**20)

    def copy(source: int, target: int, count: int, *offsets: int) -> int:
        if kernel == "whole":
            return real(source, target, count, *offsets)
        if kernel == "in parts" and offsets[0] < 2**20:
            return real(source, target, 1000, *offsets)
        raise OSError({"full": errno.ENOSPC}.get(kernel, errno.EXDEV), "")

    monkeypatch.setattr(os, "copy_file_range", copy)
    (tmp_path / "source").write_bytes(data)
    with (tmp_path / "source").open("rb") as source, (tmp_path / "target").open("w+b") as target:
        os.pwrite(target.fileno(), data[:99], 0)
        if kernel == "full":
            with pytest.raises(OSError, match=str(errno.ENOSPC)):
                disk.copy_part(source.fileno(), target.fileno(), 99, len(data))
            return
        assert disk.copy_part(source.fileno(), target.fileno(), 99, len(data)) == len(data) - 99
    assert (tmp_path / "target").read_bytes() == data


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_cannot_even_be_made_is_no_broken_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """There are quotas for the number of files, too."""
    cache = ContentCache(tmp_path / "cache", 10**6)

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writers, "locked", refuse)
    with pytest.raises(Failure) as caught:
        cache.draft(None)
    assert caught.value.cause is Cause.NO_SPACE
    cache.close()


def test_all_is_written_though_the_disk_takes_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(disk.os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    with (tmp_path / "f").open("w+b") as stream:
        assert disk.write_all(stream.fileno(), b"0123456789", 5) == 15
    assert (tmp_path / "f").read_bytes() == bytes(5) + b"0123456789"


def test_the_md5_is_of_all_of_it_wherever_the_file_stands(tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20 + 1)
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as stream:
        stream.seek(100)
        assert disk.md5_of(stream.fileno()) == hashlib.md5(data).hexdigest()


def test_a_private_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    disk.write_private_json(path, {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(OSError):
        disk.write_private_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one for one in tmp_path.iterdir() if one.is_file()] == [path]


def test_a_private_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Nor does what a killed process of the same number left stand in the way."""
    path, victim = tmp_path / "a.json", tmp_path / "victim"
    victim.write_text("as it was")
    path.with_suffix(f".{os.getpid()}.{threading.get_ident()}").symlink_to(victim)
    disk.write_private_json(path, [1])
    assert victim.read_text() == "as it was" and json.loads(path.read_text()) == [1]
