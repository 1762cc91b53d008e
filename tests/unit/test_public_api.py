"""The names others build on. What is taken away or renamed here breaks programs and plug-ins of theirs."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import xnatfs
from xnatfs import errors, plugin

ROOT = Path(__file__).parents[2]
PUBLIC = ["Client", "__version__", "connect", "errors", "plugin", "sessions", "subjects", "table"]
PLUGIN = [
    *(
        "Column",
        "Combine",
        "Input",
        "Inputs",
        "ParseError",
        "Parsed",
        "Parser",
        "Row",
        "SessionInfo",
        "Stats",
    ),
    *("Table", "Wide", "anywhere", "blank", "both_sides", "checked_csv", "csv_table", "first_sheet"),
    *("is_number", "label_counts", "named_values", "number", "one_row", "only", "passed_csv", "read_stats"),
    *("stack", "stacked", "text_lines", "unfinished", "value_of", "version_in", "volume", "where", "without"),
]
CLIENT = [
    *("close", "glob", "listdir", "open", "pyxnat", "server", "sessions", "stat", "subjects", "table"),
    *("tables", "user"),
]


def test_the_names_of_xnatfs_are_these() -> None:
    assert dir(xnatfs) == xnatfs.__all__ == PUBLIC
    assert all(hasattr(xnatfs, name) for name in PUBLIC)


def test_the_names_of_a_client_are_these() -> None:
    assert sorted(name for name in vars(xnatfs.Client) if not name.startswith("_")) == CLIENT


def test_the_names_of_a_plugin_are_these() -> None:
    assert plugin.__all__ == PLUGIN
    assert all(hasattr(plugin, name) for name in PLUGIN)


def test_the_names_of_the_errors_are_these() -> None:
    assert errors.__all__ == ["Cause", "Failure", "MissingExtra", "UsageError"]
    assert issubclass(errors.Failure, OSError)
    assert issubclass(errors.MissingExtra, ImportError) and issubclass(errors.MissingExtra, errors.UsageError)


def test_the_arguments_of_connect_and_table_are_these() -> None:
    shared = ["user", "cache_dir", "offline", "allow_http"]
    assert list(inspect.signature(xnatfs.connect).parameters) == ["server", "user", "projects", *shared[1:]]
    assert list(inspect.signature(xnatfs.table).parameters) == [
        *("project", "name", "sessions", "wide", "with_columns", "client", "server"),
        *shared,
    ]
    for one in (xnatfs.subjects, xnatfs.sessions):
        assert list(inspect.signature(one).parameters) == ["project", "server", *shared]


def test_other_names_are_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'mount'"):
        xnatfs.mount  # type: ignore[attr-defined]  # noqa: B018  # that is what is tested


@pytest.mark.parametrize("statement", ["import xnatfs", "import xnatfs; xnatfs.__version__; dir(xnatfs)"])
def test_importing_it_loads_nothing_else(statement: str) -> None:
    code = f"{statement}; import sys; print(*(name for name in sys.modules if name.startswith('xnatfs')))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    ).stdout
    assert set(loaded.split()) == {"xnatfs", "xnatfs._version"}


def test_the_version_is_written_once() -> None:
    version = importlib.import_module("xnatfs._version").__version__
    assert xnatfs.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for module in (ROOT / "xnatfs").rglob("*.py"):
        assert module.name == "_version.py" or f'"{version}"' not in module.read_text(encoding="utf-8")


def public_objects() -> list[tuple[str, object]]:
    found = [
        (f"xnatfs.{name}", getattr(xnatfs, name))
        for name in ("Client", "connect", "sessions", "subjects", "table")
    ]
    found += [(f"xnatfs.Client.{name}", getattr(xnatfs.Client, name)) for name in CLIENT]
    found += [(f"xnatfs.errors.{name}", getattr(errors, name)) for name in errors.__all__]
    return found + [
        (f"xnatfs.plugin.{name}", getattr(plugin, name))
        for name in PLUGIN
        if isinstance(getattr(plugin, name), (type, types.FunctionType))
    ]


@pytest.mark.parametrize(("name", "item"), public_objects(), ids=[name for name, _ in public_objects()])
def test_what_is_public_is_documented(name: str, item: object) -> None:
    text = inspect.getdoc(item)
    assert text, name
    if name in ("xnatfs.connect", "xnatfs.table", *(f"xnatfs.Client.{one}" for one in ("table", "open"))):
        assert {"Parameters", "Returns", "Raises"} <= set(text.splitlines())


def test_types_are_for_others_too() -> None:
    assert (ROOT / "xnatfs/py.typed").exists()
