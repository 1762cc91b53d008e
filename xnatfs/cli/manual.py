"""The man pages: one for xnatfs and one for each command, made from what `--help` shows.

Used by `xnatfs help`. The layout of a page is click-man's; its own walk over the commands would import every
module for every page, and cut their first sentences after 45 characters.
"""

from __future__ import annotations

import inspect
import re

import click
from click_man.man import ManPage

from xnatfs._version import __version__

_AFTER = r"""
.SH EXIT STATUS
0 done; 1 it could not be done, one sentence says why; 2 the command was not understood;
3 it was done in part: a table was written, but sessions are missing or incomplete in it; some of what was to
be listed, shown or copied is not; 70 an error in xnatfs itself;
77 the server refused the login; 130 interrupted.
.SH ENVIRONMENT
Each option of a command can be set by a variable: \fBXNATFS_MOUNT_CACHE_SIZE\fP is the
\fB\-\-cache\-size\fP of \fBxnatfs mount\fP. \fBXNAT_HOST\fP, \fBXNAT_USER\fP and \fBXNAT_PASS\fP
are the server and the login.
\fBXNATFS_CACHE_DIR\fP, \fBXNATFS_STATE_DIR\fP and \fBXNATFS_CONFIG_DIR\fP replace the folders below.
.SH FILES
.TP
\fI~/.cache/xnatfs\fP
fetched files, listings and tables: copies, which can be removed
.TP
\fI~/.local/state/xnatfs\fP
logs, running mounts, sizes that the server had wrong
.TP
\fI~/.config/xnatfs\fP
config.toml, tables.toml, bids.toml, lists of sessions
"""


def page(ctx: click.Context) -> str:
    """The man page of a command, in roff."""
    command = ctx.command
    name = ctx.command_path.replace(" ", "-")
    made = ManPage(name)
    made.version = f"xnatfs {__version__}"
    made.date = ""  # the text changes with the version, which is shown beside it
    made.short_help = _escaped(_first_sentence(command))
    made.synopsis = " ".join(command.collect_usage_pieces(ctx))
    made.description = _blocks(command.help or "")
    # ManPage escapes the hyphens of an option itself, and nothing else.
    made.options = [
        (record[0], _escaped(record[1]))
        for parameter in command.get_params(ctx)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None
    ]
    if isinstance(command, click.Group):
        made.commands = [
            (name, _escaped(_first_sentence(found)))
            for name in command.list_commands(ctx)
            if (found := command.get_command(ctx, name)) is not None and not found.hidden
        ]
    text = str(made).replace(f"\n.B {name}\n", f"\n.B {ctx.command_path}\n", 1)  # as it is typed
    return text.rstrip("\n") + _AFTER


def contexts(ctx: click.Context) -> list[click.Context]:
    """The context of a command and of every command below it."""
    found = [ctx]
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            below = ctx.command.get_command(ctx, name)
            if below is not None and not below.hidden:
                found += contexts(click.Context(below, info_name=name, parent=ctx))
    return found


def _first_sentence(command: click.Command) -> str:
    text = " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())
    return re.split(r"(?<=[^.])\.(?: |$)", text, maxsplit=1)[0]


def _blocks(text: str) -> str:
    """The paragraphs of a help text; those that click does not wrap (after a `\\b`) keep their lines."""
    made = []
    for block in inspect.cleandoc(text).split("\n\n"):
        if block.startswith("\b\n"):
            made.append(f".nf\n{_escaped(block[2:])}\n.fi")
        else:
            made.append(_escaped(block))
    return "\n\n".join(made)


def _escaped(text: str) -> str:
    """A text whose characters mean nothing to roff: groff_char(7), and no line that begins with a control
    character.
    """
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)
