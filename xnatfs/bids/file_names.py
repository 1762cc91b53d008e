"""Labels that are legal in BIDS (letters and digits only), told apart in a way that stays when sessions are
added, and file names.

The first of equal labels (lowest id, so the oldest) keeps the plain one; the others get `x` and their
accession id. The originals stand in `participants.tsv` and `sessions.tsv`, which makes every label
reversible. Pure functions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from xnatfs.bids.patterns import Searching
from xnatfs.bids.schema import ENTITIES, INDICES
from xnatfs.server.records import natural

_LETTERS = str.maketrans(
    {
        "ø": "o",
        "Ø": "O",
        "æ": "ae",
        "Æ": "Ae",
        "œ": "oe",
        "Œ": "Oe",
        "ß": "ss",
        "ł": "l",
        "Ł": "L",
        "đ": "d",
        "Đ": "D",
    }
)


def legal(text: str) -> str:
    """Letters and digits of a text; accents are taken off, everything else is left out."""
    plain = unicodedata.normalize("NFKD", text.encode("utf-8", "ignore").decode().translate(_LETTERS))
    return re.sub(r"[^A-Za-z0-9]", "", plain)


def subject_text(label: str, wanted: Searching | None = None) -> str:
    """The part of a subject's label that its name is made of: all of it, without a `sub-`."""
    if wanted is not None and (match := wanted.search(label)):
        return match[1]
    return re.sub(r"\Asub[-_]", "", label, flags=re.IGNORECASE)


def session_text(label: str, subject: str, wanted: Searching | None = None) -> str:
    """The part of a session's label that its name is made of: without the subject's label before it, and
    without a `ses-`.
    """
    if wanted is not None and (match := wanted.search(label)):
        return match[1]
    rest = label
    if (
        subject
        and label.casefold().startswith(subject.casefold())
        and re.match(r"[\W_]", label[len(subject) :])
    ):
        rest = label[len(subject) :]
    rest = re.sub(r"\A[\W_]*ses[-_]", "", rest, flags=re.IGNORECASE)
    return rest if legal(rest) else label


def labels(texts: Mapping[str, str]) -> dict[str, str]:
    """Accession id -> label, from accession id -> text. Labels differ in more than case: not every disk keeps
    `a` and `A` apart.
    """
    named: dict[str, str] = {}
    taken: set[str] = set()
    for identity in sorted(texts, key=natural):
        label = legal(texts[identity]) or legal(identity) or "unnamed"
        if label.lower() in taken:
            label = f"{label}x{legal(identity)}"
        while label.lower() in taken:
            label += "x"
        taken.add(label.lower())
        named[identity] = label
    return named


def stem(subject: str, session: str, entities: Mapping[str, str], without: Iterable[str] = ()) -> str:
    """The name of a file up to its suffix: `sub-01_ses-1_task-rest_run-02`."""
    left_out = set(without)
    parts = [f"sub-{subject}", f"ses-{session}"]
    for name in ENTITIES:
        value = entities.get(name, "")
        if value and name not in left_out:
            parts.append(
                f"{name}-{int(value):02d}"
                if name == "run"
                else f"{name}-{int(value)}"
                if name in INDICES
                else f"{name}-{value}"
            )
    return "_".join(parts)
