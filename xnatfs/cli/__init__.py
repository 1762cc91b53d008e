"""The command line: one thin module per command.

`main` turns every expected failure into one plain sentence on standard error and exit code 1.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from xnatfs._version import __version__
from xnatfs.auth.credentials import without_passwords
from xnatfs.errors import Failure, UsageError
from xnatfs.text import did_you_mean, printable, printable_lines

_COMMANDS = {
    "mount": "xnatfs.cli.mount",
    "unmount": "xnatfs.cli.unmount",
    "status": "xnatfs.cli.status",
    "refresh": "xnatfs.cli.refresh",
    "warm": "xnatfs.cli.warm",
    "table": "xnatfs.cli.table",
    "cache": "xnatfs.cli.cache",
    "login": "xnatfs.cli.login",
    "logout": "xnatfs.cli.logout",
    "doctor": "xnatfs.cli.doctor",
    "demo": "xnatfs.cli.demo",
    "serve-demo": "xnatfs.cli.serve_demo",
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
            raise click.UsageError(f"there is no command {name!r}{did_you_mean(name, _COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="xnatfs")
def cli() -> None:
    """Mount an XNAT server as a directory.

    Try it without a server:  xnatfs demo
    """


def main(arguments: list[str] | None = None) -> None:
    """The command `xnatfs`."""
    level = os.environ.get("XNATFS_LOG", "WARNING").upper()
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(
        level=level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else "WARNING", handlers=[handler]
    )
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings repeat retries, with full URLs
    without_passwords()
    try:
        result: Any = cli.main(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (UsageError, Failure) as error:
        print(f"xnatfs: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
