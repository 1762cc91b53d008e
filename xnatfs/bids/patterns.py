"""The patterns of a map's rules, and what a description says of a task.

A pattern is a shell pattern over the whole text (`*rest*`) or, with `re:` before it, a regular expression
that is searched for. A word pattern is a shell pattern over single words: `T1_mprage sag` has the words t1,
mprage and sag. Upper and lower case are alike.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import regex

log = logging.getLogger(__name__)

_SEARCH_TIMEOUT_S = 0.2  # for one search with somebody's expression
_MAX_TEXT_CHARS = 400  # only the beginning of a text is searched
_WORD = re.compile(r"[^\W_]+\*?")
_TECHNICAL = re.compile(
    r"""\d+(x\d+)* | \d*(mm|ms|iso|ch|vols?|min|d|t)\d* | [a-z]
      | (p|mb|te|tr|fa|sms|g|run|ser|series|echo|pass|mp)\d+(p\d+)?
      | mbep2d | ep2d\d* | epi | bold\d* | fmri\d* | func | functional | mri | cmrr | ge | gre | se
      | ap | pa | lr | rl | run | task | moco | sbref | scan | multiband | multi | echo | mb | sms | mbme | me
      | wip | dev | asc | desc | tra | ax | axial | sag | cor | session | ses | repeat | time | series""",
    re.VERBOSE,
)
_REST = re.compile(
    r"(?<![a-z])(rest(ing)?(?![a-z])|rest(ing)?state|rs[-_ ]?f?mri|rsfc|rs(?![a-z]))", re.IGNORECASE
)
_TASK = re.compile(r"task[-_]([A-Za-z0-9]+)", re.IGNORECASE)


# What compiling a pattern raises that is wrong, too large or nested too deeply.
NO_PATTERN = (re.error, OverflowError, RecursionError)


class Searching(Protocol):
    """What is needed of a compiled expression."""

    @property
    def groupindex(self) -> Mapping[str, int]: ...
    @property
    def groups(self) -> int: ...
    def search(self, text: str, /) -> re.Match[str] | None: ...


class Bounded:
    """A regular expression from a map, which may come from the server: whoever may write there must not be
    able to stop the mount.

    `(a|aa)+$` takes years for 60 letters, and Python's `re` lets nothing else run meanwhile; `regex` stops
    after a time limit, and the text then counts as one that does not match.

    Raises:
        re.error: it is not a regular expression of Python's.
    """

    def __init__(self, text: str, flags: int = 0) -> None:
        checked = re.compile(text, flags)
        self.groups, self.groupindex = checked.groups, checked.groupindex
        self._text = text
        try:
            self._compiled = regex.compile(text, flags)
        except regex.error as error:
            raise re.error(str(error)) from None

    def search(self, text: str) -> re.Match[str] | None:
        """The first match; None if there is none, or the search takes too long."""
        try:
            match: re.Match[str] | None = self._compiled.search(
                text[:_MAX_TEXT_CHARS], timeout=_SEARCH_TIMEOUT_S
            )
        except TimeoutError:
            log.warning(
                "the expression %r takes too long on %r; treating it as no match",
                self._text[:200],
                text[:200],
            )
            return None
        return match


@dataclass(frozen=True)
class Pattern:
    """One pattern of a rule."""

    text: str
    compiled: Searching

    @property
    def groups(self) -> Iterable[str]:
        """The names of its groups."""
        return self.compiled.groupindex

    def find(self, text: str) -> dict[str, str] | None:
        """What its groups matched; None if it does not match."""
        match = self.compiled.search(text[:_MAX_TEXT_CHARS])
        return None if match is None else {name: value or "" for name, value in match.groupdict().items()}


def pattern(text: str) -> Pattern:
    """A pattern from its spelling in a map.

    Raises:
        re.error: it is not a regular expression.
    """
    if text.startswith("re:"):
        return Pattern(text, Bounded(text[3:], re.IGNORECASE))
    return Pattern(text, re.compile(r"\A" + fnmatch.translate(text), re.IGNORECASE))


@lru_cache(4096)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case; `t2*` keeps its star, which is a part of the name."""
    return tuple(match[0].lower() for match in _WORD.finditer(text[:_MAX_TEXT_CHARS]))


@lru_cache(16384)
def _compiled(word: str) -> re.Pattern[str]:
    # The star of T2* is written [*] in a pattern, as in a shell.
    return re.compile(fnmatch.translate(word.lower()))


def any_word(patterns: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether a word of the texts fits one of the patterns."""
    words = {word for text in texts for word in words_of(text)}
    return any(_compiled(pattern).match(word) for pattern in patterns for word in words)


def task_of(type: str, description: str) -> str:
    """The task a BOLD series is about, for the entity `task`: `rest`, what follows the word task, or what is
    no technical word.
    """
    for text in (description, type):
        named = _TASK.search(text)
        if named and named[1].lower() not in ("fmri", "bold", "run"):
            return named[1]
        if _REST.search(text):
            return "rest"
    for text in (description, type):
        words = list(_telling(text))
        if words:
            return "".join(words)
    return "unknown"


def _telling(text: str) -> Iterator[str]:
    for word in words_of(text):
        if not _TECHNICAL.fullmatch(word):
            yield word.rstrip("*")
