"""What `ls`, `cat` and `get` share: the tree without a mount, and what is said of PATHs that are not
there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xnatfs.cli.format import say
from xnatfs.cli.options import Where
from xnatfs.config import Privacy
from xnatfs.copying.matching import matched
from xnatfs.core import Core
from xnatfs.errors import Failure, UsageError
from xnatfs.made_table import opened
from xnatfs.text import printable

INCOMPLETE = 3  # the exit code where something was done, and something is missing


@contextmanager
def tree(where: Where, shown: dict[str, Any], privacy: Privacy) -> Iterator[Core]:
    """The tree of the server that the options select."""
    settings, login = where.settings(privacy=privacy, **shown)
    with opened(settings, login) as core, _no_log_of_what_is_said():
        yield core


@contextmanager
def _no_log_of_what_is_said() -> Iterator[None]:
    """A mount logs each failure; here the command says it, and twice is once too often. `-v` shows both."""
    logger = logging.getLogger("xnatfs")
    before = logger.level
    if logging.getLogger().level == logging.WARNING:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class Problems:
    """What went wrong so far: said on standard error, and counted for the exit code."""

    def __init__(self) -> None:
        self.count = 0
        self.done = 0

    def say(self, text: str) -> None:
        """One sentence."""
        self.count += 1
        say(f"xnatfs: {printable(text)}", err=True)

    def about(self, path: str, failure: Failure) -> None:
        """That a path cannot be had."""
        detail = f" ({failure.detail})" if failure.detail else ""
        self.say(f"{path.removeprefix('/')}: {failure.cause.sentence}{detail}")

    @property
    def exit_code(self) -> int:
        """0; 3 if only some of it was done; 1 if nothing was."""
        return 0 if not self.count else INCOMPLETE if self.done else 1

    def matched(self, core: Core, patterns: Sequence[str]) -> Iterator[str]:
        """The paths that the patterns stand for; about those that stand for none something is said."""
        for pattern in patterns:
            try:
                yield from matched(core.vfs, pattern)
            except UsageError as problem:
                self.say(str(problem))
            except Failure as failure:
                self.about(pattern, failure)
