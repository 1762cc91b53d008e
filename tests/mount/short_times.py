"""A mount whose kernel forgets after seconds, in place of a minute: run by `test_kernel_kept` as a program.

python -m tests.mount.short_times URL MOUNTPOINT TTL KERNEL_TTL [old]

`old`: as on a kernel that cannot be told that names changed (before Linux 6.16).
"""

from __future__ import annotations

import sys

from xnatfs.auth.credentials import Credentials
from xnatfs.config import LOW_LEVEL, Limits, Settings
from xnatfs.daemon.run import foreground
from xnatfs.fuse import session


def main(url: str, mountpoint: str, ttl: str, kernel_ttl: str, *kernel: str) -> None:
    """Mount until SIGTERM."""
    if kernel:
        session.Session.raise_epoch = lambda self: False  # type: ignore[method-assign]
    limits = Limits(ttl=float(ttl), kernel_ttl=float(kernel_ttl))
    settings = Settings(server=url, limits=limits, fuse=LOW_LEVEL)
    foreground(settings, Credentials(url, "demo", "demo", "here"), mountpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
