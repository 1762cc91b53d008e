"""What this is built on: declared, used, bounded on both sides, and installed within the bounds.

Whether a version has a known hole is asked of nobody here (tests do not leave the machine); `pip-audit` does
that, see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import xnatfs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

INSTALLED = ("tables", "convert", "demo", "pyxnat", "fsspec", "s3", "keyring", "dask")
PACKAGE = Path(xnatfs.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Some are in two extras, within the same bounds.
DECLARED = [
    Requirement(text)
    for text in sorted({*PROJECT["dependencies"], *(text for extra in INSTALLED for text in EXTRAS[extra])})
]
# Needed by what is imported, which does not say so itself: httptools by uvicorn, s3fs by fsspec.
BY_OTHERS = {"httptools", "s3fs"}


def imported() -> set[str]:
    found: set[str] = set()
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
            elif (
                isinstance(node, ast.Call)
                and node.args
                and ast.unparse(node.func) in ("importlib.import_module", "load", "Lazy")
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value).split(".")[0])
    return found - set(sys.stdlib_module_names) - {"xnatfs"}


@pytest.mark.parametrize("one", DECLARED, ids=str)
def test_a_dependency_is_bounded_on_both_sides_and_installed_within(one: Requirement) -> None:
    operators = {part.operator for part in one.specifier}
    assert {">=", "<"} <= operators, f"{one} says from which version to which"
    assert one.url is None, "from the package index, not from an address"
    if one.name not in ("keyring", "s3fs") and (
        one.marker is None or one.marker.evaluate()
    ):  # these are optional
        assert one.specifier.contains(version(one.name), prereleases=True)


def test_a_package_is_bounded_the_same_wherever_it_is_declared() -> None:
    assert len({one.name for one in DECLARED}) == len(DECLARED)


def test_all_is_every_extra_for_users_but_the_keyring_and_s3() -> None:
    everything, *more = map(Requirement, EXTRAS["all"])
    assert [one.name for one in more] == ["openpyxl"], "which only a user's pandas needs"
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(INSTALLED) - {"keyring", "dask", "s3"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    declared = {canonicalize_name(one.name) for one in DECLARED}
    made_by = packages_distributions()
    used = {
        canonicalize_name(made_by.get(name, [name])[0]) for name in imported()
    }  # what is not installed has its package's name
    assert used - declared == set(), "imported, and not declared"
    assert declared - used - BY_OTHERS == set(), "declared, and not used"
