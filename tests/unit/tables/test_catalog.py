"""All tables together: keys, order, columns, documentation; plug-ins."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from xnatfs.tables.parse.helpers import passed_csv
from xnatfs.tables.reference import PLACE, reference
from xnatfs.tables.registry import LEFT_OUT, PLUGINS, all_tables, with_plugins
from xnatfs.tables.spec import Input, Table

DOC = Path(__file__).parents[3] / "docs" / "tables.md"


def made(key: str) -> Table:
    pipeline, _, name = key.partition("/")
    return Table(pipeline, name, ("MINE",), (Input("file", "*.csv", passed_csv()),))


one = made("mine/one")
several = [made("mine/two"), made("mine/three")]
taken = made("freesurfer6/aseg")
unnamed = made("a b/../c")
not_tables = [made("mine/four"), "text"]


def called() -> list[Table]:
    return [made("mine/five")]


def broken() -> list[Table]:
    raise RuntimeError("no licence")


def point(name: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{name}", PLUGINS)


def test_every_table_is_whole() -> None:
    tables = all_tables()
    assert list(tables) == list(all_tables())
    for key, table in tables.items():
        assert key == table.key
        assert table.doc.endswith(".") and table.doc[0].isupper(), key
        assert table.resources and table.inputs, key
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names), key
        assert len({wanted.role for wanted in table.inputs}) == len(table.inputs), key
        assert all(column.source for column in table.columns), key
        if table.wide:
            assert set(table.wide.keys) <= set(names), key
            assert set(table.wide.values) <= set(names), key
        for wanted in table.inputs:
            for pattern in wanted.patterns:
                pattern.format(id="", label="", subject="")
    assert not set(LEFT_OUT) & set(tables)


def test_tables_of_a_pipeline_stand_together() -> None:
    pipelines = [table.pipeline for table in all_tables().values()]
    assert list(dict.fromkeys(pipelines)) == [
        name for at, name in enumerate(pipelines) if at == 0 or pipelines[at - 1] != name
    ]


def test_the_documentation_names_every_table() -> None:
    content = DOC.read_text(encoding="utf-8")
    for key in (*all_tables(), *LEFT_OUT):
        assert f"`{key}`" in content, key


def test_the_documentation_is_up_to_date() -> None:
    content = DOC.read_text(encoding="utf-8")
    begin, end = PLACE
    written = content[content.index(begin) + len(begin) : content.index(end)].strip()
    assert written == reference().strip(), "write it anew: python -m xnatfs.tables.reference docs/tables.md"


def test_plug_ins_add_tables_and_a_broken_one_spoils_nothing(caplog: pytest.LogCaptureFixture) -> None:
    names = ("one", "several", "called", "broken", "taken", "unnamed", "not_tables", "missing", "__name__")
    with caplog.at_level(logging.WARNING):
        tables, diagnostics = with_plugins([point(name) for name in names])
    assert set(tables) - set(all_tables()) == {"mine/one", "mine/two", "mine/three", "mine/five"}
    assert tables["freesurfer6/aseg"] is not taken
    assert len(diagnostics) == 6 and len(caplog.records) == 6
    said = " ".join(diagnostics)
    for part in (
        "no licence",
        "already a table freesurfer6/aseg",
        "not a valid table name",
        "str is not a Table",
        "missing",
    ):
        assert part in said


def test_without_plug_ins_there_are_the_built_in_ones() -> None:
    tables, diagnostics = with_plugins([])
    assert tables == all_tables() and not diagnostics
    assert set(all_tables()) <= set(with_plugins()[0])
