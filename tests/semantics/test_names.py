"""Names and attributes, without a mount."""

from __future__ import annotations

import dataclasses
import errno
import stat

import pytest

from tests.mount.spelling import Spelling
from tests.semantics.conftest import refused
from tests.semantics.quoting import rule
from tests.support import composed, read, walk
from tests.vfs.conftest import FOLDER, LIMITS, Compose, Shelf
from xnatfs.demo.data.truth import files
from xnatfs.demo.server import DemoServer
from xnatfs.tree.names import unspell


@rule(
    "1.1",
    "`projects/PROJECT` has exactly the files that the server lists for this user, each once: `find -type "
    "f` prints the server's list. (1.11 is the one exception.)",
)
@rule("1.3", "There are only regular files and folders: no symbolic links, no devices, no sockets.")
@pytest.mark.parametrize("project", ["ALFA", "MESSY"])
def test_a_project_has_the_server_s_files_once(lab: DemoServer, compose: Compose, project: str) -> None:
    found = list(walk(compose(lab).vfs, f"/projects/{project}"))
    expected = Spelling(lab.archive, files(lab.archive, project, "demo")).people()
    assert (
        sorted(path for path, _ in found) == sorted(f"/projects/{project}/{path}" for path in expected) != []
    )
    assert {stat.S_IFMT(attributes.mode) for _, attributes in found} == {
        stat.S_IFREG
    }  # `walk` follows folders only


@rule(
    "1.2",
    "A file has the same size, date, inode number and bytes under every path (`projects/`, `archive/`, "
    "`views/`), and is cached once.",
)
def test_one_file_under_three_paths(lab: DemoServer, compose: Compose) -> None:
    mounted = compose(lab)
    (view,) = (
        path
        for path, _ in walk(mounted.vfs, "/views/ALFA/by-scan-resource/NIFTI/sub001_MR1")
        if path.endswith("DWI.bval")
    )
    paths = (
        "/projects/ALFA/subjects/sub001/sub001_MR1/SCANS/4-DWI/NIFTI/sub001_MR1_DWI.bval",
        "/archive/projects/ALFA/experiments/sub001_MR1/SCANS/4/NIFTI/sub001_MR1_DWI.bval",
        view,
    )
    assert len({mounted.vfs.attributes(path) for path in paths}) == 1
    assert len({read(mounted.vfs, path) for path in paths}) == 1
    assert mounted.content_manager.counts()["cached files"] == 1


@rule(
    "1.4",
    "A listing is complete or it is an error. A problem with the server never shows as an empty or shorter "
    "folder.",
)
@pytest.mark.parametrize(
    "trouble",
    [{"fail_next": -1}, {"empty_file_lists": True}, {"truncate_after_bytes": 40}, {"html_instead": -1}],
)
def test_trouble_is_never_an_emptier_folder(
    shelf: Shelf, compose: Compose, trouble: dict[str, object]
) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    vfs = compose(shelf.server).vfs
    vfs.entries(FOLDER.removesuffix("/R"))
    shelf.switches.update({"match": "/files", **trouble})
    try:
        assert [name for name, _ in vfs.entries(FOLDER)] == ["file"]
    except OSError as error:
        assert error.errno == errno.EIO
    shelf.switches.update(
        {"fail_next": 0, "empty_file_lists": False, "truncate_after_bytes": -1, "html_instead": 0}
    )
    assert [name for name, _ in vfs.entries(FOLDER)] == ["file"]


@rule(
    "1.5",
    "Names are the server's, including case. Names that cannot be file names are escaped as docs/layout.md "
    "describes, and no name leads out of its folder: a path that contains `..`, or an absolute one, is not "
    "shown.",
)
def test_names_are_the_server_s_and_lead_nowhere_else(shelf: Shelf, compose: Compose) -> None:
    names = ["A", "a", "50% off", "100%41", "new\nline", "é", "..."]
    for name in (*names, "../../escapes", "/etc/absolute", "down/../../up"):
        shelf.put(shelf.make.entry(name, name.encode()))
    vfs = compose(shelf.server).vfs
    found = [name for name, _ in vfs.entries(FOLDER)]
    assert sorted(map(unspell, found)) == sorted(names) and {
        "A",
        "a",
        "50% off",
        "100%2541",
        "new%0Aline",
    } <= set(found)
    for name in names[:2]:
        assert read(vfs, f"{FOLDER}/{name}") == name.encode()


@rule(
    "1.6",
    "Ids that are not listed can be used as names: accession ids, bare scan ids, the numbers of resources. "
    "A listed name takes precedence.",
)
def test_ids_are_names_too(shelf: Shelf, compose: Compose) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    shelf.make.scan(shelf.session, "2", "T1")
    vfs = compose(shelf.server).vfs
    subject, session = (
        f"/projects/P/subjects/{shelf.subject.id}",
        f"/projects/P/subjects/s/{shelf.session.id}",
    )
    assert vfs.attributes(subject).inode == vfs.attributes("/projects/P/subjects/s").inode
    assert vfs.attributes(session).inode == vfs.attributes("/projects/P/subjects/s/S").inode
    assert vfs.attributes(f"{session}/SCANS/2").inode == vfs.attributes(f"{session}/SCANS/2-T1").inode
    assert read(vfs, f"{session}/RESOURCES/{shelf.resource.id}/file") == b"content"
    assert [name for name, _ in vfs.entries("/projects/P/subjects/s")] == ["S"]

    def named_like_an_id() -> None:
        shelf.make.experiment(shelf.subject, shelf.session.id)

    shelf.server.call(named_like_an_id)
    assert (
        vfs.attributes(session).inode == vfs.attributes("/projects/P/subjects/s/S").inode
    )  # not looked at again yet
    mounted = compose(shelf.server, "later")
    assert mounted.vfs.xattr(session, "user.xnat.label").decode() == shelf.session.id
    assert mounted.vfs.xattr(session, "user.xnat.id").decode() != shelf.session.id


@rule(
    "2.1",
    "The size of a file is its true size from the moment it is opened. Until then it is the size in the "
    "server's catalog; where that was wrong, the true size is remembered, also by later mounts.",
)
@pytest.mark.parametrize("told", [3, 99])
def test_the_size_is_true_when_a_file_is_open(shelf: Shelf, compose: Compose, told: int) -> None:
    shelf.put(shelf.make.entry("file", b"content", catalog_size=told))
    vfs = compose(shelf.server).vfs
    path = f"{FOLDER}/file"
    assert vfs.attributes(path).size == told
    opened = vfs.open(path)
    assert opened.size == vfs.attributes(path).size == 7 and opened.size_changed
    assert vfs.read(opened.handle, 0, 100) == b"content"
    vfs.release(opened.handle)
    assert compose(shelf.server).vfs.attributes(path).size == 7


@rule(
    "2.2",
    "A file that is made when it is opened (a table, some texts of a BIDS view, an image made of DICOM) "
    "shows its true size from then on, a table and an image also in later mounts. Before, and while a table "
    "is known to have changed since, it shows more than it can have (a table or an image 16 TiB) and no "
    "blocks: a program that trusts `stat` fails, and cuts nothing off.",
)
def test_a_table_shows_more_than_it_can_have_until_it_is_opened(lab: DemoServer, compose: Compose) -> None:
    mounted = compose(lab)
    vfs = mounted.vfs
    path = "/tables/ALFA/freesurfer7/aseg.csv"
    text = "/views/ALFA/bids/unmapped.tsv"
    sidecar = "/views/ALFA/bids/sub-007/ses-MR1/func/sub-007_ses-MR1_task-rest_bold.json"
    for unopened, shown in ((path, 1 << 44), (text, 1 << 44), (sidecar, 1 << 20)):
        assert (vfs.attributes(unopened).size, vfs.attributes(unopened).blocks) == (shown, 0)
        data = read(vfs, unopened)
        assert vfs.attributes(unopened).size == len(data) > 0 < vfs.attributes(unopened).blocks
    size = vfs.attributes(path).size
    mounted.close()
    assert compose(lab).vfs.attributes(path).size == size


@rule(
    "2.6",
    "Inode numbers are the same at every mount. Within a resource they are all different and increase in "
    "the order of the server's catalog.",
)
def test_inode_numbers_stay_and_rise(shelf: Shelf, compose: Compose) -> None:
    names = ["c", "a", "b/z", "b/y", "0"]
    for name in names:
        shelf.put(shelf.make.entry(name, name.encode()))
    numbers = [
        compose(shelf.server, folder).vfs.attributes(f"{FOLDER}/{name}").inode
        for folder in ("one", "two")
        for name in names
    ]
    assert numbers[: len(names)] == numbers[len(names) :] == sorted(set(numbers))


@rule(
    "9.3",
    "The mount shows what the server shows the login it was made with. Anybody using it has that login's "
    "rights, and no more.",
)
def test_a_mount_shows_what_its_login_may_see(shelf: Shelf, compose: Compose) -> None:
    shelf.make.user("other")
    shelf.make.project("THEIRS", "THEIRS", members=["other"])
    shelf.put(shelf.make.entry("file", b"content"))
    mine, theirs = compose(shelf.server, "mine").vfs, compose(shelf.server, "theirs", user="other").vfs
    assert [[name for name, _ in vfs.entries("/projects")] for vfs in (mine, theirs)] == [["P"], ["THEIRS"]]
    assert read(mine, f"{FOLDER}/file") == b"content"
    assert refused(lambda: theirs.open(f"{FOLDER}/file")) == errno.ENOENT


@rule(
    "2.3",
    "The date of a file is the day its session (or else its subject or project) was added to the server, "
    "or the time of the last change to the file that was seen. It is the same after a remount and after "
    "`xnatfs cache clear`: a second `rsync -a` transfers nothing.",
)
def test_the_date_is_the_session_s_and_then_that_of_the_change(
    shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shelf.put(shelf.make.entry("file", b"content"))
    shelf.put(shelf.make.entry("other", b"stays"))
    folder = tmp_path_factory.mktemp("dates")
    limits = dataclasses.replace(LIMITS, ttl=0.0)
    with composed(shelf.server.url, folder, limits=limits) as mounted:
        first, other = (mounted.vfs.attributes(f"{FOLDER}/{name}").mtime for name in ("file", "other"))
        assert first == other == mounted.vfs.attributes("/projects/P/subjects/s/S").mtime

        def change() -> None:
            shelf.make.wait(days=3)
            shelf.resource.entries[0] = shelf.make.entry("file", b"changed")
            shelf.archive.touch(shelf.session)

        shelf.server.call(change)
        changed = mounted.vfs.attributes(f"{FOLDER}/file").mtime
        assert changed - first >= 3 * 86400 and mounted.vfs.attributes(f"{FOLDER}/other").mtime == other
    with composed(shelf.server.url, folder, limits=limits) as mounted:
        assert mounted.vfs.attributes(f"{FOLDER}/file").mtime == changed
