"""PET: FDG, flutemetamol (FTM), tau, CenTauR.

Used by `tables.registry`; `quantified` also by `braak`. Plain functions and values, any thread.

Each pipeline leaves one CSV file with a row for each region, atlas, reference region and way of processing; a
table is a choice among its rows, the same as bx makes. `mri` comes from the validator's report on the PET
session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from xnatfs.tables.parse.helpers import checked_csv, where
from xnatfs.tables.pipelines.validators import Report, read_report, report_patterns
from xnatfs.tables.spec import Column, Input, Inputs, Parsed, ParseError, SessionInfo, Table, Wide

Chosen = Callable[[dict[str, str]], bool]
ATLASES = {
    "hammers": "hammers",
    "aal": "aal",
    "dk": "aparc+aseg",
}  # bx's word -> what the atlas column contains
_PET = ("region", "atlas", "reference_region", "measurement", "optimized_pet", "value")
_TAU = ("region", "atlas", "measurement", "smoothing_type", "value")
_CENTAUR = ("region", "measurement", "smoothing_type", "value")


def quantified(stream: BinaryIO, needed: Sequence[str], chosen: Chosen, what: str) -> Parsed:
    """The chosen rows of a quantification file.

    Raises:
        ParseError: there is none; `what` says what was looked for.
    """
    parsed = where(checked_csv(stream, ("value", "nvoxels"), needed), chosen)
    if not parsed.rows:
        raise ParseError(f"it has no {what}")
    return parsed


def single(stream: BinaryIO, _: str, column: str, needed: Sequence[str], chosen: Chosen, what: str) -> Parsed:
    """The value of the first chosen row, under a name of its own."""
    parsed = quantified(stream, needed, chosen, what)
    value = parsed.rows[0][parsed.columns.index("value")]
    if not value:
        raise ParseError(f"its {what} has no value")
    return Parsed((column,), [(value,)], parsed.notes)


def regional(stream: BinaryIO, _: str, needed: Sequence[str], chosen: Chosen, what: str) -> Parsed:
    """The chosen rows with all columns."""
    return quantified(stream, needed, chosen, what)


def is_true(cell: str) -> bool:
    """A boolean cell, as pandas reads it."""
    return cell in ("True", "TRUE", "true", "1")


def in_atlas(row: dict[str, str], atlases: Sequence[str]) -> bool:
    """Whether a row is of one of the atlases."""
    return any(ATLASES[atlas] in row["atlas"].lower() for atlas in atlases)


def suvr(row: dict[str, str], reference: str, atlases: Sequence[str]) -> bool:
    """FDG and FTM: the ratio to a reference region in the optimised image."""
    return (
        row["reference_region"] == reference
        and row["measurement"] == "suvr"
        and is_true(row["optimized_pet"])
        and in_atlas(row, atlases)
    )


def _tau_suvr(row: dict[str, str], atlases: Sequence[str]) -> bool:
    return row["measurement"] == "suvr" and row["smoothing_type"] == "harmonized" and in_atlas(row, atlases)


def _landau(row: dict[str, str]) -> bool:
    return (
        row["region"] == "landau_Composite"
        and row["reference_region"] == "vermis"
        and row["measurement"] == "suvr"
        and not is_true(row["optimized_pet"])
    )


def _centiloid(row: dict[str, str]) -> bool:
    return (
        row["region"] == "cortex"
        and row["atlas"] == ""
        and row["reference_region"] == "whole_cerebellum"
        and row["measurement"] == "centiloid"
        and not is_true(row["optimized_pet"])
    )


def _centaurz(row: dict[str, str]) -> bool:
    return (
        row["region"] == "Universal"
        and row["measurement"] == "centaurz"
        and row["smoothing_type"] == "harmonized"
    )


def _centaur_regions(row: dict[str, str]) -> bool:
    return row["smoothing_type"] == "harmonized" and row["measurement"] != "suvr_spm8"


# --- which MRI session goes with the PET session ------------------------------------------------------------

_MRI = ("MRI_ID", "MRI_date", "MRI_project", "MRI_scanID")


def mri_of(stream: BinaryIO, _: str) -> Parsed:
    """The MRI session that the test HasUsableT1 found: the values of its answer, in their order, and its
    notes.

    The row is empty where the test did not pass.
    """
    report: Report = read_report(stream)
    test = report.get("HasUsableT1")
    if not isinstance(test, dict):
        raise ParseError("the report has no test HasUsableT1")
    columns = (*_MRI, "notes")
    if not test.get("has_passed"):
        return Parsed(columns, [("",) * 5], ("HasUsableT1 has not passed: no MRI session",))
    data = test.get("data")
    answer = data[0] if isinstance(data, list) and data else None
    if not isinstance(answer, dict):
        raise ParseError("HasUsableT1 has passed but does not say with which session")
    cells = ["" if value is None else str(value) for name, value in answer.items() if name != "notes"]
    if len(cells) != len(_MRI):
        raise ParseError(f"HasUsableT1 gives {len(cells)} values, not {len(_MRI)}: {', '.join(_MRI)}")
    return Parsed(columns, [(*cells, str(answer.get("notes") or ""))])


def _mri(pipeline: str, validator: str) -> Table:
    texts = (
        ("MRI_ID", "ID of the MRI session"),
        ("MRI_date", "its date"),
        ("MRI_project", "its project"),
        ("MRI_scanID", "ID of its T1 scan"),
        ("notes", "the validator's remark"),
    )
    return Table(
        pipeline,
        "mri",
        ("BBRC_VALIDATOR",),
        (Input("report", report_patterns(validator), mri_of),),
        tuple(
            Column(name, source=f"{what}, by the test HasUsableT1 of {validator}", text=True)
            for name, what in texts
        ),
        lead=("subject_label", "ID", "date", "project"),
        trail=(),
        doc="The MRI session whose T1 goes with the PET session.",
    )


# --- the tables ---------------------------------------------------------------------------------------------


def _single(
    pipeline: str,
    name: str,
    resource: str,
    file: str,
    needed: Sequence[str],
    chosen: Chosen,
    what: str,
    doc: str,
) -> Table:
    parse = partial(single, column=name, needed=needed, chosen=chosen, what=what)
    column = Column(name, source=f"value of the {what}")
    return Table(
        pipeline, name, (resource,), (Input("results", (file, f"*/{file}"), parse),), (column,), doc=doc
    )


def _atlas_notes(_: SessionInfo, inputs: Inputs) -> Parsed:
    """The rows; a note if a table of one atlas found several that are called like it."""
    ((_path, parsed),) = inputs["results"]
    names = sorted({row[parsed.columns.index("atlas")] for row in parsed.rows})
    return (
        parsed
        if len(names) == 1
        else parsed._replace(notes=(*parsed.notes, f"several atlases are called so: {', '.join(names)}"))
    )


def _regional(
    pipeline: str, resource: str, file: str, needed: Sequence[str], chosen: Callable[..., bool], what: str
) -> list[Table]:
    """One table with all atlases, and one each under bx's name."""
    columns = tuple(
        Column(
            name,
            "" if name != "value" else "ratio to the reference region",
            "the column of the CSV file",
            text=name != "value",
        )
        for name in needed
    )
    columns += (
        (Column("nvoxels", source="the column of the CSV file: voxels of the region"),)
        if "optimized_pet" in needed
        else ()
    )
    tables = []
    for atlas in ("", *ATLASES):
        atlases = (atlas,) if atlas else tuple(ATLASES)
        words = f"{what} in the atlas {atlas}" if atlas else f"{what} in the atlases {', '.join(ATLASES)}"
        parse = partial(regional, needed=needed, chosen=partial(chosen, atlases=atlases), what=words)
        inputs = (Input("results", (file, f"*/{file}"), parse),)
        name, keys = (f"regional_{atlas}", ("region",)) if atlas else ("regional", ("atlas", "region"))
        table = Table(
            pipeline,
            name,
            (resource,),
            inputs,
            columns,
            wide=Wide(keys, ("value",)),
            doc=f"{words[0].upper()}{words[1:]}.",
        )
        tables.append(replace(table, combine=_atlas_notes) if atlas else table)
    return tables


_RESULTS = "quantification_results.csv"

TABLES: tuple[Table, ...] = (
    _single(
        *("fdg", "landau", "FDG_QUANTIFICATION2", _RESULTS, _PET, _landau),
        what="row landau_Composite (vermis, suvr, not optimised)",
        doc="Uptake in Landau's meta-region, relative to the vermis.",
    ),
    *_regional(
        *("fdg", "FDG_QUANTIFICATION2", _RESULTS, _PET, partial(suvr, reference="vermis")),
        what="uptake relative to the vermis (optimised)",
    ),
    _mri("fdg", "PetSessionValidator"),
    _single(
        *("ftm", "centiloids", "FTM_QUANTIFICATION2", _RESULTS, _PET, _centiloid),
        what="row cortex (whole_cerebellum, centiloid, not optimised)",
        doc="Amyloid load of the cortex on the Centiloid scale.",
    ),
    *_regional(
        *("ftm", "FTM_QUANTIFICATION2", _RESULTS, _PET, partial(suvr, reference="whole_cerebellum")),
        what="uptake relative to the whole cerebellum (optimised)",
    ),
    _mri("ftm", "PetSessionValidator"),
    *_regional(
        *("tau", "TAU_QUANTIFICATION", "tau_quantification_results.csv", _TAU, _tau_suvr),
        what="uptake ratio (harmonised)",
    ),
    _mri("tau", "TauPetSessionValidator"),
    _single(
        *("centaur", "centaurz", "CENTAURZ", "centaurz_quantification_results.csv", _CENTAUR, _centaurz),
        what="row Universal (centaurz, harmonised)",
        doc="Tau load of the universal region on the CenTauRz scale.",
    ),
    Table(
        "centaur",
        "regional",
        ("CENTAURZ",),
        (
            Input(
                "results",
                ("centaurz_quantification_results.csv", "*/centaurz_quantification_results.csv"),
                partial(regional, needed=_CENTAUR, chosen=_centaur_regions, what="harmonised rows"),
            ),
        ),
        tuple(Column(name, source="the column of the CSV file", text=name != "value") for name in _CENTAUR),
        wide=Wide(("region", "measurement"), ("value",)),
        doc="Tau load by region, harmonised, but for the measurement suvr_spm8.",
    ),
    _mri("centaur", "TauPetSessionValidator"),
)
