"""Every rule of docs/semantics.md, quoted and tried."""
