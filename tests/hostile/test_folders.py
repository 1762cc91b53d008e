"""Folders that are not this user's alone: put right where they are ours, refused with a sentence where they
are not.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from xnatfs.cache.contents import ContentCache
from xnatfs.cache.corrections import Corrections
from xnatfs.config import make_folder, private_folder
from xnatfs.daemon import mount_registry
from xnatfs.errors import Cause, Failure, UsageError

SOMEBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_folders_are_private_whatever_the_umask(tmp_path: Path, umask: object) -> None:
    private_folder(tmp_path / "a/b/c")
    assert [mode(tmp_path / one) for one in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_files_of_a_cache_are_private_whatever_the_umask(tmp_path: Path, umask: object) -> None:
    cache = ContentCache(tmp_path / "cache", 10**6)
    with_draft = cache.draft(5)
    with_draft.write(b"12345")
    with_draft.commit("key", last_modified="", verified="md5")
    with_draft.close()
    cache.partial("other", 300_000, "").close()
    cache.close()
    Corrections(tmp_path / "state/learnt.sqlite").close()
    found = {
        path: mode(path)
        for top in ("cache", "state")
        for path in (tmp_path / top, *(tmp_path / top).rglob("*"))
    }
    assert len(found) > 6
    assert {path: oct(bits) for path, bits in found.items() if bits & 0o077} == {}


def test_a_folder_of_ours_that_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    private_folder(tmp_path / "open")
    assert mode(tmp_path / "open") == 0o700
    (tmp_path / "objects").mkdir(mode=0o755)
    ContentCache(tmp_path, 10**6).close()
    assert mode(tmp_path) == mode(tmp_path / "objects") == 0o700


def test_a_folder_that_only_has_to_be_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(0o755)
    make_folder(tmp_path / "mine/new")
    assert mode(tmp_path / "mine") == 0o755 and mode(tmp_path / "mine/new") == 0o700


@as_root
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o777)
    os.chown(tmp_path / "theirs", SOMEBODY, SOMEBODY)
    for use in (
        private_folder,
        lambda path: ContentCache(path, 10**6),
        lambda path: Corrections(path / "learnt.sqlite"),
    ):
        with pytest.raises(UsageError, match="belongs to another user"):
            use(tmp_path / "theirs")


@as_root
def test_a_link_somebody_else_laid_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert private_folder(tmp_path / "link").samefile(tmp_path / "mine"), (
        "one's own link to another disk is usual"
    )
    os.chown(tmp_path / "link", SOMEBODY, SOMEBODY, follow_symlinks=False)
    with pytest.raises(UsageError, match="belongs to another user"):
        private_folder(tmp_path / "link")


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_what_is_no_folder_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"is not a folder|broken symbolic link"):
        private_folder(path)


@pytest.mark.parametrize("what", ["link", "dangling", "file", "open", "theirs"])
def test_the_folder_of_the_socket_is_refused_if_anybody_could_have_laid_something_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "xnatfs"
    (tmp_path / "trap").mkdir(mode=0o700)
    match what:
        case "link":
            folder.symlink_to(tmp_path / "trap")
        case "dangling":
            folder.symlink_to(tmp_path / "nowhere")
        case "file":
            folder.touch()
        case "open":
            folder.mkdir()
            folder.chmod(0o770)
        case "theirs":
            folder.mkdir(mode=0o700)
            monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(UsageError, match="is not a private folder of this user"):
        mount_registry.socket_path("/mnt/xnat")
    assert list((tmp_path / "trap").iterdir()) == [] and not (tmp_path / "nowhere").exists()


def test_a_socket_has_a_private_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: object
) -> None:
    monkeypatch.setenv("XNATFS_STATE_DIR", str(tmp_path / "state"))
    path = mount_registry.socket_path("/mnt/xnat")
    assert path.is_relative_to(tmp_path / "state") and mode(path.parent) == 0o700


def test_a_name_that_another_user_took_in_tmp_keeps_no_mount_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of the state directory is too long for a socket: then nobody can guess the name in /tmp."""
    monkeypatch.setenv("XNATFS_STATE_DIR", str(tmp_path / ("deep" * 40)))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        tmp = Path(short)
        monkeypatch.setattr("tempfile.tempdir", short)
        (tmp / f"xnatfs-{os.geteuid()}").symlink_to("/nowhere")
        path = mount_registry.socket_path("/mnt/xnat")
        assert len(os.fsencode(path)) <= 107 and path.parent.parent == tmp
        assert mode(path.parent) == 0o700 and not path.parent.is_symlink()
        assert mount_registry.socket_path("/mnt/xnat") == path  # the next command finds it there
        path.parent.rmdir()
        path.parent.symlink_to(tmp_path)  # /tmp was emptied, and somebody was quicker
        other = mount_registry.socket_path("/mnt/xnat")
        assert other.parent != path.parent and mode(other.parent) == 0o700


@pytest.mark.parametrize(
    "key", ["../../x", "/etc/passwd", "..", ".", "", "a/b", "a\0", ".hidden", "é", "a\n"]
)
def test_nothing_but_a_plain_name_is_a_key_of_the_cache(tmp_path: Path, key: str) -> None:
    cache = ContentCache(tmp_path / "cache", 10**6)
    try:
        for use in (cache.path, lambda name: cache.partial(name, 5, "")):
            with pytest.raises(Failure) as caught:
                use(key)
            assert caught.value.cause is Cause.CACHE_BROKEN
    finally:
        cache.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["cache", "home"]
