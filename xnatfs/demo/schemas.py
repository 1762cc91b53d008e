"""`/xapi/schemas`: just enough XSD for xnatpy to build its classes (bx.md 6.2).

The types xnatpy needs are written out below; types that only the data uses (FreeSurfer's, say) are derived
from them. Used by `xapi`. Pure, any thread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .model import Archive
from .pages import tomcat_error
from .reply import Reply


@dataclass(frozen=True)
class _Type:
    """A complexType: attributes and plain elements as `name:xsdtype`, wrappers as `wrapper/element:type` (one
    `wrapper` holding many).
    """

    name: str
    base: str = ""
    attributes: str = ""
    elements: str = ""
    wrappers: str = ""


_TYPES = (
    _Type(
        "projectData",
        "",
        "ID secondary_ID",
        "name description keywords",
        "resources/resource:abstractResource subjects/subject:subjectData "
        "experiments/experiment:experimentData",
    ),
    _Type("demographicData", "", "", "gender yob:integer age:integer"),
    _Type(
        "subjectData",
        "",
        "ID project group label src",
        "demographics:demographicData",
        "resources/resource:abstractResource experiments/experiment:subjectAssessorData",
    ),
    _Type(
        "experimentData",
        "",
        "ID project label",
        "date:date time:time note",
        "resources/resource:abstractResource",
    ),
    _Type("derivedData", "experimentData"),
    _Type("subjectAssessorData", "experimentData", "", "subject_ID"),
    _Type(
        "imageSessionData",
        "subjectAssessorData",
        "UID modality",
        "scanner session_type dcmPatientName dcmPatientId",
        "scans/scan:imageScanData reconstructions/reconstructedImage:reconstructedImageData "
        "assessors/assessor:imageAssessorData",
    ),
    _Type("mrSessionData", "imageSessionData", "", "fieldStrength"),
    _Type("petSessionData", "imageSessionData"),
    _Type("ctSessionData", "imageSessionData"),
    _Type(
        "imageScanData",
        "",
        "ID type UID project",
        "image_session_ID note quality series_description frames:integer startTime modality "
        "file:abstractResource*",
    ),
    _Type("mrScanData", "imageScanData", "", "fieldStrength"),
    _Type("petScanData", "imageScanData"),
    _Type("ctScanData", "imageScanData"),
    _Type(
        "imageAssessorData",
        "derivedData",
        "",
        "imageSession_ID",
        "in/file:abstractResource out/file:abstractResource",
    ),
    _Type(
        "reconstructedImageData",
        "",
        "ID type",
        "image_session_ID baseScanType",
        "in/file:abstractResource out/file:abstractResource",
    ),
    _Type("abstractResource", "", "label file_count:integer file_size:integer", "note"),
    _Type("resource", "abstractResource", "URI format description content"),
    _Type("resourceCatalog", "resource"),
)
_KNOWN = frozenset(f"xnat:{item.name}" for item in _TYPES)
_ELEMENTS = {
    "Project": "projectData",
    "Subject": "subjectData",
    "Experiment": "experimentData",
    "MRSession": "mrSessionData",
    "PETSession": "petSessionData",
    "CTSession": "ctSessionData",
    "MRScan": "mrScanData",
    "PETScan": "petScanData",
    "CTScan": "ctScanData",
}


def answer(parts: list[str], archive: Archive) -> Reply:
    """The list of schemas, or one of them."""
    derived = _derived(archive)
    names = ["xdat", "xnat", *sorted({name.partition(":")[0] for name in derived} - {"xnat"})]
    if not parts:
        data = json.dumps(names).encode()
        return Reply(200, data, [("Content-Type", "application/json")], "text", len(data))
    name = parts[-1].removesuffix(".xsd")
    if name not in names:
        return tomcat_error(404, "Not Found")
    bases = {kind.partition(":")[2]: base for kind, base in derived.items() if kind.startswith(f"{name}:")}
    data = _schema(name, bases).encode()
    return Reply(200, data, [("Content-Type", "application/xml")], "text", len(data))


def _derived(archive: Archive) -> dict[str, str]:
    """Types only the data uses, with the known type each extends."""
    bases: dict[str, str] = {}
    for experiment in archive.experiments.values():
        if experiment.xsi_type not in _KNOWN:
            base = (
                "imageAssessorData"
                if experiment.is_assessor
                else "imageSessionData"
                if experiment.scans
                else "subjectAssessorData"
            )
            bases[experiment.xsi_type] = base
        for scan in experiment.scans:
            if scan.xsi_type not in _KNOWN:
                bases[scan.xsi_type] = "imageScanData"
    return bases


def _schema(name: str, derived: dict[str, str]) -> str:
    types = [_complex_type(item) for item in _TYPES] if name == "xnat" else []
    types += [_complex_type(_Type(kind, base)) for kind, base in derived.items()]
    elements = _ELEMENTS if name == "xnat" else {}
    declared = "".join(
        f'<xs:element name="{element}" type="xnat:{kind}"/>\n' for element, kind in elements.items()
    )
    namespace = "" if name == "xnat" else f' xmlns:{name}="http://nrg.wustl.edu/{name}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<xs:schema targetNamespace="http://nrg.wustl.edu/{name}" '
        f'xmlns:xnat="http://nrg.wustl.edu/xnat"{namespace} '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified" '
        'attributeFormDefault="unqualified">\n'
        f"{declared}{''.join(types)}</xs:schema>\n"
    )


def _typed(text: str) -> tuple[str, str, str]:
    """`name[:type][*]` as name, type with prefix, and how often."""
    name, _, kind = text.rstrip("*").partition(":")
    known = any(item.name == kind for item in _TYPES)
    return (
        name,
        f"xnat:{kind}" if known else f"xs:{kind or 'string'}",
        ' maxOccurs="unbounded"' if text.endswith("*") else "",
    )


def _complex_type(item: _Type) -> str:
    parts = []
    for text in item.elements.split():
        name, kind, many = _typed(text)
        parts.append(f'<xs:element name="{name}" type="{kind}" minOccurs="0"{many}/>')
    for text in item.wrappers.split():
        wrapper, _, inner = text.partition("/")
        name, kind, _ = _typed(inner)
        parts.append(
            f'<xs:element name="{wrapper}" minOccurs="0"><xs:complexType><xs:sequence>'
            f'<xs:element name="{name}" type="{kind}" minOccurs="0" maxOccurs="unbounded"/>'
            "</xs:sequence></xs:complexType></xs:element>"
        )
    content = f"<xs:sequence>{''.join(parts)}</xs:sequence>"
    for text in item.attributes.split():
        name, kind, _ = _typed(text)
        content += f'<xs:attribute name="{name}" type="{kind}"/>'
    if item.base:
        content = (
            f"<xs:complexContent><xs:extension "
            f'base="xnat:{item.base}">{content}</xs:extension></xs:complexContent>'
        )
    return f'<xs:complexType name="{item.name}">{content}</xs:complexType>\n'
