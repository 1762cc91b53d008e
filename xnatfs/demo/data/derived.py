"""What the further MR pipelines of project PIPES measured: the one place of truth for their numbers.

Used by `mr_outputs.py`, which writes them into files in each program's syntax, and by tests, which compare
tables with them. As in `measurements.py`: every function takes the accession id of the session, and the text
of a `Decimal` is the text in the file. `FREESURFER6_HIRES` is `measurements.aseg(hires(session), "6")` and so
on; the tissue maps of CAT12, FSL_ANAT, BASIL and 3DASL_QUANTIFICATION are `measurements.tissue_volumes` under
a key of their own.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache

from xnatfs.demo.data import measurements as m
from xnatfs.demo.data.draw import draw

Number = int | Decimal
Row = dict[str, str | Number]

SIDES = (("lh", "Left"), ("rh", "Right"))
NODES = tuple(  # the nodes of the connectomes: Desikan-Killiany and the deep grey matter
    [f"ctx-{side}-{region}" for side, _ in SIDES for region in m.DESIKAN]
    + [
        f"{side}-{name}"
        for _, side in SIDES
        for name in (
            "Cerebellum-Cortex",
            "Thalamus",
            "Caudate",
            "Putamen",
            "Pallidum",
            "Hippocampus",
            "Amygdala",
            "Accumbens-area",
        )
    ]
)
SUBCORTICAL = {  # FSL FIRST: name -> (label, rough volume in mm3)
    "L_Thal": (10, 8000),
    "L_Caud": (11, 3600),
    "L_Puta": (12, 4900),
    "L_Pall": (13, 1800),
    "BrStem": (16, 22000),
    "L_Hipp": (17, 3900),
    "L_Amyg": (18, 1300),
    "L_Accu": (26, 450),
    "R_Thal": (49, 7900),
    "R_Caud": (50, 3700),
    "R_Puta": (51, 4900),
    "R_Pall": (52, 1850),
    "R_Hipp": (53, 4000),
    "R_Amyg": (54, 1250),
    "R_Accu": (58, 400),
}
LOBES = (
    "background",
    "left frontal",
    "right frontal",
    "left parietal",
    "right parietal",
    "left occipital",
    "right occipital",
    "left temporal",
    "right temporal",
    "basal ganglia",
    "infratentorial",
)
LAYERS = 6  # 0 is background; 5 is counted as 4
LESION_VOXEL = Decimal("1.5")  # mm3
ARTERIES = ("left ACA", "right ACA", "left MCA", "right MCA", "left PCA", "right PCA", "vertebrobasilar")
QSM_REGIONS = tuple(name for _, name, volume in m.ASEG_STRUCTURES if volume > 400)
METABOLITES = (
    "Ala",
    "Asp",
    "Cr",
    "PCr",
    "GABA",
    "Glc",
    "Gln",
    "Glu",
    "Ins",
    "Lac",
    "GPC",
    "NAA",
    "NAAG",
    "Cr+PCr",
    "NAA+NAAG",
    "Glu+Gln",
)
MRS_REGIONS = ("PCC", "precuneus")


def hires(session: str) -> str:
    """The key of FREESURFER6_HIRES's numbers in `measurements.py`."""
    return f"{session}/hires"


def cat12_volumes(session: str) -> dict[str, float]:
    """CAT12's `mri/p1`, `p2`, `p3` in mm3."""
    volumes = m.tissue_volumes(f"{session}/CAT12_SEGMENT")
    return {f"p{name[1:]}": volumes[name] for name in ("c1", "c2", "c3")}


def pve_volumes(session: str, resource: str = "FSL_ANAT") -> dict[str, float]:
    """FAST's maps in mm3: T1_fast_pve_0 (CSF), _1 (grey), _2 (white matter). BASIL and 3DASL_QUANTIFICATION
    have them too.
    """
    volumes = m.tissue_volumes(f"{session}/{resource}")
    return {"T1_fast_pve_0": volumes["c3"], "T1_fast_pve_1": volumes["c1"], "T1_fast_pve_2": volumes["c2"]}


def subcortical_voxels(session: str) -> dict[str, int]:
    """FIRST's structures: how many voxels of 8 mm3."""
    return {
        name: int(draw(f"{session}/first/{name}", size / 9, size / 7, 0))
        for name, (_, size) in SUBCORTICAL.items()
    }


def subcortical_volumes(session: str) -> dict[str, float]:
    """FIRST's structures in mm3."""
    return {name: count * 8.0 for name, count in subcortical_voxels(session).items()}


@cache
def lesions(session: str) -> dict[tuple[int, int], tuple[tuple[int, ...], ...]]:
    """BAMOS: (layer, lobe) -> the lesions there, each the probabilities of its voxels in quarters (1 to 4).
    None in the background.
    """
    places = {}
    for layer in range(LAYERS):
        for lobe in range(len(LOBES)):
            key = f"{session}/bamos/{layer}/{lobe}"
            count = int(draw(key, 0, 3, 0)) if layer and lobe else 0
            sizes = [int(draw(f"{key}/{n}", 1, 8, 0)) for n in range(count)]
            places[layer, lobe] = tuple(
                tuple(int(draw(f"{key}/{n}/{voxel}", 1, 4, 0)) for voxel in range(size))
                for n, size in enumerate(sizes)
            )
    return places


def _lesion_volume(some: tuple[tuple[int, ...], ...]) -> Decimal:
    """The sum of the probabilities of at least one half, in mm3."""
    return (
        sum((Decimal(quarters) / 4 for lesion in some for quarters in lesion if quarters >= 2), Decimal(0))
        * LESION_VOXEL
    )


def bamos_volume(session: str) -> Decimal:
    """BAMOS: the volume of all lesions, mm3."""
    return sum((_lesion_volume(some) for some in lesions(session).values()), Decimal(0))


def bamos_stats(session: str) -> dict[tuple[int, str], tuple[int, Decimal]]:
    """BAMOS as bx tells it: (depth, region) -> (n, mm3). n counts labels, and healthy tissue's label 0 is one
    of them.
    """
    table = {}
    for layer in range(LAYERS - 1):
        for lobe, region in enumerate(LOBES):
            some = lesions(session)[layer, lobe] + (lesions(session)[5, lobe] if layer == 4 else ())
            table[layer, region] = (len(some) + 1, _lesion_volume(some))
    return table


def bamos_arterial(session: str) -> list[Row]:
    """`bamos_arterial_stats.csv`."""
    key = f"{session}/arterial"
    return [
        {
            "depth": depth,
            "region": region,
            "n": draw(f"{key}/{depth}/{region}/n", 0, 12, 0),
            "volume": draw(f"{key}/{depth}/{region}", 0, 900, 4),
        }
        for depth in range(1, 5)
        for region in ARTERIES
    ]


def alps(session: str) -> dict[str, Decimal]:
    """`alps.stat/alps.csv` but for its columns id and scanner. The last digits are those of `bc -l`."""
    values = {
        f"{axis}_{bundle}_{side}": draw(f"{session}/alps/{axis}/{bundle}/{side}", 0.0004, 0.0012, 6)
        for side in ("L", "R")
        for axis, bundle in (("x", "proj"), ("x", "assoc"), ("y", "proj"), ("z", "assoc"))
    }
    digits = Decimal("1.00000000000000000000")
    for side in ("L", "R"):
        across = values[f"x_proj_{side}"] + values[f"x_assoc_{side}"]
        values[f"alps_{side}"] = (across / (values[f"y_proj_{side}"] + values[f"z_assoc_{side}"])).quantize(
            digits
        )
    values["alps"] = ((values["alps_R"] + values["alps_L"]) / 2).quantize(digits)
    return values


def alps_diffusion(session: str) -> list[Row]:
    """`alps.stat/fa+md_alps.csv` but for its columns id and scanner: one row for FA, one for MD."""
    rows: list[Row] = []
    for metric, low, high in (("FA", 0.35, 0.65), ("MD", 0.0006, 0.0009)):
        parts = {
            f"{b}_{s}": draw(f"{session}/alps/{metric}/{b}/{s}", low, high, 6)
            for b in ("proj", "assoc")
            for s in ("L", "R")
        }
        means = {f"mean_{b}": (parts[f"{b}_L"] + parts[f"{b}_R"]) / 2 for b in ("proj", "assoc")}
        order = ("proj_L", "assoc_L", "proj_R", "assoc_R")
        rows.append({"diffusion_metric": metric, **{name: parts[name] for name in order}, **means})
    return rows


def donsurf_header(session: str, side: str) -> dict[str, tuple[Decimal, str]]:
    """The header measures of `<metric>/stats/<side>.aparc.stats` (those of the FreeSurfer run beneath)."""
    return m.aparc_header(f"{session}/donsurf", "6", side)


def donsurf(session: str, metric: str, side: str) -> dict[str, m.Rows]:
    """The table of `<metric>/stats/<side>.aparc.stats`, diffusivity (10^-3 mm2/s) stands in the columns of
    thickness.
    """
    table = m.aparc(f"{session}/donsurf", "6", side)
    for region, row in table.items():
        key = f"{session}/donsurf/{metric}/{side}/{region}"
        row["ThickAvg"], row["ThickStd"] = draw(f"{key}/mean", 0.7, 1.2, 3), draw(f"{key}/std", 0.05, 0.3, 3)
    return table


def qsmxt(session: str) -> dict[str, dict[str, Number]]:
    """`region_analysis/*.csv`: region -> column -> value (susceptibility in ppm)."""
    table: dict[str, dict[str, Number]] = {}
    for roi in QSM_REGIONS:
        key = f"{session}/qsm/{roi}"
        table[roi] = {
            "num_voxels": int(draw(f"{key}/num_voxels", 400, 50_000, 0)),
            "min": -draw(f"{key}/min", 0.05, 0.2, 9),
            "max": draw(f"{key}/max", 0.1, 0.4, 9),
            "median": draw(f"{key}/median", 0.0001, 0.09, 9),
            "mean": draw(f"{key}/mean", 0.0001, 0.09, 9),
            "std": draw(f"{key}/std", 0.01, 0.08, 9),
        }
    return table


def pyment(session: str) -> dict[str, Decimal]:
    """`<ID>_prediction.csv`: prediction and chronological_age in years."""
    age = draw(f"{session}/age", 48, 78, 2)
    return {"prediction": age + draw(f"{session}/pyment", -8, 8, 6), "chronological_age": age}


def lcmodel(session: str) -> list[Row]:
    """`*lcmodel.xlsx` but for its columns id and subject: region, table, measurement, value, units."""
    rows: list[Row] = []
    for region in MRS_REGIONS:
        key = f"{session}/mrs/{region}"
        for name in METABOLITES:
            value = draw(f"{key}/{name}", 0.1, 12, 3)
            rows.append(
                {
                    "region": region,
                    "table": "concentration",
                    "measurement": name,
                    "value": value,
                    "units": "mM",
                }
            )
            rows.append(
                {
                    "region": region,
                    "table": "concentration_SD",
                    "measurement": name,
                    "value": int(draw(f"{key}/{name}/sd", 1, 60, 0)),
                    "units": "%",
                }
            )
        for name, value, units in (
            ("FWHM", draw(f"{key}/FWHM", 0.02, 0.09, 3), "ppm"),
            ("S/N", draw(f"{key}/SN", 8, 60, 0), ""),
            ("Data shift", draw(f"{key}/shift", -0.02, 0.02, 3), "ppm"),
        ):
            rows.append(
                {
                    "region": region,
                    "table": "miscellaneous",
                    "measurement": name,
                    "value": value,
                    "units": units,
                }
            )
    return rows


def lcmodel_correction(session: str) -> list[Row]:
    """`*mrs_tissue_corr.xlsx` but for its columns id and subject: one row a region."""
    rows: list[Row] = []
    for region in MRS_REGIONS:
        key = f"{session}/mrs/{region}/tissue"
        grey, white = draw(f"{key}/gm", 0.4, 0.6, 4), draw(f"{key}/wm", 0.2, 0.35, 4)
        fluid = 1 - grey - white
        rows.append(
            {
                "region": region,
                "fGM": grey,
                "fWM": white,
                "fCSF": fluid,
                "corr_factor": (1 / (1 - fluid)).quantize(Decimal("1.000000")),
            }
        )
    return rows


def connectome(session: str) -> list[list[Decimal]]:
    """MRtrix3's `connectome.csv`: a symmetric matrix over `NODES`."""
    size = len(NODES)
    upper = {
        (a, b): draw(f"{session}/connectome/{a}/{b}", 0, 9, 5) for a in range(size) for b in range(a, size)
    }
    return [[upper[min(a, b), max(a, b)] for b in range(size)] for a in range(size)]


def correlations(session: str) -> list[list[Decimal]]:
    """XCP-D's matrix of Pearson correlations over `NODES`: symmetric, 1 in the diagonal."""
    size = len(NODES)
    upper = {
        (a, b): draw(f"{session}/xcpd/{a}/{b}", -0.4, 0.95, 6)
        for a in range(size)
        for b in range(a + 1, size)
    }
    return [
        [Decimal("1.0") if a == b else upper[min(a, b), max(a, b)] for b in range(size)] for a in range(size)
    ]


def timeseries(session: str, volumes: int = 12) -> list[list[Decimal]]:
    """XCP-D's signals: a row a volume, a column a node."""
    return [[draw(f"{session}/bold/{t}/{n}", -4, 4, 6) for n in range(len(NODES))] for t in range(volumes)]
