"""Servers by name: what `config.toml` may say, which server is meant, and what options get from it."""

from __future__ import annotations

import contextlib
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

from xnatfs import cli, servers
from xnatfs.auth import login_files
from xnatfs.auth.credentials import choose, find, names, without_passwords
from xnatfs.cli import doctor, mount, table
from xnatfs.config import Privacy
from xnatfs.errors import UsageError
from xnatfs.servers import OPTIONS, PROJECT_OPTIONS, NamedServer, load, parse
from xnatfs.tables.registry import with_plugins

LAB, OTHER = "https://lab.example.org/xnat", "https://other.example.org"
BOTH = f"""
[servers.lab]
url = "{LAB}/"
user = "jane"

[servers.other]
url = "{OTHER}"
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the user's `config.toml`."""
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("XNATFS_CONFIG_DIR", str(folder))

    def write(text: str) -> Path:
        path = folder / servers.NAME
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write


def netrc(home: Path, *lines: str) -> None:
    path = home / ".netrc"
    path.write_text("".join(f"machine {line}\n" for line in lines))
    path.chmod(0o600)


def xnatctl(home: Path, text: str, mode: int = 0o600) -> None:
    path = home / ".config" / "xnatctl" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


# --- the file -----------------------------------------------------------------------------------------------


def test_without_a_file_nothing_is_listed() -> None:
    assert load() == servers.ServerConfig()


def test_everything_that_it_may_say(written: Any, private_home: Path) -> None:
    path = written(f"""
default = "lab"

[servers.lab]
url = "{LAB}/app/template/Login.vm"
user = "jane"
verify = "ca.pem"
proxy = "http://proxy:3128"
cache-size = "200G"
cache-dir = "~/images"
list = "visit1.txt"
project = ["ALFA", "NORD"]
bad-digest = "serve"
allow-other = true

[servers.lab.projects.ALFA]
wide = true
""")
    (lab,) = load().servers.values()
    assert load().preferred == lab
    assert (lab.url, lab.user, lab.verify) == (LAB, "jane", str(path.parent / "ca.pem"))
    assert lab.options == {
        "cache-size": "200G",
        "cache-dir": str(private_home / "images"),
        "list": [str(path.parent / "visit1.txt")],
        "project": ["ALFA", "NORD"],
        "bad-digest": "serve",
        "allow-other": True,
    }
    assert lab.projects == {"ALFA": {"wide": True}}
    assert "proxy:3128" not in repr(lab)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[servers.lab\nurl = 1", r"line 1"),
        ("x = 1\nx = 2\n", r"line 2"),
        ("dfault = 'lab'", r"'dfault' is not a setting of a config.toml; did you mean default\?"),
        ("default = 1", r"default must be the name"),
        (f"default = 'lba'\n{BOTH}", r"no \[servers.lba\] in it; did you mean lab\?"),
        ("servers = 1", r"servers must be a section"),
        ("[servers]\nlab = 'https://x.org'", r"servers.lab must be a section"),
        ("[servers.lab]", r"servers.lab: url is missing"),
        ("[servers.lab]\nurl = 'ftp://x.org'", r"servers.lab.url: .* is not a server URL"),
        ("[servers.lab]\nurl = 5", r"servers.lab.url must be a text in quotes"),
        ("[servers.lab]\nurl = 'https://jane:sesame@x.org'", r"servers.lab.url: a user name or password"),
        ("[servers.'my lab']\nurl = 'https://x.org'", r"the name of a server has letters"),
        ("[servers.lab]\nurl = 'x.org'\ncache_size = '1G'", r"'cache_size' .*; did you mean cache-size"),
        ("[servers.lab]\nurl = 'x.org'\ncache-size = '1Q'", r"servers.lab.cache-size must be a size"),
        ("[servers.lab]\nurl = 'x.org'\ncache-size = 200", r"servers.lab.cache-size must be a size"),
        ("[servers.lab]\nurl = 'x.org'\noffline = 'yes'", r"servers.lab.offline must be true or false"),
        ("[servers.lab]\nurl = 'x.org'\nproject = 5", r"servers.lab.project must be a text in quotes, or"),
        ("[servers.lab]\nurl = 'x.org'\nbad-digest = 'x'", r'bad-digest must be "refuse" or "serve"'),
        ("[servers.lab]\nurl = 'x.org'\nverify = 1", r"servers.lab.verify must be true, false, or"),
        ("[servers.lab]\nurl = 'x.org'\nproxy = 'http://me:sesame@p'", r"proxy: no password belongs"),
        ("[servers.lab]\nurl = 'x.org'\n[servers.lab.projects.A]\nwide = 1", r"projects.A.wide must be true"),
        (
            "[servers.lab]\nurl = 'x.org'\n[servers.lab.projects.A]\ncache-size = '1G'",
            r"projects.A.cache-size holds for a server as a whole",
        ),
        (
            "[servers.lab]\nurl = 'x.org'\n[servers.lab.projects.A]\nwid = true",
            r"projects.A: 'wid' is not a setting of a project; did you mean wide\?",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_file_and_the_place(written: Any, text: str, said: str) -> None:
    path = written(text)
    with pytest.raises(UsageError, match=said) as caught:
        load()
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("key", ["password", "token", "pass", "client_secret", "XNAT_TOKEN", "jsessionid"])
@pytest.mark.parametrize("section", ["[servers.lab]\nurl = 'x.org'\n", ""])
def test_a_secret_is_refused_and_not_repeated(written: Any, key: str, section: str) -> None:
    written(f"{section}{key} = 'sesame'\n")
    with pytest.raises(UsageError, match=f"{key}: no password or token belongs .* `xnatfs login") as caught:
        load()
    assert "sesame" not in str(caught.value)
    assert ("--server lab" in str(caught.value)) == bool(section)


def test_a_file_that_others_can_change_is_refused(written: Any) -> None:
    written(BOTH).chmod(0o666)
    with pytest.raises(UsageError, match="can be changed by other users"):
        load()


def test_a_file_that_cannot_be_read_is_an_error(written: Any) -> None:
    written("").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        load()


def test_its_options_are_those_of_the_commands() -> None:
    """A new option of `mount` is either known here or one that asks for something else."""
    options = {
        name[2:]
        for command in (mount.command, table.command)
        for parameter in command.params
        for name in parameter.opts
        if name.startswith("--")
    }
    asked = {"server", "user", "output", "session", "problems", "explain", "json", "fsname", "dask"}
    assert options - asked == set(OPTIONS)
    assert set(PROJECT_OPTIONS) <= set(OPTIONS)


# --- which server -------------------------------------------------------------------------------------------


def test_a_name_a_url_and_a_host_are_told_apart(written: Any) -> None:
    written(BOTH + f'[servers."dotted.name"]\nurl = "{OTHER}/dotted"\n')
    assert choose("lab").url == LAB
    assert choose("dotted.name").url == f"{OTHER}/dotted"
    assert choose("lab.example.org").url == "https://lab.example.org"
    assert choose("localhost").url == "https://localhost"
    assert choose("lab:8080").url == "https://lab:8080"
    assert choose(LAB).name == "lab", "its URL means it, too"


def test_an_unknown_name_is_never_taken_for_a_host(written: Any) -> None:
    written(BOTH)
    with pytest.raises(UsageError, match=r"no server named 'lba' .*https://lba\); did you mean lab\?"):
        choose("lba")


def test_a_word_is_a_host_where_there_are_no_names() -> None:
    assert choose("xnat").url == "https://xnat"


def test_without_a_name_the_default_is_meant_or_the_only_one(written: Any, private_home: Path) -> None:
    netrc(private_home, "elsewhere.org login x password y")
    written(f'default = "other"\n{BOTH}')
    assert choose().name == "other"
    written(f'[servers.lab]\nurl = "{LAB}"\n')
    assert choose().name == "lab"


def test_several_without_a_default_have_to_be_named(written: Any) -> None:
    path = written(BOTH)
    with pytest.raises(UsageError, match=r"which server\? Name one with --server \(lab, other\)") as caught:
        choose()
    assert str(path) in str(caught.value)


def test_a_variable_of_this_shell_comes_before_the_default(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(f'default = "other"\n{BOTH}')
    monkeypatch.setenv("XNAT_HOST", "lab")
    assert choose().name == "lab"
    assert choose("other").name == "other"
    monkeypatch.setenv("XNAT_HOST", "lba")
    with pytest.raises(UsageError, match="XNAT_HOST: there is no server named 'lba'"):
        choose()
    assert choose("other").name == "other", "what is not asked for is no obstacle"


def test_a_user_of_the_server_chooses_among_logins_and_gives_way_to_this_shells(
    written: Any, private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(BOTH)
    (private_home / ".xnatPass").write_text(f"+bob@{LAB}=one\njane@{LAB}=two\n")
    (private_home / ".xnatPass").chmod(0o600)
    assert find("lab", prompt=False).user == "jane"
    assert find("lab", "bob", prompt=False).user == "bob"
    monkeypatch.setenv("XNAT_USER", "alias")
    monkeypatch.setenv("XNAT_PASS", "secret")
    assert find("lab", prompt=False).user == "alias"


def test_a_servers_own_way_goes_with_its_logins(written: Any, private_home: Path) -> None:
    written(f'[servers.lab]\nurl = "{LAB}"\nverify = false\nproxy = "http://p:1"\n')
    netrc(private_home, "lab.example.org login jane password x", "other.example.org login bob password y")
    login = find(prompt=False)
    assert (login.server, login.verify, login.proxy) == (LAB, False, "http://p:1")
    login = find(OTHER, prompt=False)
    assert (login.verify, login.proxy) == (None, None), "another server's is its own"
    assert login.again is not None and login.again().verify is None


def test_a_servers_own_netrc_is_read_for_it_alone(written: Any, private_home: Path, tmp_path: Path) -> None:
    written(f'[servers.lab]\nurl = "{LAB}"\nnetrc = "lab.netrc"\n[servers.other]\nurl = "{OTHER}"\n')
    (tmp_path / "config" / "lab.netrc").write_text(
        "machine lab.example.org login own password one\nmachine other.example.org login own password one\n"
    )
    (tmp_path / "config" / "lab.netrc").chmod(0o600)
    netrc(private_home, "lab.example.org login ann password two", "other.example.org login ann password two")
    assert find("lab", prompt=False).user == "own"
    assert find("other", prompt=False).user == "ann"


# --- what options get from it -------------------------------------------------------------------------------


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch, private_home: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """`xnatfs mount`, up to the mounting: its settings, or what it said."""
    started: list[Any] = []
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(mount, "check_fuse", lambda: None)
    for name in ("background", "foreground"):
        monkeypatch.setattr(mount, name, lambda settings, *_, **__: started.append(settings))
    netrc(private_home, "lab.example.org login jane password x", "other.example.org login bob password y")

    def call(*arguments: str) -> Any:
        started.clear()
        with pytest.raises(SystemExit) as ended:
            cli.main(["mount", str(private_home / "mnt"), *arguments])
        said = "".join(capsys.readouterr())
        return started[0] if ended.value.code == 0 else (ended.value.code, said)

    return call


def test_typed_comes_before_the_environment_before_the_file_before_built_in(
    mounted: Any, written: Any, monkeypatch: pytest.MonkeyPatch, private_home: Path
) -> None:
    written(
        f'default = "lab"\n{BOTH}cache-size = "40G"\n'.replace(
            'user = "jane"', 'user = "jane"\ncache-size = "30G"\nproject = ["ALFA"]\ncache-dir = "there"'
        )
    )
    settings = mounted()
    assert settings.server == LAB and settings.projects == ("ALFA",)
    assert settings.limits.cache_size == 30 * 10**9
    assert settings.cache_dir == servers.config_file().parent / "there"
    assert mounted("--server", "other").limits.cache_size == 40 * 10**9
    assert mounted("--server", LAB).limits.cache_size == 30 * 10**9
    monkeypatch.setenv("XNATFS_MOUNT_CACHE_SIZE", "50G")
    assert mounted().limits.cache_size == 50 * 10**9
    assert mounted("--cache-size", "60G", "--project", "NORD").limits.cache_size == 60 * 10**9
    assert mounted("--project", "NORD").projects == ("NORD",)
    monkeypatch.setenv("XNATFS_MOUNT_SERVER", "other")
    assert mounted().server == OTHER and mounted().projects == ()
    written("")
    monkeypatch.delenv("XNATFS_MOUNT_CACHE_SIZE")
    assert mounted("--server", LAB).limits.cache_size == 20 * 10**9


def test_a_map_for_one_project_gives_way_to_one_that_is_typed(
    mounted: Any, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(f'[servers.lab]\nurl = "{LAB}"\n[servers.lab.projects.ALFA]\nbids-map = "a.toml"\n')
    for name in ("a.toml", "b.toml"):
        (path.parent / name).write_text("")
    settings = mounted()
    assert settings.bids_map is None
    assert settings.project_bids_maps == (("ALFA", path.parent / "a.toml"),)
    settings = mounted("--bids-map", str(path.parent / "b.toml"))
    assert settings.bids_map == path.parent / "b.toml" and settings.project_bids_maps == ()
    (path.parent / "a.toml").write_text("rule = 1")
    assert "write rules as" in mounted()[1]


def test_what_is_made_of_dicom_has_its_default_there(written: Any, mounted: Any) -> None:
    written(
        f'[servers.lab]\nurl = "{LAB}"\nprefer = "dicom"\nstrip = ["A", "B"]\n'
        '[servers.lab.projects.ALFA]\nprefer = "server"\n'
    )
    settings = mounted()
    assert settings.strip == ("A", "B")
    assert settings.prefers_dicom("NORD") and not settings.prefers_dicom("ALFA")
    assert mounted("--prefer", "dicom").prefers_dicom("ALFA")
    assert not mounted("--prefer", "server").prefers_dicom("NORD")
    with pytest.raises(UsageError, match='prefer must be "server" or "dicom"'):
        parse(f'[servers.lab]\nurl = "{LAB}"\nprefer = "nifti"\n', "config.toml", Path())


def test_a_flag_of_the_file_can_be_turned_off_by_the_environment(
    mounted: Any, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(f'[servers.lab]\nurl = "{LAB}"\noffline = true\n')
    assert mounted().offline
    monkeypatch.setenv("XNATFS_MOUNT_OFFLINE", "0")
    assert not mounted().offline


def test_a_broken_file_ends_the_command_with_one_sentence(mounted: Any, written: Any) -> None:
    written("[servers.lab]\nurl = 'x.org'\ncache-sze = '1G'\n")
    code, said = mounted("--server", LAB)
    assert code == 1 and said.count("\n") == 1 and "did you mean cache-size or cache-dir?" in said


def test_what_is_shown_of_people_has_its_default_there(written: Any, mounted: Any) -> None:
    written(f'[servers.lab]\nurl = "{LAB}"\nbirth-dates = "full"\n')
    assert mounted().privacy == Privacy(birth_dates="full")
    assert mounted("--birth-dates", "none", "--no-demographics").privacy == Privacy(False, "none")
    with pytest.raises(UsageError, match='birth-dates must be "year", "full", "none"'):
        parse(f'[servers.lab]\nurl = "{LAB}"\nbirth-dates = "month"\n', "config.toml", Path())


def test_a_projects_own_default_holds_for_its_tables(
    written: Any, monkeypatch: pytest.MonkeyPatch, private_home: Path
) -> None:
    written(f'[servers.lab]\nurl = "{LAB}"\nlist = "a.txt"\n[servers.lab.projects.ALFA]\nwide = true\n')
    netrc(private_home, "lab.example.org login jane password x")
    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    asked: list[tuple[str, bool]] = []

    def make(mounted: object, project: str, name: str, *others: Any) -> None:
        asked.append((project, others[1]))
        raise UsageError("far enough")

    core = types.SimpleNamespace(builder=types.SimpleNamespace(tables=with_plugins()[0]))
    monkeypatch.setattr(table, "opened", lambda *_: contextlib.nullcontext(core))
    monkeypatch.setattr(table, "_make", make)
    for arguments in (
        ("ALFA", "freesurfer7/aseg"),
        ("NORD", "freesurfer7/aseg"),
        ("ALFA", "scandates"),  # which has no wide form
        ("ALFA", "scandates", "--wide"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["table", *arguments])
    assert asked == [("ALFA", True), ("NORD", False), ("ALFA", False), ("ALFA", True)]


def test_help_is_the_same_with_and_without_a_file(
    written: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> str:
        with pytest.raises(SystemExit):
            cli.main(["mount", "--server", "lab", "--help"])
        return capsys.readouterr().out

    monkeypatch.setattr(cli.logging, "basicConfig", lambda **_: None)
    before = shown()
    written(f'[servers.lab]\nurl = "{LAB}"\ncache-size = "99G"\n')
    assert shown() == before
    written("[")
    assert shown() == before


def test_doctor_shows_the_servers_and_what_is_wrong_with_the_file(written: Any) -> None:
    path = written(f'default = "lab"\n{BOTH}')
    found = list(doctor._server(None, None, None, None))
    assert ("ok", "server lab", f"{LAB} as jane (default) in {path}") in found
    assert ("ok", "server other", f"{OTHER} in {path}") in found
    written("[servers.lab]\n")
    ((level, what, said),) = doctor._server(None, None, None, None)
    assert (level, what) == ("bad", "config.toml") and "url is missing" in said


def test_names_are_completed_without_a_word_of_warning(
    written: Any, private_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from xnatfs.cli import completing

    written(BOTH)
    xnatctl(private_home, "profiles: {lyon: {url: https://lyon.example.org, password: x}}", mode=0o644)
    (private_home / ".xnat_auth").write_text(f"<xnat><lima><url>{LAB}</url></lima></xnat>")
    assert completing.servers(None, None, "l") == ["lab", "lyon", "lima"]  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""
    written("[")
    assert completing.servers(None, None, "l") == []  # type: ignore[arg-type]


# --- names that other tools have ----------------------------------------------------------------------------

PROFILES = f"""
version: 1
default_profile: lyon
profiles:
  oslo: {{url: "https://oslo.example.org/", username: ole, password: sesame-oslo, ca_bundle: /etc/oslo.pem}}
  lyon: {{url: "https://lyon.example.org", username: luc, password: sesame-lyon, verify_ssl: false}}
  admin: {{url: "https://lyon.example.org", username: root, password: sesame-root}}
  lab: {{url: "{LAB}", username: jane, password_source: keyring}}
"""


def test_a_profile_of_xnatctl_is_a_server(
    private_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    xnatctl(private_home, PROFILES)
    login = find("oslo", prompt=False)
    assert (login.server, login.user, login.password) == ("https://oslo.example.org", "ole", "sesame-oslo")
    assert login.verify == "/etc/oslo.pem"
    login = find(prompt=False)
    assert (login.user, login.password, login.verify) == ("luc", "sesame-lyon", False), "the default profile"
    assert find("admin", prompt=False).user == "root"
    monkeypatch.setenv("XNAT_PROFILE", "admin")
    assert find(prompt=False).user == "root"
    monkeypatch.setenv("XNAT_PROFILE", "osl")
    with pytest.raises(UsageError, match=r"XNAT_PROFILE: xnatctl has no profile 'osl'; did you mean oslo\?"):
        find(prompt=False)
    assert find("oslo", prompt=False).user == "ole"
    assert "sesame" not in "".join(capsys.readouterr()) + repr(login)


def test_a_profile_named_by_the_environment_gets_this_shells_password(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in xnatctl; and no other server gets it."""
    xnatctl(private_home, PROFILES)
    for name, value in {"PROFILE": "oslo", "USER": "me", "PASS": "mine"}.items():
        monkeypatch.setenv(f"XNAT_{name}", value)
    login = find(prompt=False)
    assert (login.user, login.password, login.verify) == ("me", "mine", "/etc/oslo.pem")
    assert find("lyon", prompt=False).password == "sesame-lyon"
    monkeypatch.setenv("XNAT_PROFILE", "missing")
    assert find("lyon", prompt=False).password == "sesame-lyon"


def test_a_password_that_xnatctl_has_in_the_keyring_is_looked_up_there(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xnatctl(private_home, PROFILES)
    asked: list[tuple[str, str]] = []

    def password_of(service: str, name: str) -> str:
        asked.append((service, name))
        return "sesame"

    monkeypatch.setattr("xnatfs.auth.token_store.password_of", password_of)
    assert find("oslo", prompt=False).password != "sesame" and asked == [], "only for who needs it"
    assert find("lab", prompt=False).password == "sesame"
    assert asked == [("xnatctl", f"lab@{LAB}")]


def test_a_keyring_without_the_password_is_a_sentence(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xnatctl(private_home, PROFILES)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="profile lab has its password in the keyring, but there is no desk"):
        find("lab", prompt=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profiles: {lab: {password: sesame", "look at line 1"),
        ("profiles:\n\tlab: sesame\n", "look at line 2"),
        ("- sesame\n", "not a configuration as xnatctl writes it"),
        ("profiles: sesame\n", "no profiles as xnatctl writes them"),
        ("profiles: {lab: sesame}\n", "profile lab: it is no section"),
        ("profiles: {lab: {password: sesame}}\n", "profile lab: it has no url"),
        ("profiles: {lab: {url: x.org, password: 1}}\n", "profile lab: password is no text"),
        ("profiles: {lab: {url: 'https://a:sesame@x.org'}}\n", "profile lab: a user name or password"),
        ("profiles: {lab: {url: x.org, verify_ssl: 'off'}}\n", "verify_ssl must be true or false"),
    ],
)
def test_profiles_that_cannot_be_understood_are_a_warning_and_an_error_if_asked_for(
    private_home: Path,
    text: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    xnatctl(private_home, text)
    netrc(private_home, "a.example.org login ann password x")
    assert find(prompt=False).user == "ann"
    warned = capsys.readouterr().err
    assert said in warned and warned.count("\n") == 1 and "sesame" not in warned
    monkeypatch.setenv("XNAT_PROFILE", "lab")
    with pytest.raises(UsageError, match="XNAT_PROFILE") as caught:
        find(prompt=False)
    assert "sesame" not in str(caught.value)


def test_profiles_that_others_can_read_are_warned_of_if_there_is_a_password(
    private_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xnatctl(private_home, "profiles: {lab: {url: x.org, username: a}}", mode=0o644)
    login_files.xnatctl_profiles()
    assert capsys.readouterr().err == ""
    xnatctl(private_home, "profiles: {lab: {url: x.org, username: a, password: sesame}}", mode=0o644)
    for _ in range(2):
        login_files.xnatctl_profiles()
    assert capsys.readouterr().err.count("chmod 600") == 1


def test_a_url_of_xnatctl_is_a_host_of_ours(private_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"URL": OTHER, "USER": "me", "PASS": "mine", "VERIFY_SSL": "false"}.items():
        monkeypatch.setenv(f"XNAT_{name}", value)
    login = find(prompt=False)
    assert (login.server, login.user, login.password, login.verify) == (OTHER, "me", "mine", False)
    with pytest.raises(UsageError, match="no password"):
        find(LAB, prompt=False)
    monkeypatch.setenv("XNAT_VERIFY_SSL", "off")
    with pytest.raises(UsageError, match="XNAT_VERIFY_SSL must be true or false"):
        find(prompt=False)
    monkeypatch.setenv("XNAT_HOST", LAB)
    assert find(prompt=False).server == LAB, "what xnatpy and yaxil read comes first"


AUTH = f"""<xnat>
  <lima><url>{LAB}</url><username>jane</username><password>sesame&amp;</password></lima>
  <oslo><url>{OTHER}</url><username>ole</username></oslo>
</xnat>"""


def test_an_alias_of_yaxil_is_a_server(private_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (private_home / ".xnat_auth").write_text(AUTH)
    (private_home / ".xnat_auth").chmod(0o644)
    login = find("lima", prompt=False)
    assert (login.server, login.user, login.password) == (LAB, "jane", "sesame&")
    assert login.source == "~/.xnat_auth"
    assert capsys.readouterr().err.count("chmod 600") == 1
    with pytest.raises(UsageError, match="no password for the user ole"):
        find("oslo", prompt=False)
    with pytest.raises(UsageError, match="several servers are known"):
        find(prompt=False)
    assert names() == ["lima", "oslo"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<xnat><lab><password>sesame</xnat>", "look at line 1"),
        ("sesame", "look at line 1"),
        ('<!DOCTYPE x [<!ENTITY e "sesame">]><x><lab><url>x.org</url></lab></x>', "cannot be read as XML"),
        ("<xnat><lab><password>sesame</password></lab></xnat>", "lab: '' is not a server URL"),
    ],
)
def test_a_broken_file_of_yaxil_is_a_warning_without_its_words(
    private_home: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (private_home / ".xnat_auth").write_text(text)
    (private_home / ".xnat_auth").chmod(0o600)
    assert list(login_files.xnat_auth()) == []
    warned = capsys.readouterr().err
    assert said in warned and "sesame" not in warned


def test_the_file_comes_before_profiles_before_aliases(written: Any, private_home: Path) -> None:
    (private_home / ".xnat_auth").write_text("<x><lab><url>https://third.org</url></lab></x>")
    assert choose("lab").url == "https://third.org"
    xnatctl(private_home, "profiles: {lab: {url: https://second.org}}")
    assert choose("lab").url == "https://second.org"
    written(BOTH)
    assert choose("lab").url == LAB


# --- sessions -----------------------------------------------------------------------------------------------


def test_a_session_is_used_where_nothing_else_is_found(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_URL", LAB)
    monkeypatch.setenv("XNAT_TOKEN", "A1B2-session.node1")
    login = find(prompt=False)
    assert (login.server, login.session, login.password) == (LAB, "A1B2-session.node1", "")
    assert login.source == "environment XNAT_TOKEN" and "A1B2" not in repr(login)
    netrc(private_home, "lab.example.org login jane password x")
    assert find(prompt=False).session == "", "what lasts is better"


def test_a_session_goes_to_the_server_it_is_of_and_no_other(
    private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XNAT_JSESSION", "A1B2")
    assert find(LAB, prompt=False).session == "A1B2", "nothing says which server: the one that is named"
    xnatctl(private_home, "default_profile: lyon\nprofiles: {lyon: {url: https://lyon.example.org}}")
    assert find("lyon", prompt=False).session == "A1B2"
    for variable in (None, "XNAT_HOST", "XNAT_URL", "XNAT_PROFILE"):
        if variable:
            monkeypatch.setenv(variable, "nonsense" if variable == "XNAT_PROFILE" else OTHER)
        with pytest.raises(UsageError, match="no password"):
            find(LAB, prompt=False)
        if variable:
            monkeypatch.delenv(variable)


def test_no_program_that_is_started_inherits_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XNAT_TOKEN", "XNAT_JSESSION"):
        monkeypatch.setenv(name, "A1B2C3")
    without_passwords()
    assert b"A1B2C3" not in subprocess.run(["env"], capture_output=True, check=True).stdout
    assert find(LAB, prompt=False).session == "A1B2C3", "we still find it"


@pytest.mark.parametrize("text", ["a b", "a;b", "a\nX-Evil: 1", "alias:secret", "å"])
def test_what_is_no_id_of_a_session_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    login_files.warn.cache_clear()
    monkeypatch.setenv("XNAT_TOKEN", text)
    with pytest.raises(UsageError, match="no password"):
        find(LAB, prompt=False)
    assert "XNAT_TOKEN is not the id of a session" in capsys.readouterr().err


def test_a_plain_server_has_no_name() -> None:
    assert parse("", "here", Path("/")).at(LAB) == NamedServer("", LAB)
