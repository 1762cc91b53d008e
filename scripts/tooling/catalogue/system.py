"""What administrators do with a mount."""

from __future__ import annotations

from tooling.catalogue.copying import SUBJECT, SUBJECTS
from tooling.checks import copied
from tooling.program import SERVER, Program

_MOUNTED = "cp -r lab/projects/ALFA/subjects/sub001 . ; umount lab"

SYSTEM = [
    Program(
        "mount --bind",
        "mount --version",
        f"mkdir lab; mount --bind {SUBJECTS} lab && cp -r lab/sub001 . ; umount lab",
        copied(SUBJECT, "sub001"),
        "By root. Of a mount that another user made, only with `--allow-other`.",
        root=True,
    ),
    Program(
        "bubblewrap",
        "bwrap --version",
        f"bwrap --ro-bind / / --dev /dev --bind $PWD /mnt --ro-bind {SUBJECT} /srv cp -r /srv /mnt/sub001",
        copied(SUBJECT, "sub001"),
        "As containers see it: `docker -v`, Apptainer and Flatpak bind folders in the same way.",
    ),
    Program(
        "mount -t fuse.xnatfs",
        "mount --version",
        f"mkdir lab; mount -t fuse.xnatfs {SERVER} lab -o ro,user=demo && {_MOUNTED}",
        copied(SUBJECT, "sub001"),
        "By root; docs/mounting.md.",
        root=True,
    ),
    Program(
        "a line of fstab",
        "mount --version",
        f"mkdir lab; echo {SERVER} $PWD/lab fuse.xnatfs ro,_netdev,nofail,username=demo 0 0 > fstab; "
        f"mount --fstab fstab $PWD/lab && {_MOUNTED}",
        copied(SUBJECT, "sub001"),
        "By root; docs/mounting.md. The line belongs into /etc/fstab; here `--fstab` names another file.",
        root=True,
    ),
]
