"""What all tests share: a private home, a clean environment, and the check that nothing is left mounted."""

from __future__ import annotations

import functools
import gc
import os
import signal
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support import fuse_mounts, shared_folder

# Half a minute and more each: begun last, one of them alone would keep the whole run waiting. Those that wait
# and those that compute take turns, so that the cores have work from the beginning.
_LONGEST = (
    "mount/test_outage.py",
    "vfs/test_outage.py",
    "mount/overlay/test_changes.py",
    "dialects",
    "mount/test_stopped.py",
    "clients/test_tables_as_bx.py",
    "mount/test_freshness.py",
    "mount/test_mistakes.py",
    "mount/overlay/test_life.py",
    "vfs/test_stamps.py",
    "bench/test_soak.py",
    *(f"mount/test_{name}.py" for name in ("kill", "login", "blocked", "life", "stale")),
    "vfs/test_machine.py",
    *("clients", "bench", "mount", "faults", "hostile", "semantics", "vfs"),
)
_LOGIN_VARIABLES = ("HOST", "USER", "PASS", "URL", "TOKEN", "JSESSION", "PROFILE", "VERIFY_SSL")

# A shell starts what runs in its background with SIGINT ignored, and children inherit that: tests of Ctrl-C
# need it as a terminal has it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the order within a file stays."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        names = item.path.relative_to(here).parts
        found = [number for number, name in enumerate(_LONGEST) if name in ("/".join(names), names[0])]
        return min(found, default=len(_LONGEST))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """What all the modules of the tests hold is garbage never: no collection looks at it again. And the
    others come as seldom as in a mount (`xnatfs.daemon.gc_tuning`): a tenth of the processors' time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HOME, the cache and the state in the test's own folder; no login in the environment."""
    home = tmp_path / "home"
    home.mkdir()
    for prefix in ("XNAT_", "XNATPY_"):
        for name in _LOGIN_VARIABLES:
            monkeypatch.delenv(prefix + name, raising=False)
    for name in ("NETRC", "XNATFS_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XNATFS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XNATFS_STATE_DIR", str(tmp_path / "state"))
    return home


@pytest.fixture(autouse=True, scope="session")
def plugins_looked_for_once() -> Iterator[None]:
    """Every mount put together here would read what 100 installed packages say of themselves, and no package
    is installed meanwhile.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("xnatfs.tables.registry.entry_points", functools.cache(entry_points))
        yield


@pytest.fixture(autouse=True, scope="session")
def archives_built_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one process of the run has built, the others read (`lab_archive`)."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared_folder[:] = [tmp_path_factory.getbasetemp().parent]


@pytest.fixture(autouse=True, scope="session")
def nothing_left_mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every test ends its mounts, also when it fails. Only those of this process count: others may run at the
    same time.
    """
    ours = f"{tmp_path_factory.getbasetemp()}/"
    yield
    left = {mountpoint for mountpoint in fuse_mounts() if mountpoint.startswith(ours)}
    for mountpoint in left:
        os.system(f"fusermount3 -uz '{mountpoint}'")
    assert not left, f"left mounted: {sorted(left)}"
