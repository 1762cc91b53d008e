"""Measurement tables on a real mount: tools that copy, programs that read them, and the same tables without a
mount.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Mount, composed, lab_archive, mount, read, run, xnatfs
from xnatfs.demo.data import broken
from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.lab import by_label
from xnatfs.demo.server import DemoServer

TABLE = "tables/ALFA/freesurfer6/aparc.csv"
FILES = ("aseg.csv", "aseg.parquet", "aseg_wide.csv", "aseg.problems.csv", "aseg.xlsx")
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(lab_archive()) as served:
        yield served


@pytest.fixture(scope="module")
def truth(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table as read without a mount."""
    with composed(server.url, tmp_path_factory.mktemp("truth")) as mounted:
        return read(mounted.vfs, f"/{TABLE}")


@pytest.fixture
def fresh(server: DemoServer, tmp_path: Path) -> Iterator[Mount]:
    """A mount that has built nothing yet."""
    with mount(server.url, tmp_path / "fresh") as mounted:
        yield mounted


@pytest.fixture(scope="module")
def shared(server: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for tests that do not care what is built."""
    folder = tmp_path_factory.mktemp("shared")
    with mount(server.url, folder, env={"HOME": str(folder)}) as mounted:
        yield mounted


def ok(*command: str | Path, timeout: float = 100, cwd: Path | None = None) -> str:
    """What a tool prints; it has to be there and to succeed."""
    assert shutil.which(str(command[0])), f"{command[0]} is not installed (scripts/test installs it)"
    done = run(*command, timeout=timeout, cwd=cwd)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def python(code: str, *arguments: Path) -> str:
    """Run Python in a process of its own: one that waits for a page of a mapped file holds the lock the demo
    server needs.
    """
    return ok(sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments)


def parsed(data: bytes | str) -> Rows:
    return list(csv.DictReader(io.StringIO(data if isinstance(data, str) else data.decode())))


# --- a table that was not built before ----------------------------------------------------------------------


def test_cp_copies_it_whole(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    ok("cp", fresh.point / TABLE, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == truth


def test_cp_after_a_look_at_its_size(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    """The kernel has been told the placeholder's size before."""
    ok("ls", "-l", (fresh.point / TABLE).parent)
    assert (fresh.point / TABLE).stat().st_size not in (0, len(truth))
    ok("cp", "--sparse=always", fresh.point / TABLE, tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == truth
    assert (fresh.point / TABLE).stat().st_size == len(truth)


def test_rsync_copies_it_once(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    """Every file of the pipeline: nothing is sent the second time, nor after a remount."""
    source, target = fresh.point / "tables/ALFA/freesurfer6", tmp_path / "copy"

    def sent() -> int:
        text = ok("rsync", "-a", "--stats", f"{source}/", target)
        found = re.search(r"^Number of regular files transferred: ([\d,]+)$", text, re.M)
        assert found
        return int(found[1].replace(",", ""))

    assert sent() == len(os.listdir(source)) > 20
    assert (target / "aparc.csv").read_bytes() == truth
    assert sent() == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    with mount(fresh.url, tmp_path / "fresh2") as again:  # another cache: built anew, the same bytes
        source = again.point / "tables/ALFA/freesurfer6"
        assert [
            path.name for path in source.iterdir() if path.read_bytes() != (target / path.name).read_bytes()
        ] == []
        assert sent() == 0


def test_rsync_of_single_files(fresh: Mount, tmp_path: Path) -> None:
    for name in ("sessions.csv", "freesurfer6/aseg.csv", "sessions/007_MR1/freesurfer6/aseg.csv"):
        for expected in (1, 0):
            text = ok("rsync", "-a", "--stats", fresh.point / "tables/ALFA" / name, tmp_path / "copy.csv")
            found = re.search(r"^Number of regular files transferred: (\d+)$", text, re.M)
            assert found and int(found[1]) == expected, name


# Programs that read as many bytes as `stat` told them: with a smaller size they would cut the table and say
# nothing.
TRUSTING = {
    "tarfile": """
        import sys, tarfile
        with tarfile.open(sys.argv[2], "w") as made:
            made.add(sys.argv[1], "t.csv")
        """,
    "tarfile, as a stream": """
        import os, sys, tarfile
        with tarfile.open(sys.argv[2], "w|") as made:
            entry = tarfile.TarInfo("t.csv")
            entry.size = os.stat(sys.argv[1]).st_size
            with open(sys.argv[1], "rb") as stream:
                made.addfile(entry, stream)
        """,
}


@pytest.mark.parametrize("way", TRUSTING)
def test_what_trusts_the_size_fails_and_cuts_nothing(
    fresh: Mount, truth: bytes, tmp_path: Path, way: str
) -> None:
    """And packs it whole once it has been opened."""
    path, target = fresh.point / TABLE, tmp_path / "t.tar"
    command = (sys.executable, "-c", textwrap.dedent(TRUSTING[way]), path, target)
    done = run(*command)
    assert done.returncode != 0 and "unexpected end of data" in done.stderr, done.stderr
    target.unlink()
    ok(*command)
    with tarfile.open(target) as packed:
        member = packed.extractfile("t.csv")
        assert member is not None and member.read() == truth


def test_git_adds_it_whole_or_fails(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    """It reads what `lstat` told; a work tree in the mount, its folder elsewhere."""
    git = ("git", f"--git-dir={tmp_path}/repository", f"--work-tree={fresh.point}")
    ok(*git, "init", "-q")
    done = run(*git, "add", TABLE, cwd=fresh.point)
    assert done.returncode != 0, done.stdout
    ok(*git, "add", TABLE, cwd=fresh.point)  # it was opened
    assert ok(*git, "cat-file", "blob", f":{TABLE}").encode() == truth


def test_rclone_copies_it_whole(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    """Its first try sees another size than the listing's, and fails; the next one does not."""
    ok("rclone", "copy", "--retries=3", fresh.point / TABLE, tmp_path / "copy")
    assert (tmp_path / "copy/aparc.csv").read_bytes() == truth


WHOLE = {
    "cat": ("sh", "-c", 'cat "$1" > "$2"', "sh"),
    "dd": ("dd", "bs=64k", "status=none"),
    "shutil": (sys.executable, "-c", "import shutil, sys; shutil.copy2(*sys.argv[1:])"),
    "sendfile": (
        *(sys.executable, "-c"),
        "import os, sys; a, b = open(sys.argv[1], 'rb'), open(sys.argv[2], 'wb')\n"
        "while os.sendfile(b.fileno(), a.fileno(), None, 1 << 30): pass",
    ),
    "zipfile": (
        *(sys.executable, "-c"),
        "import sys, zipfile as z\n"
        "with z.ZipFile(sys.argv[2] + '.zip', 'w') as f: f.write(sys.argv[1], 't')\n"
        "open(sys.argv[2], 'wb').write(z.ZipFile(sys.argv[2] + '.zip').read('t'))",
    ),
    "install": ("install", "-m", "600"),
    "cp --reflink": ("cp", "--reflink=auto", "--sparse=auto"),
    "rsync in place": ("rsync", "-a", "--inplace"),
}


@pytest.mark.parametrize("tool", WHOLE)
def test_what_asks_again_copies_it_whole(fresh: Mount, truth: bytes, tmp_path: Path, tool: str) -> None:
    path, target = fresh.point / TABLE, tmp_path / "copy"
    assert path.stat().st_size == 1 << 44
    named = (f"if={path}", f"of={target}") if tool == "dd" else (path, target)
    ok(*WHOLE[tool], *named)
    assert target.read_bytes() == truth
    assert target.stat().st_size == path.stat().st_size == len(truth)


def test_what_is_not_built_takes_no_room(fresh: Mount) -> None:
    folder = fresh.point / "tables/ALFA"
    (folder / "freesurfer6/aparc.csv").read_bytes()
    taken = int(ok("du", "-s", "--block-size=1", folder).split()[0])
    assert taken < 10 * 2**20


def test_a_table_that_was_built_tells_its_size_at_once_in_the_next_mount(
    server: DemoServer, truth: bytes, tmp_path: Path
) -> None:
    with mount(server.url, tmp_path / "again") as mounted:
        (mounted.point / TABLE).read_bytes()
    with mount(server.url, tmp_path / "again") as mounted:
        assert (mounted.point / TABLE).stat().st_size == len(truth)
        ok("tar", "-cf", tmp_path / "t.tar", "-C", mounted.point, TABLE)


def test_tail_shows_its_end(fresh: Mount, truth: bytes) -> None:
    assert ok("tail", "-n", "7", fresh.point / TABLE).encode() == b"".join(
        truth.splitlines(keepends=True)[-7:]
    )


def test_tail_counts_bytes_from_its_end(fresh: Mount, truth: bytes) -> None:
    assert ok("tail", "-c", "1000", fresh.point / TABLE).encode() == truth[-1000:]


def test_wc_counts_its_lines(fresh: Mount, truth: bytes) -> None:
    assert int(ok("wc", "-l", fresh.point / TABLE).split()[0]) == truth.count(b"\n") == 625 * 7 + 1


def test_wc_counts_its_bytes(fresh: Mount, truth: bytes) -> None:
    """`wc -c` asks for the size and does not read: it opens first, and the size is true from then on."""
    assert int(ok("wc", "-c", fresh.point / TABLE).split()[0]) == len(truth)


def test_tar_packs_it_whole(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    ok("tar", "-cf", tmp_path / "t.tar", "-C", fresh.point, TABLE)
    ok("tar", "-xf", tmp_path / "t.tar", "-C", tmp_path)
    assert (tmp_path / TABLE).read_bytes() == truth


def test_tar_packs_a_whole_pipeline(fresh: Mount, tmp_path: Path) -> None:
    ok("tar", "-cSf", tmp_path / "t.tar", "-C", fresh.point, "tables/ALFA/ashs")
    ok("tar", "-xf", tmp_path / "t.tar", "-C", tmp_path)
    ok("diff", "-r", tmp_path / "tables/ALFA/ashs", fresh.point / "tables/ALFA/ashs")


def test_grep_and_head_and_md5sum_agree(fresh: Mount, truth: bytes, tmp_path: Path) -> None:
    (tmp_path / "true.csv").write_bytes(truth)
    for command in (("grep", "-c", "eTIV"), ("head", "-n", "3"), ("sort",)):
        assert ok(*command, fresh.point / TABLE) == ok(*command, tmp_path / "true.csv")


def test_what_the_kernel_keeps_follows_the_server(tmp_path: Path) -> None:
    """A table that was read, changed on the server and is read again: new bytes, new size, by the same
    path.
    """
    archive = lab_archive()
    with DemoServer(archive) as server, mount(server.url, tmp_path) as mounted:
        path = mounted.point / "tables/ALFA/sessions.csv"
        old = path.read_bytes()
        session = by_label(archive, "ALFA", "sub002_MR1")

        def rename() -> None:
            session.label = "another_label_that_is_longer"
            archive.touch(session)

        server.call(rename)
        xnatfs("refresh", str(mounted.point), env=mounted.env, check=True)
        new = path.read_bytes()
        assert new == old.replace(b"sub002_MR1", b"another_label_that_is_longer") != old
        assert path.stat().st_size == len(new)
        assert ok("tail", "-c", "20", path).encode() == new[-20:]


def test_attributes_tell_of_what_it_was_built(shared: Mount) -> None:
    path = shared.point / "tables/ALFA/freesurfer7/aseg.csv"
    path.read_bytes()
    told = ok("getfattr", "-d", path)
    assert (
        'user.xnat.sessions="8"' in told
        and "user.xnat.as_of=" in told
        and 'user.xnat.table="freesurfer7/aseg"' in told
    )


def test_a_table_cannot_be_written(shared: Mount) -> None:
    for command in (("touch",), ("rm", "-f"), ("truncate", "-s", "0")):
        assert run(*command, shared.point / TABLE).returncode != 0
    assert run("mkdir", shared.point / "tables/ALFA/mine").returncode != 0


# --- programs that read tables ------------------------------------------------------------------------------


def calc(path: Path, folder: Path) -> list[list[str]]:
    """What LibreOffice Calc sees in a file: its cells, written as CSV with formulas computed."""
    folder.mkdir()
    profile = f"-env:UserInstallation=file://{folder}/profile"
    ok(
        "soffice",
        profile,
        "--headless",
        "--convert-to",
        "csv:Text - txt - csv (StarCalc):44,34,76",
        "--outdir",
        folder,
        path,
        timeout=110,
    )
    return list(csv.reader(io.StringIO((folder / f"{path.stem}.csv").read_text(encoding="utf-8"))))


def test_libreoffice_opens_both_formats(shared: Mount, tmp_path: Path) -> None:
    source = shared.point / "tables/BROKEN/bamosarterial"
    for kind in ("csv", "xlsx"):
        header, *cells = calc(source / f"stats.{kind}", tmp_path / kind)
        assert header == ["ID", "depth", "region", "n", "volume", "subject", "label", "date"]
        assert len(cells) == len(broken.FORMULAS)
        regions = [row[2].lstrip("'").strip() for row in cells]
        assert regions == [text.strip() for text in broken.FORMULAS], "a spreadsheet ran a formula"
        assert {row[4] for row in cells} == {"12.5"}


def test_libreoffice_keeps_ids_as_they_are(shared: Mount, tmp_path: Path) -> None:
    source = shared.point / "tables/BROKEN/ashs"
    own = parsed((source / "volumes.csv").read_bytes())
    header, *cells = calc(source / "volumes.xlsx", tmp_path / "xlsx")
    assert len(cells) == len(own)
    at = {name: number for number, name in enumerate(header)}
    assert {row[at["subject"]] for row in cells} >= {"007", "1E5"}
    assert {(row[at["ID"]], row[at["subject"]], row[at["label"]]) for row in cells} == {
        (r["ID"], r["subject"], r["label"]) for r in own
    }
    header, *cells = calc(source / "volumes.csv", tmp_path / "csv")
    assert len(cells) == len(own)
    assert [row[at["ID"]] for row in cells] == [row["ID"] for row in own]


def test_a_workbook_holds_numbers_as_numbers(shared: Mount) -> None:
    with zipfile.ZipFile(shared.point / "tables/BROKEN/freesurfer6/aseg.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet


READERS = {
    "pandas": """
        import pandas
        found = pandas.read_parquet(sys.argv[1])
        rows = found.to_dict("records")
        """,
    "polars": """
        import polars
        rows = polars.read_parquet(sys.argv[1]).to_dicts()
        assert polars.scan_parquet(sys.argv[1]).select(polars.len()).collect().item() == len(rows)
        """,
    "duckdb": """
        import duckdb
        found = duckdb.sql(f"select * from read_parquet('{sys.argv[1]}')")
        rows = [dict(zip(found.columns, row)) for row in found.fetchall()]
        """,
}


@pytest.mark.parametrize("reader", READERS)
def test_parquet_is_read(server: DemoServer, fresh: Mount, reader: str) -> None:
    code = "import json, sys\n" + textwrap.dedent(READERS[reader]) + "print(json.dumps(rows, default=str))\n"
    path = fresh.point / "tables/BROKEN/ashs/volumes.parquet"
    found = json.loads(python(code, path))
    own = parsed((path.parent / "volumes.csv").read_bytes())
    assert len(found) == len(own)
    for row, text in zip(found, own, strict=True):
        assert isinstance(row["volume"], float) and row["volume"] == float(text["volume"])
        assert all(row[name] == text[name] for name in ("ID", "subject", "label", "region"))
    (session,) = {row["ID"] for row in found if row["label"] == "007"}
    assert session == by_label(server.archive, "BROKEN", "007").id
    left = {row["region"]: row["volume"] for row in found if row["label"] == "007" and row["side"] == "left"}
    assert left == {region: float(volume) for region, (_, volume) in m.ashs(session, "left").items()}


def test_tables_of_several_projects_are_read_whole_before_they_are_built(fresh: Mount) -> None:
    """The readers that look at sizes before they open, and those that map files: docs/measurements.md names
    these calls. Subjects stay text where all of them look like numbers.
    """
    code = """
        import glob, json, os, sys
        import duckdb, polars as pl, pyarrow.dataset
        root = sys.argv[1]
        text = f"{root}/*/freesurfer6/aseg.csv"
        typed = sorted(glob.glob(f"{root}/*/freesurfer7/aseg.parquet"))
        pattern = f"{root}/*/freesurfer6/aparc.parquet"
        assert all(os.stat(path).st_size == 1 << 44 for path in glob.glob(text) + typed + glob.glob(pattern))
        csvs = pl.scan_csv(text, schema_overrides={"subject": pl.String})
        rows = {
            text: csvs.select(pl.len()).collect().item(),
            typed[0].replace("/ALFA/", "/*/"): pl.scan_parquet(typed).select(pl.len()).collect().item(),
            pattern: duckdb.sql(f"select count(*) from read_parquet('{pattern}')").fetchall()[0][0],
        }
        more = sorted(glob.glob(f"{root}/*/freesurfer6/hippoSfVolumes.parquet"))
        rows[f"{root}/*/freesurfer6/hippoSfVolumes.parquet"] = pyarrow.dataset.dataset(more).count_rows()
        one = f"{root}/ALFA/sessions/007_MR1/freesurfer7/aseg"
        assert set(pl.read_parquet(one + ".parquet")["subject"]) == {"007"}
        assert set(pl.read_csv(one + ".csv", schema_overrides={"subject": pl.String})["subject"]) == {"007"}
        print(json.dumps(rows))
        """
    found = json.loads(python(code, fresh.point / "tables"))
    for pattern, rows in found.items():
        texts = sorted(Path("/").glob(pattern[1:].replace(".parquet", ".csv")))
        assert len(texts) > 2 and rows == sum(len(parsed(path.read_bytes())) for path in texts), pattern


def test_pandas_reads_the_csv_and_the_workbook(shared: Mount) -> None:
    code = """
        import pandas, sys
        text = pandas.read_csv(sys.argv[1], dtype={"subject": str})
        book = pandas.read_excel(sys.argv[2])
        assert len(text) == len(book) and list(text.columns) == list(book.columns)
        assert (text["value"] - book["value"]).abs().max() == 0
        assert text["value"].dtype == float and set(book["subject"]) == set(text["subject"])
        """
    folder = shared.point / "tables/ALFA/freesurfer6"
    python(code, folder / "aseg.csv", folder / "aseg.xlsx")


# --- without a mount ----------------------------------------------------------------------------------------


@pytest.fixture
def env(server: DemoServer, tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "cli"
    login = {"XNAT_HOST": server.url, "XNAT_USER": "demo", "XNAT_PASS": "demo"}
    return {**login, "XNATFS_CACHE_DIR": str(folder / "cache"), "XNATFS_STATE_DIR": str(folder / "state")}


def test_the_command_writes_what_the_mount_has(shared: Mount, env: dict[str, str], tmp_path: Path) -> None:
    done = xnatfs("table", "ALFA", "freesurfer6/aseg", env=env)
    assert done.returncode == 3, "there is a remark"
    folder = shared.point / "tables/ALFA/freesurfer6"
    assert done.stdout.encode() == (folder / "aseg.csv").read_bytes()
    assert re.fullmatch(r"\d+ remarks? on sessions .*; --problems lists them\n", done.stderr)
    assert (
        xnatfs("table", "ALFA", "freesurfer6/aseg", "--wide", env=env).stdout.encode()
        == (folder / "aseg_wide.csv").read_bytes()
    )
    told = xnatfs("table", "ALFA", "freesurfer6/aseg", "--problems", env=env, check=True)
    assert told.stdout.encode() == (folder / "aseg.problems.csv").read_bytes() and not told.stderr
    one = xnatfs(
        "table",
        "ALFA",
        "freesurfer6/aseg",
        "--session",
        "007_MR1",
        "--session",
        "sub001_MR1",
        env=env,
        check=True,
    )
    assert {row["label"] for row in parsed(one.stdout)} == {"007_MR1", "sub001_MR1"}
    for kind in ("csv", "xlsx", "parquet"):
        into = str(tmp_path / f"t.{kind}")
        assert not xnatfs("table", "ALFA", "freesurfer6/aseg", "-o", into, env=env).stdout
        assert (tmp_path / f"t.{kind}").read_bytes() == (folder / f"aseg.{kind}").read_bytes()
    assert (
        xnatfs("table", "ALFA", "sessions", env=env, check=True).stdout.encode()
        == (folder.parent / "sessions.csv").read_bytes()
    )
    assert (
        xnatfs("table", "ALFA", "subjects", env=env, check=True).stdout.encode()
        == (folder.parent / "subjects.csv").read_bytes()
    )
    nothing = ("--no-demographics", "--birth-dates", "full")
    assert list(parsed(xnatfs("table", "ALFA", "subjects", *nothing, env=env, check=True).stdout)[0]) == [
        *("subject", "subject_ID", "sessions", "primary_project", "shared", "insert_date")
    ]
    added = ("--wide", "--with", "age,sex")
    beside = xnatfs("table", "ALFA", "freesurfer6/aseg", *added, env=env).stdout
    assert beside.startswith("ID,age,sex,")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_command_tells_what_there_is(shared: Mount, env: dict[str, str]) -> None:
    shown = xnatfs("table", "ALFA", env=env, check=True).stdout.split()
    room = shared.point / "tables/ALFA"
    mine = {
        f"{path.parent.name}/{path.stem}"
        for path in room.glob("*/*.parquet")
        if not path.stem.endswith("_wide")
    }
    assert set(shown) == mine | {"subjects", "sessions", "scandates", "scans"}
    listed = xnatfs("table", "--list", env={"XNAT_HOST": ""}, check=True).stdout
    assert (
        "freesurfer7/aseg\n    reads FREESURFER7. " in listed
        and "basil/aal: not available; it needs the AAL2 atlas image" in listed
    )


def test_the_command_explains_what_feeds_what(env: dict[str, str]) -> None:
    told = xnatfs("table", "NORD", "--explain", env=env, check=True).stdout
    assert "project NORD: 4 sessions" in told
    assert "session resource recon-all: nothing reads it" in told
    assert "scan resource ashs_out: nothing reads it" in told
    assert "assessor resource fs:fsData/DATA: nothing reads it" in told
    told = xnatfs("table", "ALFA", "--explain", env=env, check=True).stdout
    assert re.search(
        r"session resource ASHS: ashs/volumes, ashs/volumes_corr_usegray, ashs/volumes_heur$", told, re.M
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "which project? `xnatfs table PROJECT NAME`; `xnatfs table --list` shows all tables"),
        (
            ("ALFA", "freesurfer6/asge"),
            "there is no table 'freesurfer6/asge'; did you mean freesurfer6/aseg",
        ),
        (("NOPE", "freesurfer6/aseg"), "no project 'NOPE' that demo can read"),
        (("SECRET", "freesurfer6/aseg"), "no project 'SECRET' that demo can read"),
        (("ALFA", "freesurfer6/aseg", "--session", "nobody"), "project ALFA has no session 'nobody'"),
        (("ALFA", "sessions", "--wide"), "the table sessions has no wide form"),
        (("ALFA", "freesurfer6/tests", "--wide"), "the table freesurfer6/tests has no wide form"),
        (("ALFA", "freesurfer6/aseg", "-o", "t.ods"), "t.ods: a table is written as .csv, .xlsx or .parquet"),
        (("ALFA", "freesurfer6/aseg", "-o", "/nowhere/t.csv"), "/nowhere is not a folder"),
    ],
)
def test_errors_are_one_sentence(env: dict[str, str], arguments: tuple[str, ...], sentence: str) -> None:
    done = xnatfs("table", *arguments, env=env)
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and sentence in done.stderr, done.stderr


def test_a_misspelt_file_is_one_sentence(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "tables.toml").write_text("[label]\n")
    done = xnatfs("table", "ALFA", "freesurfer6/aseg", env={**env, "XNATFS_CONFIG_DIR": str(tmp_path)})
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
    assert (
        "tables.toml: 'label' is not a section of tables.toml; it has [labels] and [tables.NAME]"
        in done.stderr
    )


def test_a_table_in_python_is_a_data_frame(
    server: DemoServer, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import xnatfs as package

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = package.table("BROKEN", "freesurfer6/aseg")
    assert list(found.columns) == ["ID", "measurement", "region", "value", "subject", "label", "date"]
    assert found["value"].dtype == float
    session = by_label(server.archive, "BROKEN", "007").id
    mine = found[(found["subject"] == "007") & (found["measurement"] == "Volume_mm3")].set_index("region")[
        "value"
    ]
    assert mine["Left-Caudate"] == float(m.aseg(session, "6")["Left-Caudate"]["Volume_mm3"])
    problems = found.attrs["problems"]
    assert {"b_html", "b_empty", "b_nan", "b_truncated"} <= set(problems["label"])
    assert (found.attrs["sessions"], found.attrs["failed"], found.attrs["missing"]) == (8, 6, 0)
    before = len(server.requests())
    wide = package.table("BROKEN", "freesurfer6/aseg", sessions=["007", "1E5"], wide=True)
    assert list(wide["subject"]) == ["007", "1E5"] and wide["Left-Caudate_Volume_mm3"].dtype == float
    assert not [one for one in server.requests()[before:] if "/files/" in one.path], (
        "what was kept was fetched again"
    )
    assert len(package.table("BROKEN", "sessions", offline=True)) == len(broken.CASES)
