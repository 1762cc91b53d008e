"""The document and its tests agree: every rule has a test that quotes it word for word, and no test quotes a
rule that is not there.
"""

from __future__ import annotations

import ast
import errno
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.semantics.quoting import rows, written
from xnatfs.errors import Cause

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


class Proved(NamedTuple):
    """A rule that heavy tests of other folders try, by their node ids."""

    number: str
    text: str
    tests: tuple[str, ...]


ELSEWHERE = [
    Proved(
        "3.12",
        "In `bids/` a scan that has only DICOM is one image until it is converted. What it turns out not to "
        "be is not served: opening it is EIO, the folder then lists what it is, and `unmapped.tsv` says why. "
        "The files of other scans keep their names. Listing and `stat` convert nothing.",
        (
            "tests/vfs/test_bids_dicom.py::test_names_come_from_listings_and_nothing_is_converted",
            "tests/vfs/test_bids_dicom.py::test_what_is_refused_is_an_error_and_a_line_and_renames_nothing",
            "tests/vfs/test_bids_dicom.py::test_what_is_several_images_is_listed_as_these",
        ),
    ),
    Proved(
        "7.9",
        "A cache that another version of xnatfs made, in another form, keeps its downloaded files. The rest "
        "is made anew, and `.xnatfs/oddities.txt` says so.",
        ("tests/vfs/test_remount.py::test_databases_of_another_version_are_started_anew_and_it_is_said",),
    ),
    Proved(
        "1.11",
        "A project in which the server shows you nothing to read has a `README.txt` of xnatfs's own, which "
        "says why. It is there only if complete listings show that nothing is there, or if the server "
        "refuses them; then `subjects/` and `resources/` return EACCES all the same.",
        (
            "tests/vfs/test_helpful_files.py::test_a_project_that_is_refused_says_why",
            "tests/vfs/test_helpful_files.py::test_an_empty_project_says_so",
            "tests/vfs/test_helpful_files.py::test_a_project_whose_listings_fail_is_an_error_and_not_empty",
        ),
    ),
    Proved(
        "1.2",
        "A file has the same size, date, inode number and bytes under every path (`projects/`, `archive/`, "
        "`views/`), and is cached once.",
        ("tests/mount/test_tree.py::test_every_byte_is_true_through_both_rooms",),
    ),
    Proved(
        "2.3",
        "The date of a file is the day its session (or else its subject or project) was added to the "
        "server, or the time of the last change to the file that was seen. It is the same after a remount "
        "and after `xnatfs cache clear`: a second `rsync -a` transfers nothing.",
        (
            "tests/mount/test_freshness.py::test_rsync_transfers_only_what_changed_and_nothing_after_a_remount_with_the_cache_cleared",
        ),
    ),
    Proved(
        "4.1",
        "Data that is new, changed or removed on the server shows by itself within 60 s: the mount checks "
        "the server at most every 20 s, and the kernel keeps names and attributes for 40 s, or longer while "
        "the mount checks in its place.",
        (
            "tests/mount/test_freshness.py::test_every_change_shows_within_a_minute_by_itself",
            "tests/mount/test_kernel_kept.py::test_a_change_shows_by_itself_to_who_only_looks_at_names",
        ),
    ),
    Proved(
        "5.5",
        "A signal that does not end a program (a child that ended, a timer, a stop and its `fg`) takes "
        "nothing from what it reads. One that does, such as Ctrl-C, ends its wait at once.",
        (
            "tests/mount/test_signals.py::test_a_program_that_is_stopped_and_continued_misses_nothing",
            "tests/mount/test_signals.py::test_what_ends_a_program_ends_its_wait",
        ),
    ),
    Proved(
        "5.6",
        "A listing that failed is not asked for again for 2 to 30 s, whoever looks, unless `xnatfs refresh` "
        "says so. A page in place of a listing costs one login, and no other one within a minute while the "
        "session is good.",
        (
            "tests/vfs/test_storms.py::test_a_form_that_always_fails_does_not_make_a_walk_endless",
            "tests/vfs/test_storms.py::test_a_page_in_place_of_a_listing_starts_no_storm",
        ),
    ),
    Proved(
        "6.6",
        "Where two listings contradict each other, the object itself is asked. What cannot be settled "
        "returns EIO, and a line in `.xnatfs/oddities.txt` names it: nothing is shown twice, under a wrong "
        "name, or left out in silence.",
        ("tests/dialects/test_matrix.py::test_no_cell_is_silent_endless_or_poisoned",),
    ),
    Proved(
        "6.3",
        "A table of a project that has been closed to the user is not served, even if it was built before.",
        ("tests/vfs/test_tables.py::test_a_table_of_a_project_that_was_closed_is_not_served_from_the_disk",),
    ),
    Proved(
        "7.5",
        "`kill -9`, or a crash of the machine, leaves a cache that the next mount can use: half-written "
        "data is removed, and a truncated file is fetched again.",
        (
            "tests/mount/test_kill.py::test_whatever_moment_the_daemon_is_killed_at",
            "tests/vfs/test_caching.py::test_after_the_machine_went_down_nothing_is_believed",
        ),
    ),
    Proved(
        "7.10",
        "A shared cache (`--shared-cache`) gives no user a file that the server does not show them. Nothing "
        "of it is served before it agrees with the digest that the server lists; what does not agree is "
        "fetched from the server, and a line in `.xnatfs/oddities.txt` names it.",
        (
            "tests/vfs/test_shared_cache.py::test_a_revoked_user_gets_nothing",
            "tests/vfs/test_shared_cache.py::test_a_tampered_object_is_not_served",
        ),
    ),
    Proved(
        "9.4",
        "With `--allow-other` every user of this machine may read, with that login's rights; `xnatfs "
        "mount` says so.",
        ("tests/hostile/test_neighbours.py::test_a_mount_let_open_says_whose_rights_are_lent_to_whom",),
    ),
    Proved(
        "9.5",
        "A login that the server refuses is sent at most twice; after that, everything that needs the "
        "server returns EACCES. `xnatfs login` brings the mount back, without a remount.",
        (
            "tests/mount/test_login.py::test_a_token_that_ends_while_mounted_is_an_error_and_a_login_brings_the_mount_back",
            "tests/server/test_lockout.py::test_sixteen_threads_that_meet_a_changed_password_cost_two_refusals",
        ),
    ),
    Proved(
        "10.2",
        "Ctrl-C at once ends a program that is waiting in the mount.",
        (
            "tests/mount/test_life.py::test_ctrl_c_ends_a_read_that_waits_for_the_server",
            "tests/mount/test_life.py::test_ctrl_c_ends_a_look_that_waits_for_a_listing",
        ),
    ),
    Proved(
        "10.3",
        "Listed data is shown, and cached data is read, without waiting for the server, no matter what "
        "else is waiting.",
        ("tests/mount/test_life.py::test_forty_stuck_reads_keep_nobody_from_looking_around",),
    ),
    Proved(
        "10.4",
        "A server that is away is noticed within a few seconds. From then on anything that is not local "
        "returns EHOSTDOWN at once, and works again by itself when the server is back.",
        ("tests/server/test_away.py::test_a_silent_server_is_noticed_before_its_time_out",),
    ),
    Proved(
        "10.5",
        "`xnatfs unmount` ends a mount even while files are open or operations are waiting; readers get an "
        "error.",
        ("tests/mount/test_life.py::test_unmount_while_a_file_is_being_read",),
    ),
    Proved(
        "11.1",
        "A table is served complete, or opening it is an error: never a part of it.",
        (
            "tests/vfs/test_tables.py::test_a_build_that_fails_gives_an_error_and_no_part",
            "tests/mount/test_tables_tools.py::test_cp_copies_it_whole",
        ),
    ),
    Proved(
        "11.2",
        "Every session is in the table or, with a sentence, in `TABLE.problems.csv`.",
        ("tests/vfs/test_tables.py::test_broken_results_are_named_and_spoil_no_other",),
    ),
    Proved(
        "4.10",
        "An assessor that is shared into a project, or no longer, shows there just as soon if its session "
        "is shared into that project, too. If its session is at home there, it shows within four hours, or "
        "after `xnatfs refresh`.",
        ("tests/vfs/test_stamps.py::test_sharing_an_assessor_moves_only_its_own_stamp_and_shows",),
    ),
    Proved(
        "11.4",
        "An open table keeps the contents it had when it was opened. Until it is closed, other programs "
        "that open it may get the same contents.",
        ("tests/vfs/test_tables.py::test_an_open_table_keeps_its_bytes_and_the_next_one_has_the_new_ones",),
    ),
    Proved(
        "11.5",
        "A table shows the data as of `user.xnat.as_of`. A stored table is compared with the server when "
        "it is opened, at most every 20 s; while the server is away, or if that takes more than a minute (a "
        "second, if it was compared in the last minute), it stays as it was until the next opening.",
        (
            "tests/vfs/test_stamps.py::test_who_opens_a_table_once_a_day_gets_todays",
            "tests/vfs/test_tables.py::test_attributes_tell_where_it_comes_from",
            "tests/vfs/test_tables.py::test_while_the_server_is_away_a_table_stays_as_it_was",
        ),
    ),
    Proved(
        "12.1",
        "With `--overlay DIR` everything can be written, and none of it reaches the server. It is stored "
        "in DIR, and survives `kill -9` of the mount. (docs/overlay.md has the rest.)",
        (
            "tests/mount/overlay/test_writing.py::test_a_deletion_hides_and_is_not_sent",
            "tests/mount/overlay/test_life.py::test_after_a_crash_unmount_and_mount_clear_it_away",
        ),
    ),
]


def quotes() -> Iterator[tuple[str, str, str]]:
    """Number, text and node id of every quote."""
    for path in sorted(FOLDER.glob("test_*.py")):
        module = importlib.import_module(f"tests.semantics.{path.stem}")
        for name, test in vars(module).items():
            for number, text in getattr(test, "rules", ()) if name.startswith("test_") else ():
                yield number, text, f"tests/semantics/{path.name}::{name}"
    for one in ELSEWHERE:
        for test in one.tests:
            yield one.number, one.text, test


def test_the_document_has_rules() -> None:
    assert len(written()) > 60 and all(len(text) > 20 for text in written().values())


def test_every_rule_has_a_test() -> None:
    assert sorted(set(written()) - {number for number, _, _ in quotes()}) == []


def test_every_test_quotes_a_rule_word_for_word() -> None:
    rules = written()
    assert [(number, test) for number, text, test in quotes() if rules.get(number) != text] == []


def test_every_test_of_a_rule_is_run() -> None:
    """pytest collects each, and none is skipped or expected to fail."""
    wanted = {test for _, _, test in quotes()}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *sorted(wanted)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert wanted - {line.partition("[")[0] for line in done.stdout.splitlines()} == set()
    for path, name in (test.split("::") for test in wanted):
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        (found,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        assert not re.search(
            r"\b(skip|skipif|xfail)\b", "".join(ast.unparse(one) for one in found.decorator_list)
        ), f"{path}::{name}"


# --- the table of errors ------------------------------------------------------------------------------------


def test_the_table_of_errors_is_that_of_the_program() -> None:
    told = {row[0]: set(row[1].split(" / ")) for row in rows("number")}
    true: dict[str, set[str]] = {}
    for cause in Cause:
        true.setdefault(errno.errorcode[cause.errno], set()).add(cause.sentence)
    assert told == true


@pytest.mark.parametrize(
    "number", ["EIO", "EACCES", "EHOSTDOWN", "ESTALE", "ENOSPC", "ETIMEDOUT", "EPROTO", "EROFS"]
)
def test_what_to_do_is_said(number: str) -> None:
    (what,) = (row[2] for row in rows("number") if row[0] == number)
    assert len(what) > 8
