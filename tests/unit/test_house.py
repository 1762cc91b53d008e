"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
from importlinter.application.use_cases import lint_imports
from importlinter.configuration import configure

import xnatfs
from xnatfs.extras import EXTRAS

PACKAGE = Path(xnatfs.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

PRODUCT = [module for module in MODULES if "demo" not in module.relative_to(PACKAGE).parts[:1]]

MOST_METHODS = 20
MOST_ATTRIBUTES = 12
STILL_LARGE = {
    # values with one field a setting, or a line of a report
    *("Info", "Limits", "Settings"),
    # one field a tag of a header
    "ImageFile",
    # one field a layer of the mount, a kind of listing
    *("Core", "ProjectSnapshot", "TransferContext"),
}


def name(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


@functools.cache
def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def public_classes() -> list[tuple[Path, ast.ClassDef]]:
    return [
        (module, node)
        for module in PRODUCT
        for node in parsed(module).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def methods(node: ast.ClassDef) -> set[str]:
    """The methods of a class, public and private; a property and its setter are one."""
    return {one.name for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))}


def attributes(node: ast.ClassDef) -> set[str]:
    """What its instances have: what is declared in the class, and what its methods set on `self`."""
    declared = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    return declared | {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and isinstance(one.value, ast.Name)
        and one.value.id == "self"
    }


def imported(module: Path) -> set[str]:
    """The top-level packages a module imports."""
    found: set[str] = set()
    for node in ast.walk(parsed(module)):
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


def test_every_module_says_what_it_is() -> None:
    said = {name(module): ast.get_docstring(parsed(module)) or "" for module in MODULES}
    assert {module: text for module, text in said.items() if len(text) <= 10} == {}


def test_classes_stay_small() -> None:
    """At most about 20 methods and a dozen attributes: what one can hold in mind."""
    sizes = {one.name: (len(methods(one)), len(attributes(one))) for _, one in public_classes()}
    large = {found for found, (does, has) in sizes.items() if does > MOST_METHODS or has > MOST_ATTRIBUTES}
    assert {found: sizes[found] for found in large - STILL_LARGE} == {}
    assert STILL_LARGE - large == set(), "small enough by now (or gone): take them off the list"


def test_no_name_stands_for_two_things() -> None:
    classes = Counter(one.name for _, one in public_classes())
    assert {one for one, times in classes.items() if times > 1} == set()
    # A command's module has the command's name.
    modules = Counter(
        module.name for module in PRODUCT if module.name != "__init__.py" and module.parent.name != "cli"
    )
    assert {one for one, times in modules.items() if times > 1} == set()


def test_public_classes_and_functions_are_documented() -> None:
    public = [
        (name(module), node)
        for module in MODULES
        if "demo/" not in name(module)
        for node in parsed(module).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]
    assert [(module, node.name) for module, node in public if not ast.get_docstring(node)] == []


def test_fuse_is_imported_in_one_place() -> None:
    users = [name(module) for module in MODULES if "mfusepy" in imported(module)]
    assert users == ["fuse/library.py"]


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
    found = {name.replace("-", "_").lower() for name in names}
    as_imported = {"pyyaml": "yaml", "universal_pathlib": "upath"}
    return {as_imported.get(name, name) for name in found}


def at_once(module: Path) -> set[str]:
    """The top-level packages that are imported when a module is."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(parsed(module).body)
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
    names = ("tables", "convert", "demo", "pyxnat", "fsspec", "s3", "keyring", "dask")
    extras = set().union(*map(declared, names))
    used = set().union(*(imported(module) for module in MODULES)) - set(sys.stdlib_module_names) - {"xnatfs"}
    assert used <= core | extras


# Imported by `tables.output.write` once a table is to be written in their format; by fsspec and `UPath`.
BY_WHOM_IT_IS_NEEDED = (
    *("tables/output/xlsx.py", "tables/output/parquet.py"),
    *("filesystem.py", "universal_path.py"),
)


def test_nothing_is_loaded_of_an_extra_until_it_is_needed() -> None:
    core = declared("dependencies")
    loaded = {
        name(module): at_once(module) - core
        for module in MODULES
        if not name(module).startswith("demo/") and name(module) not in BY_WHOM_IT_IS_NEEDED
    }
    assert {module: packages for module, packages in loaded.items() if packages} == {}


def test_the_extras_are_as_the_package_knows_them() -> None:
    assert {extra for extra in EXTRAS if declared(extra)} == set(EXTRAS)
    for extra, (_, packages) in EXTRAS.items():
        assert set(packages) <= declared(extra)
