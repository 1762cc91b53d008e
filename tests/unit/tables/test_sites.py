"""`tables.toml`: what it may say, what a table is read from then, and the one sentence for what it may not
say.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from xnatfs.errors import UsageError
from xnatfs.tables.engine import overrides
from xnatfs.tables.engine.overrides import Site, Wanted, parse, user_site
from xnatfs.tables.registry import all_tables

TABLES = all_tables()
WHERE = "/home/ann/tables.toml"


def read(text: str) -> Site:
    return parse(text, WHERE, TABLES)


def wanted(site: Site, key: str) -> list[str]:
    return [str(one) for one in site.spec(TABLES[key]).wanted]


def patterns(site: Site, key: str) -> dict[str, tuple[str, ...]]:
    return {one.role: one.patterns for one in site.spec(TABLES[key]).inputs}


def test_without_a_word_every_table_is_as_bx_has_it() -> None:
    for text in ("", "# nothing\n", "[labels]\n[tables]\n"):
        for key, table in TABLES.items():
            spec = read(text).spec(table)
            assert tuple(one.label for one in spec.wanted) == table.resources, key
            assert not any(one.xsi_type for one in spec.wanted)
            assert spec.inputs == table.inputs and spec.table is table


def test_a_label_is_another_wherever_it_is_read() -> None:
    site = read('[labels]\nFREESURFER7 = "recon-all"\nFREESURFER6 = ["FS6", "fs:fsData/DATA", "a/b"]\n')
    assert (
        wanted(site, "freesurfer7/aseg")
        == wanted(site, "braak/volumes")
        == wanted(site, "signature/jack")
        == ["recon-all"]
    )
    assert site.spec(TABLES["freesurfer6/aparc"]).wanted == (
        Wanted("FS6"),
        Wanted("DATA", "fs:fsData"),
        Wanted("a/b"),
    )
    assert wanted(site, "freesurfer6hires/aseg") == ["FREESURFER6_HIRES"]
    assert wanted(read('[labels]\nSPM12_SEGMENT = "SEG"\n'), "spm12/volumes") == ["SEG", "SPM12_SEGMENT_T1T2"]


def test_a_label_that_is_named_twice_is_looked_for_once() -> None:
    site = read('[labels]\nSPM12_SEGMENT = ["SEG", "SEG"]\nSPM12_SEGMENT_T1T2 = "SEG"\n')
    assert wanted(site, "spm12/volumes") == ["SEG"]


def test_one_table_or_all_of_a_pipeline() -> None:
    site = read(
        '[labels]\nASHS = "x"\n[tables.ashs]\nresources = ["ashs_out"]\nfiles.left = "*l.txt"\n'
        '[tables."ashs/volumes"]\nresources = "mine"\nfiles.left = ["a/*.txt", "b/*.txt"]\n'
    )
    assert wanted(site, "ashs/volumes") == ["mine"] and wanted(site, "ashs/volumes_heur") == ["ashs_out"]
    assert patterns(site, "ashs/volumes")["left"] == ("a/*.txt", "b/*.txt")
    assert patterns(site, "ashs/volumes_heur")["left"] == ("*l.txt",)
    assert patterns(site, "ashs/volumes_heur")["right"] == patterns(read(""), "ashs/volumes_heur")["right"]
    assert patterns(site, "freesurfer6/aseg") == patterns(read(""), "freesurfer6/aseg")


def test_files_are_parsed_as_before() -> None:
    before, after = read(""), read('[tables."ashs/volumes"]\nfiles.icv = "vol.txt"\n')
    for old, new in zip(
        before.spec(TABLES["ashs/volumes"]).inputs, after.spec(TABLES["ashs/volumes"]).inputs, strict=True
    ):
        assert (old.role, old.parse, old.required, old.version) == (
            new.role,
            new.parse,
            new.required,
            new.version,
        )


def test_the_users_word_counts_more_than_the_projects() -> None:
    project = read(
        '[labels]\nASHS = "theirs"\nFREESURFER6 = "FS"\n[tables.ashs]\nfiles.left = "theirs"\nfiles.right '
        '= "theirs"\n'
    )
    user = read('[labels]\nASHS = "mine"\n[tables.ashs]\nfiles.left = "mine"\n')
    both = user.over(project)
    assert wanted(both, "ashs/volumes") == ["mine"] and wanted(both, "freesurfer6/aseg") == ["FS"]
    found = patterns(both, "ashs/volumes")
    assert (found["left"], found["right"]) == (("mine",), ("theirs",))
    assert user.over(Site()) == user == Site().over(user)


def test_what_would_be_read_otherwise_has_another_fingerprint() -> None:
    table = TABLES["ashs/volumes"]
    texts = (
        "",
        '[labels]\nASHS = "x"\n',
        '[labels]\nASHS = "t:x/x"\n',
        '[tables.ashs]\nfiles.left = "x"\n',
        '[tables.ashs]\nfiles.icv = "x"\n',
    )
    prints = [read(text).spec(table).fingerprint for text in texts]
    assert len(set(prints)) == len(texts)
    assert prints[0] == read('[labels]\nFREESURFER6 = "x"\n').spec(table).fingerprint


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[labels", "Expected ']' at the end of a table declaration (at end of document)"),
        ("[label]\n", "'label' is not a section of tables.toml; it has [labels] and [tables.NAME]"),
        ("labels = 3\n", "labels must be a section, [labels]"),
        ("tables = 'x'\n", "tables must be a section, [tables]"),
        (
            "[labels]\nFREESURFER9 = 'x'\n",
            "no table reads a resource 'FREESURFER9'; `xnatfs table --list` shows what is read",
        ),
        ("[labels]\nASHS = 3\n", "labels.ASHS must be a text or a list of texts"),
        ("[labels]\nASHS = []\n", "labels.ASHS must be a text or a list of texts"),
        ("[labels]\nASHS = ['']\n", "labels.ASHS must be a text or a list of texts"),
        ("[labels]\nASHS = ['a', 3]\n", "labels.ASHS must be a text or a list of texts"),
        (
            "[tables.ash]\nresources = 'x'\n",
            "there is no table or pipeline 'ash'; `xnatfs table --list` shows them",
        ),
        (
            "[tables.ashs.volumes]\nresources = 'x'\n",
            "[tables.ashs] has `resources`, `files` and `with` only; "
            'the table is written [tables."ashs/volumes"]',
        ),
        ("[tables]\nashs = 'x'\n", "[tables.ashs] has `resources`, `files` and `with` only"),
        ("[tables.ashs]\nfiles = 'x'\n", "tables.ashs.files must be a section, [tables.ashs.files]"),
        ("[tables.ashs]\nfiles.middle = 'x'\n", "ashs has no file 'middle', but icv, left, report, right"),
        (
            "[tables.'ashs/volumes']\nfiles.left = 3\n",
            "tables.ashs/volumes.files.left must be a text or a list of texts",
        ),
        ("[tables.ashs]\nresources = 3\n", "tables.ashs.resources must be a text or a list of texts"),
    ],
)
def test_what_nobody_understands_is_told_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert str(caught.value) == f"{WHERE}: {sentence}"
    assert "\n" not in str(caught.value)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "config").mkdir()
    return tmp_path / "config" / overrides.NAME


def test_the_users_file_is_read_where_it_is(config: Path) -> None:
    assert overrides.user_file() == config
    assert user_site(TABLES) == Site()
    config.write_text('[labels]\nASHS = "señal"\n', encoding="utf-8")
    assert wanted(user_site(TABLES), "ashs/volumes") == ["señal"]


def test_a_file_that_cannot_be_read_is_told(config: Path) -> None:
    config.write_bytes(b"[labels]\nASHS = '\xff'\n")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        user_site(TABLES)
    assert str(caught.value).startswith(str(config))
    config.unlink()
    config.mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        user_site(TABLES)
