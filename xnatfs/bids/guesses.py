"""What dcm2niix takes an image for (`BidsGuess` in its sidecars), and a map made of it, to be checked.

dcm2niix writes it for makers of converters only: it cannot tell tasks, nor what a field map is for. It is
shown beside a scan that has no name, and never is one.

Used by `tree.bids_guesses`.
Threading: pure functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from xnatfs.bids import sidecars
from xnatfs.bids.bids_names import read_name
from xnatfs.text import printable

_HEAD = """\
# What dcm2niix takes those scans for that are not in the dataset. It guesses: check each rule, and copy those
# that are right into a bids.toml (docs/bids.md of xnatfs).
"""


class Series(NamedTuple):
    """What scans have in common that one rule can name."""

    type: str
    description: str


def read_guess(sidecar: bytes) -> str:
    """The guess in a sidecar, as `anat/acq-tfl3_T1w`; "" if there is none. Its run is the number of the
    series, and is left out.
    """
    guess = (sidecars.read(sidecar) or {}).get("BidsGuess")
    if not isinstance(guess, list) or len(guess) != 2 or not all(isinstance(one, str) for one in guess):
        return ""
    name = re.sub(r"_run-[^_]*(?=_)", "", f"_{guess[1].strip('_')}").strip("_")
    return printable(f"{guess[0]}/{name}")[:200]


def suggested(guesses: Mapping[Series, str]) -> str:
    """The map: a rule for each series whose guess is a name of BIDS, a comment for the others."""
    rules, comments = [], []
    for series, guess in sorted(guesses.items()):
        datatype, _, name = guess.partition("/")
        where = printable(series.description or series.type)
        try:
            found = read_name(name, datatype)
        except ValueError:
            comments.append(f"# {json.dumps(where, ensure_ascii=False)}: {guess}")
            continue
        # Every task is "rest" to dcm2niix; ours comes from the description.
        entities = {**found.entities, **({"task": "{task}"} if "task" in found.entities else {})}
        key, text = ("description", series.description) if series.description else ("type", series.type)
        lines = [
            f"[[rule]]  # {guess}",
            f"{key} = {_pattern(text)}",
            f'to = "{found.datatype}/{found.suffix}"',
        ]
        if entities:
            pairs = ", ".join(f'{entity} = "{value}"' for entity, value in entities.items())
            lines.append(f"entities = {{ {pairs} }}")
        rules.append("\n".join(lines))
    return "\n\n".join([_HEAD, *rules, *(["\n".join(comments)] if comments else [])]) + "\n"


def _pattern(text: str) -> str:
    """A pattern for exactly this text, as a string of TOML."""
    return json.dumps(re.sub(r"([*?\[])", r"[\1]", text)).replace("\x7f", "\\u007f")
