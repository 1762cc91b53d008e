"""What the recording looked at before and after each write: stamps, resources, files and experiments, as an
administrator over REST.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .send import Answer, Asker

_SESSIONS = ("XNAT_E00001", "XNAT_E00007", "XNAT_E00008")
_CONCRETE = (
    *(
        "xnat:mrSessionData",
        "xnat:petSessionData",
        "xnat:ctSessionData",
        "xnat:subjectVariablesData",
        "xnat:qcManualAssessorData",
    ),
)
_OWN = "xnat:experimentData/resources/resource/"
_FILE = "xnat:imageScanData/file/"
_OUT = "xnat:imageAssessorData/out/file/"

Row = dict[str, str]


@dataclass
class Look:
    """One look: names of stamps with their values; resources by number; files by URI; experiments of P1 by
    id.
    """

    stamps: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Row] = field(default_factory=dict)
    files: dict[str, Row] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=dict)


class Watcher:
    """Looks at one server."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def _ask(self, target: str) -> Answer:
        entry = {"user": "admin", "auth": "cookie", "method": "GET", "target": target, "note": ""}
        return self._asker.ask(entry)

    def _rows(self, target: str) -> list[Row]:
        answer = self._ask(target)
        if answer.status != 200:
            return []
        rows: list[Row] = json.loads(answer.body)["ResultSet"]["Result"]
        return rows

    def look(self) -> Look:
        seen = Look()
        self._stamps(seen.stamps)
        for owner in [*(f"experiments/{name}" for name in _SESSIONS), "subjects/XNAT_S00001", "projects/P1"]:
            for row in self._rows(f"/data/{owner}/resources?all=true&format=json"):
                seen.resources[row["xnat_abstractresource_id"]] = {
                    key: row[key] for key in ("label", "file_count", "file_size", "format", "content")
                }
            for row in self._rows(f"/data/{owner}/files?all=true&format=json"):
                seen.files[row["URI"]] = {key: row[key] for key in ("Size", "digest", "collection")}
        for row in self._rows(
            "/data/projects/P1/experiments?xsiType=xnat:experimentData&columns=ID,label&format=json"
        ):
            seen.experiments[row["ID"]] = row["label"]
        return seen

    def _stamps(self, stamps: dict[str, str]) -> None:
        def add(kind: str, target: str, key: str, *columns: str) -> None:
            for row in self._rows(target + "&format=json"):
                name = "/".join(row[column] for column in columns)
                if name:
                    stamps[f"{kind} {name}"] = row[key.lower() if ":" in key else key]

        add(
            "project",
            "/data/projects?columns=ID,xnat:projectData/meta/last_modified",
            "xnat:projectData/meta/last_modified",
            "ID",
        )
        add("subject", "/data/projects/P1/subjects?columns=ID,last_modified", "last_modified", "ID")
        every = "/data/experiments?xsiType=xnat:experimentData&columns=ID,last_modified"
        add("experiment(last_modified)", every, "last_modified", "ID")
        for concrete in _CONCRETE:
            column = f"{concrete}/meta/last_modified"
            add("type(concrete)", f"/data/experiments?xsiType={concrete}&columns=ID,{column}", column, "ID")
        for base in ("imageSessionData", "subjectAssessorData", "imageAssessorData"):
            column = f"xnat:{base}/meta/last_modified"
            add(base, f"/data/experiments?xsiType=xnat:{base}&columns=ID,{column}", column, "ID")
        p1 = "/data/projects/P1/experiments?xsiType=xnat:imageSessionData&columns=ID,"
        column = "xnat:imageScanData/meta/last_modified"
        add("scan", f"{p1}xnat:imageScanData/ID,{column}", column, "ID", "xnat:imagescandata/id")
        column = "xnat:mrScanData/meta/last_modified"
        for row in self._rows(f"{p1}xnat:mrScanData/ID,{column}&format=json"):
            if row["xnat:mrscandata/id"]:
                stamps[f"mrScanData {row['ID']}/{row['xnat:mrscandata/id']}"] = row[column.lower()]
        for kind, target, prefix in (
            ("scan resource", p1, _FILE),
            ("session resource", "/data/projects/P1/experiments?columns=ID,", _OWN),
            (
                "assessor resource",
                "/data/projects/P1/experiments?xsiType=xnat:imageAssessorData&columns=ID,",
                _OUT,
            ),
            (
                "subject resource",
                "/data/projects/P1/subjects?columns=ID,",
                "xnat:subjectData/resources/resource/",
            ),
            ("project resource", "/data/projects?columns=ID,", "xnat:projectData/resources/resource/"),
        ):
            number, stamp = f"{prefix}xnat_abstractresource_id", f"{prefix}meta/last_modified"
            add(kind, f"{target}{number},{stamp}", stamp, number.lower())


def changes(before: Look, after: Look) -> dict[str, object]:
    """What differs, in the recording's words; of digests only whether there is one and whether it changed."""
    old, new = before.stamps, after.stamps
    found: dict[str, object] = {
        "stamps_moved": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        "stamps_first_set": sorted(name for name in old.keys() & new.keys() if not old[name] and new[name]),
        "stamps_new": sorted(new.keys() - old.keys()),
        "stamps_gone": sorted(old.keys() - new.keys()),
        "resources_changed": _pairs(before.resources, after.resources),
        "files_changed": {
            name: {when: _shown(row) for when, row in pair.items()}
            for name, pair in _pairs(before.files, after.files).items()
        },
        "experiments_changed": {
            name: [before.experiments.get(name), after.experiments.get(name)]
            for name in before.experiments.keys() | after.experiments.keys()
            if before.experiments.get(name) != after.experiments.get(name)
        },
    }
    return {name: value for name, value in found.items() if value}


def recorded_changes(entry: dict[str, object]) -> dict[str, object]:
    """The same out of a recorded step."""
    names = (
        "stamps_moved",
        "stamps_first_set",
        "stamps_new",
        "stamps_gone",
        "resources_changed",
        "files_changed",
        "experiments_changed",
    )
    found: dict[str, object] = {}
    for name in names:
        value = entry.get(name)
        if name == "files_changed" and isinstance(value, dict):
            value = {uri: {when: _shown(row) for when, row in pair.items()} for uri, pair in value.items()}
        if value:
            found[name] = sorted(value) if isinstance(value, list) else value
    return found


def _pairs(before: dict[str, Row], after: dict[str, Row]) -> dict[str, dict[str, Row | None]]:
    names = before.keys() | after.keys()
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in names
        if before.get(name) != after.get(name)
    }


def _shown(row: Row | None) -> Row | None:
    """The bytes sent differ from the recorded ones, so their digests do."""
    return None if row is None else row | {"digest": "md5" if row["digest"] else ""}
