"""Project FJORD on a site of its own: what a BIDS dataset can hold, and what it cannot, with the lab's own
map.

Used by tests of the BIDS view; not a part of the `lab` data. Three subjects, two of whose labels differ in
one character that BIDS has not; four sessions. `SCANS` says what each scan is there for. Sidecars lie in a
resource `BIDS` beside `NIFTI`, as the container that converts for XNAT leaves them, or beside the images.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from xnatfs.demo.data import images
from xnatfs.demo.data.maker import Maker
from xnatfs.demo.model import Archive, Experiment

SUBJECTS = {"F 01": ("F 01 v1", "F 01 v2"), "F-01": ("scan day one",), "Åse/Øst": ("Åse/Øst_ses-baseline",)}
SHAPE = (16, 16, 8)
SPACING = (14.0, 14.0, 28.0)
EVENTS = b"onset\tduration\ttrial_type\n0.0\t4.0\tface\n8.0\t4.0\thouse\n"
MAP = """\
[[rule]]
type = "emotion task"
frames = "2-"
to = "func/bold"
entities = { task = "faces" }

[[rule]]
type = "perf 3D"
to = "perf/asl"
aslcontext = ["control", "label"]
[rule.sidecar]
ArterialSpinLabelingType = "PCASL"
PostLabelingDelay = 1.8
LabelingDuration = 1.8
BackgroundSuppression = true
M0Type = "Separate"
TotalAcquiredPairs = 2
MRAcquisitionType = "3D"

[[rule]]
type = "perf M0"
to = "perf/m0scan"

[[rule]]
any = "gre_field*"
file = "re:_ph[.]"
to = "fmap/phasediff"
intended_for = "func/bold"
"""
# scan id -> type, description, frames: what it is for
SCANS: dict[str, tuple[str, str, str]] = {
    "1": ("AAHead_Scout", "AAHead_Scout", "128"),  # no picture of anything
    "2": ("t1_mprage_sag_p2_iso", "t1_mprage_sag_p2_iso", "8"),  # its sidecar in BIDS; packed and not
    "3": ("emotion task", "cmrr_mbep2d_bold_mb4", "4"),  # three echoes, with events
    "4": ("emotion task ref", "faces_SBRef", "1"),
    "5": ("RS-fMRI", "rsfMRI eyes open", "5"),  # two runs, whose sidecars do not tell the repetition time
    "6": ("RS-fMRI", "rsfMRI eyes open", "5"),
    "7": ("RS-fMRI", "rsfMRI eyes open", "1"),  # stopped at once: no time axis
    "8": ("gre_field_mapping", "gre_field_mapping_3mm", "16"),  # two magnitudes
    "9": ("gre_field_mapping", "gre_field_mapping_3mm", "8"),  # the phase difference, without EchoTime1 and 2
    "10": ("fmap", "SE_EPI_AP", "3"),
    "11": ("fmap", "SE_EPI_PA", "3"),
    "12": ("perf 3D", "tgse_pcasl", "4"),
    "13": ("perf M0", "tgse_pcasl_M0", "1"),
    "14": ("ep2d_diff_mddw", "ep2d_diff_mddw_6_PA", "7"),
    "15": ("ep2d_diff_b0", "ep2d_diff_b0_AP", "1"),  # no gradients beside it
    "16": ("SWI_Images", "SWI_Images", "8"),  # BIDS has no name for it
    "17": ("T2*", "t2*_gre_3echo", "24"),
    "18": ("something else", "something else", "3"),
    "19": ("t2_tse_cor", "t2_tse_cor", "12"),  # its resource has no image
    "20": ("FLAIR", "t2_space_dark-fluid_sag", "8"),
}


def build() -> Archive:
    """The archive, the same at every call."""
    archive = Archive(site="FJ")
    make = Maker(archive, datetime(2024, 2, 5, 8, 0))
    make.user("demo")
    project = make.project("FJORD", "Fjord: BIDS of another lab", members=["demo"])
    make.resource(project, "XNATFS", {"bids.toml": MAP.encode()})
    for subject, sessions in SUBJECTS.items():
        person = make.subject(project, subject)
        for number, label in enumerate(sessions):
            make.wait(days=1)
            _session(make, make.experiment(person, label, date=f"2024-02-{10 + number:02d}", time="10:30:00"))
    return archive


def _image(key: str, volumes: int = 1, tr: float = 0.0, gz: bool = True) -> bytes:
    data = images.series(key, SHAPE, volumes) if volumes > 1 else images.head(key, SHAPE)
    return images.nifti(data, images.affine_of(SHAPE, SPACING), key[:79], tr=tr, gz=gz)


def _session(make: Maker, session: Experiment) -> None:
    stem = session.label.split("/")[-1].encode("ascii", "ignore").decode().replace(" ", "_")

    def put(
        id: str,
        files: dict[str, bytes],
        sidecars: dict[str, dict[str, Any]],
        events: bytes = b"",
        beside: bool = False,
    ) -> None:
        type, description, frames = SCANS[id]
        scan = make.scan(session, id, type, description, frames=frames)
        texts = {
            f"{stem}_{id}{end}.json": images.sidecar(SeriesNumber=int(id), **fields)
            for end, fields in sidecars.items()
        }
        pictures = {f"{stem}_{id}{end}": data for end, data in files.items()}
        make.resource(scan, "NIFTI", pictures | (texts if beside else {}), format="NIFTI")
        if events:
            texts[f"{stem}_{id}_events.tsv"] = events
        if texts and not beside:
            make.resource(scan, "BIDS", texts, format="BIDS")

    def key(id: str, end: str = "") -> str:
        return f"{session.id}/{id}{end}"

    put("1", {".nii.gz": _image(key("1"))}, {})
    put(
        "2",
        {".nii.gz": _image(key("2")), ".nii": _image(key("2"), gz=False)},
        {"": {"EchoTime": 0.003, "FlipAngle": 9}},
    )
    echoes = {1: 0.0148, 2: 0.0331, 3: 0.0514}
    put(
        "3",
        {f"_e{n}.nii.gz": _image(key("3", f"e{n}"), 4, 1.5) for n in echoes},
        {
            f"_e{n}": {"EchoTime": te, "RepetitionTime": 1.5, "SliceTiming": [0.0, 0.75] * 4}
            for n, te in echoes.items()
        },
        EVENTS,
    )
    put("4", {".nii.gz": _image(key("4"))}, {"": {"EchoTime": 0.03}})
    for id in ("5", "6"):
        put(id, {".nii.gz": _image(key(id), 5, 2.2)}, {"": {"EchoTime": 0.03}}, beside=True)
    put("7", {".nii.gz": _image(key("7"))}, {})
    put(
        "8",
        {f"_e{n}.nii.gz": _image(key("8", f"e{n}")) for n in (1, 2)},
        {"_e1": {"EchoTime": 0.00492}, "_e2": {"EchoTime": 0.00738}},
    )
    put("9", {"_e2_ph.nii.gz": _image(key("9"))}, {"_e2_ph": {"EchoTime": 0.00738}})
    for id, way in (("10", "j-"), ("11", "j")):
        put(
            id,
            {".nii.gz": _image(key(id), 3, 7.0)},
            {"": {"PhaseEncodingDirection": way, "TotalReadoutTime": 0.05}},
        )
    put("12", {".nii.gz": _image(key("12"), 4, 4.6)}, {"": {"EchoTime": 0.012, "RepetitionTime": 4.6}})
    put("13", {".nii.gz": _image(key("13"))}, {"": {"EchoTime": 0.012, "RepetitionTime": 6.0}})
    gradients = {".bval": images.bval(), ".bvec": images.bvec()}
    put(
        "14",
        {".nii.gz": _image(key("14"), 7, 8.0), **gradients},
        {"": {"PhaseEncodingDirection": "j"}},
        beside=True,
    )
    put("15", {".nii.gz": _image(key("15"))}, {})
    put("16", {".nii.gz": _image(key("16"))}, {})
    put(
        "17",
        {f"_e{n}.nii.gz": _image(key("17", f"e{n}")) for n in (1, 2, 3)},
        {f"_e{n}": {"EchoTime": 0.01 * n} for n in (1, 2, 3)},
    )
    put("18", {".nii.gz": _image(key("18"))}, {})
    put("19", {"_readme.txt": b"not converted\n"}, {})
    put("20", {".nii": _image(key("20"), gz=False)}, {})
