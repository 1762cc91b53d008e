"""The command line: one module a command, thin.

`main` turns every expected failure into one plain sentence on standard error and exit code 1.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from xnatfs import __version__
from xnatfs.errors import Failure, UsageError

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


class _Commands(click.Group):
    """Loads a command's module when it is called: `xnatfs status` need not import a web framework."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="xnatfs")
def cli() -> None:
    """Mount an XNAT server as a directory.

    Try it without a server:  xnatfs demo
    """


def main(arguments: list[str] | None = None) -> None:
    """The command `xnatfs`."""
    level = os.environ.get("XNATFS_LOG", "WARNING").upper()
    logging.basicConfig(
        level=level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else "WARNING",
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings repeat what is retried, with full URLs
    try:
        result: Any = cli.main(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (UsageError, Failure) as error:
        from xnatfs.tree.control import printable  # names come from other people, and a terminal obeys them

        print(f"xnatfs: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
