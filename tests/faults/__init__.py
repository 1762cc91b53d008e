"""Every operation under every fault; the report is `docs/reliability.md` (see `matrix`)."""
