"""The command: a stand-in, a new mount for each program, and docs/tools.md from what they found.

One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.harness import Harness, Server
from benchmark.host import REPOSITORY, FailedError, Host
from benchmark.results import NETWORKS

from tooling import page, truth
from tooling.catalogue import CATALOGUE
from tooling.page import Row
from tooling.program import Attempt, Program, WrongError
from tooling.terminal import Terminal

PAGE = REPOSITORY / "docs/tools.md"
# What root's commands see and nobody else: what they mount, and the link of docs/mounting.md in /sbin.
_WITHIN = ("unshare", "--mount")
_LINKED = "mount -t overlay none -o lowerdir=$HOME/sbin:/usr/sbin /usr/sbin && "
_VERSION = re.compile(r"\d+(?:\.\w+)+")
_BY_DATE = re.compile(r"\d+\w*")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/tools", description="Try every program on a mount, and write docs/tools.md."
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TOOL",
        help="only this one, with or without what follows its comma (again for more)",
    )
    parser.add_argument(
        "--check", action="store_true", help="only say whether docs/tools.md is that of the catalogue"
    )
    parser.add_argument("--dry-run", action="store_true", help="do not write docs/tools.md")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where copies go (the system's temporary folder)"
    )
    chosen = parser.parse_args()
    known = {name for programs in CATALOGUE.values() for one in programs for name in one.names}
    for name in chosen.only:
        if name not in known:
            parser.error(f"there is no {name!r}; there are: {', '.join(sorted(known))}")
    return chosen


@dataclass
class Trial:
    """The place where all programs are tried: one server, one home."""

    host: Host
    harness: Harness
    home: Path

    def row(self, program: Program) -> Row:
        """Run a program on a new mount, and say what became of it."""
        version = requests = ""
        try:
            version = self._version(program)
            for folder in ("cache", "state"):
                shutil.rmtree(self.home / folder, ignore_errors=True)
            with self.harness.xnatfs(self.home, name="xnat") as mount:
                self.harness.server.clear_log()
                attempt = self._attempt(program.tool)
                if program.keys:
                    attempt.output = Terminal(attempt, f"xnatfs-{os.getpid()}").run(
                        program.command, program.keys
                    )
                elif program.root:
                    attempt.output = attempt.run(_LINKED + program.command, program.limit, _WITHIN)
                else:
                    attempt.output = attempt.run(program.command, program.limit)
                requests = f"{self.harness.server.settled()['requests']:,}"
                result = program.check(program, attempt)
                self._look_for_errors(mount.point, attempt)
        except (FailedError, WrongError, OSError) as error:
            reason = str(error).removeprefix("bash ").replace(str(self.home), "~")
            # What is known is said in the same words every time.
            known = re.search(program.fails, reason) if program.fails else None
            result = f"**fails**: {known[0] if known else reason[:300]}"
        return self._row(program, version, result, requests)

    def _row(self, program: Program, version: str, result: str, requests: str) -> Row:
        return Row(program.tool, version, program.command, result, requests, program.remark)

    @property
    def environment(self) -> dict[str, str]:
        """What all programs have in theirs."""
        return {
            "HOME": str(self.home),
            "XNAT_HOST": self.harness.server.url,
            "XNATFS_STATE_DIR": str(self.home / "state"),
            "XNATFS_CACHE_DIR": str(self.home / "cache"),
            "NO_COLOR": "1",
            "TERM": "xterm",
        }

    def _attempt(self, name: str) -> Attempt:
        return Attempt(self.host, self.home, self.host.fresh(re.sub(r"\W+", "-", name)), self.environment)

    def _version(self, program: Program) -> str:
        text = self._attempt("version").run(f"{{ {program.version}; }} 2>&1 || true")
        found = _VERSION.search(text) or _BY_DATE.search(text)
        if found is None:
            raise FailedError(
                f"{program.tool} is not installed, or does not say its version: {text.strip()[-200:]}"
            )
        return found[0]

    def _look_for_errors(self, point: Path, attempt: Attempt) -> None:
        (status,) = json.loads(attempt.run(f"{sys.executable} -m xnatfs status --json {point}", 60))
        if status["errors"]:
            raise WrongError(f"the mount recorded {status['errors']}: {status['last_error']}")
        for log in (self.home / "state/logs").glob("*.log"):
            if "Traceback" in (text := log.read_text(errors="replace")):
                raise WrongError(f"there is a traceback in the log: {text[text.index('Traceback') :][-500:]}")


def _check() -> int:
    found = page.differences(CATALOGUE, page.parse(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {})
    for sentence in found:
        print(f"scripts/tools: {sentence}", file=sys.stderr)
    if found:
        print("scripts/tools: docs/tools.md is not that of the catalogue; run scripts/tools", file=sys.stderr)
    return 1 if found else 0


def _write_link(home: Path, environment: dict[str, str]) -> None:
    """What `ln -s .../xnatfs /sbin/mount.fuse.xnatfs` does where xnatfs is installed: mount(8) hands on an
    environment of its own.
    """
    link = home / "sbin/mount.fuse.xnatfs"
    link.parent.mkdir()
    link.write_text(
        f"#!{sys.executable}\nimport os, sys\nos.environ.update({environment!r})\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\nfrom xnatfs.cli import main\nmain()\n"
    )
    link.chmod(0o755)


def _run(host: Host, programs: Sequence[Program]) -> dict[tuple[str, str], Row]:
    server = Server(host, "--data", "lab")
    home = host.fresh("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login demo password demo\n")
    (home / ".netrc").chmod(0o600)
    truth.write(server.url, home / "copy", host.fresh("truth"))
    trial = Trial(host, Harness(host, server, NETWORKS["loopback"]), home)
    _write_link(home, trial.environment)
    rows = {}
    for program in programs:
        begin = time.monotonic()
        row = rows[program.key] = trial.row(program)
        print(f"{row.tool} {row.version}: {row.result} ({time.monotonic() - begin:.0f} s)", flush=True)
    server.close()
    return rows


def _wrong(programs: Sequence[Program], rows: dict[tuple[str, str], Row]) -> list[str]:
    """What is not as the catalogue says."""
    found = []
    for one in programs:
        row = rows[one.key]
        if one.fails and row.good:
            found.append(f"{one.tool} was expected to fail and does not: {one.command}")
        elif not row.good and not (one.fails and re.search(one.fails, row.result)):
            found.append(f"{one.tool} fails: {one.command}")
    return found


def main() -> int:
    """Run it; 0 if every program did what the catalogue says."""
    arguments = _arguments()
    if arguments.check:
        return _check()
    programs = [
        one
        for group in CATALOGUE.values()
        for one in group
        if not arguments.only or one.names & set(arguments.only)
    ]
    if os.getuid() != 0 and (kept := [one for one in programs if one.root]):
        print(f"Only root can run {', '.join(one.tool for one in kept)}: what was found before stays.")
        programs = [one for one in programs if not one.root]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    begin = time.monotonic()
    host = Host(arguments.scratch, 180.0)
    try:
        rows = _run(host, programs)
    except KeyboardInterrupt:
        print("scripts/tools: interrupted; unmounting", file=sys.stderr)
        return 130
    except FailedError as error:
        print(f"scripts/tools: {error}", file=sys.stderr)
        return 1
    finally:
        host.close()
    before = page.parse(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    minutes = max(1, round((time.monotonic() - begin) / 60))
    if (
        arguments.only
        and PAGE.exists()
        and (said := re.search(r"about (\d+) minutes", PAGE.read_text(encoding="utf-8")))
    ):
        minutes = int(said[1])
    wanted = {one.key for group in CATALOGUE.values() for one in group}
    merged = {key: row for key, row in {**before, **rows}.items() if key in wanted}
    if not arguments.dry_run:
        PAGE.write_text(page.render(CATALOGUE, merged, minutes), encoding="utf-8")
    wrong = _wrong(programs, rows)
    for sentence in wrong:
        print(f"scripts/tools: {sentence}", file=sys.stderr)
    print(f"{sum(row.good for row in rows.values())} of {len(rows)} commands found what is true")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
