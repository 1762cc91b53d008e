"""Changes on the server below an overlay. In a file of its own: it is a minute's wait for each kind."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.mount.overlay.conftest import overlaid
from tests.mount.test_freshness import FILES, Study
from tests.support import xnatfs
from xnatfs.daemon import overlay as overlays


@pytest.mark.timeout(150)
def test_changes_on_the_server_show_or_say_so(tmp_path: Path, way: str) -> None:
    """Never another file's bytes, never a listing that ends in the middle."""
    study = Study()
    with study.server, overlaid(study.server.url, tmp_path) as mounted:
        top = mounted.point / FILES
        assert sorted(os.listdir(top)) == ["changed", "kept", "removed"] and not (top / "added").exists()
        assert {name: (top / name).read_bytes() for name in os.listdir(top)} == {
            "changed": b"old",
            "kept": b"kept",
            "removed": b"gone soon",
        }
        study.server.call(study.change)
        xnatfs("refresh", str(mounted.point), env=mounted.env, check=True)
        began = time.monotonic()
        while time.monotonic() - began < 60:
            names = set(os.listdir(top))
            assert "kept" in names and (top / "kept").read_bytes() == b"kept"
            with contextlib.suppress(OSError):
                assert (top / "removed").read_bytes() in (b"", b"gone soon")
            if time.monotonic() - began > 45 and {"added", "changed", "kept"} <= names:
                break
            time.sleep(1)
        assert (top / "added").read_bytes() == b"added" and (top / "changed").read_bytes() == b"new"
        with pytest.raises(OSError):
            (top / "removed").read_bytes()
        (top / "mine").write_text("mine")
        assert (
            {"added", "changed", "kept", "mine"}
            <= set(os.listdir(top))
            <= {"added", "changed", "kept", "mine", "removed"}
        )
        if way == overlays.KERNEL:
            assert "removed" not in os.listdir(top)
