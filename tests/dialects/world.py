"""The server of the matrix: a small archive that has one of everything, and its replies kept by address, so
that a cell costs milliseconds and no socket.

Used by `cells`. What a client asks goes through all of xnatfs down to `requests`' adapter; there the reply
that the stand-in gave to the same request is given again, as it was or changed.
Threading: `Wire.answer` is called by the threads of the client; one lock guards the counts.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from tests.support import composed
from xnatfs import retry
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.data import freesurfer
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import Archive
from xnatfs.demo.server import DemoServer
from xnatfs.server import login_state
from xnatfs.tree.generated import GeneratedFile
from xnatfs.tree.node import Folder, Node
from xnatfs.tree.resource import ResourceFile

LIMITS = Limits(cache_size=10**9, min_free=0, ttl=60.0, progress_deadline=20.0, listing_deadline=30.0)
ERROR = "http:error"  # the key of a path's errno in a tree


@dataclass(frozen=True)
class Reply:
    """One answer of a server; `headers` in the order they came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def with_body(self, body: bytes, kind: str | None = None, *more: tuple[str, str]) -> Reply:
        """The same with another body, and a Content-Type if `kind` is one."""
        dropped = {
            "content-length",
            "transfer-encoding",
            *(name.lower() for name, _ in more),
            *({"content-type"} if kind else ()),
        }
        headers = [one for one in self.headers if one[0].lower() not in dropped]
        if kind:
            headers.append(("Content-Type", kind))
        return replace(self, body=body, headers=(*headers, *more, ("Content-Length", str(len(body)))))


@dataclass(frozen=True)
class Asked:
    """A request: its path, decoded, and its query."""

    path: str
    query: dict[str, str]

    @classmethod
    def of(cls, url: str) -> Asked:
        """From a URL."""
        parts = urlsplit(url)
        return cls(unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True)))

    @property
    def columns(self) -> str:
        """The columns asked for."""
        return self.query.get("columns", "")


Change = Callable[[Asked, Reply], Reply]


class Wire:
    """What lies between the client and the stand-in: keeps its replies, counts, and changes what it is to.

    Attributes:
        change: applied to each reply; None: nothing.
        asked: how often each address was asked for since `clear`.
    """

    def __init__(self, server: DemoServer) -> None:
        self.server = server
        self.change: Change | None = None
        self.asked: Counter[str] = Counter()
        self.logins = 0
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, bool, bool], Reply] = {}
        self._send = HTTPAdapter.send

    def clear(self) -> None:
        """Count from zero."""
        with self._lock:
            self.asked.clear()
            self.logins = 0

    def answer(
        self, adapter: HTTPAdapter, request: requests.PreparedRequest, *arguments: Any, **options: Any
    ) -> requests.Response:
        """In place of `HTTPAdapter.send`."""
        url, method = str(request.url), str(request.method)
        key = (method, url, "Cookie" in request.headers, "Authorization" in request.headers)
        with self._lock:
            kept = self._kept.get(key)
            self.asked[url[len(self.server.url) :]] += 1
            self.logins += url.endswith("/data/JSESSION") and method == "GET"
        if method == "DELETE":  # else the session that the kept replies go with would be over
            return adapter.build_response(request, _raw(Reply(200, (), b"")))
        if kept is None:
            with self._send(adapter, request, *arguments, **options) as response:
                headers = tuple(response.raw.headers.items())
                kept = Reply(response.status_code, headers, response.raw.read(decode_content=False))
            with self._lock:
                self._kept[key] = kept
        if self.change is not None and method == "GET":
            kept = self.change(Asked.of(url), kept)
        return adapter.build_response(request, _raw(kept))


def _raw(reply: Reply) -> urllib3.HTTPResponse:
    message = Message()
    for name, value in reply.headers:
        message[name] = value
    raw = urllib3.HTTPResponse(
        io.BytesIO(reply.body), urllib3.HTTPHeaderDict(reply.headers), reply.status, preload_content=False
    )
    raw._original_response = SimpleNamespace(msg=message, isclosed=lambda: True, close=lambda: None)  # type: ignore[assignment]
    return raw


def archive() -> Archive:
    """Project P: its own resource; subject s1 with one, two sessions, of which S1 has two scans, results, an
    assessor with out, in and other resources, a reconstruction with both; subject s2 with a session and data
    that are no images; a session shared from Q.
    """
    made = Archive(site="T")
    make = Maker(made, datetime(2024, 1, 8, 9, 15))
    make.user("demo")
    project = make.project("P", "P", members=["demo"])
    other = make.project("Q", "Q", members=["demo"])
    make.resource(project, "docs", {"a.txt": b"a"})
    first, second = make.subject(project, "s1"), make.subject(project, "s2")
    make.resource(first, "consent", {"c.txt": b"cc"})
    session = make.experiment(first, "S1", date="2024-01-08")
    one = make.scan(session, "1", "T1")
    make.resource(one, "DICOM", {"1.dcm": b"one", "2.dcm": b"two!"}, format="DICOM")
    make.resource(one, "NIFTI", {"t1.nii": b"nifti"})
    make.resource(make.scan(session, "2", "T2"), "NIFTI", {"t2.nii": b"more"})
    stats = {"stats/aseg.stats": freesurfer.aseg_stats(session.id, "7", "s1")}
    make.resource(session, "FREESURFER7", stats)
    assessor = make.assessor(session, "A1")
    make.resource(assessor.out_resources, "OUT", {"o1": b"o", "o2": b"oo"})
    make.resource(assessor.in_resources, "IN", {"i": b"in"})
    make.resource(assessor, "PLAIN", {"p": b"plain"})
    reconstruction = make.reconstruction(session, "R1", "mean")
    make.resource(reconstruction.out_resources, "RO", {"r": b"ro"})
    make.resource(reconstruction.in_resources, "RI", {"r": b"r in"})
    again = make.experiment(first, "S2", date="2024-02-08")
    make.resource(make.scan(again, "1", "T1"), "NIFTI", {"t1.nii": b"third"})
    make.resource(again, "FREESURFER7", {"stats/aseg.stats": freesurfer.aseg_stats(again.id, "7", "s1")})
    pet = make.experiment(second, "PET", "xnat:petSessionData", date="2024-03-08")
    make.resource(make.scan(pet, "1", "AC", xsi_type="xnat:petScanData"), "NIFTI", {"ac.nii": b"pet"})
    visit = make.experiment(second, "VISIT", "xnat:subjectVariablesData", date="2024-03-09")
    make.resource(visit, "FORMS", {"form.pdf": b"pdf"})
    shared = make.experiment(make.subject(other, "q1"), "QS", date="2024-04-08")
    make.resource(make.scan(shared, "9", "FLAIR"), "NIFTI", {"flair.nii": b"flair"})
    shared.shares["P"] = "QP"
    return made


@contextlib.contextmanager
def wired(profile: str) -> Iterator[Wire]:
    """The stand-in in a profile, and all of this process's requests answered from it."""
    with DemoServer(archive(), Switches(profile=profile, session_timeout_s=1e9)) as server:
        wire = Wire(server)
        before = HTTPAdapter.send

        def send(adapter: HTTPAdapter, request: requests.PreparedRequest, *more: Any, **options: Any) -> Any:
            return wire.answer(adapter, request, *more, **options)

        HTTPAdapter.send = send  # type: ignore[method-assign]
        try:
            yield wire
        finally:
            HTTPAdapter.send = before  # type: ignore[method-assign]


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Without the pauses: what is tried here is what is asked, not when."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FIRST_PAUSE_S", 0.001)
        patch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
        patch.setattr(login_state, "_CALM", 0.01)
        yield


@contextlib.contextmanager
def mounted(wire: Wire, folder: Path) -> Iterator[Core]:
    """A mount without FUSE; what is in `folder` an earlier one left."""
    with composed(wire.server.url, folder, limits=LIMITS) as core:
        yield core


@dataclass
class Tree:
    """What a walk saw. `files`: identity (resource number and path in it) to where; `folders`; `errors` by
    path.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    errors: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def tree_of(core: Core, top: str = "projects") -> Tree:
    """Walk all below a folder of the root, going on after each error. By its nodes: the look-ups of paths are
    not what is tried here, and would be half of the time.
    """
    seen = Tree()
    root = core.vfs._root.entries()[top]
    todo: list[tuple[str, Node]] = [(f"/{top}", root)]
    while todo:
        path, node = todo.pop()
        if isinstance(node, ResourceFile):
            identity = f"{node.record.resource_id}:{node.record.path}"
            seen.files.setdefault(identity, []).append(path)
            seen.sizes[identity] = node.size
            continue
        if isinstance(node, GeneratedFile) and path == f"/projects/{path.split('/')[2]}/README.txt":
            continue  # that nothing can be read there, in words; the folders beside it say so in numbers
        assert isinstance(node, Folder), path
        try:
            entries = node.entries()
        except OSError as error:
            seen.errors[path] = error.errno or 0
            continue
        seen.folders.add(path)
        todo += [(f"{path}/{name}", below) for name, below in entries.items()]
    return seen
