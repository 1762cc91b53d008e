"""Sizes, URLs, directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from xnatfs.config import Settings, cache_home, normal_url, parse_size, state_home
from xnatfs.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("1k", 1000),
        ("20G", 20 * 10**9),
        ("1.5T", 1_500_000_000_000),
        ("4GiB", 4 * 2**30),
        (" 3 MB ", 3_000_000),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "20 apples", "1e9", "5i", "1,5G", "20GG"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="20G"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("xnat.example.org", "https://xnat.example.org"),
        ("https://xnat.example.org/", "https://xnat.example.org"),
        ("http://localhost:8080//", "http://localhost:8080"),
        ("HTTPS://XNAT.Example.ORG/xnat/", "https://xnat.example.org/xnat"),
        ("https://x.org/xnat?a=b#c", "https://x.org/xnat"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("  x.org:8443 ", "https://x.org:8443"),
    ],
)
def test_server_urls_have_one_spelling(text: str, url: str) -> None:
    assert normal_url(text) == url
    assert normal_url(url) == url


@pytest.mark.parametrize(
    "text", ["", "ftp://x.org", "https://", "http://x.org:port", "http://x.org:99999", "http://["]
)
def test_what_is_no_server_url_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"https://xnat\.example\.org"):
        normal_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:sesame@x.org",
        "me:sesame@x.org",
        "http://me:sesame@x.org:port",
        "ftp://me:sesame@x.org",
        "https://me@x.org",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        normal_url(text)
    assert "sesame" not in str(caught.value)
    assert "user name or password" in str(caught.value)


def test_directories_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_home() == tmp_path / "cache"
    assert state_home() == tmp_path / "state"
    monkeypatch.delenv("XNATFS_CACHE_DIR")
    monkeypatch.delenv("XNATFS_STATE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "xdg" / "xnatfs"


def test_each_server_and_user_has_a_cache_of_its_own() -> None:
    one, other = Settings("https://a.org/xnat"), Settings("https://a.org/other")
    scopes = {one.scope("u"), one.scope("v"), other.scope("u")}
    assert len(scopes) == 3
    assert all(scope.startswith("a.org-") and "/" not in scope for scope in scopes)
    assert one.scope("u") == Settings("https://a.org/xnat").scope("u")
    assert "/" not in Settings("http://[::1]:80").scope("../..")
