"""atheris on one parser: `python -m fuzzing.bytewise NAME CORPUS SECONDS`. A process of its own, which ends
with an error when it finds something. The corpus begins with right documents; what reaches new lines is kept
in it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["xnatfs.server", "xnatfs.tables", "xnatfs.bids", "stream_unzip", "zipfile", "json"]
):
    import requests
    import urllib3

    from tests.fuzz import test_contents, test_tables
    from xnatfs.auth.credentials import Credentials
    from xnatfs.config import Settings
    from xnatfs.errors import Failure
    from xnatfs.server.connection import Connection
    from xnatfs.server.records import Owner
    from xnatfs.server.resources import _files
    from xnatfs.server.resultset import rows_of

_URL = "http://127.0.0.1:9"
_LONGEST = 20_000  # bytes of a document
_MEMORY = 2048  # MB


def _connection() -> Connection:
    return Connection(Settings(_URL), Credentials(_URL, "who", "secret", "the fuzzer"))


def _listing(body: bytes) -> None:
    response = requests.Response()
    response.status_code, response.url = 200, _URL
    response.raw = urllib3.HTTPResponse(io.BytesIO(body), status=200, preload_content=False)
    with contextlib.suppress(ValueError, Failure):
        _files(rows_of(response), lambda _: Owner("scan", "E1", "1"))


def _targets() -> dict[str, Callable[[bytes], Any]]:
    return {"listing": _listing, "zip": test_contents.zip_target(_connection()), **test_tables.TARGETS}


def _seeds(name: str) -> Iterator[bytes]:
    if name == "listing":
        rows = [
            {
                "URI": "/data/experiments/E1/scans/1/resources/7/files/a/b.dcm",
                "cat_ID": "7",
                "Size": "5",
                "digest": "a" * 32,
            }
        ]
        yield json.dumps({"ResultSet": {"Result": rows, "totalRecords": "1"}}).encode()
    elif name == "zip":
        for streamed in (False, True):
            yield test_contents._zip(
                [("a", b"hello"), ("b/c", b"x" * 100)], 8, streamed, False, "S/scans/1/resources/D/files/"
            )
    elif name == "image":
        yield test_tables.nifti()
        yield test_tables.nifti2([3, 2, 1, 1, 1, 1, 1, 1], [1.0] * 8, 544, 1.0, 0.0, 2, b"\x01\x02")
    elif name == "workbook":
        yield test_tables.book(test_tables._sheet('<row><c r="A1"><v>1</v></c></row>'), test_tables.EMPTY)
    else:
        yield from (
            content[:4000]
            for some in test_tables.samples().values()
            for path, content in some
            if path.endswith(".stats")
        )


def main() -> None:
    """Run; atheris ends the process."""
    name, corpus, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(_seeds(name)):
        (corpus / f"seed{number}").write_bytes(seed[:_LONGEST])
    target = _targets()[name]
    options = (
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        f"-rss_limit_mb={_MEMORY}",
        "-timeout=20",
        f"-artifact_prefix={corpus}-",
    )
    atheris.Setup([sys.argv[0], str(corpus), *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
