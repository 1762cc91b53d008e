"""URLs of an XNAT: how objects, resources and files are addressed, and what a file's URI in a listing says.

Used by `listing_requests`, `resources` and `downloads`. Pure functions. Addresses are made of what we
asked: the owner's ids and the number of the resource. A URI of a listing only tells whose a row is, and its
path inside the resource.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from xnatfs.server.records import FileRecord, Owner, ResourceRecord
from xnatfs.server.resultset import number

_FILES = re.compile(r"/resources/(\d+)/files/", re.IGNORECASE)
_AWKWARD = frozenset("/,%;\\")
# Labels are compared as they stand in the URL, still encoded; digits are always taken for a number, which any
# other resource of the server may have, and `NULL` for those without a label (xnat-rest.md 7).
_LABEL = re.compile(r"(?!(?:[0-9]+|NULL|\.\.?)$)[A-Za-z0-9_.-]+")
_PREFIX = re.compile(r"^(?:/(?:data|REST|archive)(?=/))+")


def encode(path: str) -> str:
    """Percent-encode every byte outside `A-Za-z0-9-._~/` (xnat-rest.md 3: then it reaches XNAT intact)."""
    return quote(path, safe="/-._~", errors="surrogatepass")


def segment(text: str) -> str:
    """Encode one path segment. A `.` or `..`, which every HTTP library would take out of the URL, becomes
    what is none: not found.
    """
    return (
        text.replace(".", "%252E")
        if text in (".", "..")
        else quote(text, safe="-._~", errors="surrogatepass")
    )


def part(text: str) -> str:
    """Encode a scan or reconstruction id, where XNAT takes a comma for a list and has its own escapes
    (xnat-rest.md 2.5).
    """
    return segment(text.replace("/", "[SLASH]").replace(",", "[COMMA]"))


def with_data(uri: str) -> str:
    """The URI below `/data`: listings give it with or without (xnat-rest.md 2.4)."""
    return "/data" + _PREFIX.sub("", uri)


def split_file_uri(uri: str, resource_id: str) -> tuple[str, str] | None:
    """(base, path) of a file row's URI: the base up to and with `/files`, and the path inside the resource;
    None if it is no such URI.

    The URI is not percent-encoded and the path is anybody's, so the *first* `/resources/<cat_ID>/files/` ends
    the base: what comes before it (ids, scan ids) is the server's.
    """
    marker = f"/resources/{resource_id}/files/"
    at = uri.find(marker)
    if at >= 0:
        end = at + len(marker)
    elif match := _FILES.search(uri):
        end = match.end()
    else:
        at = uri.find("/files/")
        if at < 0:
            return None
        end = at + len("/files/")
    return with_data(uri[: end - 1]), uri[end:]


def resource_number(uri: str, resource_id: str) -> int | None:
    """The number of the resource of a file row: as its `cat_ID` has it and, where the URI has one, that one
    too; None if they differ, or neither has one.
    """
    said = number(resource_id)
    match = _FILES.search(uri)
    if match is None or (said is not None and f"/resources/{said}/files/" in uri):
        return said
    return int(match[1]) if said is None else None


def owner_of(base: str) -> Owner | None:
    """What the resource at `base` belongs to, as far as the URI tells; None where it cannot be told.

    Forms (xnat-rest.md 2.4): `[/projects/P[/subjects/S]]/experiments/E[/scans/N | /assessors/A[/in|/out] |
    /reconstructions/R[/in|/out]]`, `[/projects/P]/subjects/S`, `/projects/P`.
    """
    head = re.split(r"/(?:resources/[^/]*/)?files$", base)[0]
    parts = _PREFIX.sub("", head).strip("/").split("/")
    found: dict[str, str] = {}
    index = 0
    while index + 1 < len(parts):
        word = parts[index]
        if word in ("projects", "subjects", "experiments"):
            found[word] = parts[index + 1]
            index += 2
        elif word in ("scans", "assessors", "reconstructions"):
            rest = parts[index + 1 :]
            direction = rest.pop() if len(rest) > 1 and rest[-1] in ("in", "out") and word != "scans" else ""
            found[word], found["direction"] = "/".join(rest), direction  # a scan id may hold a slash
            break
        else:
            return None
    experiment, direction = found.get("experiments", ""), found.get("direction", "")
    if "scans" in found:
        return Owner("scan", experiment, found["scans"])
    if "assessors" in found:
        return Owner("assessor", found["assessors"], experiment, direction)
    if "reconstructions" in found:
        return Owner("reconstruction", experiment, found["reconstructions"], direction)
    if experiment:
        return Owner("experiment", experiment)
    if "subjects" in found:
        return Owner("subject", found["subjects"])
    return Owner("project", found["projects"]) if "projects" in found else None


def path_of(owner: Owner) -> str:
    """The encoded path of what a resource belongs to, by ids only (labels with spaces cannot be addressed,
    xnat-rest.md 7).
    """
    top = "experiments" if owner.level not in ("project", "subject") else owner.level + "s"
    if owner.level == "scan":
        return f"/data/experiments/{segment(owner.id)}/scans/{part(owner.part)}"
    if owner.level == "reconstruction":
        return f"/data/experiments/{segment(owner.id)}/reconstructions/{part(owner.part)}" + _direction(owner)
    if owner.level == "assessor" and owner.part:
        return f"/data/experiments/{segment(owner.part)}/assessors/{segment(owner.id)}" + _direction(owner)
    return f"/data/{top}/{segment(owner.id)}"


def addressable(resource: ResourceRecord) -> bool:
    """Whether one request can ask for just this resource: its scan id, or its label where that is all there
    is, may not stand in a URL.
    """
    if awkward(resource.owner):
        return False
    return resource.id is not None or bool(_LABEL.fullmatch(resource.label))


def resource_path(owner: Owner, number: int | None, label: str = "") -> str:
    """The encoded path of a resource: by its number, which is exact; by its label where that is all there is
    (see `addressable`).

    Scan ids that cannot stand in a URL are left out: a comma is taken for a list, and Spring's firewall
    refuses `%`, `;` and `\\` even when encoded (xnat-rest.md 3); the number says which one is meant among
    `ALL`.
    """
    where = all_of(owner) if awkward(owner) else path_of(owner)
    return f"{where}/resources/{segment(label) if number is None else number}"


def files_path(record: FileRecord) -> str:
    """The encoded path of the `/files` of a file's resource."""
    return resource_path(record.owner, record.resource_id or None, record.resource_label) + "/files"


def all_of(owner: Owner) -> str:
    """The encoded path of all scans (or reconstructions) of the session of one."""
    return f"/data/experiments/{segment(owner.id)}/{owner.level}s/ALL{_direction(owner)}"


def awkward(owner: Owner) -> bool:
    """Whether it is named by a scan (or reconstruction) id that cannot stand in a URL."""
    return owner.level in ("scan", "reconstruction") and (
        bool(_AWKWARD & set(owner.part)) or owner.part in (".", "..")
    )


def _direction(owner: Owner) -> str:
    return f"/{owner.direction}" if owner.direction else ""
