"""What programs find on a real mount: attributes, the calls that are refused, and what is not promised."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.semantics.conftest import MIB, TEXT, Place, opened, refused
from tests.semantics.quoting import rows, rule
from tests.support import mount, run, xnatfs
from tests.vfs.conftest import FOLDER, Shelf
from xnatfs.demo.model import ComputedContent

# --- attributes ---------------------------------------------------------------------------------------------


@rule(
    "2.4",
    "The access time and the change time (`ctime`) equal that date. Reading does not change them. There is "
    "no creation time.",
)
def test_all_times_are_the_date_and_reading_moves_none(place: Place) -> None:
    before = place.file.stat()
    assert before.st_atime_ns == before.st_ctime_ns == before.st_mtime_ns > 0
    assert place.file.read_bytes() == TEXT
    after = place.file.stat()
    assert (after.st_atime_ns, after.st_mtime_ns) == (before.st_atime_ns, before.st_mtime_ns)
    assert run("stat", "-c", "%W", place.file).stdout == "0\n"


@rule(
    "2.5",
    "Files are 0644 and folders 0755, so that copies can be changed and removed; the mount is read-only all "
    "the same. All belong to the user and group that mounted.",
)
@rule("2.8", "Every file and folder has one link, and every folder a size of 4096.")
def test_modes_owners_and_links(place: Place) -> None:
    folder = stat.S_IFDIR | 0o755
    for path, mode in (
        (place.file, stat.S_IFREG | 0o644),
        (place.folder, folder),
        (place.mounted.point, folder),
    ):
        found = path.stat()
        assert (found.st_mode, found.st_uid, found.st_gid, found.st_nlink) == (
            mode,
            os.getuid(),
            os.getgid(),
            1,
        )
    assert place.folder.stat().st_size == 4096


@rule(
    "2.7",
    "Blocks are counted as if the whole file were local: its size divided by 512, rounded up. So `du` "
    "shows what a copy will take. A file whose size is not known yet (2.2) has "
    "none.",
)
def test_du_tells_what_a_copy_takes(place: Place) -> None:
    assert (place.file.stat().st_blocks, (place.folder / "large").stat().st_blocks) == (1, 12 * MIB // 512)
    told = int(run("du", "-s", "--block-size=1", place.folder).stdout.split()[0])
    assert 12 * MIB < told < 12 * MIB + 40_000
    table = place.mounted.point / "tables/P/sessions.csv"
    assert (table.stat().st_size, table.stat().st_blocks) == (1 << 44, 0)
    assert int(run("du", "--block-size=1", table).stdout.split()[0]) == 0


@rule(
    "2.9",
    "`getfattr -d` lists the attributes `user.xnat.*`, and copies (`cp -a`, `rsync -X`) take them along; "
    "reading them sends no request. `user.xnat.cached` and `user.xnat.verified`, which describe this "
    "machine's cache, are read by name only (`getfattr -n`), and stay behind. There are no others: ACLs, "
    "security labels and any other `user.*` name return ENODATA.",
)
def test_extended_attributes(place: Place) -> None:
    place.file.read_bytes()
    asked = len(place.shelf.server.requests())
    names = os.listxattr(place.file)
    assert names and all(name.startswith("user.xnat.") and os.getxattr(place.file, name) for name in names)
    for name in ("user.xnat.cached", "user.xnat.verified"):
        assert os.getxattr(place.file, name) and name not in names
    for name in ("system.posix_acl_access", "security.capability", "user.other", "user.xnat.other"):
        assert refused(lambda name=name: os.getxattr(place.file, name)) == errno.ENODATA
    assert (
        'user.xnat.resource="R"' in run("getfattr", "--absolute-names", "-d", place.file).stdout.splitlines()
    )
    assert (
        len(place.shelf.server.requests("/files")) <= asked
    )  # (a look at the path may ask whether the project changed)


@rule(
    "2.10",
    "`df` shows the cache: its size (`--cache-size`, or less where its disk has no more left for it), what "
    "is stored in it, and what is free; once nothing is, new files take the place of old ones (7.3). `df -i` "
    "shows no inodes, as on btrfs.",
)
def test_df(place: Place) -> None:
    (place.folder / "large").read_bytes()
    asked = len(place.shelf.server.requests())
    found = os.statvfs(place.file)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    assert 12 * MIB <= used < 14 * MIB and found.f_bavail == found.f_bfree
    assert used < found.f_blocks * found.f_frsize <= 20 * 10**9
    assert (found.f_files, found.f_ffree) == (0, 0)
    assert found.f_flag & os.ST_RDONLY and found.f_namemax == 255
    assert len(place.shelf.server.requests()) == asked


def socket_of(place: Place) -> str:
    """Where the mount's own state directory says it is."""
    (told,) = (Path(place.mounted.env["XNATFS_STATE_DIR"]) / "mounts").glob("*.json")
    return str(json.loads(told.read_text())["socket"])


@rule(
    "2.11",
    "Inode numbers have up to 63 bits: `stat` of a program that knows only 32 fails with EOVERFLOW. With "
    "`--inode32` they have 32, the same at every mount, and two files or folders may share one: `diff` takes "
    "such files for the same, and `find` may report a loop. Tools that look for hard links are not misled, "
    "since every file has one link. An overlay would be: `--inode32` is refused with `--overlay`.",
)
def test_numbers_in_32_bits(place: Place, shelf: Shelf, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        shelf.put(shelf.make.entry(name, TEXT))
    assert place.file.stat().st_ino >= 1 << 32
    seen: list[dict[str, tuple[int, int]]] = []
    for _ in range(2):
        with mount(shelf.server.url, tmp_path, "--inode32") as mounted:
            folder = mounted.point / FOLDER[1:]
            listed = {entry.name: entry.inode() for entry in os.scandir(folder)}
            found = {path.name: path.stat() for path in folder.iterdir()}
            assert listed == {name: status.st_ino for name, status in found.items()}
            seen.append({name: (status.st_ino, status.st_nlink) for name, status in found.items()})
    assert seen[0] == seen[1] and len(set(seen[0].values())) == len(seen[0]) > 1
    assert all(0 < number < 1 << 32 and links == 1 for number, links in seen[0].values())
    said = xnatfs("mount", "--inode32", "--overlay", str(tmp_path / "mine"), str(tmp_path / "mnt"))
    assert said.returncode != 0 and "--inode32 cannot be used with --overlay" in said.stderr


# --- reading ------------------------------------------------------------------------------------------------


def direct(path: Path) -> bytes:
    buffer = mmap.mmap(-1, 4096)
    with opened(path, os.O_RDONLY | os.O_DIRECT) as descriptor:
        return buffer[: os.preadv(descriptor, [buffer], 0)]


@rule(
    "3.10",
    "`pread` at any offset, `mmap` for reading (private or shared), `O_DIRECT`, `sendfile` and `splice` "
    "work. Where a read would fail, access to a mapped page raises SIGBUS.",
)
def test_every_way_to_read(place: Place, tmp_path: Path) -> None:
    large = place.folder / "large"
    content = ComputedContent("large", 12 * MIB)
    with opened(large) as descriptor, opened(tmp_path / "out", os.O_RDWR | os.O_CREAT) as out:
        for offset, length in (
            (0, 1),
            (11 * MIB + 3, 70_000),
            (5 * MIB - 1, 2),
            (12 * MIB - 1, 100),
            (12 * MIB, 10),
            (1 << 40, 1),
        ):
            assert os.pread(descriptor, length, offset) == content.read(offset, length)
        # A page fault keeps the interpreter's lock, which the stand-in in this process needs: the mount has
        # to have the bytes by then, and the kernel not.
        assert os.pread(descriptor, 13 * MIB, 0) == content.read(0, 12 * MIB)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
            with mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ) as pages:
                assert pages[9 * MIB : 9 * MIB + 5000] == content.read(9 * MIB, 5000)
        os.posix_fadvise(descriptor, 0, MIB, os.POSIX_FADV_WILLNEED)
        assert (
            ctypes.CDLL(None, use_errno=True).readahead(descriptor, ctypes.c_long(0), ctypes.c_size_t(MIB))
            == 0
        )
        sent = 0
        while more := os.sendfile(out, descriptor, sent, MIB):
            sent += more
        assert sent == 12 * MIB and (tmp_path / "out").read_bytes() == content.read(0, 12 * MIB)
        receive, send = os.pipe()
        try:
            moved = os.splice(descriptor, send, 4096, offset_src=MIB)
            assert os.read(receive, moved) == content.read(MIB, moved) != b""
        finally:
            os.close(receive)
            os.close(send)
    assert direct(place.file) == TEXT


FAULT = """
import mmap, sys
file = open(sys.argv[1])
pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
pages[:10]
print("begun", flush=True)
sys.stdin.read()
pages[-9000]
"""


@rule(
    "3.10",
    "`pread` at any offset, `mmap` for reading (private or shared), `O_DIRECT`, `sendfile` and `splice` "
    "work. Where a read would fail, access to a mapped page raises SIGBUS.",
)
def test_a_mapped_page_that_cannot_be_had_is_sigbus(place: Place) -> None:
    place.add(place.shelf.make.entry("faulty", ComputedContent("faulty", 40 * MIB)))
    path = place.folder / "faulty"
    with subprocess.Popen(
        [sys.executable, "-c", FAULT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
            place.shelf.switches.match, place.shelf.switches.fail_status, place.shelf.switches.fail_next = (
                "/files/faulty",
                403,
                -1,
            )
            process.communicate(b"", timeout=60)
            assert process.returncode == -signal.SIGBUS
        finally:
            place.shelf.switches.match, place.shelf.switches.fail_next = "", 0
            process.kill()
    place.remove("faulty")


# --- read-only ----------------------------------------------------------------------------------------------


def refusals(place: Place, elsewhere: Path) -> dict[str, Callable[[], object]]:
    """The calls of the document's table."""
    file, folder, new = place.file, place.folder, place.folder / "new"
    outside = elsewhere / "outside"
    outside.write_bytes(b"x")

    def both(one: Callable[[], object], other: Callable[[], object]) -> None:
        first, second = refused(one), refused(other)
        assert first == second
        raise OSError(first, "")

    def on_open(work: Callable[[int], object]) -> None:
        with opened(file) as descriptor:
            work(descriptor)

    def checked_access() -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if library.access(os.fsencode(file), os.W_OK):
            raise OSError(ctypes.get_errno(), "")

    return {
        "`open` for writing": lambda: both(
            lambda: os.open(file, os.O_WRONLY), lambda: os.open(file, os.O_RDWR)
        ),
        "`open` with `O_TRUNC`": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "`open` with `O_APPEND`": lambda: both(
            lambda: os.open(file, os.O_APPEND), lambda: os.open(file, os.O_APPEND | os.O_RDWR)
        ),
        "`open` of a new name with `O_CREAT`": lambda: both(
            lambda: os.open(new, os.O_CREAT | os.O_WRONLY),
            lambda: os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDONLY),
        ),
        "`open` of an old name with `O_CREAT|O_EXCL`": lambda: os.open(
            file, os.O_CREAT | os.O_EXCL | os.O_RDONLY
        ),
        "`open` with `O_TMPFILE`": lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR),
        "`open` of a folder for writing": lambda: os.open(folder, os.O_RDWR),
        "`unlink`": lambda: os.unlink(file),
        "`rmdir`": lambda: os.rmdir(folder / "folder"),
        "`rename`": lambda: both(lambda: os.rename(file, new), lambda: os.rename(folder / "folder", new)),
        "`rename` into or out of the mount": lambda: both(
            lambda: os.rename(outside, new), lambda: os.rename(file, elsewhere / "y")
        ),
        "`mkdir`": lambda: os.mkdir(new),
        "`mkdir` of an old name": lambda: os.mkdir(folder),
        "`mknod`, `mkfifo`": lambda: both(lambda: os.mknod(new), lambda: os.mkfifo(new)),
        "`symlink`": lambda: os.symlink("x", new),
        "`link` within or into the mount": lambda: both(
            lambda: os.link(file, new), lambda: os.link(outside, new)
        ),
        "`link` out of the mount": lambda: os.link(file, elsewhere / "y"),
        "`chmod`": lambda: both(lambda: os.chmod(file, 0o644), lambda: os.chmod(file, 0o444)),
        "`chown`": lambda: os.chown(file, os.getuid(), os.getgid()),
        "`utime`": lambda: os.utime(file),
        "`truncate`": lambda: os.truncate(file, 0),
        "`setxattr`": lambda: both(
            lambda: os.setxattr(file, "user.new", b""), lambda: os.setxattr(file, "user.xnat.quality", b"x")
        ),
        "`removexattr`": lambda: os.removexattr(file, "user.xnat.uri"),
        "`access` with `W_OK`": checked_access,
        "`write` to a file open for reading": lambda: on_open(lambda descriptor: os.write(descriptor, b"x")),
        "`ftruncate` of a file open for reading": lambda: on_open(
            lambda descriptor: os.ftruncate(descriptor, 0)
        ),
        "`mmap` shared, for writing": lambda: on_open(
            lambda descriptor: mmap.mmap(descriptor, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        ),
        "running a file as a program": lambda: subprocess.run([str(file)], check=False, timeout=20),
    }


@rule("8.2", "These calls are refused with the number beside them, and change nothing.")
@pytest.mark.parametrize("call", [row[0] for row in rows("call")])
def test_a_call_that_would_change_something_is_refused(place: Place, tmp_path: Path, call: str) -> None:
    number = {row[0]: row[1] for row in rows("call")}[call]
    assert errno.errorcode[refused(refusals(place, tmp_path)[call])] == number
    assert place.file.read_bytes() == TEXT and stat.S_IMODE(place.file.stat().st_mode) == 0o644
    assert sorted(os.listdir(tmp_path)) == ["home", "outside"]


@rule("8.2", "These calls are refused with the number beside them, and change nothing.")
def test_every_refused_call_is_in_the_document(place: Place, tmp_path: Path) -> None:
    assert list(refusals(place, tmp_path)) == [row[0] for row in rows("call")]


@rule(
    "8.3",
    "A private `mmap` for writing works: writes go to the program's own copy. `fsync` succeeds and does "
    "nothing.",
)
def test_a_private_mapping_and_fsync(place: Place) -> None:
    with opened(place.file) as descriptor, opened(place.folder) as folder:
        with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as pages:
            pages[:3] = b"own"
            assert pages[: len(TEXT)] == b"own" + TEXT[3:]
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        os.fsync(folder)
    assert place.file.read_bytes() == TEXT


@rule("8.4", "The kernel has it mounted `ro,nosuid,nodev`.")
def test_the_kernel_has_it_mounted_read_only(place: Place) -> None:
    (line,) = (
        line
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[1] == str(place.mounted.point)
    )
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[3].split(","))


@rule(
    "8.1",
    "Nothing that programs do in the mount changes the server: only GET requests are sent, and at the end "
    "the one that closes the session.",
)
def test_the_server_is_sent_nothing_but_questions(place: Place) -> None:
    place.file.read_bytes()
    assert {record.method for record in place.shelf.server.requests()} <= {"GET"}


# --- who may ------------------------------------------------------------------------------------------------


@rule(
    "9.2",
    "The cache, the state stored beside it, and the socket of the mount are accessible to that user only "
    "(0700 and 0600).",
)
def test_what_is_kept_is_for_one_user(place: Place) -> None:
    home = place.mounted.point.parent
    for top in (home / "cache", home / "state"):
        found = [top, *top.rglob("*")]
        special = [
            path for path in found if path.is_dir() or path.is_socket()
        ]  # a file in such a folder may have any mode
        assert (
            len(special) > 1
            and [path for path in special if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []
        )
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(str(socket_of(place)))
        (held,) = {Path(ours.getpeername())}
    assert (
        stat.S_IMODE(held.lstat().st_mode) & 0o077 == 0 == stat.S_IMODE(held.parent.lstat().st_mode) & 0o077
    )


AS_ANOTHER = """
import errno, os, sys
real, effective = int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setresuid(real, effective, real)
for look in (lambda: os.listdir(int(sys.argv[1])), lambda: os.stat("README.txt", dir_fd=int(sys.argv[1]))):
    try:
        look()
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


@rule(
    "9.1",
    "Without `--allow-other` only the user who mounted may enter: anybody else, including root, gets EACCES.",
)
def test_only_who_mounted_may_enter(place: Place) -> None:
    (line,) = (
        line
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[1] == str(place.mounted.point)
    )
    assert f"user_id={os.getuid()}" in line and "allow_other" not in line and "allow_root" not in line
    # Only root can become another. The second keeps root's powers, under another name.
    for user in ((65534, 65534), (65534, 0)) if os.geteuid() == 0 else ():
        with opened(place.mounted.point, os.O_PATH) as folder:
            command = [sys.executable, "-c", AS_ANOTHER, str(folder), *map(str, user)]
            done = subprocess.run(
                command, pass_fds=[folder], capture_output=True, text=True, timeout=60, check=False
            )
        assert done.stdout.split() in (["EACCES", "EACCES"], ["EBADF", "EACCES"]), (
            done.stderr
        )  # an O_PATH descriptor lists nothing


# --- not promised -------------------------------------------------------------------------------------------


@rule("13.1", "The order of a listing. It is the same each time as long as nothing changes, and that is all.")
def test_the_order_of_a_listing_stays(place: Place) -> None:
    names = os.listdir(place.folder)
    assert os.listdir(place.folder) == names and len(names) >= 3


@rule(
    "13.2", "The date of a folder: it is that of its session, and does not move when something in it changes."
)
def test_the_date_of_a_folder_stays(place: Place) -> None:
    before = place.folder.stat().st_mtime_ns
    place.add(place.shelf.make.entry("more", b"more"))
    assert "more" in os.listdir(place.folder) and place.folder.stat().st_mtime_ns == before
    place.remove("more")


@rule(
    "13.3",
    "Locks between machines. `flock` works among the programs of this machine, and so do `fcntl` locks for "
    "reading; an `fcntl` lock for writing returns EBADF, since no file is open for writing.",
)
def test_locks_hold_on_this_machine(place: Place) -> None:
    with opened(place.file) as one, opened(place.file) as other:
        fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert refused(lambda: fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)) == errno.EAGAIN
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(one, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert refused(lambda: fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)) == errno.EBADF


@rule(
    "13.4",
    "Change notifications: `inotify` reports what programs do in the mount, not what happens on the server.",
)
def test_inotify_tells_of_this_machine_only(place: Place) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    watch = library.inotify_init1(os.O_NONBLOCK)
    try:
        assert (
            library.inotify_add_watch(watch, os.fsencode(place.folder), 0xFFF & ~0x31) >= 0
        )  # all but reading: changes
        place.add(place.shelf.make.entry("unseen", b"unseen"))
        assert "unseen" in os.listdir(place.folder)
        place.remove("unseen")
        assert refused(lambda: os.read(watch, 4096)) == errno.EAGAIN
        assert library.inotify_add_watch(watch, os.fsencode(place.file), 0x20) >= 0  # IN_OPEN
        place.file.read_bytes()
        assert len(os.read(watch, 4096)) >= 16
    finally:
        os.close(watch)


@rule("13.5", "Holes: `SEEK_HOLE` finds the end of the file, `SEEK_DATA` the offset it was given.")
def test_there_are_no_holes(place: Place) -> None:
    with opened(place.file) as descriptor:
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == len(TEXT)
        assert os.lseek(descriptor, 3, os.SEEK_DATA) == 3
        assert refused(lambda: os.lseek(descriptor, len(TEXT), os.SEEK_DATA)) == errno.ENXIO


@rule(
    "13.6",
    "`poll` and `select`: a file is always ready, and the read may wait all the same, even with "
    "`O_NONBLOCK`.",
)
def test_a_file_is_always_ready(place: Place) -> None:
    with opened(place.file, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
        assert select.select([descriptor], [], [], 5)[0] == [descriptor]
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(5000) == [(descriptor, select.POLLIN)]
        assert os.read(descriptor, 100) == TEXT


@rule(
    "13.7",
    "Copies within the server: `copy_file_range` and reflinks out of the mount return EXDEV, and `cp` "
    "copies the bytes. File flags (`lsattr`) and block maps are not available.",
)
def test_copies_are_copies_of_bytes(place: Place, tmp_path: Path) -> None:
    with opened(place.file) as descriptor, opened(tmp_path / "out", os.O_RDWR | os.O_CREAT) as out:
        assert refused(lambda: os.copy_file_range(descriptor, out, 100, 0, 0)) == errno.EXDEV
        assert refused(lambda: fcntl.ioctl(descriptor, 0x80086601, b"\0" * 8)) in (
            errno.ENOTTY,
            errno.EOPNOTSUPP,
        )  # FS_IOC_GETFLAGS
        assert (
            refused(lambda: fcntl.ioctl(descriptor, 0xC020660B, bytearray(64))) == errno.EOPNOTSUPP
        )  # FS_IOC_FIEMAP
    assert run("cp", "--reflink=always", place.file, tmp_path / "linked").returncode != 0
    assert (
        run("cp", place.file, tmp_path / "copied").returncode == 0
        and (tmp_path / "copied").read_bytes() == TEXT
    )


class _Handle(ctypes.Structure):
    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * 128),
    )


@rule(
    "13.8",
    "Re-export by NFS: a file handle is good only as long as the kernel remembers the file.",
)
def test_a_file_handle_leads_to_the_file_while_the_kernel_remembers_it(place: Place) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    handle, number = _Handle(128), ctypes.c_int()
    with opened(place.file) as descriptor:
        assert (
            library.name_to_handle_at(
                -100, os.fsencode(place.file), ctypes.byref(handle), ctypes.byref(number), 0
            )
            == 0
        )
        again = library.open_by_handle_at(descriptor, ctypes.byref(handle), os.O_RDONLY)
        if again >= 0:  # root may
            assert os.fstat(again).st_ino == os.fstat(descriptor).st_ino
            os.close(again)
        else:
            assert ctypes.get_errno() in (errno.EPERM, errno.ESTALE)


@rule(
    "5.1",
    "Every failure is one of these numbers, and the mount records the sentence that explains it: `xnatfs "
    "status` shows the last one, `.xnatfs/errors.txt` all recent ones.",
)
def test_the_sentence_to_an_error_is_shown(place: Place) -> None:
    place.add(place.shelf.make.entry("bad", b"bad", digest="0" * 32))
    assert refused((place.folder / "bad").read_bytes) == errno.EIO
    sentence = "bad: the file differs from the digest in the server's catalog"
    assert sentence in xnatfs("status", str(place.mounted.point), env=place.mounted.env, check=True).stdout
    assert sentence in (place.mounted.point / ".xnatfs/errors.txt").read_text()
    place.remove("bad")
