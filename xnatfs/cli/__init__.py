"""The command line: one thin module per command.

`main` turns every failure into one plain sentence on standard error and an exit code: 1 for what can be
expected, 70 (EX_SOFTWARE of sysexits.h) for what cannot.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import logging
import os
import platform
import sys
from typing import Any

import click

from xnatfs._version import __version__
from xnatfs.auth.credentials import without_passwords
from xnatfs.cli import mount_helper
from xnatfs.cli.completion import VARIABLE
from xnatfs.errors import Failure, MissingExtra, UsageError
from xnatfs.extras import EXTRAS, check
from xnatfs.text import did_you_mean, printable, printable_lines

_COMMANDS = {
    "mount": "xnatfs.cli.mount",
    "unmount": "xnatfs.cli.unmount",
    "run": "xnatfs.cli.run",
    "status": "xnatfs.cli.status",
    "refresh": "xnatfs.cli.refresh",
    "warm": "xnatfs.cli.warm",
    "convert": "xnatfs.cli.convert",
    "ls": "xnatfs.cli.ls",
    "cat": "xnatfs.cli.cat",
    "get": "xnatfs.cli.get",
    "table": "xnatfs.cli.table",
    "cache": "xnatfs.cli.cache",
    "login": "xnatfs.cli.login",
    "logout": "xnatfs.cli.logout",
    "doctor": "xnatfs.cli.doctor",
    "selftest": "xnatfs.cli.selftest",
    "demo": "xnatfs.cli.demo",
    "serve-demo": "xnatfs.cli.serve_demo",
    "completion": "xnatfs.cli.completion",
    "help": "xnatfs.cli.help",
}


_ALSO = {"umount": "unmount"}  # as the system's own command is spelt


class _Printable(logging.Formatter):
    """One line per message, whatever it contains: names come from other people, and may contain terminal
    control sequences.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return printable_lines(super().formatException(ei))


class _Commands(click.Group):
    """Loads a command's module when it is called: `xnatfs status` need not import a web framework."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(_ALSO.get(cmd_name, cmd_name))
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = click.utils.make_str(args[0])
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            meant = "; to mount a server: xnatfs mount DIR --server URL" if "://" in name else ""
            raise click.UsageError(
                f"there is no command {name!r}{meant or did_you_mean(name, _COMMANDS)}", ctx
            )
        return super().resolve_command(ctx, args)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"xnatfs {__version__} (Python {platform.python_version()}, {_libfuse()}; {_extras()})")
    ctx.exit()


def _libfuse() -> str:
    try:
        from xnatfs.fuse.library import LIBFUSE
    except OSError:
        return "without libfuse"
    return f"libfuse {LIBFUSE[0]}.{LIBFUSE[1]}"


def _extras() -> str:
    there = []
    for extra in EXTRAS:
        with contextlib.suppress(MissingExtra):
            check(extra)
            there.append(extra)
    return f"extras: {', '.join(there) or 'none'}"


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "XNATFS",
    },
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@click.option("-v", "--verbose", count=True, help="Log more; twice: everything.")
@click.option("-q", "--quiet", is_flag=True, help="Log errors only.")
@click.option(
    "--log-file", type=click.Path(dir_okay=False), metavar="FILE", help="Log to FILE, not to standard error."
)
@click.option("--debug", is_flag=True, help="Show where an unexpected error comes from.")
def cli(verbose: int, quiet: bool, log_file: str | None, debug: bool) -> None:
    """Mount an XNAT server as a directory.

    Try it without a server:  xnatfs demo

    These options come before the command. Each option of xnatfs can be set by an environment variable:
    XNATFS_LOG_FILE for --log-file, XNATFS_MOUNT_SERVER for the --server of mount.
    """
    level = logging.ERROR if quiet else (None, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    root = logging.getLogger()
    if level is not None:
        root.setLevel(level)
    if log_file is not None:
        handler = logging.FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(_Printable(_FORMAT))
        for before in root.handlers:
            root.removeHandler(before)
        root.addHandler(handler)
    if debug:
        _asked_for["debug"] = True
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":  # https://no-color.org
        click.get_current_context().color = False


_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_asked_for = {"debug": False}  # for `main`, which meets the errors that no command expects


def main(arguments: list[str] | None = None) -> None:
    """The command `xnatfs`."""
    _open_closed_streams()
    level = os.environ.get("XNATFS_LOG", "WARNING").upper()
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable(_FORMAT))
    logging.basicConfig(
        level=level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else "WARNING", handlers=[handler]
    )
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings repeat retries, with full URLs
    without_passwords()
    if not os.environ.get("HOME"):
        # libfuse's mount.fuse leaves it empty, and Python takes that for the root folder; if it is not set,
        # the user database says where home is.
        os.environ.pop("HOME", None)
    _asked_for["debug"] = False
    try:
        words = sys.argv[1:] if arguments is None else arguments
        asked = mount_helper.translated(sys.argv[0], words, {*_COMMANDS, *_ALSO})
        if asked == []:
            return
        result: Any = cli.main(
            args=arguments if asked is None else asked,
            prog_name="xnatfs",
            complete_var=VARIABLE,
            standalone_mode=False,
        )
        sys.stdout.flush()
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and "pass" in error.option_name:
            _say("a password is asked for, or kept by `xnatfs login`; arguments show in `ps`")
        sys.exit(error.exit_code)
    except (UsageError, Failure) as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `xnatfs table P NAME | head` has what it wanted. Python would complain at the end, when it flushes.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if _asked_for["debug"]:
            raise
        if isinstance(error, OSError) and error.strerror:
            _say(f"{_place_of(error)}: {error.strerror}")
            sys.exit(1)
        _say(f"unexpected error: {type(error).__name__}: {error} (`xnatfs --debug ...` shows where)")
        sys.exit(70)
    sys.exit(result if isinstance(result, int) else 0)


def _open_closed_streams() -> None:
    """Give a process that was started without standard output or error (`>&-`) one that nobody reads: Python
    has None there, and the next file that is opened would get its number. Names in an encoding that cannot
    show them are escaped.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  (for the life of the process)
            if stream.fileno() != number:
                os.dup2(stream.fileno(), number)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name is no error


def _place_of(error: OSError) -> str:
    """What an error without an expected place is about."""
    if error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    try:
        os.getcwd()
    except OSError:
        return "the current folder was removed"
    return (
        "standard output" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) else "an operation failed"
    )


def _say(text: str) -> None:
    print(f"xnatfs: {printable(text)}", file=sys.stderr)
