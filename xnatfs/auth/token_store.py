"""Stores the alias tokens of `xnatfs login` on this machine: in the system's keyring if there is one, else in
a private file.

Used by `credentials` (which reads), `cli.login` and `server.token_renewal` (which write). Never stores a
password, only tokens that expire; it can read one that another tool has in the keyring. `tokens.json` in the
state directory (0600, in a folder 0700) lists the tokens; the secret is in it, or in the keyring.
Threading: any thread and any process: the file is replaced as a whole, under a lock that other processes
respect.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xnatfs.config import private_folder, state_home
from xnatfs.disk import write_private_json
from xnatfs.errors import UsageError

FILE, KEYRING = "file", "keyring"
_SERVICE = "xnatfs"
# for the keyring to answer, including a person's typing; it must never block a mount for good
_KEYRING_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class StoredToken:
    """An alias token. Times in seconds since 1970 by this machine's clock; `expires` is None if the server
    did not give it.
    """

    server: str
    user: str
    alias: str = field(repr=False)
    secret: str = field(repr=False)
    issued: float
    expires: float | None
    place: str = FILE
    verify: bool | str | None = None
    proxy: str | None = field(default=None, repr=False)  # it may carry a password of its own

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()


def kept() -> list[StoredToken]:
    """The stored tokens, newest first. They lack the secrets that are in the keyring: see `whole`.

    Raises:
        UsageError: another user could have read or written the file.
    """
    path = _path()
    try:
        with path.open(encoding="utf-8") as stream:
            private_folder(path.parent)
            _check(os.fstat(stream.fileno()), path)
            rows = json.load(stream)
        found = [StoredToken(**row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError):
        raise UsageError(f"{path} cannot be read; remove it and run `xnatfs login` again") from None
    return sorted(found, key=lambda one: -one.issued)


def whole(token: StoredToken) -> StoredToken:
    """The token with its alias and secret.

    Raises:
        UsageError: the keyring does not return them.
    """
    if token.place == FILE:
        return token
    try:
        alias, secret = json.loads(_keyring(lambda ring: ring.get_password(_SERVICE, _name(token))))
    except (ValueError, TypeError):
        raise UsageError(
            f"the keyring has no token for {token.user} at {token.server} any more; run `xnatfs login` again"
        ) from None
    return replace(token, alias=alias, secret=secret)


def keep(token: StoredToken, place: str | None = None) -> tuple[StoredToken, str]:
    """Store a token, replacing any other for its server and user.

    Args:
        place: FILE or KEYRING; None prefers the keyring if there is one.

    Returns:
        the token with its place, and the reason why it is not in the keyring ("" if it is).

    Raises:
        UsageError: it cannot be stored (there).
    """
    why_not = ""
    if place != FILE:
        try:
            _keyring(
                lambda ring: ring.set_password(
                    _SERVICE, _name(token), json.dumps([token.alias, token.secret])
                )
            )
            return _write(replace(token, place=KEYRING)), ""
        except UsageError as problem:
            if place == KEYRING:
                raise
            why_not = str(problem)
    return _write(replace(token, place=FILE)), why_not


def forget(token: StoredToken) -> None:
    """Delete a token."""
    with _locked():
        _replace([one for one in kept() if _name(one) != _name(token)])
    if token.place == KEYRING:
        with contextlib.suppress(UsageError):
            _keyring(lambda ring: ring.delete_password(_SERVICE, _name(token)))


@contextlib.contextmanager
def renewing() -> Iterator[bool]:
    """False while another process renews a token: two would invalidate each other's."""
    with _lock_file("renewing").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: two may renew, and each has a token that works
            pass
        yield True


def password_of(service: str, name: str) -> str:
    """A password that another tool put into the system's keyring.

    Raises:
        UsageError: there is no keyring, or nothing of this name is in it.
    """
    found = _keyring(lambda ring: ring.get_password(service, name))
    if not isinstance(found, str):
        raise UsageError("the keyring has no such password")
    return found


def where(token: StoredToken) -> str:
    """Where it is stored, for display."""
    return "the system's keyring" if token.place == KEYRING else str(_path())


def _write(token: StoredToken) -> StoredToken:
    bare = replace(token, alias="", secret="") if token.place == KEYRING else token
    with _locked():
        _replace([bare, *(one for one in kept() if _name(one) != _name(token))])
    return token


def _replace(tokens: list[StoredToken]) -> None:
    path = _path()
    try:
        write_private_json(path, [asdict(one) for one in tokens])
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _path() -> Path:
    return state_home() / "login" / "tokens.json"


def _lock_file(name: str) -> Path:
    try:
        folder = private_folder(_path().parent)
    except OSError as error:
        raise UsageError(f"{_path().parent} cannot be created: {error.strerror}") from None
    lock = folder / f"{name}.lock"
    lock.touch(mode=0o600)
    return lock


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with _lock_file("tokens").open("w") as stream:
        with contextlib.suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _check(status: os.stat_result, path: Path) -> None:
    if status.st_uid != os.geteuid():
        raise UsageError(f"{path} belongs to another user; the login in it is not used")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"{path} is open to others; the login in it is not used: `chmod 600 {path}` and run `xnatfs "
            f"login` again"
        )


def _name(token: StoredToken) -> str:
    return f"{token.user} at {token.server}"


def _keyring(ask: Callable[[Any], Any]) -> Any:
    """The keyring's answer, from a thread: on a cluster it may wait for a desktop that does not exist.

    Raises:
        UsageError: there is none, it does not answer, or it refuses; the text says which.
    """
    chosen = os.environ.get("PYTHON_KEYRING_BACKEND")
    if not chosen and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError("there is no desktop session with a keyring")
    answer: list[Any] = []
    problem: list[str] = []

    def work() -> None:
        try:
            keyring = importlib.import_module("keyring")  # an extra: not every machine has it
        except ImportError:
            problem.append("the Python package keyring is not installed")
            return
        try:
            ring = keyring.get_keyring()
            if ring.priority < 1 and not chosen:  # the library's way of saying: not recommended
                problem.append("this machine has no keyring")
                return
            answer.append(ask(ring))
        except (
            Exception
        ) as error:  # backends raise what their libraries raise; never its text, which might quote
            problem.append(f"the keyring refused ({type(error).__name__})")

    thread = threading.Thread(target=work, name="keyring", daemon=True)
    thread.start()
    thread.join(_KEYRING_TIMEOUT_S)
    if not answer:
        raise UsageError(problem[0] if problem else "the keyring does not answer")
    return answer[0]
