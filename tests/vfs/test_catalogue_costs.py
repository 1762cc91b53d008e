"""A resource of many entries, on a server that parses its catalogue at each request for one of its files:
counted, not timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support import read, walk
from tests.vfs.conftest import Compose
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer

FILES, SIZE = 2000, 30_000
MANY, FEW = "/projects/P/subjects/s/S/RESOURCES/MANY", "/projects/P/subjects/s/S/SCANS"


@pytest.fixture
def server() -> Iterator[DemoServer]:
    archive = Archive(site="T")
    make = Maker(archive, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    session = make.experiment(
        make.subject(make.project("P", "P", members=["demo"]), "s"), "S", date="2024-01-08"
    )
    for number in range(300):
        make.resource(make.scan(session, str(number + 1), "T"), "NIFTI", {f"{number}.nii": b"%d" % number})
    make.resource(
        session, "MANY", {f"f{number:05}.dcm": b"%05d" % number * (SIZE // 5) for number in range(FILES)}
    )
    with DemoServer(archive, Switches(catalog_entry_cost_us=65)) as made:
        yield made


@pytest.mark.parametrize("beside", [0, 10], ids=["alone", "beside another reader"])
def test_many_small_files_come_as_a_zip_from_the_second_on(
    server: DemoServer, compose: Compose, beside: int
) -> None:
    """Each would cost the server 0.13 s; that others, from resources of one file, come in 2 ms says nothing
    of these.
    """
    vfs = compose(server).vfs
    few = [name for name, _ in walk(vfs, FEW)]
    for name in few[:50]:
        read(vfs, name)
    others = iter(few[50:])
    for number, (name, _) in enumerate(walk(vfs, MANY)):
        for other in [next(others) for _ in range(beside)] if number < 20 else ():
            read(vfs, other)
        assert read(vfs, name) == b"%05d" % number * (SIZE // 5)
    zips = server.requests(r"resources/\d+/files\?.*format=zip")
    single = server.requests(r"^GET .*f\d{5}\.dcm")
    assert len(zips) == 1 and len(single) <= 2, len(single)
