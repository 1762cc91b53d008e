"""The file system against a plain model of the truth, in an order hypothesis chooses: reads, evictions,
faults, changes, remounts.

No wrong byte, no wrong size, no hang; no error where no fault is active or where the fault is one that a
retry cures. A file that changed under an open handle may give ESTALE or EIO, never mixed bytes.

`XNATFS_MACHINE=300 pytest tests/vfs/test_machine.py` tries for 300 seconds, with new random choices each
time."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.support import composed
from tests.vfs.conftest import Shelf
from tests.vfs.machine import EXCUSED, KIB, Opened, Truth, watched
from xnatfs.cache import maintenance
from xnatfs.cache.contents import ContentCache
from xnatfs.config import Limits
from xnatfs.core import Core
from xnatfs.demo.faults import Switches
from xnatfs.demo.model import ComputedContent

SECONDS = float(os.environ.get("XNATFS_MACHINE", "0"))
MIB = 1 << 20
_BLOCK = 128 * KIB
_CAPS = (MIB, 5 * MIB, 10**9)
_SIZES = [1, 30 * KIB, 33 * KIB, 40 * KIB, 900 * KIB, 3 * MIB, 7 * MIB + 77]
_FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"cut_after_bytes": "after", "cut_next": "times"},
    "truncated": {"truncate_after_bytes": "after", "truncate_next": 1},
    "errors": {"fail_next": "times", "fail_status": 503},
    "gateway": {"fail_next": "times", "fail_status": 502},
    "login pages": {"html_instead": "times", "match": "/files/"},
    "sessions expire": {},
    "none": dataclasses.asdict(Switches()),
}
_ABOVE = "/projects/P/subjects/s/S/RESOURCES"


Rule = TypeVar("Rule", bound=Callable[..., None])
_failed: list[str] = []  # the steps of the last machine that failed


def logged(function: Rule) -> Rule:
    """Keep the steps: hypothesis shows none where threads make its second try go another way."""

    @functools.wraps(function)
    def step(self: Machine, **given: object) -> None:
        self.steps.append(
            f"{function.__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
        )
        try:
            function(self, **given)
        except BaseException as error:
            _failed[:] = [*self.steps, repr(error)]
            raise

    return cast(Rule, step)


class Machine(RuleBasedStateMachine):
    """One server with two resources of the same files, one with digests and one without; one mount, remade
    now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="xnatfs-machine-"))
        self.shelf = Shelf()
        self.stack.enter_context(self.shelf.server)
        self.files: list[Truth] = []
        for label, digest in (("R", True), ("N", False)):
            resource = (
                self.shelf.resource if label == "R" else self.shelf.make.resource(self.shelf.session, label)
            )
            for number, size in enumerate(_SIZES):
                self._put(resource, f"{_ABOVE}/{label}", f"f{number:02d}", size, digest)
        self._put(self.shelf.resource, f"{_ABOVE}/R", "odd", 70 * KIB, True, listed=100)
        self.steps: list[str] = []
        self.handles: list[Opened] = []
        self.recent: Truth | None = None  # what was opened last
        self.away = 0  # operations until the server is there again
        self.refreshed = False
        self.mounted: Core | None = None
        self.mount_stack = ExitStack()

    def _put(
        self, resource: Any, folder: str, name: str, size: int, digest: bool, listed: int | None = None
    ) -> None:
        content = ComputedContent(f"{folder}/{name}/0", size)
        entry = self.shelf.make.entry(name, content, digest=None if digest else "", catalog_size=listed)
        resource.entries.append(entry)
        self.files.append(Truth(f"{folder}/{name}", entry, digest, [content]))

    @initialize(cap=st.sampled_from(_CAPS))
    @logged
    def mount(self, cap: int) -> None:
        limits = Limits(
            cache_size=cap,
            min_free=0,
            ttl=3600.0,
            progress_deadline=20.0,
            listing_deadline=20.0,
            revalidate_after=0.0,
            whole_file_check=MIB,
        )
        self.mounted = self.mount_stack.enter_context(
            composed(self.shelf.server.url, self.folder, limits=limits)
        )
        self._told()

    def _told(self) -> None:
        for file in self.files:
            file.listed = file.current

    def _do(self, what: str, action: Callable[[], Any], excused: Callable[[], bool]) -> Any:
        """An operation of the mount; None if it failed and may have."""
        if self.away == 1:
            self._come_back()
        self.away = max(0, self.away - 1)
        away = self.away
        try:
            return watched(what, action)
        except OSError as error:
            if away:
                return None
            if error.errno == errno.ENOSPC and self.shelf.switches.chunked_files:
                # neither size nor place is known of a large file without a length: it needs room in the cache
                return None
            assert error.errno in EXCUSED and excused(), f"{what}: {error!r} {error}"
            return None

    @property
    def mnt(self) -> Core:
        assert self.mounted is not None
        return self.mounted

    # --- reading --------------------------------------------------------------------------------------------

    def _low(self, file: Truth) -> int:
        """The oldest version an open may show: as long as an older one is open it may be shared."""
        shared = [one.low for one in self.handles if one.truth is file]
        return min([file.listed if file.digest or self.away else file.current, *shared])

    def _open(self, file: Truth) -> Opened | None:
        if self.refreshed and not self.away:
            self.refreshed = False
            self._told()
        low = self._low(file)
        opened = self._do(
            f"open {file.path}", lambda: self.mnt.vfs.open(file.path), lambda: file.current > low
        )
        if opened is None:
            return None
        size = self.mnt.vfs.size_of(opened.handle)
        self.recent = file
        made = Opened(file, opened.handle, size, low)
        assert size in {one.size for one in file.versions[low:]}, f"{file.path} is opened with {size} bytes"
        return made

    def _read(self, one: Opened, offset: int, length: int) -> bool:
        """Whether it was not refused."""
        what = f"read {one.truth.path} {offset}+{length}"
        data = self._do(what, lambda: self.mnt.vfs.read(one.handle, offset, length), lambda: one.changed)
        if data is None:
            return False
        one.check(offset, length, data)
        one.position = offset + len(data)
        return True

    @rule(number=st.integers(0, 2 * len(_SIZES)), large=st.booleans(), read=st.booleans())
    @logged
    def open(self, number: int, large: bool, read: bool) -> None:
        file = (
            [one for one in self.files if one.versions[0].size > MIB][number % 4]
            if large
            else self.files[number]
        )
        if len(self.handles) >= 12 or (one := self._open(file)) is None:
            return
        self.handles.append(one)
        if read:  # a header
            self._read(one, 0, 4096)

    @rule(
        which=st.integers(0, 11),
        place=st.floats(0, 1.01),
        length=st.sampled_from([1, 4096, _BLOCK, 300 * KIB]),
    )
    @logged
    def read_somewhere(self, which: int, place: float, length: int) -> None:
        if (
            not self.handles
        ):  # no precondition: what hypothesis draws must not depend on the order in which threads run
            return
        one = self.handles[which % len(self.handles)]
        self._read(one, int(one.size * place), length)

    @rule(which=st.integers(0, 11), blocks=st.integers(1, 100))
    @logged
    def read_on(self, which: int, blocks: int) -> None:
        if not self.handles:
            return
        one = self.handles[which % len(self.handles)]
        for _ in range(blocks):
            if one.position >= one.size or not self._read(one, one.position, _BLOCK):
                break

    @rule(which=st.integers(0, 11))
    @logged
    def close(self, which: int) -> None:
        if not self.handles:
            return
        one = self.handles.pop(which % len(self.handles))
        watched("release", lambda: self.mnt.vfs.release(one.handle))

    @rule(label=st.sampled_from(["R", "N"]), count=st.integers(2, len(_SIZES)))
    @logged
    def read_in_a_row(self, label: str, count: int) -> None:
        """As `cp -r` does: comes as a zip."""
        for file in [one for one in self.files if f"/{label}/" in one.path][:count]:
            self._read_whole(file)

    def _read_whole(self, file: Truth) -> None:
        one = self._open(file)
        if one is None:
            return
        while one.position < one.size and self._read(one, one.position, _BLOCK):
            pass
        self.mnt.vfs.release(one.handle)

    @rule(seed=st.integers(0, 999), readers=st.integers(2, 8))
    @logged
    def read_at_once(self, seed: int, readers: int) -> None:
        """Several programs."""
        if self.away:
            self._come_back()
        chance = random.Random(seed)
        if self.refreshed:  # once, not in every thread
            self.refreshed = False
            self._told()
        failed: list[BaseException] = []

        def work(file: Truth) -> None:
            try:
                self._read_whole(file)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(chance.choice(self.files),)) for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    @rule(number=st.integers(0, 2 * len(_SIZES)))
    @logged
    def look(self, number: int) -> None:
        file = self.files[number]
        if self.refreshed and not self.away:
            self.refreshed = False
            self._told()
        found = self._do(f"stat {file.path}", lambda: self.mnt.vfs.attributes(file.path), lambda: False)
        if found is not None and file.size_told:
            # A listing tells the size of its version until a look into the file itself tells another.
            assert found.size in {one.size for one in file.versions[min(file.listed, self._low(file)) :]}, (
                f"{file.path}: {found.size}"
            )

    # --- the cache ------------------------------------------------------------------------------------------

    @rule(how=st.sampled_from(["clear", "clear outside", "evict", "evict more", "verify"]))
    @logged
    def look_after_the_cache(self, how: str) -> None:
        scope = maintenance.CacheScope(self.mnt.cache.directory)
        if how == "clear":
            self.mnt.cache.clear()
        elif how == "clear outside":
            watched(how, lambda: maintenance.clear(scope))
        elif how == "verify":
            assert watched(how, lambda: maintenance.verify(scope)).wrong == []
        else:  # another mount with a smaller cap makes room
            other = ContentCache(self.mnt.cache.directory, 100 * KIB if how == "evict more" else 2 * MIB)
            with contextlib.suppress(OSError):  # all of the rest is in use
                other.draft(50 * KIB).close()
            other.close()

    @rule(cap=st.sampled_from(_CAPS))
    @logged
    def unmount_and_mount_again(self, cap: int) -> None:
        if self.away:
            self._come_back()
        watched("close", self.mount_stack.close)
        self.handles.clear()
        assert maintenance.verify(maintenance.CacheScope(self.mnt.cache.directory)).wrong == []
        self.refreshed = False
        self.mount(cap=cap)

    # --- the server -----------------------------------------------------------------------------------------

    @rule(
        number=st.integers(0, 2 * len(_SIZES)),
        of_open=st.sampled_from([True, True, False]),
        more=st.sampled_from([0, 0, 1, 5000, -1]),
        told=st.booleans(),
        then=st.sampled_from(["nothing", "open", "read on"]),
    )
    @logged
    def change(self, number: int, of_open: bool, more: int, told: bool, then: str) -> None:
        """A new version, perhaps of a file that is open or was just read; then often a look at it, which
        chance alone seldom takes.
        """
        file = (
            self.handles[number % len(self.handles)].truth
            if of_open and self.handles
            else self.recent or self.files[number]
        )
        size = max(0, file.versions[-1].size + more)
        content = ComputedContent(f"{file.path}/{len(file.versions)}", size)

        def replace() -> None:
            file.entry.content, file.entry.modified = content, self.shelf.archive.tick()
            if file.digest:
                file.entry.digest = None
            self.shelf.archive.touch(self.shelf.session)

        if size == 0 and file.versions[-1].size == 0:
            return
        file.versions.append(content)
        self.shelf.server.call(replace)
        if told:
            self.refresh()
        if then == "open":
            self._read_whole(file)
        for one in self.handles if then == "read on" else []:
            for place in (
                (one.size * number // (2 * len(_SIZES) + 1), one.size // 2, 0) if one.truth is file else ()
            ):
                self._read(one, place, 300 * KIB)

    @rule()
    @logged
    def refresh(self) -> None:
        self.mnt.refresh()
        self.refreshed = True

    @rule(
        kind=st.sampled_from(sorted(_FAULTS)),
        times=st.integers(1, 2),
        after=st.sampled_from([0, 10, 100 * KIB, 3 * MIB]),
    )
    @logged
    def fault(self, kind: str, times: int, after: int) -> None:
        """One that a retry cures."""
        given = {"times": times, "after": after}
        chosen = {
            name: given[value] if isinstance(value, str) and value in given else value
            for name, value in _FAULTS[kind].items()
        }
        self.shelf.switches.update(chosen)
        if kind == "sessions expire" and not self.away:
            self.shelf.server.expire_sessions()

    @rule(kind=st.sampled_from(["no_range", "chunked_files"]))
    @logged
    def server_changes_its_ways(self, kind: str) -> None:
        self.shelf.switches.update({kind: not getattr(self.shelf.switches, kind)})

    @rule()
    @logged
    def server_goes_away(self) -> None:
        if not self.away:
            self.shelf.server.stop()
        self.away = 4

    def _come_back(self) -> None:
        self.shelf.server.start()
        self.away = 0

    def teardown(self) -> None:
        try:
            watched("close", self.mount_stack.close)
            if self.mounted is not None:
                assert maintenance.verify(maintenance.CacheScope(self.mounted.cache.directory)).wrong == []
        finally:
            self.stack.close()
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.mark.timeout(SECONDS + 300)
def test_whatever_happens_in_whatever_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XNATFS_CACHE_DIR", "XNATFS_STATE_DIR"):
        monkeypatch.delenv(name)
    chosen = settings(
        max_examples=25 if not SECONDS else 60,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=not SECONDS,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if SECONDS else (Phase.generate,),
        print_blob=False,
    )
    until = time.monotonic() + SECONDS
    try:
        run_state_machine_as_test(Machine, settings=chosen)
        while time.monotonic() < until:
            run_state_machine_as_test(Machine, settings=chosen)
    finally:
        print("\n".join(_failed))
