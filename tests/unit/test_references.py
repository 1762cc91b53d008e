"""Every reference to a document leads somewhere: the file exists, and so does the numbered section.

Comments name the source of a fact as a document and a number, `docs/internals/` NAME `.md` N or N.M. Followed
are those, every other document and file that is named in the documents of this repository, and the links
between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERNALS = "docs/internals/"

_FOLDERS = ("xnatfs", "tests", "scripts", "docs", ".github")
_SUFFIXES = (".py", ".md", ".toml", ".yml", ".cff", ".sh", "")
# A document of docs/internals may be named without its folder, in front of a number.
_SHORT = "|".join(sorted(path.stem for path in (ROOT / "docs/internals").glob("*.md")))
_DOCUMENT = re.compile(rf"(?<![\w/.-])(docs/[\w./-]*?\w\.(?:md|png)|(?:{_SHORT})\.md(?=\s+(?:#\s+)?\d))\b")
_NUMBER = r"\d+(?:\.\d+)?"
_NUMBERS = re.compile(
    rf"(?:[ ]|[ ]*\n[ \t]*(?:\#[ ]*)?(?!\d+\.[ ]))(?:sections?[ ])?"
    rf"({_NUMBER}(?:(?:[ ]point[ ]\d+)?(?:,|[ ]and|[ ]to)[ ]{_NUMBER}\b(?!\.md))*)",
    re.VERBOSE,
)
_HEADING = re.compile(rf"^#+ ({_NUMBER})\.? |^\*\*({_NUMBER})\*\* ", re.MULTILINE)
_TITLE = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
# Not `~/.config/xnatfs/lists`, nor what a placeholder stands in.
_FILE = re.compile(
    r"(?<![\w/.~@-])((?:xnatfs|tests|scripts|docs)/(?:[\w.-]+/)*(?:[\w-]+(?:\.\w+)*)?)(?![\w/])"
)
_TOP = re.compile(r"(?<![\w/.-])([A-Z]{4,}(?:_[A-Z]+)*\.md)\b")
_PLACEHOLDER = re.compile(r"[A-Z]{2,}|[<>{}*]|\.\.\.")

# Documents that are not in the repository.
OLD_FORMS = (
    r"fact sheet",
    r"DESIGN\b(?!\.md)",
    r"recorded\.md",
    r"fuse-anchors\.md",
    r"ecosystem\.md",
    r"HOUSE\.md",
    r"shared/research",
)


def _texts() -> dict[str, str]:
    found = [path for folder in _FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in _SUFFIXES]
    found += [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".cff")]
    found = [
        path
        for path in found
        if path.is_file() and "__pycache__" not in path.parts and path != Path(__file__)
    ]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(found)
    }


TEXTS = _texts()
DOCUMENTS = {name: text for name, text in TEXTS.items() if name.endswith((".md", ".yml"))}


@cache
def sections(document: str) -> frozenset[str]:
    """The numbers of the headings (and of numbered rules) in a document."""
    text = _CODE.sub("", (ROOT / document).read_text(encoding="utf-8"))
    return frozenset(one or other for one, other in _HEADING.findall(text))


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _whole(document: str) -> str:
    return document if "/" in document else INTERNALS + document


def numbered(text: str) -> Iterator[tuple[int, str, str]]:
    """(offset, document, number) of each reference to a section."""
    for match in _DOCUMENT.finditer(text):
        numbers = _NUMBERS.match(text, match.end())
        for number in re.findall(rf"(?<!point )\b{_NUMBER}", numbers[1] if numbers else ""):
            yield match.start(), _whole(match[1]), number


def named(name: str, text: str) -> Iterator[tuple[int, str]]:
    """(offset, path) of each file of this repository that a text names: documents everywhere, any file in
    documents.
    """
    for match in _DOCUMENT.finditer(text):
        yield match.start(), _whole(match[1])
    if name in DOCUMENTS:
        for pattern in (_FILE, _TOP):
            for match in pattern.finditer(text):
                if not _PLACEHOLDER.search(match[1]) or pattern is _TOP:
                    yield match.start(), match[1]


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    titles = _TITLE.findall(_CODE.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def test_what_is_referred_to_is_there() -> None:
    dead = []
    for name, text in TEXTS.items():
        for at, path in named(name, text):
            if not (ROOT / path).exists():
                dead.append(f"{name}:{_line(text, at)}: there is no {path}")
        for at, document, number in numbered(text):
            known = sections(document) if (ROOT / document).exists() else frozenset()
            if (known or document.startswith(INTERNALS)) and number not in known:
                dead.append(f"{name}:{_line(text, at)}: {document} has no section {number}")
    assert not dead, "\n".join(dict.fromkeys(dead))


def test_links_lead_somewhere() -> None:
    dead = []
    for name in (name for name in TEXTS if name.endswith(".md")):
        for target in _LINK.findall(_CODE.sub("", TEXTS[name])):
            if re.match(r"\w+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (ROOT / name).parent / path if path else ROOT / name
            if not there.exists() or (anchor and anchor not in anchors(there)):
                dead.append(f"{name}: {target}")
    assert not dead, "\n".join(dead)


def test_sections_are_numbered_once() -> None:
    documents = [name for name in TEXTS if name.startswith(INTERNALS)]
    assert documents
    for document in documents:
        numbers = re.findall(rf"^#+ ({_NUMBER})\.? ", _CODE.sub("", TEXTS[document]), re.MULTILINE)
        assert numbers and len(numbers) == len(set(numbers)), document


def test_nothing_refers_to_what_is_not_in_the_repository() -> None:
    found = []
    for name, text in TEXTS.items():
        for form in OLD_FORMS:
            found += [
                f"{name}:{_line(text, match.start())}: {match[0]}"
                for match in re.finditer(rf"(?<![\w/-]){form}", text)
            ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(bx.md 6.2)", [("bx.md", "6.2")]),
        ("(docs/internals/bx.md section 4)", [("bx.md", "4")]),
        ("bx.md 2.4, 2.9 point 6).", [("bx.md", "2.4"), ("bx.md", "2.9")]),
        ("bx.md 2.3 to 2.6, 7", [("bx.md", "2.3"), ("bx.md", "2.6"), ("bx.md", "7")]),
        ("bx.md 1, read.md 2", [("bx.md", "1"), ("read.md", "2")]),
        ("bx.md 1.3 and 1.5", [("bx.md", "1.3"), ("bx.md", "1.5")]),
        ("# docs/internals/bx.md\n    # 4.1: why", [("bx.md", "4.1")]),
        ("see docs/internals/bx.md.\n2. next", []),
        ("see docs/internals/bx.md\n2. next", []),
        ("docs/internals/bx.md says 5", []),
    ],
)
def test_references_are_found(text: str, found: list[tuple[str, str]]) -> None:
    assert [(document.removeprefix(INTERNALS), number) for _, document, number in numbered(text)] == found
