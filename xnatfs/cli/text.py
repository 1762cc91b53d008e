"""Words and numbers the commands have in common."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes for people, in the decimal units `--cache-size` takes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
