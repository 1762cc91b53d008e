"""Writing files and resources: PUT, POST and DELETE below `.../resources`, and catalog refreshes
(xnat-rest.md 4, 13, 14 [X]).

With XNAT's quirks: percent-codes stay in the stored name, a DELETE takes every path that begins alike, what a
user may not write is a 200 that stores nothing. Used by `routes`. Changes the archive on the event loop.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import unquote_plus

from . import changes
from .addresses import Address, Target, plain, resolve
from .call import Call
from .changes import Owner
from .model import BytesContent, Experiment, Resource
from .placed_resources import chosen
from .reply import HttpError, Reply, html_text, nothing, text


def handle(call: Call, address: Address) -> Reply:
    """One write to files or to a resource as a whole."""
    target = resolve(address, call.view)
    _single(target, address)
    if address.tail == "files":
        return (
            _delete_files(call, address, target)
            if call.method == "DELETE"
            else _put_files(call, address, target)
        )
    if call.method == "DELETE":
        return _delete_resource(call, address, target)
    return _make_resource(call, address, target)


def _single(target: Target, address: Address) -> None:
    """Only GET takes several objects: two scans that one name picks are "not found" here."""
    lists = (target.experiments, target.scans, target.assessors, target.reconstructions)
    if any(items is not None and len(items) > 1 for items in lists) or (
        "experiments" in address.names and not target.experiments
    ):
        raise HttpError(404)


def owner_of(target: Target) -> Owner:
    """Where a resource of the addressed object goes; what is put into an assessor or reconstruction lands in
    its `out`, always.
    """
    if target.scans:
        session, scan = target.scans[0]
        return Owner(scan.resources, session, scan)
    if target.reconstructions:
        session, reconstruction = target.reconstructions[0]
        return Owner(reconstruction.out_resources, session)
    if target.assessors:
        return Owner(target.assessors[0].out_resources, target.assessors[0])
    if target.experiments:
        experiment = target.experiment
        return Owner(experiment.out_resources if experiment.is_assessor else experiment.resources, experiment)
    if target.subject is not None:
        return Owner(target.subject.resources, subject=target.subject)
    if target.project is not None:
        return Owner(target.project.resources, project=target.project)
    raise HttpError(404)


def _projects(owner: Owner) -> list[str]:
    item = owner.experiment or owner.subject
    if item is not None:
        return [item.project, *item.shares]
    return [owner.project.id] if owner.project is not None else []


def may_edit(call: Call, owner: Owner) -> bool:
    return any(call.view.may_edit(call.archive.projects.get(name)) for name in _projects(owner))


def may_delete(call: Call, owner: Owner) -> bool:
    return any(call.view.may_delete(call.archive.projects.get(name)) for name in _projects(owner))


def _found(call: Call, address: Address, target: Target) -> list[tuple[Resource, Owner]]:
    return [(item.resource, item.owner) for item in chosen(address, target, call.view, False)]


def _put_files(call: Call, address: Address, target: Target) -> Reply:
    owner = owner_of(target)
    if not may_edit(call, owner):
        return nothing()  # a 200, and nothing is stored
    sent = _sent(call, address)
    if call.query.get("extract", "").lower() == "true":
        sent = [pair for name, data in sent for pair in _extracted(name, data)]
    matches = _found(call, address, target)
    resource, owner = matches[0] if matches else (_new_resource(call, address, owner), owner)
    there = {entry.path for entry in resource.entries}
    overwrite = call.query.get("overwrite", "").lower() == "true"
    fresh = [(path, data) for path, data in sent if overwrite or path not in there]
    if fresh:
        _store(call, resource, owner, fresh, new=not matches)
    duplicates = [path for path, _ in sent if path in there and not overwrite]
    if duplicates:
        return html_text(json.dumps({"duplicates": duplicates}, separators=(",", ":")))
    return text("")


def _store(call: Call, resource: Resource, owner: Owner, files: list[tuple[str, bytes]], new: bool) -> None:
    archive = call.archive
    before = changes.stats(resource)
    moment = archive.tick()
    for path, data in files:
        entry = changes.put(resource, path, BytesContent(data), moment)
        entry.format = call.query.get("format", entry.format)
        entry.content_code = call.query.get("content", entry.content_code)
        entry.tags = call.query.get("tags", entry.tags)
    resource.format = resource.format or call.query.get("format", "")
    resource.content = resource.content or call.query.get("content", "")
    if new:
        changes.add_resource(archive, owner, resource)
    else:
        changes.written(archive, resource, owner, before)


def _new_resource(call: Call, address: Address, owner: Owner) -> Resource:
    label = plain(address.names.get("resources", ""))
    if re.fullmatch(r"[0-9]+", label):
        raise HttpError(404)  # a number that is none
    raw = (
        "RAW" if owner.scan is not None and not owner.group else ""
    )  # the first resource of a scan is taken to be the raw data
    return Resource(
        call.archive.next_number(),
        label,
        content=call.query.get("content", raw),
        format=call.query.get("format", ""),
    )


def _sent(call: Call, address: Address) -> list[tuple[str, bytes]]:
    """The files of a request with their paths: one in the body, or those of a form."""
    raw = address.file_path or ""
    # Percent-codes stay as they are, but for those of a space and a plus, which have all of the path decoded.
    path = unquote_plus(raw) if "%20" in raw or "%2B" in raw else raw
    if call.query.get("inbody", "").lower() == "true":
        if not call.body or "content-length" not in call.headers:
            raise HttpError(500, "The length of the body is not known, or 0.")
        return [(path, call.body)]
    parts = list(_form(call))
    if not parts:
        raise HttpError(400, "Unable to identify upload format.")
    return [(path or name, data) for name, data in parts]


def _form(call: Call) -> Iterator[tuple[str, bytes]]:
    kind = call.headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n" + call.body
    )
    for part in message.iter_parts():
        name, data = part.get_filename(), part.get_payload(decode=True)
        if name and isinstance(data, bytes):
            yield name, data


def _extracted(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of a zip; what is none stores nothing, and says nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, archive.read(info)
    except zipfile.BadZipFile:
        return


def _delete_files(call: Call, address: Address, target: Target) -> Reply:
    """Every file whose path begins with the one named; with none named, all."""
    if not may_delete(call, owner_of(target)):
        raise HttpError(403)
    matches = _found(call, address, target)
    if not matches:
        raise HttpError(400, "Unable to find resource.")
    resource, owner = matches[0]
    raw = address.file_path or ""
    beginning = unquote_plus(raw) if "%20" in raw or "%2B" in raw else raw
    doomed = [entry for entry in resource.entries if entry.path.startswith(beginning)]
    if not doomed:
        raise HttpError(404)
    before = changes.stats(resource)
    for entry in doomed:
        resource.entries.remove(entry)
    resource.counted = None
    changes.written(call.archive, resource, owner, before)
    return nothing()


def _make_resource(call: Call, address: Address, target: Target) -> Reply:
    owner = owner_of(target)
    if not may_edit(call, owner):
        raise HttpError(403)
    label = address.names.get("resources")
    if label is not None and _found(call, address, target):
        raise HttpError(409, "Specified resource already exists.")
    resource = _new_resource(call, address, owner) if label is not None else _unlabelled(call)
    resource.stats_known = False
    changes.add_resource(call.archive, owner, resource)
    return nothing() if label is not None else text(f"/data/{call.path.rstrip('/')}/{resource.id}")


def _unlabelled(call: Call) -> Resource:
    """POST to a list of resources: no label is taken from the query."""
    return Resource(
        call.archive.next_number(),
        "",
        format=call.query.get("format", ""),
        content=call.query.get("content", ""),
    )


def _delete_resource(call: Call, address: Address, target: Target) -> Reply:
    """All that the name picks; a label that none has is a 200 too."""
    if not may_delete(call, owner_of(target)):
        raise HttpError(403)
    matches = _found(call, address, target)
    for resource, owner in matches:
        owner.group.remove(resource)
    if matches:
        changes.touched(call.archive, matches[0][1])
    return nothing()


_REFRESHED = re.compile(r"/archive/(projects|subjects|experiments)/([^/]+)((?:/.*)?)")
_ALL = "append,checksum,delete,populateStats"


def refresh(call: Call) -> Reply:
    """`POST /services/refresh/catalog?resource=/archive/...&options=...`: without options, all of them."""
    match = _REFRESHED.fullmatch(call.query.get("resource", ""))
    options = set(call.query.get("options", _ALL).split(","))
    kind, name, rest = match.groups() if match is not None else ("", "", "")
    archive = call.archive
    experiment: Experiment | None = None
    if kind == "experiments":
        experiment = call.view.find_experiment(name)
    owned = [
        owner
        for owner in changes.owners(archive)
        if owner.project is not None and kind == "projects" and owner.project.id == name
    ]
    owned += [
        owner
        for owner in changes.owners(archive)
        if owner.subject is not None and kind == "subjects" and owner.subject.id == name
    ]
    if experiment is not None:
        below = {
            experiment.id,
            *(item.id for item in archive.experiments.values() if item.session_id == experiment.id),
        }
        owned += [
            owner
            for owner in changes.owners(archive)
            if owner.experiment is not None and owner.experiment.id in below
        ]
    if not owned:
        raise HttpError(400, "Unable to identify resource.")
    label = rest.partition("/resources/")[2].strip("/")
    scan = re.match(r"/scans/([^/]+)", rest)
    for owner in owned:
        if scan is not None and (owner.scan is None or owner.scan.id != scan[1]):
            continue
        for resource in list(owner.group):
            # One without a label is passed over when a whole session is refreshed, as executed.
            if label in (resource.label, str(resource.id)) if label else resource.label:
                changes.refresh(archive, resource, owner, options)
    return nothing()
