"""The rules for the usual scan types, as a map like any other. The view shows it in `code/`, to copy from.

Scans that BIDS has no name for are skipped with the reason, as are those that need facts which neither XNAT
nor dcm2niix provides.
"""

from __future__ import annotations

from functools import cache

from xnatfs.bids.map_file import parse
from xnatfs.bids.mapping import BidsMap

TEXT = r"""
# Resources with images: the first that a scan has is used.
images = ["NIFTI", "NIFTI_RAW", "NIFTI_GZ", "NII", "NIFTI_PLAIN"]
# Where to look for a sidecar that is not beside its image.
sidecars = ["BIDS"]
skip_quality = ["unusable"]
runs = "needed"

# --- nothing for a dataset ----------------------------------------------------------------------------------

[[rule]]
words = [
    "localizer*", "localiser*", "loc", "scout*", "survey*", "aahead*", "aascout*", "3plane*", "smartbrain",
    "*localizer",
]
skip = "a localizer"

[[rule]]
words = [
    "calibration*", "asset*", "refscan", "coilsens*", "shim*", "b1shim", "phoenix*", "screensave*",
    "presscan*",
]
skip = "a calibration or a picture of the screen"

[[rule]]
words = [
    "pet*", "ct", "fdg", "pib", "florbet*", "flutemet*", "spectro*", "mrs", "svs*", "csi*", "press*", "mega*",
]
skip = "BIDS requires facts about PET, CT and spectroscopy that XNAT does not list"

[[rule]]
words = ["adc", "eadc", "expadc", "tracew", "trace", "colfa", "fa", "tensor"]
also = ["dwi*", "dti*", "diff*", "ep2d*", "adc", "tracew", "colfa"]
skip = "computed by the scanner from diffusion images"

[[rule]]
words = ["cbf", "relcbf", "perfusionweighted", "mosaicmoco", "evaseries*", "gofmri*", "design*"]
skip = "computed by the scanner"

# --- perfusion ----------------------------------------------------------------------------------------------

[[rule]]
words = ["m0", "m0scan", "m0map"]
to = "perf/m0scan"

[[rule]]
words = ["asl", "*casl*", "pasl", "*asl3d*", "*aslpr*", "fairest", "q2tips"]
to = "perf/asl"

# --- field maps ---------------------------------------------------------------------------------------------

[[rule]]
any = [
    're:(se|spin.?echo).?(epi|field.?map|fmap)|distortion.?map|dist.?map',
    're:topup|pepolar|blip.?(up|down)|rev(erse)?.?(pe|phase)',
]
description = 're:[^a-z](?P<dir>ap|pa|lr|rl|is|si)(?![a-z])'
to = "fmap/epi"
entities = { dir = "{dir}" }

[[rule]]
any = 're:distortion.?map|dist.?map|topup|pepolar|spin.?echo.?field.?map'
to = "fmap/epi"

[[rule]]
any = 're:field.?map|fmap|b0.?map'
file = 're:_ph\.nii'
to = "fmap/phasediff"

[[rule]]
any = 're:field.?map|fmap|b0.?map'
words = ["pha", "phase", "phasediff", "phdiff", "ph"]
to = "fmap/phasediff"

[[rule]]
any = 're:field.?map|fmap|b0.?map'
to = "fmap/magnitude1"

# --- diffusion ----------------------------------------------------------------------------------------------

[[rule]]
words = ["sbref"]
also = ["dwi*", "dti*", "diff*", "hardi*", "noddi*", "dmri*"]
to = "dwi/sbref"

[[rule]]
any = 're:(dwi|dti|diff|hardi|noddi|dmri).*[^a-z](?P<dir>ap|pa|lr|rl)(?![a-z])'
to = "dwi/dwi"
entities = { dir = "{dir}" }

[[rule]]
words = ["dwi*", "dti*", "diff*", "hardi*", "noddi*", "dmri*", "dsi*"]
to = "dwi/dwi"

# --- function -----------------------------------------------------------------------------------------------

[[rule]]
words = ["sbref"]
to = "func/sbref"
entities = { task = "{task}" }

[[rule]]
words = [
    "rest", "resting*", "restingstate*", "rs", "rsfmri", "rsmri", "rsfc", "fmri*", "bold*", "*bold", "task*",
    "func*",
]
without = ["t1", "t1w", "t2", "t2w", "*mprage", "*flair*"]
frames = "2-"
to = "func/bold"
entities = { task = "{task}" }

# --- anatomy ------------------------------------------------------------------------------------------------

[[rule]]
words = ["swi*", "suscept*"]
also = ["mag", "magnitude", "mag_images"]
to = "anat/T2starw"
entities = { acq = "swi", part = "mag" }

[[rule]]
words = ["swi*", "suscept*"]
also = ["pha", "phase", "ph"]
to = "anat/T2starw"
entities = { acq = "swi", part = "phase" }

[[rule]]
words = ["swi*", "suscept*", "mip", "minip"]
skip = "BIDS has no name for susceptibility-weighted and projected images"

[[rule]]
any = 're:mp2rage.*inv[-_ ]?(?P<inv>[12])'
to = "anat/MP2RAGE"
entities = { inv = "{inv}" }

[[rule]]
any = 're:mp2rage.*uni|uni.*mp2rage|unit1'
to = "anat/UNIT1"

[[rule]]
words = ["mp2rage*"]
skip = "which image of MP2RAGE this is does not stand in its name"

[[rule]]
words = ["t1", "t1w"]
also = ["flair"]
to = "anat/T1w"
entities = { acq = "flair" }

[[rule]]
words = ["*flair*", "darkfluid"]
to = "anat/FLAIR"

[[rule]]
words = ["tof*", "mra", "angio*"]
to = "anat/angio"

[[rule]]
any = ['re:t2[ _-]?\*', 're:t2[ _-]?star', 're:(?<![a-z])(medic|megre|t2s|qsm)(?![a-z])']
to = "anat/T2starw"

[[rule]]
any = 're:(?<![a-z])(pd[-_ ]?t2|t2[-_ ]?pd)(?![a-z])'
to = "anat/PDT2"

[[rule]]
words = ["pd", "pdw", "proton*"]
to = "anat/PDw"

[[rule]]
words = ["t1map", "t1rho", "t2map", "t2mapping", "t1mapping"]
skip = "a quantitative map; a map of your own can place it"

[[rule]]
words = ["t1*", "*mprage*", "mpr", "bravo", "*spgr*", "tfl3d*", "tfe*", "adni", "memprage"]
to = "anat/T1w"

[[rule]]
words = ["t2*", "haste"]
to = "anat/T2w"
"""


@cache
def usual_map() -> BidsMap:
    """The map without a lab's own."""
    return parse(TEXT, "the usual rules")
