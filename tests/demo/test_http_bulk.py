"""Zips and tars (xnat-rest.md 3)."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

import pytest

from xnatfs.demo.model import CatalogEntry, ComputedContent, Resource
from xnatfs.demo.server import DemoServer

from .conftest import WHEN, Client

E1 = "/data/experiments/T_E1"


def names(alice: Client, path: str) -> list[str]:
    reply = alice.get(path)
    assert reply.status_code == 200
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_stored_zip(alice: Client) -> None:
    reply = alice.get(f"{E1}/scans/1/resources/DICOM/files?format=zip")
    # A zip that fits into the container's buffer has a length.
    assert (
        reply.headers["Content-Length"] == str(len(reply.content))
        and reply.headers["Content-Type"] == "application/zip"
    )
    assert "Content-Length" not in alice.get(f"{E1}/resources/110/files?format=zip").headers
    assert reply.headers["Content-Disposition"] == 'attachment; filename="mr1.zip";'
    signature, version, flags, method, _, crc, packed, size, _, extra = struct.unpack(
        "<IHHHIIIIHH", reply.content[:30]
    )
    assert (signature, version, flags, method, packed, size, extra) == (
        0x04034B50,
        10,
        0x800,
        0,
        10,
        10,
        0,
    ) and crc
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].date_time == (2024, 3, 5, 6, 7, 8)
        assert archive.read("mr1/scans/1-T1_w_GRE/resources/DICOM/files/2.dcm") == bytes([2]) * 10


def test_deflated_zip(alice: Client) -> None:
    reply = alice.get(f"{E1}/resources/110/files?format=zip&compression=8")
    _, version, flags, method, _, crc, packed, size, _, _ = struct.unpack("<IHHHIIIIHH", reply.content[:30])
    assert (version, flags, method, crc, packed, size) == (20, 0x808, 8, 0, 0, 0)
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert archive.testzip() is None
        assert len(archive.read("mr1/resources/FILES/files/f100k.bin")) == 100_000


def test_layouts(alice: Client) -> None:
    assert names(alice, "/data/projects/P1/files?format=zip") == ["P1/resources/DOCS/files/d.pdf"]
    assert names(alice, "/data/subjects/T_S1/files?format=zip") == ["sub1/resources/NOTES/files/n.txt"]
    session = names(alice, f"{E1}/files?format=zip")
    assert (
        "mr1/resources/FILES/files/dir/é.txt" in session and "mr1/resources/111/files/nolabel.txt" in session
    )
    everything = names(alice, f"{E1}/files?all=true&format=zip")
    assert {
        "mr1/scans/1/resources/DICOM/files/0.dcm",  # bare ids: no scan was addressed
        "mr1/scans/3-MR1/resources/DICOM/files/x.dcm",
        "mr1/resources/FILES/files/100%.txt",
        "mr1/resources/FILES/files/x.zip/in.txt",
        "mr1/assessors/T_A1/out/resources/DATA/files/stats/aseg.stats",
        "mr1/reconstructions/R1/out/resources/MEAN/files/m.nii",
    } <= set(everything)
    assert not any("gone.bin" in name for name in everything)  # missing files are skipped in silence
    assert names(alice, f"{E1}/scans/3-MR1/files?format=zip") == [
        "mr1/scans/3-MR1/resources/DICOM/files/x.dcm"
    ]
    assert len(names(alice, f"{E1}/scans/ALL/files?format=zip")) == 6
    # An assessor or reconstruction that is addressed itself: its own label, its type.
    assert names(alice, "/data/experiments/T_A1/resources/131/files?format=zip") == [
        "fs1/out/resources/DATA/files/stats/aseg.stats"
    ]
    assert names(alice, f"{E1}/reconstructions/R1/files?format=zip") == [
        "mr1/reconstructions/R1-avg/out/resources/MEAN/files/m.nii"
    ]
    assert names(alice, f"{E1}/resources/113/files/space.txt?format=zip") == ["space.txt"]


@pytest.mark.parametrize(
    ("structure", "expected"),
    [
        ("improved", "scans/1_T1_w_GRE/NIFTI/t1.json"),
        ("simplified", "mr1/scans/1/NIFTI/t1.json"),
        ("legacy", "mr1/SCANS/1/NIFTI/t1.json"),
    ],
)
def test_structures(alice: Client, structure: str, expected: str) -> None:
    assert expected in names(alice, f"{E1}/scans/1/files?format=zip&structure={structure}")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_tars(alice: Client, kind: str) -> None:
    reply = alice.get(f"{E1}/scans/1/files?format={kind}")
    with tarfile.open(fileobj=io.BytesIO(reply.content)) as archive:
        member = archive.extractfile("mr1/scans/1-T1_w_GRE/resources/NIFTI/files/t1.nii.gz")
        assert member is not None and member.read() == b"n" * 20


def test_nothing_to_send(alice: Client) -> None:
    assert alice.get(f"{E1}/scans/2/files?format=zip").status_code == 404
    assert alice.get(f"{E1}/resources/NOPE/files?format=zip").status_code == 404


def test_filters(alice: Client) -> None:
    assert names(alice, f"{E1}/scans/1/files?format=zip&file_format=NII") == [
        "mr1/scans/1-T1_w_GRE/resources/NIFTI/files/t1.nii.gz"
    ]
    assert len(names(alice, f"{E1}/resources/110/files/dir/?format=zip")) == 2


def test_range_on_a_reply_of_unknown_size(alice: Client) -> None:
    zipped = f"{E1}/scans/1/files?format=zip"
    for path in (zipped, "/data/projects", f"{E1}/resources/110/files/pack.zip!/top"):
        found = [
            alice.get(path, headers={"Range": f"bytes={value}"}).status_code
            for value in ("5-9", "5-", "-5", "0-0,5-5")
        ]
        assert found == [200, 500, 500, 501]


def test_left_out_and_cut_short(alice: Client, server: DemoServer) -> None:
    server.switches.zip_omit = ["1.d*"]
    assert [name[-5:] for name in names(alice, f"{E1}/scans/1/resources/101/files?format=zip")] == [
        "0.dcm",
        "2.dcm",
    ]
    server.switches.update({"zip_omit": [], "zip_stop_after": 2})
    assert len(names(alice, f"{E1}/files?all=true&format=zip")) == 2  # readable, CRCs good, entries missing
    server.switches.update({"zip_stop_after": -1, "truncate_after_bytes": 300})
    reply = alice.get(f"{E1}/files?all=true&format=zip")
    assert reply.status_code == 200 and len(reply.content) == 300
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(reply.content))


def test_big_members_are_streamed(own: DemoServer) -> None:
    big = Resource(
        900,
        "BIG",
        [CatalogEntry(f"{n}.bin", ComputedContent(f"big{n}", (3 << 20) + n), WHEN) for n in range(2)],
    )
    own.call(lambda: own.archive.experiments["T_E1"].resources.append(big))
    with Client(own) as alice:
        assert names(alice, f"{E1}/resources/900/files?format=zip") == [
            f"mr1/resources/BIG/files/{n}.bin" for n in range(2)
        ]
