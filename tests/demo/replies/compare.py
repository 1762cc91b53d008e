"""What differs between a recorded reply and the stand-in's, as the recordings' README says to compare.

Rows are sets, keys are sets; stamps are only "there" or "blank"; of an error the status alone counts; of zips
the order is free."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections import Counter
from typing import Any

from . import Entry
from .send import Answer

_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+")
_WEEKDAY = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} \d\d \d\d:\d\d:\d\d \w+ \d{4}")
_ROOT = "/data/xnat/archive/"
_NOISE = frozenset({"create_event_id", "start_date"})


def differences(entry: Entry, answer: Answer) -> list[str]:
    """In words; an empty list where both agree."""
    if answer.status != entry["status"]:
        return [f"status {answer.status}, recorded {entry['status']}"]
    if entry["status"] >= 400:
        return []
    found = list(_headers(entry, answer))
    if "transfer" in entry:
        return found + (
            [] if answer.got == entry["got"] else [f"{answer.got} bytes came, recorded {entry['got']}"]
        )
    return found + _body(entry, answer)


def written(entry: Entry, answer: Answer) -> list[str]:
    """What differs between the answers to a write: status, kind and text."""
    if answer.status != entry["status"]:
        return [f"status {answer.status}, recorded {entry['status']}"]
    body = entry["body"]
    if entry["status"] >= 400:
        return []
    wrong = _headers(entry, answer)
    if wrong:
        return wrong
    if "text_pattern" in body:
        return (
            []
            if answer.body.decode() == body["text_pattern"]
            else [f"text {answer.body!r}, recorded {body['text_pattern']!r}"]
        )
    if body.get("html"):
        return [] if answer.headers.get("Content-Type", "").startswith("text/html") else ["no html"]
    if body == {"bytes": 0}:
        return [] if not answer.body else [f"{answer.body[:80]!r}, recorded nothing"]
    return []


def _headers(entry: Entry, answer: Answer) -> list[str]:
    wanted: dict[str, str] = entry["headers"]
    got = answer.headers
    found = [
        f"{name}: {got.get(name)!r}, recorded {wanted.get(name)!r}"
        for name in ("Content-Type", "Content-Disposition", "Content-Range")
        if wanted.get(name) != got.get(name)
    ]
    found += [
        f"{name} {'missing' if name in wanted else 'surplus'}"
        for name in ("Last-Modified", "Accept-Ranges", "Transfer-Encoding", "Content-Length")
        if (name in wanted) != (name in got)
    ]
    lengths = (got.get("Content-Length"), wanted.get("Content-Length"))
    if None not in lengths and lengths[0] != lengths[1] and not _free_length(entry):
        found.append(f"Content-Length {lengths[0]}, recorded {lengths[1]}")
    return found


def _free_length(entry: Entry) -> bool:
    body = entry["body"]
    return isinstance(body, dict) and bool(body.keys() & {"html", "text", "text_pattern"})


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items() if key not in _NOISE}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, str):
        value = _STAMP.sub("<stamp>", _WEEKDAY.sub("<stamp>", value))
        return value.replace(_ROOT, "<archive>/")
    return value


def _frozen(value: Any) -> str:
    """A value in which the order of lists does not count."""
    return json.dumps(_sorted(value), sort_keys=True, ensure_ascii=False)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return value


def _body(entry: Entry, answer: Answer) -> list[str]:
    body = entry["body"]
    if body is None:
        return []
    if "ResultSet" in body:
        return _table(entry, answer)
    if "items" in body:
        try:
            return _tree(_masked(json.loads(answer.body)), _masked(body))
        except ValueError:
            return ["no JSON"]
    if "md5" in body:
        if "varies" in entry:
            return (
                []
                if len(answer.body) == body["length"]
                else [f"length {len(answer.body)}, recorded {body['length']}"]
            )
        return (
            []
            if hashlib.md5(answer.body, usedforsecurity=False).hexdigest() == body["md5"]
            else ["other bytes"]
        )
    if "zip" in body:
        return _multiset("member", _zip(answer.body), Counter(_frozen(item) for item in body["zip"]))
    if "tar" in body:
        return _multiset("member", _tar(answer.body), Counter(_frozen(item) for item in body["tar"]))
    if "csv_header" in body:
        rows = list(csv.reader(io.StringIO(answer.body.decode())))
        found = [] if rows[0] == body["csv_header"] else [f"header {rows[0]}, recorded {body['csv_header']}"]
        return found + _multiset(
            "row",
            Counter(_frozen(_masked(row)) for row in rows[1:]),
            Counter(map(_frozen, _masked(body["csv_rows"]))),
        )
    if "xml_root" in body:
        return _xml(answer.body, body)
    if "bytes" in body and len(body) == 1:
        return (
            []
            if len(answer.body) == body["bytes"]
            else [f"{len(answer.body)} bytes, recorded {body['bytes']}"]
        )
    if "text_pattern" in body:
        text = answer.body.decode()
        pattern = (
            re.escape(body["text_pattern"])
            .replace("<JSESSIONID>", "[0-9A-F]{32}")
            .replace("<secret>", ".+")
            .replace("<uuid>", "[0-9a-f-]+")
        )
        return [] if re.fullmatch(pattern, text) else [f"text {text!r}, recorded {body['text_pattern']!r}"]
    return []


def _table(entry: Entry, answer: Answer) -> list[str]:
    try:
        got = json.loads(answer.body)["ResultSet"]
    except (ValueError, KeyError, TypeError):
        return ["no table"]
    wanted = entry["body"]["ResultSet"]
    found = []
    if "varies" in entry:
        if len(got["Result"]) != len(wanted["Result"]):
            found.append(f"{len(got['Result'])} rows, recorded {len(wanted['Result'])}")
    else:
        rows = Counter(_frozen(_masked(row)) for row in got["Result"])
        found += _multiset("row", rows, Counter(_frozen(row) for row in wanted["Result"]))
    keys = {key for row in got["Result"] for key in row}
    if keys != set(entry["row_keys"]):
        found.append(
            f"keys surplus {sorted(keys - set(entry['row_keys']))} missing "
            f"{sorted(set(entry['row_keys']) - keys)}"
        )
    mine, theirs = ({key: value for key, value in part.items() if key != "Result"} for part in (got, wanted))
    if mine != theirs:
        found.append(f"beside the rows {mine}, recorded {theirs}")
    return found


def _multiset(what: str, got: Counter[str], wanted: Counter[str]) -> list[str]:
    surplus, missing = list((got - wanted).elements()), list((wanted - got).elements())
    found = []
    if surplus or missing:
        found.append(
            f"{sum(got.values())} {what}s, recorded {sum(wanted.values())}; {len(surplus)} surplus, "
            f"{len(missing)} missing"
        )
    return (
        found + [f"  surplus {item}" for item in surplus[:2]] + [f"  missing {item}" for item in missing[:2]]
    )


def _tree(got: Any, wanted: Any, at: str = "") -> list[str]:
    """Where two items differ."""
    if _frozen(got) == _frozen(wanted):
        return []
    if isinstance(got, dict) and isinstance(wanted, dict) and "data_fields" in wanted:
        mine, theirs = got.get("data_fields", {}), wanted["data_fields"]
        found = [
            f"{at}@{key} {mine.get(key)!r}, recorded {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        if got.get("meta") != wanted["meta"]:
            found.append(f"{at} meta {got.get('meta')}, recorded {wanted['meta']}")
        left = {child["field"]: child["items"] for child in got.get("children", [])}
        right = {child["field"]: child["items"] for child in wanted["children"]}
        for field in sorted(left.keys() | right.keys()):
            found += _children(left.get(field, []), right.get(field, []), f"{at}/{field}")
        return found or [f"{at}: differs"]
    if isinstance(got, dict) and "items" in got:
        return _children(got["items"], wanted["items"], at)
    return [f"{at}: differs"]


def _children(got: list[Any], wanted: list[Any], at: str) -> list[str]:
    if len(got) != len(wanted):
        return [f"{at}: {len(got)} items, recorded {len(wanted)}"]
    left = sorted(got, key=lambda item: _key(item))
    right = sorted(wanted, key=lambda item: _key(item))
    return [line for mine, theirs in zip(left, right, strict=True) for line in _tree(mine, theirs, at)]


def _key(item: Any) -> str:
    fields = item.get("data_fields", {})
    parts = [
        str(fields.get(name, "")) for name in ("ID", "xnat_abstractresource_id", "name", "project", "label")
    ]
    return f"{item.get('meta', {}).get('xsi:type')} {parts}"


def _zip(data: bytes) -> Counter[str]:
    members: Counter[str] = Counter()
    if data[:2] != b"PK":
        return Counter(["no zip"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            digest = hashlib.md5(archive.read(info), usedforsecurity=False).hexdigest()
            row = {
                "name": info.filename,
                "size": info.file_size,
                "compress_type": info.compress_type,
                "flags": info.flag_bits,
                "md5": digest,
            }
            members[_frozen(row)] += 1
    return members


def _tar(data: bytes) -> Counter[str]:
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return Counter(
            _frozen({"name": item.name, "size": item.size, "type": item.type.decode()})
            for item in archive.getmembers()
        )


def _xml(data: bytes, body: dict[str, Any]) -> list[str]:
    root = ElementTree.fromstring(data)
    names = Counter(item.tag.rpartition("}")[2] for item in root.iter())
    if root.tag.rpartition("}")[2] != body["xml_root"]:
        return [f"root {root.tag}, recorded {body['xml_root']}"]
    return [] if dict(names) == body["elements"] else [f"elements {dict(names)}, recorded {body['elements']}"]
