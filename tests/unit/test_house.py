"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from importlinter.application.use_cases import lint_imports
from importlinter.configuration import configure

import xnatfs
from xnatfs.extras import EXTRAS

PACKAGE = Path(xnatfs.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def name(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


def imported(module: Path) -> set[str]:
    """The top-level packages a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_imports_run_downward_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()
    monkeypatch.chdir(PACKAGE.parent)
    assert lint_imports(cache_dir=None), capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_every_module_says_what_it_is_and_stays_small(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and len(docstring) > 10
    assert text.count("\n") < 500


@pytest.mark.parametrize("module", [module for module in MODULES if "demo/" not in name(module)], ids=name)
def test_public_classes_and_functions_are_documented(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_fuse_is_imported_by_the_adapter_alone() -> None:
    users = [name(module) for module in MODULES if "mfusepy" in imported(module)]
    assert users == ["fuse/adapter.py"]


def test_http_is_spoken_by_the_server_layer_alone() -> None:
    users = {
        name(module).split("/")[0]
        for module in MODULES
        if imported(module) & {"requests", "urllib3", "pyxnat"}
    }
    assert users == {"server"}


def declared(extra: str) -> set[str]:
    """The packages of an extra, or of the core ("dependencies"); as they are imported."""
    # Python 3.10 has no TOML reader, and the lists are simple.
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    listed = project.partition(f"\n{extra} = [")[2].partition("\n]")[0]
    names = re.findall(r'^\s*"([A-Za-z0-9_-]+)', listed, re.MULTILINE)
    return {name.replace("-", "_").lower() for name in names}


def at_once(module: Path) -> set[str]:
    """The top-level packages that are imported when a module is."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(ast.parse(module.read_text(encoding="utf-8")).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            todo += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            todo += node.body
    return found - set(sys.stdlib_module_names) - {"xnatfs"}


def test_what_is_imported_is_declared() -> None:
    core = declared("dependencies")
    assert "requests" in core
    extras = declared("tables") | declared("demo") | declared("pyxnat") | declared("keyring")
    used = set().union(*(imported(module) for module in MODULES)) - set(sys.stdlib_module_names) - {"xnatfs"}
    assert used <= core | extras


# Imported by `tables.output.write` once a table is to be written in their format.
WRITERS = ("tables/output/xlsx.py", "tables/output/parquet.py")


def test_nothing_is_loaded_of_an_extra_until_it_is_needed() -> None:
    core = declared("dependencies")
    loaded = {
        name(module): at_once(module) - core
        for module in MODULES
        if not name(module).startswith("demo/") and name(module) not in WRITERS
    }
    assert {module: packages for module, packages in loaded.items() if packages} == {}


def test_the_extras_are_as_the_package_knows_them() -> None:
    assert {extra for extra in EXTRAS if declared(extra)} == set(EXTRAS)
    for extra, (_, packages) in EXTRAS.items():
        assert set(packages) <= declared(extra)
