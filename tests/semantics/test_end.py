"""The end of a mount, wanted or not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.semantics.conftest import opened, refused
from tests.semantics.quoting import rule
from tests.support import fuse_mounts, kill, mount, xnatfs
from tests.vfs.conftest import FOLDER, Shelf


@rule(
    "5.4",
    "When the mount itself has died (`kill -9`), opening or looking up anything returns ENOTCONN "
    "(ECONNABORTED at the very moment); `xnatfs mount` or `xnatfs unmount` at the same place clears it "
    "away.",
)
@rule(
    "8.1",
    "Nothing that programs do in the mount changes the server: only GET requests are sent, and at the end "
    "the one that closes the session.",
)
@rule(
    "10.5",
    "`xnatfs unmount` ends a mount even while files are open or operations are waiting; readers get an "
    "error.",
)
def test_a_mount_that_dies_and_one_that_is_ended(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    with mount(shelf.server.url, tmp_path) as mounted:
        file = mounted.point / FOLDER[1:] / "file"
        assert file.read_bytes() == b"content"
        kill(mounted.pid)
        for look in (
            lambda: os.listdir(mounted.point),
            lambda: file.read_bytes(),
            lambda: os.stat(mounted.point / "projects/P/new"),
        ):
            assert refused(look) in (errno.ENOTCONN, errno.ECONNABORTED)
        assert refused(lambda: os.listdir(mounted.point)) == errno.ENOTCONN
        xnatfs("mount", str(mounted.point), env=mounted.env, check=True)
        assert file.read_bytes() == b"content" and fuse_mounts().count(str(mounted.point)) == 1
        with opened(file) as descriptor, opened(file.parent) as folder:
            xnatfs("unmount", str(mounted.point), env=mounted.env, check=True)
            assert str(mounted.point) not in fuse_mounts()
            for look in (
                lambda: os.open("file", os.O_RDONLY, dir_fd=folder),
                lambda: os.pread(descriptor, 10, 1 << 20),
            ):
                try:
                    look()
                except OSError as error:
                    assert error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        sent = [record.method for record in shelf.server.requests() if record.method != "GET"]
        assert sent == ["DELETE"] and shelf.server.requests("^DELETE")[0].path == "/data/JSESSION"
