"""Readers in a process of their own: `python -m benchmark.readers JOB ARGUMENTS...` prints what it measured
as JSON.

Times are taken after the imports. Used by the workloads through `Harness.read`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MOST = 1 << 16


def places(seed: int, count: int, size: int) -> list[int]:
    """Where random reads begin: the same for everybody."""
    chosen = random.Random(seed)
    return [chosen.randrange(0, max(1, size - MOST)) for _ in range(count)]


def first(path: str) -> dict[str, Any]:
    """Open and read the first bytes."""
    begin = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    found = len(os.read(descriptor, 4096))
    return {"seconds": time.perf_counter() - begin, "moment": time.time(), "bytes": found}


def header(path: str) -> dict[str, Any]:
    """The header of an image, by nibabel."""
    import nibabel

    begin = time.perf_counter()
    image: Any = nibabel.load(path)
    shape = [int(value) for value in image.header.get_data_shape()]
    return {"seconds": time.perf_counter() - begin, "shape": shape}


def scattered(path: str, seed: str, count: str, threads: str) -> dict[str, Any]:
    """Random reads of 64 KiB, shared among threads that each open the file for themselves."""
    begin = time.perf_counter()
    starts = places(int(seed), int(count), os.stat(path).st_size)
    found: dict[int, bytes] = {}
    problems: list[str] = []

    def work(share: int) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            for index in range(share, len(starts), int(threads)):
                found[index] = os.pread(descriptor, MOST, starts[index])
            os.close(descriptor)
        except OSError as error:
            problems.append(str(error))

    workers = [threading.Thread(target=work, args=(share,)) for share in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begin
    if problems:
        raise SystemExit(problems[0])
    digest = hashlib.md5(b"".join(found[index] for index in range(len(starts))), usedforsecurity=False)
    return {"seconds": seconds, "md5": digest.hexdigest()}


def pyxnat(url: str, project: str, session: str, destination: str) -> dict[str, Any]:
    """Every file of a session's scans, one by one, as pyxnat's users do it."""
    import pyxnat

    begin = time.perf_counter()
    interface = pyxnat.Interface(server=url, user="demo", password="demo")
    count = 0
    for scan in interface.select.experiment(session).scans():
        for resource in scan.resources():
            folder = Path(destination, scan.id(), resource.label())
            folder.mkdir(parents=True)
            for file in resource.files():
                file.get(str(folder / file.id()))
                count += 1
    seconds = time.perf_counter() - begin
    interface.disconnect()
    return {"seconds": seconds, "files": count, "project": project}


def xnatpy(url: str, project: str, session: str, destination: str) -> dict[str, Any]:
    """A whole session at once, as xnatpy's users do it: a zip, unpacked."""
    import xnat  # type: ignore[import-untyped]

    begin = time.perf_counter()
    with xnat.connect(url, user="demo", password="demo", loglevel="ERROR") as connection:
        connected = time.perf_counter()
        connection.experiments[session].download_dir(destination, verbose=False)
        done = time.perf_counter()
    return {"seconds": done - begin, "connect": connected - begin, "project": project}


def whole(path: str) -> dict[str, Any]:
    """Open, read the first block, read all."""
    begin = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    size = len(os.read(descriptor, MOST))
    first = time.perf_counter() - begin
    while piece := os.read(descriptor, 1 << 20):
        size += len(piece)
    return {"seconds": time.perf_counter() - begin, "first": first, "bytes": size}


def table(path: str, *columns: str) -> dict[str, Any]:
    """What a table, .csv or .xlsx with any number of sheets, holds in some columns: a digest of all rows in
    any order.

    Without columns only the rows are counted. Also run by the Python of bx, for bx's workbooks.
    """
    begin = time.perf_counter()
    count, digest, of_session, sheets = 0, 0, {}, set()
    for sheet, row in _rows(path):
        sheets.add(sheet)
        count += 1
        if columns:
            told = "\0".join(_plain(row[name]) for name in columns)
            digest ^= int(hashlib.md5(told.encode()).hexdigest(), 16)
            of_session[row["ID"]] = of_session.get(row["ID"], 0) + 1
    even = len(set(of_session.values())) == 1
    found = {
        "rows": count,
        "sheets": len(sheets),
        "digest": f"{digest:032x}",
        "sessions": len(of_session),
        "even": even,
    }
    return {"seconds": time.perf_counter() - begin, **found}


def _rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sheet and the cells of each row."""
    if path.endswith(".csv"):
        with open(path, newline="") as file:
            yield from (("", row) for row in csv.DictReader(file))
        return
    import openpyxl  # type: ignore[import-untyped]

    book = openpyxl.load_workbook(path, read_only=True)
    for sheet in book.worksheets:
        rows = sheet.iter_rows(values_only=True)
        names = next(rows)
        if "ID" in names:
            for row in rows:
                yield sheet.title, dict(zip(names, row))  # noqa: B905  (bx's Python may be older)


def _plain(cell: Any) -> str:
    """A cell as text, a number in one spelling."""
    try:
        return f"{float(cell):.9g}"
    except (TypeError, ValueError):
        return "" if cell is None else str(cell)


JOBS = {
    "first": first,
    "header": header,
    "scattered": scattered,
    "pyxnat": pyxnat,
    "xnatpy": xnatpy,
    "whole": whole,
    "table": table,
}

if __name__ == "__main__":
    job, *arguments = sys.argv[1:]
    print(json.dumps(JOBS[job](*arguments)))  # type: ignore[operator]
