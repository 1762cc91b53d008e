"""The table of causes."""

from __future__ import annotations

import errno

import pytest

from xnatfs.errors import Cause, Failure

JARGON = (
    "exception",
    "traceback",
    "null",
    "errno",
    "jsession",
    "restlet",
    "socket",
    "urllib",
    "stderr",
    "none",
)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_an_errno_and_a_plain_sentence(cause: Cause) -> None:
    assert cause.errno in errno.errorcode
    assert cause.sentence[0].islower() or cause.sentence.startswith("TLS")
    assert not cause.sentence.endswith(".")
    assert len(cause.sentence) < 140
    assert not any(word in cause.sentence.lower().split() for word in JARGON)


def test_causes_are_all_different() -> None:
    assert len({cause.sentence for cause in Cause}) == len(list(Cause))
    assert len(Cause.__members__) == len(list(Cause))  # equal values would be aliases


def test_a_failure_is_an_os_error_with_the_errno_of_its_cause() -> None:
    failure = Failure(Cause.NO_SPACE, "/cache", "20 bytes are needed", 507)
    assert isinstance(failure, OSError)
    assert failure.errno == errno.ENOSPC
    assert failure.status == 507
    assert str(failure) == "/cache: the cache is full (20 bytes are needed)"
    assert str(Failure(Cause.NO_SPACE)) == "the cache is full"


def test_a_missing_thing_is_not_confused_with_trouble() -> None:
    assert [cause for cause in Cause if cause.errno == errno.ENOENT] == [Cause.NO_ENTRY]
