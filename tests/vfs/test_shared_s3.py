"""The shared tier in an object store, by the S3 interface of moto's server, which runs in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.vfs.conftest import Compose, Shelf
from tests.vfs.test_shared_cache import SIZE, contents, everything, given, together
from xnatfs.cache.shared_objects import SharedObjects

moto = pytest.importorskip("moto.server", reason="moto is not installed: it is in the extra `test`")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import boto3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("werkzeug"), "disabled", True)
        for name, value in (
            ("ACCESS_KEY_ID", "x"),
            ("SECRET_ACCESS_KEY", "x"),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(f"AWS_{name}", value)
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        boto3.client("s3").create_bucket(Bucket="nodes")
        try:
            yield "s3://nodes"
        finally:
            server.stop()


def test_each_byte_leaves_the_server_once(shelf: Shelf, compose: Compose, bucket: str) -> None:
    """As in a folder; one who comes later asks the server for no content, and is served nothing wrong."""
    place = f"{bucket}/tier"
    for number in range(4):
        resource = shelf.make.resource(shelf.session, f"A{number}")
        resource.entries.append(shelf.make.entry("f", bytes([number]) * SIZE))
    nodes = [compose(shelf.server, f"n{number}", shared_cache=place) for number in range(3)]
    read_by_each = together(nodes, everything)
    assert len(read_by_each[0]) == 4 and all(one == read_by_each[0] for one in read_by_each)
    assert contents(shelf.server) == 4 * SIZE
    for number in range(8):  # which come as a zip, and from the tier by several requests at once
        shelf.put(shelf.make.entry(f"g{number}", bytes([16 + number]) * SIZE))
    nodes[0].refresh()
    expected = everything(nodes[0])
    assert sum(given(one)["files given"] for one in nodes) == 12
    tier = SharedObjects(place)
    paths = sorted(tier._store.find(f"{tier._root}/objects"))
    leases = tier._store.find(f"{tier._root}/leases")
    assert len(paths) == 12 and all("/leases/mount-" in one for one in leases)  # none of a download
    tier._store.pipe_file(paths[0], b"x" * SIZE)
    shelf.server.clear_log()
    later = compose(shelf.server, "later", shared_cache=place)
    assert everything(later) == expected
    assert contents(shelf.server) == SIZE
    assert given(later)["damaged"] == 1 and given(later)["files taken"] == 11


def test_a_lease_is_one_nodes(bucket: str) -> None:
    """Created once, seen by the other, changed when it is renewed, removed by its holder alone."""
    one, other = SharedObjects(f"{bucket}/leases"), SharedObjects(f"{bucket}/leases")
    assert one.lease("zip-1") == "" and one.claim("zip-1", "a") and not other.claim("zip-1", "b")
    before = other.lease("zip-1")
    one.renew("zip-1", "a")
    assert other.lease("zip-1") != before
    other.release("zip-1", "b")
    assert other.lease("zip-1")
    one.release("zip-1", "a")
    assert other.lease("zip-1") == "" and other.claim("zip-1", "b")
