"""The stand-in beside replies recorded from XNAT's own code.

The recordings lie beside the repository, in `../shared/samples/xnat-replies`, and are never copied into it:
`dataset` loads the data they were made on, `send` asks the stand-in the same, `compare` says what differs,
`expected` lists what cannot agree and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[4] / "shared" / "samples" / "xnat-replies"
MISSING = "the recorded replies are not beside the repository (../shared/samples/xnat-replies)"

Entry = dict[str, Any]


def recorded(name: str) -> Any:
    """One of the recordings' files."""
    return json.loads((HERE / f"{name}.json").read_text("utf-8"))
