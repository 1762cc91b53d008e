"""The tree is the server's file set: every file once, with its true bytes, size and identity, whichever room
it is read through.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.mount.conftest import Lab
from tests.support import lab_archive, md5, mount, run
from xnatfs.demo.data.lab import READABLE
from xnatfs.demo.data.truth import TrueFile, files
from xnatfs.demo.faults import Switches
from xnatfs.demo.server import DemoServer
from xnatfs.server.downloads import out_of_reach

PROJECTS = (*READABLE, "SECRET")
JUNK = (
    ".Trash",
    ".Trash-1000",
    ".hidden",
    "._x",
    ".~lock.a.ods#",
    "desktop.ini",
    "Desktop.ini",
    "autorun.inf",
    ".DS_Store",
    "Thumbs.db",
    ".git",
)


def find(folder: Path, *tests: str) -> list[str]:
    """What the real `find` prints, relative to the folder."""
    done = subprocess.run(
        ["find", folder, *tests, "-printf", "%P\\0"], capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def unreadable(lab: Lab, file: TrueFile) -> bool:
    """Whether reading has to fail: the server lost the bytes, has another digest than they have, or cannot be
    asked for such a name.
    """
    return (
        file.gone
        or out_of_reach(file.path)
        or (lab.profile == "full" and file.listed_digest not in ("", file.digest))
    )


def digest(path: Path) -> str:
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(1 << 18):
            found.update(piece)
    return found.hexdigest()


def value(path: Path, name: str) -> str:
    return os.getxattr(path, f"user.xnat.{name}").decode()


@pytest.mark.parametrize("project", PROJECTS)
def test_find_prints_every_file_of_the_server_once_and_nothing_else(lab: Lab, project: str) -> None:
    listed = find(lab.mount(project).point / "projects" / project, "-type", "f")
    assert Counter(listed) == Counter(lab.spelling(project).people().keys())


@pytest.mark.parametrize("project", PROJECTS)
def test_the_room_for_programs_has_the_same_files_once(lab: Lab, project: str) -> None:
    listed = find(lab.mount(project).point / "archive/projects" / project, "-type", "f")
    assert Counter(listed) == Counter(lab.spelling(project).programs().keys())


@pytest.mark.parametrize("project", PROJECTS)
def test_the_attributes_of_each_file_tell_which_one_it_is(lab: Lab, project: str) -> None:
    root = lab.mount(project).point / "projects" / project
    found: Counter[tuple[int, str]] = Counter()
    for path in find(root, "-type", "f"):
        number, uri = value(root / path, "resource_id"), value(root / path, "uri")
        found[int(number), uri.split(f"/resources/{number}/files/", 1)[1]] += 1
    assert found == Counter((file.resource_id, file.path) for file in lab.files(project) if not file.hostile)


@pytest.mark.parametrize("project", PROJECTS)
def test_every_byte_is_true_through_both_rooms(lab: Lab, project: str) -> None:
    wrong: list[str] = []
    same = {(file.resource_id, file.path): path for path, file in lab.programs(project).items()}
    for path, file in lab.people(project).items():
        other = same[file.resource_id, file.path]
        if unreadable(lab, file):
            continue
        if (digest(path), digest(other)) != (file.digest, file.digest):
            wrong.append(f"{path}: not the true bytes")
        one, two = path.stat(), other.stat()
        if not one.st_size == two.st_size == file.size:
            wrong.append(f"{path}: {one.st_size} and {two.st_size} bytes, truly {file.size}")
        if (one.st_mtime_ns, one.st_ino) != (two.st_mtime_ns, two.st_ino):
            wrong.append(f"{path}: another time or inode number in the other room")
        if one.st_blocks != -(-file.size // 512):
            wrong.append(f"{path}: {one.st_blocks} blocks")
    assert not wrong


@pytest.mark.parametrize("project", PROJECTS)
def test_inode_numbers_are_distinct_and_rise_in_catalog_order(lab: Lab, project: str) -> None:
    """`cp -r` opens in the order of inode numbers."""
    numbers: dict[int, list[int]] = {}
    for path, file in lab.people(project).items():
        numbers.setdefault(file.resource_id, []).append(path.stat().st_ino)
    assert all(found == sorted(found) for found in numbers.values())
    everyone = [number for found in numbers.values() for number in found]
    assert len(set(everyone)) == len(everyone) > 0


@pytest.mark.parametrize("project", PROJECTS)
def test_there_are_only_plain_files_and_folders_that_the_user_may_read(lab: Lab, project: str) -> None:
    root = lab.mount(project).point
    for room in (root / "projects" / project, root / "archive/projects" / project):
        kinds = {
            (stat.S_IFMT(os.lstat(room / path).st_mode), stat.S_IMODE(os.lstat(room / path).st_mode))
            for path in find(room)
        }
        assert kinds == {(stat.S_IFREG, 0o644), (stat.S_IFDIR, 0o755)}
        owners = {(os.lstat(room / path).st_uid, os.lstat(room / path).st_gid) for path in find(room)}
        assert owners == {(os.getuid(), os.getgid())}


def test_a_user_sees_the_projects_he_may_read(lab: Lab) -> None:
    for room in ("projects", "archive/projects"):
        assert sorted(os.listdir(lab.demo.point / room)) == list(READABLE)
        assert sorted(os.listdir(lab.admin.point / room)) == sorted(PROJECTS)
        assert not (lab.demo.point / room / "SECRET").exists()
    assert sorted(os.listdir(lab.demo.point)) == ["README.txt", "archive", "projects", "tables", "views"]


# --- what cannot be shown as it is --------------------------------------------------------------------------


def messy(lab: Lab, resource: str, name: str) -> Path:
    return lab.demo.point / "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES" / resource / name


def test_a_file_the_server_lost_gives_an_error_and_no_bytes(lab: Lab) -> None:
    path = messy(lab, "GONE", "gone.bin")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            path.read_bytes()
        assert caught.value.errno == errno.EIO
    assert messy(lab, "GONE", "there.bin").stat().st_size == 20


def test_a_file_unlike_its_digest_gives_an_error_and_no_bytes(full: Lab) -> None:
    path = messy(full, "DIGESTS", "wrong.bin")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            path.read_bytes()
        assert caught.value.errno == errno.EIO
    errors = (full.demo.point / ".xnatfs/errors.txt").read_text()
    assert "wrong.bin: the file differs from the digest in the server's catalog" in errors
    assert full.demo.status()["errors"]["BAD_DIGEST"] >= 1


def test_a_file_unlike_its_digest_can_be_asked_for_all_the_same(full: Lab, tmp_path: Path) -> None:
    (file,) = (file for file in full.files("MESSY", resource="DIGESTS") if file.path == "wrong.bin")
    with mount(full.server.url, tmp_path, "--bad-digest=serve") as served:
        path = served.point / "projects/MESSY/subjects/m03/m03_catalogs/RESOURCES/DIGESTS/wrong.bin"
        for _ in range(2):
            assert path.read_bytes() == file.read()
        assert path.stat().st_size == file.size
        assert value(path, "verified") == "bad digest"
        assert (path.parent / "right.bin").read_bytes() != b"" and value(
            path.parent / "right.bin", "verified"
        ) == "md5"


def test_hostile_paths_never_appear_and_are_reported(lab: Lab) -> None:
    (folder,) = {path.parent for path, file in lab.people("MESSY").items() if file.resource == "HOSTILE"}
    assert find(folder) == ["harmless.txt"]
    hostile = [file for file in lab.files("MESSY") if file.hostile]
    assert len(hostile) == 7
    time.sleep(2.1)  # the text is kept for two seconds
    oddities = (lab.demo.point / ".xnatfs/oddities.txt").read_text().splitlines()
    for file in hostile:
        assert any(f"/resources/{file.resource_id}/files/{file.path}':" in line for line in oddities), (
            file.path
        )
    assert len([line for line in oddities if "/resources/1258/" in line]) == len(hostile)


# --- names that are not listed ------------------------------------------------------------------------------


def listing_has(path: Path) -> bool:
    return path.name in os.listdir(path.parent)


def test_accession_ids_and_numbers_lead_to_the_same_folders_and_are_not_listed(lab: Lab) -> None:
    root = lab.demo.point
    (file,) = (
        file for file in lab.files("ALFA", session="sub001_MR1", scan="4") if file.path.endswith(".bvec")
    )
    subject = lab.archive.experiments[file.session_id].subject_id
    people, programs = root / "projects/ALFA/subjects", root / "archive/projects/ALFA/experiments"
    aliases = {
        people / subject: people / "sub001",
        people / "sub001" / file.session_id: people / "sub001/sub001_MR1",
        people / "sub001/sub001_MR1/SCANS/4": people / "sub001/sub001_MR1/SCANS/4-DWI",
        people / f"sub001/sub001_MR1/SCANS/4-DWI/{file.resource_id}": people
        / "sub001/sub001_MR1/SCANS/4-DWI/NIFTI",
        programs / file.session_id: programs / "sub001_MR1",
        programs / f"sub001_MR1/SCANS/4/{file.resource_id}": programs / "sub001_MR1/SCANS/4/NIFTI",
        root / f"archive/projects/ALFA/subjects/{subject}": root / "archive/projects/ALFA/subjects/sub001",
    }
    for alias, listed in aliases.items():
        assert os.path.isdir(alias) and not listing_has(alias), alias
        assert listing_has(listed) and sorted(os.listdir(alias)) == sorted(os.listdir(listed)) != []
    by_ids = people / subject / file.session_id / "SCANS/4" / str(file.resource_id) / file.path
    assert by_ids.read_bytes() == file.read()


def test_names_that_desktops_look_for_are_answered_without_asking_the_server(tmp_path: Path) -> None:
    with DemoServer(lab_archive()) as server, mount(server.url, tmp_path) as mounted:
        server.clear_log()
        for folder in (mounted.point, mounted.point / "projects", mounted.point / "archive"):
            assert_absent(folder)
        assert server.requests() == []
        scan = mounted.point / "projects/ALFA/subjects/sub001/sub001_MR1/SCANS/4-DWI"
        folders = [
            scan,
            *list(scan.parents)[:5],
            mounted.point / "archive/projects/ALFA/experiments/sub001_MR1/SCANS",
        ]
        for folder in folders:
            assert os.path.isdir(folder)
        began = time.monotonic()
        server.clear_log()
        for folder in folders:
            assert_absent(folder)
        assert time.monotonic() - began < 20, "too slow to tell: the listings may have aged"
        assert server.requests() == []


def assert_absent(folder: Path) -> None:
    for name in JUNK:
        with pytest.raises(FileNotFoundError):
            os.stat(folder / name)


def test_indexers_are_kept_out_by_files_that_are_not_listed(lab: Lab) -> None:
    for name in (".metadata_never_index", ".trackerignore", ".nomedia"):
        assert (lab.demo.point / name).read_bytes() == b"" and not listing_has(lab.demo.point / name)
    assert (lab.demo.point / ".xnatfs").is_dir() and not listing_has(lab.demo.point / ".xnatfs")


def test_who_reads_everything_unasked_is_served_and_named(full: Lab) -> None:
    """The kernel gives a thread's number. The program calls itself what `updatedb` is called."""
    code = (
        "import os, sys\n"
        "open('/proc/self/comm', 'w').write('updatedb')\n"
        "print(sum(1 for _ in os.walk(sys.argv[1])))"
    )
    done = run(sys.executable, "-c", code, full.admin.point / "projects/ALFA")
    assert done.returncode == 0 and int(done.stdout) > 60, done.stderr
    (named,) = full.admin.status()["indexers"]
    assert named["program"] == "updatedb (of locate)" and named["folders"] == int(done.stdout)


def test_what_does_not_exist_does_not_exist(lab: Lab) -> None:
    root = lab.demo.point
    for path in (
        "nothing",
        "projects/NOPE",
        "projects/ALFA/subjects/nobody",
        "projects/ALFA/subjects/sub001/SCANS",
        "archive/ALFA",
    ):
        with pytest.raises(FileNotFoundError):
            os.stat(root / path)
    with pytest.raises(NotADirectoryError):
        os.stat(root / "README.txt/x")
    with pytest.raises(OSError) as caught:
        os.stat(root / "projects" / ("x" * 256))
    assert caught.value.errno == errno.ENAMETOOLONG


# --- read-only ----------------------------------------------------------------------------------------------


def test_nothing_can_be_changed(lab: Lab, tmp_path: Path) -> None:
    folder = lab.demo.point / "projects/ALFA/subjects/sub001/sub001_MR1/SCANS/4-DWI/NIFTI"
    file = folder / "sub001_MR1_DWI.bval"
    attempts = {
        "write": lambda: os.close(os.open(file, os.O_WRONLY)),
        "append": lambda: os.close(os.open(file, os.O_RDWR | os.O_APPEND)),
        "truncate": lambda: os.truncate(file, 0),
        "create": lambda: os.close(os.open(folder / "new", os.O_CREAT | os.O_WRONLY)),
        "remove": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, folder / "new"),
        "make a folder": lambda: os.mkdir(folder / "new"),
        "remove a folder": lambda: os.rmdir(folder),
        "link": lambda: os.symlink("x", folder / "new"),
        "permit": lambda: os.chmod(file, 0o777),
        "own": lambda: os.chown(file, 1, 1),
        "touch": lambda: os.utime(file),
        "set an attribute": lambda: os.setxattr(file, "user.xnat.quality", b"x"),
        "remove an attribute": lambda: os.removexattr(file, "user.xnat.uri"),
    }
    for what, attempt in attempts.items():
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS, what
    (tmp_path / "x").write_text("x")
    refused = run("cp", tmp_path / "x", folder)
    assert refused.returncode != 0 and "Read-only file system" in refused.stderr


def test_the_file_system_says_what_it_is(lab: Lab) -> None:
    line = next(
        line
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if line.split()[1] == str(lab.demo.point)
    )
    source, _, kind, options = line.split()[:4]
    assert (source, kind) == (f"xnat:127.0.0.1:{lab.server.port}", "fuse.xnatfs")
    assert "ro" in options.split(",") and "demo" not in options
    space = os.statvfs(lab.demo.point)
    assert space.f_blocks >= space.f_bavail > 0 and space.f_namemax == 255


# --- extended attributes ------------------------------------------------------------------------------------


def test_extended_attributes_say_what_the_server_says(lab: Lab) -> None:
    root = lab.demo.point / "projects/ALFA/subjects/sub003"
    session = root / "sub003_MR2"
    (file,) = lab.files("ALFA", session="sub003_MR2", scan="6")
    path = session / "SCANS/6-T1_ALFA1/NIFTI" / file.path
    path.read_bytes()
    found = {name.removeprefix("user.xnat."): os.getxattr(path, name).decode() for name in os.listxattr(path)}
    expected = {
        "project": "ALFA",
        "subject": "sub003",
        "id": file.session_id,
        "label": "sub003_MR2",
        "xsiType": "xnat:mrSessionData",
        "date": "2023-04-18",
        "scan": "6",
        "scan_type": "T1_ALFA1",
        "series_description": "T1_ALFA1 repeat",
        "quality": "unusable",
        "resource": "NIFTI",
        "resource_id": str(file.resource_id),
        "name": file.path,
    }
    assert expected.items() <= found.items()
    assert found.get("digest") == (file.digest if lab.profile == "full" else None)
    assert value(path, "cached") == "yes"
    assert value(path, "verified") == ("md5" if lab.profile == "full" else "size")
    assert value(session, "id") == file.session_id
    assert value(root, "subject_id") == lab.archive.experiments[file.session_id].subject_id
    assert value(lab.demo.point / "projects/ALFA", "project") == "ALFA"


def test_extended_attributes_cost_no_request(lab: Lab) -> None:
    (path,) = (path for path, file in lab.people("ALFA").items() if file.path == "sub001_MR1_DWI.bvec")

    def requests_meanwhile() -> int:
        assert path.stat()
        before = len(lab.server.requests())
        for name in (*os.listxattr(path), "user.xnat.uri", "user.xnat.cached"):
            os.getxattr(path, name)
        for name in ("security.selinux", "system.posix_acl_access", "user.other", "user.xnat.nothing"):
            with pytest.raises(OSError) as caught:
                os.getxattr(path, name)
            assert caught.value.errno in (errno.ENODATA, errno.EOPNOTSUPP)
        return len(lab.server.requests()) - before

    assert min(requests_meanwhile() for _ in range(4)) == 0, (
        "what has aged is renewed behind, but not each time"
    )


def test_getfattr_shows_them(lab: Lab) -> None:
    path = lab.demo.point / "projects/ALFA/subjects/sub001/sub001_MR1"
    done = run("getfattr", "--absolute-names", "-d", path)
    assert done.returncode == 0 and 'user.xnat.label="sub001_MR1"' in done.stdout.splitlines()


def test_a_copy_takes_what_the_server_says_along_and_nothing_of_this_cache(full: Lab, tmp_path: Path) -> None:
    """With `cached` among the listed ones a second `rsync -aX` changes the copy, which says it is cached."""
    scan = full.demo.point / "projects/ALFA/subjects/sub002/sub002_MR1/SCANS/2-T1_ALFA1/NIFTI"
    rsync = ("rsync", "-aX", "--out-format=%i %n", f"{scan}/", f"{tmp_path}/rsync/")
    copied, again = run(*rsync), run(*rsync)
    assert copied.returncode == 0 and copied.stdout and (again.returncode, again.stdout) == (0, ""), again
    assert run("cp", "-a", scan, tmp_path / "cp").returncode == 0
    for folder in (tmp_path / "rsync", tmp_path / "cp"):
        for path in folder.iterdir():
            assert sorted(os.listxattr(path)) == sorted(os.listxattr(scan / path.name))
            assert value(path, "resource") == "NIFTI" and value(scan / path.name, "cached") == "yes"
            with pytest.raises(OSError) as caught:
                value(path, "cached")
            assert caught.value.errno == errno.ENODATA


# --- times --------------------------------------------------------------------------------------------------


def test_times_are_those_of_the_server(lab: Lab) -> None:
    """Stamps carry no time zone and are read as UTC."""
    for path, file in lab.people("ALFA").items():
        thing = lab.archive.experiments[file.assessor_id or file.session_id] if file.session_id else None
        if thing is None:
            continue
        inserted = thing.insert_date.replace(tzinfo=datetime.timezone.utc).timestamp()
        assert abs(path.stat().st_mtime - inserted) < 0.01, path


def listed_once(found: Iterable[str]) -> bool:
    names = list(found)
    return len(set(names)) == len(names)


def test_no_folder_lists_a_name_twice(lab: Lab) -> None:
    for folder, folders, names in os.walk(lab.demo.point / "projects"):
        assert listed_once([*folders, *names]), folder


def test_the_readme_names_the_server_and_the_user(lab: Lab) -> None:
    text = (lab.demo.point / "README.txt").read_text()
    assert (
        lab.server.url in text
        and "as the user demo sees it" in text
        and f"XNAT_DATA={lab.demo.point}/archive" in text
    )
    assert md5(text.encode()) != md5((lab.admin.point / "README.txt").read_bytes())


def test_only_chosen_projects_are_shown(tmp_path: Path) -> None:
    with (
        DemoServer(lab_archive(), Switches()) as server,
        mount(server.url, tmp_path, "--project", "DWI", "--project", "ALFA") as mounted,
    ):
        assert (
            sorted(os.listdir(mounted.point / "projects"))
            == ["ALFA", "DWI"]
            == sorted(os.listdir(mounted.point / "archive/projects"))
        )
        assert not (mounted.point / "projects/MESSY").exists()
        listed = find(mounted.point / "projects/DWI", "-type", "f")
        assert len(listed) == len(files(server.archive, "DWI", "demo"))
