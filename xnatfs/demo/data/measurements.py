"""The true measurement values of the sample sessions: what a right table must say.

Used by the sample data, which writes them into files in FreeSurfer's and ASHS's own syntax (`freesurfer.py`,
`pipelines.py`), and by tests, which compare tables with them. Values are `Decimal`: their text is exactly the
text in the files. Every function takes the accession id of the session; the numbers are invented, drawn from
that id.

FreeSurfer versions are "6" (resource FREESURFER6) and "7" (FREESURFER7); hippocampal subfields "v10" (6) and
"v21" (7).
"""

from __future__ import annotations

from decimal import Decimal

from xnatfs.demo.data.draw import draw


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# SegId and name as FreeSurfer 7 writes them; the second number is the rough volume in mm3 (0: a structure
# nobody has).
ASEG_STRUCTURES: tuple[tuple[int, str, int], ...] = (
    (4, "Left-Lateral-Ventricle", 7000),
    (5, "Left-Inf-Lat-Vent", 250),
    (7, "Left-Cerebellum-White-Matter", 15000),
    (8, "Left-Cerebellum-Cortex", 54000),
    (10, "Left-Thalamus", 7600),
    (11, "Left-Caudate", 3600),
    (12, "Left-Putamen", 4900),
    (13, "Left-Pallidum", 1900),
    (14, "3rd-Ventricle", 900),
    (15, "4th-Ventricle", 1700),
    (16, "Brain-Stem", 21000),
    (17, "Left-Hippocampus", 4100),
    (18, "Left-Amygdala", 1600),
    (24, "CSF", 1000),
    (26, "Left-Accumbens-area", 520),
    (28, "Left-VentralDC", 4000),
    (30, "Left-vessel", 30),
    (31, "Left-choroid-plexus", 500),
    (43, "Right-Lateral-Ventricle", 6500),
    (44, "Right-Inf-Lat-Vent", 240),
    (46, "Right-Cerebellum-White-Matter", 14500),
    (47, "Right-Cerebellum-Cortex", 55000),
    (49, "Right-Thalamus", 7400),
    (50, "Right-Caudate", 3700),
    (51, "Right-Putamen", 5000),
    (52, "Right-Pallidum", 1850),
    (53, "Right-Hippocampus", 4200),
    (54, "Right-Amygdala", 1750),
    (58, "Right-Accumbens-area", 560),
    (60, "Right-VentralDC", 3950),
    (62, "Right-vessel", 25),
    (63, "Right-choroid-plexus", 520),
    (72, "5th-Ventricle", 0),
    (77, "WM-hypointensities", 1500),
    (78, "Left-WM-hypointensities", 0),
    (79, "Right-WM-hypointensities", 0),
    (80, "non-WM-hypointensities", 0),
    (81, "Left-non-WM-hypointensities", 0),
    (82, "Right-non-WM-hypointensities", 0),
    (85, "Optic-Chiasm", 210),
    (251, "CC_Posterior", 980),
    (252, "CC_Mid_Posterior", 480),
    (253, "CC_Central", 520),
    (254, "CC_Mid_Anterior", 540),
    (255, "CC_Anterior", 900),
)
ASEG_COLUMNS = (
    "Index",
    "SegId",
    "NVoxels",
    "Volume_mm3",
    "normMean",
    "normStdDev",
    "normMin",
    "normMax",
    "normRange",
)

DESIKAN = _words(
    "bankssts caudalanteriorcingulate caudalmiddlefrontal cuneus entorhinal fusiform inferiorparietal "
    "inferiortemporal "
    "isthmuscingulate lateraloccipital lateralorbitofrontal lingual medialorbitofrontal middletemporal "
    "parahippocampal "
    "paracentral parsopercularis parsorbitalis parstriangularis pericalcarine postcentral "
    "posteriorcingulate precentral "
    "precuneus rostralanteriorcingulate rostralmiddlefrontal superiorfrontal superiorparietal "
    "superiortemporal "
    "supramarginal frontalpole temporalpole transversetemporal insula"
)
# A part of the Destrieux atlas, under its own spellings.
DESTRIEUX = _words(
    "G&S_frontomargin G&S_occipital_inf G&S_paracentral G&S_subcentral G&S_transv_frontopol "
    "G&S_cingul-Ant G&S_cingul-Mid-Ant "
    "G_cuneus G_front_inf-Opercular G_front_middle G_front_sup G_insular_short G_oc-temp_lat-fusifor "
    "G_orbital G_postcentral "
    "G_precentral G_precuneus G_rectus G_subcallosal G_temporal_middle Lat_Fis-post Pole_occipital "
    "Pole_temporal S_calcarine "
    "S_central S_front_inf S_intrapariet&P_trans S_parieto_occipital S_temporal_sup S_temporal_transverse"
)
APARC_COLUMNS = (
    "NumVert",
    "SurfArea",
    "GrayVol",
    "ThickAvg",
    "ThickStd",
    "MeanCurv",
    "GausCurv",
    "FoldInd",
    "CurvInd",
)

HIPPO_V10 = _words(
    "Hippocampal_tail subiculum CA1 hippocampal-fissure presubiculum parasubiculum molecular_layer_HP "
    "GC-ML-DG CA3 CA4 fimbria HATA "
    "Whole_hippocampus"
)
HIPPO_V21 = _words(
    "Hippocampal_tail subiculum-body CA1-body subiculum-head hippocampal-fissure presubiculum-head "
    "CA1-head presubiculum-body "
    "parasubiculum molecular_layer_HP-head molecular_layer_HP-body GC-ML-DG-head CA3-body GC-ML-DG-body "
    "CA4-head CA4-body fimbria "
    "CA3-head HATA Whole_hippocampal_body Whole_hippocampal_head Whole_hippocampus"
)
AMYGDALA = _words(
    "Lateral-nucleus Basal-nucleus Accessory-Basal-nucleus Anterior-amygdaloid-area-AAA Central-nucleus "
    "Medial-nucleus "
    "Cortical-nucleus Corticoamygdaloid-transitio Paralaminar-nucleus Whole_amygdala"
)
BRAINSTEM = ("Medulla", "Pons", "SCP", "Midbrain", "Whole_brainstem")
THALAMUS = _words(
    "AV CeM CL CM LD LGN LP L-Sg MDl MDm MGN MV(Re) Pc Pf Pt PuA PuI PuL PuM VA VAmc VLa VLp VM VPL "
    "Whole_thalamus"
)
HYPOTHALAMUS = ("anterior-inferior", "anterior-superior", "posterior", "tubular inferior", "tubular superior")
ASHS_REGIONS = ("CA1", "CA2", "CA3", "DG", "SUB", "ERC", "BA35", "BA36")
ASHS_MODES = ("corr_nogray", "corr_usegray", "heur")

VALIDATOR_TESTS = {
    "FreeSurferValidator": (
        "HasAllItems",
        "HasCorrectNumberOfFiles",
        "IsFreeSurferVersion6",
        "HasPlausibleVolumes",
    ),
    "FreeSurfer7Validator": (
        "HasAllItems",
        "HasCorrectNumberOfFiles",
        "IsFreeSurferVersion7",
        "HasPlausibleVolumes",
    ),
    "ASHSValidator": ("HasCorrectItems", "AreCAVolumesConsistent", "HasNormalSubfieldVolumes"),
    "SPM12SegmentValidator": ("HasCorrectItems", "IsGrayMatterVolumePlausible"),
    "ArchivingValidator": (
        "HasUsableT1",
        "HasUsableT2",
        "HasUsableDWI",
        "HasNIfTIOfEveryScan",
        "IsAccessionDateRecent",
    ),
    "PetSessionValidator": ("HasUsableT1", "HasStaticScan", "HasCorrectNumberOfFrames"),
    "TauPetSessionValidator": ("HasUsableT1", "HasStaticScan", "HasCorrectNumberOfFrames"),
    **dict.fromkeys(
        _words(
            "ALPSValidator ANTSValidator ASL3DQuantificationValidator BAMOSArterialValidator "
            "BAMOSValidator BASILValidator "
            "CAT12SegmentValidator CenTaurZValidator DONSURFValidator DTIFITValidator "
            "DWIFSLPreprocDTIFITValidator "
            "DartelNorm2MNIValidator FDGQuantificationValidator FMRIPrepValidator FSLANATValidator "
            "FTMQuantificationValidator "
            "FreeSurfer7ExtrasValidator FreeSurferHiresValidator LCModelValidator MRIRefaceValidator "
            "MRtrix3Validator "
            "PETPreprocessingValidator PYMENTValidator QSMxTValidator SPM12SegmentT1T2Validator "
            "TEASLValidator TauQuantificationValidator XCPDValidator"
        ),
        ("HasCorrectItems", "HasCorrectNumberOfFiles", "IsResultPlausible"),
    ),
}

Rows = dict[str, Decimal]


def etiv(session: str) -> Decimal:
    """Estimated total intracranial volume, mm3: one per session, in FreeSurfer's and (rounded) in ASHS's
    files.
    """
    return draw(f"{session}/eTIV", 1_250_000, 1_750_000, 6)


def aseg_header(session: str, version: str) -> dict[str, tuple[Decimal, str]]:
    """The header measures of aseg.stats, in file order: name -> (value, unit). 22 of them in version 6, 20 in
    7.
    """

    def volume(name: str, low: int, high: int) -> Decimal:
        return draw(f"{session}/{version}/aseg/{name}", low, high, 0).quantize(Decimal("1.000000"))

    brain = volume("BrainSegVol", 1_050_000, 1_250_000)
    ventricles = volume("VentricleChoroidVol", 9_000, 30_000)
    mask = volume("MaskVol", 1_500_000, 1_700_000)
    cortex = [draw(f"{session}/{version}/aseg/{side}Cortex", 210_000, 270_000, 6) for side in ("lh", "rh")]
    white = [draw(f"{session}/{version}/aseg/{side}White", 220_000, 260_000, 6) for side in ("lh", "rh")]
    subcortical = volume("SubCortGrayVol", 55_000, 65_000)
    supratentorial = sum(cortex) + sum(white) + subcortical + ventricles
    holes = [draw(f"{session}/{version}/aseg/{side}Holes", 3, 40, 0) for side in ("lh", "rh")]
    ratio = Decimal("1.000000")
    values: dict[str, tuple[Decimal, str]] = {
        "BrainSegVol": (brain, "mm^3"),
        "BrainSegVolNotVent": (brain - ventricles, "mm^3"),
    }
    if version == "6":
        values["BrainSegVolNotVentSurf"] = (brain - ventricles - Decimal("261.995400"), "mm^3")
    values |= {
        "VentricleChoroidVol": (ventricles, "mm^3"),
        "lhCortexVol": (cortex[0], "mm^3"),
        "rhCortexVol": (cortex[1], "mm^3"),
        "CortexVol": (cortex[0] + cortex[1], "mm^3"),
        "lhCerebralWhiteMatterVol": (white[0], "mm^3"),
        "rhCerebralWhiteMatterVol": (white[1], "mm^3"),
        "CerebralWhiteMatterVol": (white[0] + white[1], "mm^3"),
        "SubCortGrayVol": (subcortical, "mm^3"),
        "TotalGrayVol": (cortex[0] + cortex[1] + subcortical, "mm^3"),
        "SupraTentorialVol": (Decimal(supratentorial), "mm^3"),
        "SupraTentorialVolNotVent": (Decimal(supratentorial) - ventricles, "mm^3"),
    }
    if version == "6":
        values["SupraTentorialVolNotVentVox"] = (
            volume("SupraTentorialVolNotVentVox", 980_000, 1_100_000),
            "mm^3",
        )
    values |= {
        "MaskVol": (mask, "mm^3"),
        "BrainSegVol-to-eTIV": ((brain / etiv(session)).quantize(ratio), "unitless"),
        "MaskVol-to-eTIV": ((mask / etiv(session)).quantize(ratio), "unitless"),
        "lhSurfaceHoles": (holes[0], "unitless"),
        "rhSurfaceHoles": (holes[1], "unitless"),
        "SurfaceHoles": (holes[0] + holes[1], "unitless"),
        "eTIV": (etiv(session), "mm^3"),
    }
    return values


def aseg(session: str, version: str) -> dict[str, Rows]:
    """The table of aseg.stats, in file order: structure -> column -> value."""
    table: dict[str, Rows] = {}
    for index, (seg_id, name, volume) in enumerate(ASEG_STRUCTURES, 1):
        if version == "6" and name.endswith("-Thalamus"):
            name += "-Proper"
        key = f"{session}/{version}/aseg/{name}"
        row: Rows = {"Index": Decimal(index), "SegId": Decimal(seg_id)}
        if volume:
            row["NVoxels"] = draw(key + "/NVoxels", volume * 0.9, volume * 1.1, 0)
            row["Volume_mm3"] = draw(key + "/Volume_mm3", volume * 0.9, volume * 1.1, 1)
            row["normMean"] = draw(key + "/normMean", 30, 100, 4)
            row["normStdDev"] = draw(key + "/normStdDev", 4, 17, 4)
            row["normMin"] = draw(key + "/normMin", 0, 30, 0).quantize(Decimal("1.0000"))
            row["normMax"] = draw(key + "/normMax", 101, 140, 0).quantize(Decimal("1.0000"))
        else:
            row |= {"NVoxels": Decimal(0), "Volume_mm3": Decimal("0.0")}
            row |= dict.fromkeys(("normMean", "normStdDev", "normMin", "normMax"), Decimal("0.0000"))
        row["normRange"] = row["normMax"] - row["normMin"]
        table[name] = row
    return table


def aparc_header(session: str, version: str, side: str) -> dict[str, tuple[Decimal, str]]:
    """The header measures of `lh` or `rh` aparc.stats: name -> (value, unit). CortexVol is there in version 6
    too, but its line lacks a comma (a bug of FreeSurfer 6): bx loses it there.
    """
    whole = aseg_header(session, version)
    key = f"{session}/{version}/aparc/{side}"
    not_vent = whole.get("BrainSegVolNotVentSurf", whole["BrainSegVolNotVent"])
    return {
        "NumVert": (draw(key + "/NumVert", 110_000, 145_000, 0), "unitless"),
        "WhiteSurfArea": (draw(key + "/WhiteSurfArea", 75_000, 96_000, 1), "mm^2"),
        "MeanThickness": (draw(key + "/MeanThickness", 2.3, 2.6, 5), "mm"),
        "BrainSegVol": whole["BrainSegVol"],
        "BrainSegVolNotVent": whole["BrainSegVolNotVent"],
        "BrainSegVolNotVentSurf": not_vent,
        "CortexVol": whole["CortexVol"],
        "SupraTentorialVol": whole["SupraTentorialVol"],
        "SupraTentorialVolNotVent": whole["SupraTentorialVolNotVent"],
        "eTIV": whole["eTIV"],
    }


def aparc(session: str, version: str, side: str, atlas: str = "aparc") -> dict[str, Rows]:
    """The table of `lh` or `rh` aparc.stats (or `aparc.a2009s`): region -> column -> value."""
    table = {}
    for region in DESIKAN if atlas == "aparc" else DESTRIEUX:
        key = f"{session}/{version}/{atlas}/{side}/{region}"
        table[region] = {
            "NumVert": draw(key + "/NumVert", 400, 9000, 0),
            "SurfArea": draw(key + "/SurfArea", 300, 6000, 0),
            "GrayVol": draw(key + "/GrayVol", 800, 18000, 0),
            "ThickAvg": draw(key + "/ThickAvg", 1.8, 3.4, 3),
            "ThickStd": draw(key + "/ThickStd", 0.3, 0.9, 3),
            "MeanCurv": draw(key + "/MeanCurv", 0.08, 0.17, 3),
            "GausCurv": draw(key + "/GausCurv", 0.01, 0.06, 3),
            "FoldInd": draw(key + "/FoldInd", 3, 120, 0),
            "CurvInd": draw(key + "/CurvInd", 0.3, 12, 1),
        }
    return table


def _parts(key: str, names: tuple[str, ...], low: float, high: float, wholes: dict[str, str]) -> Rows:
    """Volumes with six decimals; `wholes` maps a name to the suffix of the parts it is the sum of."""
    values = {name: draw(f"{key}/{name}", low, high, 6) for name in names if name not in wholes}
    for whole, suffix in wholes.items():
        parts = (
            v
            for n, v in values.items()
            if n.endswith(suffix) and n not in wholes and n != "hippocampal-fissure"
        )
        values[whole] = sum(parts, Decimal("0.000000"))
    return {name: values[name] for name in names}


def hippocampus(session: str, version: str, side: str) -> Rows:
    """`lh|rh.hippoSfVolumes-T1.<version>.txt`, version v10 or v21: region -> mm3."""
    key = f"{session}/hippo/{version}/{side}"
    if version == "v10":
        return _parts(key, HIPPO_V10, 45, 680, {"Whole_hippocampus": ""})
    wholes = {"Whole_hippocampal_body": "-body", "Whole_hippocampal_head": "-head", "Whole_hippocampus": ""}
    return _parts(key, HIPPO_V21, 45, 550, wholes)


def amygdala(session: str, side: str) -> Rows:
    """`lh|rh.amygNucVolumes-T1.v21.txt`: nucleus -> mm3."""
    return _parts(f"{session}/amyg/{side}", AMYGDALA, 30, 700, {"Whole_amygdala": ""})


def brainstem(session: str) -> Rows:
    """`brainstemSsVolumes.v12.txt`: part -> mm3."""
    return _parts(f"{session}/brainstem", BRAINSTEM, 200, 15_000, {"Whole_brainstem": ""})


def thalamus(session: str, side: str) -> Rows:
    """`ThalamicNuclei.v12.T1.volumes.txt`, side `left` or `right`: nucleus -> mm3."""
    return _parts(f"{session}/thalamus/{side}", THALAMUS, 3, 1100, {"Whole_thalamus": ""})


def hypothalamus(session: str, side: str) -> Rows:
    """`hypothalamic_subunits_volumes.v1.csv`, side `left` or `right`: subunit (and `whole`) -> mm3."""
    values = {name: draw(f"{session}/hypothalamus/{side}/{name}", 15, 160, 3) for name in HYPOTHALAMUS}
    return {**values, "whole": sum(values.values(), Decimal("0.000"))}


def ashs(session: str, side: str, mode: str = "corr_nogray") -> dict[str, tuple[int, Decimal]]:
    """`*_<side>_<mode>_volumes.txt`, side `left` or `right`: region -> (slices, mm3)."""
    key = f"{session}/ashs/{side}"
    return {
        region: (int(draw(f"{key}/{region}/slices", 14, 30, 0)), draw(f"{key}/{mode}/{region}", 25, 1900, 3))
        for region in ASHS_REGIONS
    }


def ashs_icv(session: str) -> str:
    """`*_icv.txt`: intracranial volume in ASHS's own notation, such as 1.4567e+06."""
    return f"{etiv(session):.5e}".replace("e+6", "e+06")


def tissue_voxels(session: str) -> dict[str, tuple[int, int]]:
    """SPM12's c1, c2, c3: how many voxels of probability 1 and of 1/2 (voxels are 4 mm cubes: 64 mm3)."""
    return {
        name: (
            int(draw(f"{session}/spm/{name}/full", low, high, 0)),
            int(draw(f"{session}/spm/{name}/half", 100, 999, 0)),
        )
        for name, low, high in (("c1", 8_000, 11_000), ("c2", 6_500, 8_500), ("c3", 4_000, 6_000))
    }


def tissue_volumes(session: str) -> dict[str, float]:
    """SPM12's c1, c2, c3 (grey matter, white matter, CSF) in mm3: the sum of the probabilities times 64
    mm3.
    """
    return {name: (full + half / 2) * 64.0 for name, (full, half) in tissue_voxels(session).items()}


def validator(session: str, name: str) -> dict[str, bool | None]:
    """The tests of one BBRC validator: passed, failed or skipped (None)."""
    outcome: dict[str, bool | None] = {}
    for test in VALIDATOR_TESTS[name]:
        value = int(draw(f"{session}/{name}/{test}", 0, 99, 0))
        outcome[test] = None if value >= 95 else value < 85
    return outcome
