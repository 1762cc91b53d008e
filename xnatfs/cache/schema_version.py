"""The number of a database's schema (`PRAGMA user_version`), looked at before anything is read of it.

Used by `database` and `index`. Without it a table of another version of xnatfs would keep its columns
(`CREATE TABLE IF NOT EXISTS` changes none), and every statement would fail, or store what the other version
misreads.
Threading: whoever opens a database has it alone.
"""

from __future__ import annotations

import sqlite3


class OtherVersion(sqlite3.DatabaseError):
    """A sound database, of another version of xnatfs."""

    def __init__(self, found: int, version: int) -> None:
        super().__init__(f"its schema is number {found}, and this version of xnatfs uses {version}")


def make_tables(database: sqlite3.Connection, schema: str, version: int) -> None:
    """Make the tables that are missing, under their number.

    Raises:
        OtherVersion: it has another number, or none and other columns: before the first there were databases
            without.
        sqlite3.Error: it cannot be used.
    """
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found not in (0, version) or (found == 0 and not _fits(database, schema)):
        raise OtherVersion(found, version)
    database.executescript(schema)
    if found != version:
        database.execute(f"PRAGMA user_version = {version:d}")


def _fits(database: sqlite3.Connection, schema: str) -> bool:
    model = sqlite3.connect(":memory:")
    try:
        model.executescript(schema)
        wanted, present = _columns(model), _columns(database)
    finally:
        model.close()
    return all(wanted.get(table) == columns for table, columns in present.items())


def _columns(database: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {
        name: database.execute("SELECT name, type, pk FROM pragma_table_info(?)", (name,)).fetchall()
        for (name,) in tables
    }
