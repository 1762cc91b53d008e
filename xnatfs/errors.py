"""What can go wrong: one table that maps each cause to an errno and a plain sentence.

Used by every layer; the lowest module, it imports nothing of xnatfs. Everything a lower layer reports to a
higher one is a `Failure`, which *is* an `OSError`, so that a FUSE callback only has to pass on its errno.
Immutable values: safe in any thread.
"""

from __future__ import annotations

import errno
import os
from enum import Enum
from typing import Any

__all__ = ["Cause", "Failure", "MissingExtra", "UsageError"]


class Cause(Enum):
    """A cause: the errno a program sees, and the sentence a person reads in `xnatfs status`, the log or the
    terminal.
    """

    # The path or handle
    NO_ENTRY = (errno.ENOENT, "no such file or directory")
    NOT_A_DIRECTORY = (errno.ENOTDIR, "part of the path is a file, not a folder")
    IS_A_DIRECTORY = (errno.EISDIR, "this is a folder, not a file")
    NAME_TOO_LONG = (errno.ENAMETOOLONG, "a name in the path is longer than 255 bytes")
    READ_ONLY = (errno.EROFS, "the mount is read-only")
    NO_ATTRIBUTE = (errno.ENODATA, "there is no such extended attribute")
    BAD_HANDLE = (errno.EBADF, "this file is not open")
    # Reaching the server
    UNKNOWN_HOST = (errno.EHOSTDOWN, "the server's name cannot be resolved; check the URL and the network")
    UNREACHABLE = (
        errno.EHOSTDOWN,
        "the server cannot be reached; check the URL, the network and any proxy",
    )
    BAD_CERTIFICATE = (
        errno.EHOSTDOWN,
        "the server's TLS certificate is not trusted; set REQUESTS_CA_BUNDLE for a private authority",
    )
    NO_TLS = (
        errno.EHOSTDOWN,
        "the server does not speak TLS there; if it is an http server, write http:// (see --allow-http)",
    )
    OFFLINE = (errno.EHOSTDOWN, "this mount is offline, and this is not in the cache")
    TIMED_OUT = (errno.ETIMEDOUT, "the server did not answer in time")
    INTERRUPTED = (errno.EINTR, "interrupted")
    PLAIN_HTTP = (
        errno.EACCES,
        "without TLS the password would cross the network in clear text; use https://, or pass --allow-http",
    )
    # The login
    LOGIN_REFUSED = (errno.EACCES, "the server refused this user name and password (or token)")
    NOT_ALLOWED = (errno.EACCES, "this user may not read this")
    TOO_MANY_SESSIONS = (errno.EUSERS, "this user has too many sessions on the server; try again later")
    LOGIN_BLOCKED = (errno.EACCES, "the login was stopped before it reached XNAT")
    # The server's answer
    NOT_AN_XNAT = (
        errno.EPROTO,
        "the server answers, but not like an XNAT; check the URL (with its path, if XNAT is not at the root)",
    )
    MOVED = (errno.EPROTO, "the server has moved; use the new URL")
    SERVER_ERROR = (errno.EIO, "the server reported an error")
    NOT_DATA = (errno.EIO, "the server sent a web page instead of data")
    CUT_SHORT = (errno.EIO, "the server's answer ended too early")
    BAD_LISTING = (errno.EIO, "the server's listing could not be understood")
    TOO_LARGE = (errno.EFBIG, "the server's answer is larger than any valid one")
    LISTING_EMPTY = (errno.EIO, "the server lists no files here, although it counts some")
    UNPROVEN = (errno.EIO, "the server says it does not have this, and no listing confirms it")
    GONE = (errno.EIO, "the server lists this file but does not have it")
    BAD_DIGEST = (errno.EIO, "the file differs from the digest in the server's catalog")
    CHANGED = (errno.ESTALE, "the file changed on the server while it was read; open it again")
    # This machine
    BAD_LIST = (errno.EIO, "the list of sessions cannot be read")
    NO_SPACE = (errno.ENOSPC, "the cache is full")
    CACHE_BROKEN = (errno.EIO, "the cache directory cannot be used")
    NO_RESOURCES = (errno.ENFILE, "xnatfs has no descriptor, port or memory left for another request")
    TOO_MANY_CONVERSIONS = (errno.EBUSY, "too many scans were to be converted in a minute; try again later")
    NOT_CONVERTED = (errno.ENODATA, "this scan is not converted yet, and a walk converts nothing")
    REFUSED = (errno.EIO, "the scan's DICOM files are not converted to NIfTI")
    OTHER_IMAGES = (
        errno.EIO,
        "the scan's DICOM files are not what this name says; the folder now lists what they are",
    )
    NOT_INSTALLED = (errno.ENOTSUP, "this needs a part of xnatfs that is not installed")

    @property
    def errno(self) -> int:
        return self.value[0]

    @property
    def sentence(self) -> str:
        return self.value[1]


# Causes that prove nothing about what exists: the server did not answer, or its answer shows neither presence
# nor absence. The last proven state stays. A status of 404 is one of them: XNAT without its database answers
# 404 for data that exists (xnat-rest.md 13).
UNANSWERED = frozenset(
    {
        *(Cause.OFFLINE, Cause.UNREACHABLE, Cause.UNKNOWN_HOST, Cause.BAD_CERTIFICATE, Cause.NO_TLS),
        Cause.TIMED_OUT,
        *(
            Cause.CUT_SHORT,
            Cause.SERVER_ERROR,
            Cause.NOT_DATA,
            Cause.BAD_LISTING,
            Cause.LISTING_EMPTY,
            Cause.UNPROVEN,
            Cause.TOO_MANY_SESSIONS,
            Cause.NO_RESOURCES,
        ),
    }
)


class Failure(OSError):
    """A failed operation: its cause, and what it happened to.

    `subject` is what the sentence is about (a URL without credentials, a path, a name); `detail` adds
    information where there is any; `status` is the HTTP status, or 0 if there was none; `away` is set if the
    server is known to be away (`server.breaker`): no request was sent, and retrying now is pointless.
    """

    away = False

    def __init__(self, cause: Cause, subject: str = "", detail: str = "", status: int = 0) -> None:
        super().__init__(cause.errno, os.strerror(cause.errno))
        self.cause = cause
        self.subject = subject
        self.detail = detail
        self.status = status

    @property
    def exit_code(self) -> int:
        """What a command ends with: a service manager must not try a refused login again and again."""
        return os.EX_NOPERM if self.cause is Cause.LOGIN_REFUSED else 1

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (self.cause, self.subject, self.detail, self.status)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.cause.sentence}" if self.subject else self.cause.sentence
        return f"{text} ({self.detail})" if self.detail else text


class UsageError(Exception):
    """The user asked for something that cannot be done; the text is the sentence to show.

    Attributes:
        exit_code: what the command ends with.
    """

    def __init__(self, text: str, *, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class MissingExtra(UsageError, ImportError):
    """An optional part of xnatfs is needed and not installed.

    Attributes:
        extra: the extra to install, as in `pip install 'xnatfs[extra]'`.
    """

    def __init__(self, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"support for {purpose} is not installed; `pip install 'xnatfs[{extra}]'` adds it")
