"""The budget of an operation, and the pauses (`xnatfs.retry`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xnatfs import retry
from xnatfs.errors import Cause, Failure
from xnatfs.retry import Attempts


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", pauses.append)
    return pauses


def test_pauses_double_and_vary(slept: list[float]) -> None:
    for _ in range(50):
        with Attempts(retry.CONTENTS) as attempts:
            while attempts.again(Failure(Cause.CUT_SHORT)):
                pass
    assert len(slept) == 50 * 4
    for number, pause in enumerate((0.2, 0.4, 0.8, 1.6)):
        took = slept[number::4]
        assert pause * 0.75 <= min(took) < max(took) <= pause * 1.25
    assert sum((0.2, 0.4, 0.8, 1.6)) * 1.25 < 4.0, "a request's tries must not make the breaker suspect"


def test_a_server_says_how_long(slept: list[float]) -> None:
    attempts = Attempts(retry.REQUEST)
    assert attempts.may_resend()
    attempts.pause(1.5)
    attempts.pause(3600.0)
    assert slept == [1.5, retry.LONGEST_PAUSE_S]


def test_a_connection_that_was_closed_meanwhile_is_made_again_at_once(slept: list[float]) -> None:
    attempts = Attempts(retry.REQUEST)
    assert attempts.may_resend(Cause.CUT_SHORT)
    attempts.pause(first_at_once=True)
    assert slept == []
    assert attempts.may_resend(Cause.CUT_SHORT)
    attempts.pause(first_at_once=True)
    assert len(slept) == 1


def test_tries_at_two_levels_spend_one_budget(slept: list[float]) -> None:
    with Attempts(retry.CONTENTS) as outer:
        with Attempts(retry.LOGIN) as inner:
            assert retry.current() is inner
            assert inner.may_resend() and inner.may_resend()
        assert retry.current() is outer
        assert outer.may_cure(Failure(Cause.NOT_DATA))
        assert outer.may_cure(Failure(Cause.NOT_DATA))
        assert not outer.may_cure(Failure(Cause.NOT_DATA))
        assert not Attempts(retry.REQUEST).may_resend()
    assert retry.current() is None


def test_progress_makes_the_budget_whole(slept: list[float]) -> None:
    attempts = Attempts(retry.CONTENTS)
    for _ in range(20):
        assert attempts.may_cure(Failure(Cause.CUT_SHORT))
        attempts.progressed()


@pytest.mark.parametrize(
    ("policy", "failure", "times"),
    [
        (retry.CONTENTS, Failure(Cause.SERVER_ERROR, status=400), 0),
        (retry.CONTENTS, Failure(Cause.SERVER_ERROR, status=503), 4),
        (retry.CONTENTS, Failure(Cause.GONE, status=404), 0),
        (retry.CONTENTS, Failure(Cause.NO_SPACE), 0),
        (retry.ZIP, Failure(Cause.NOT_DATA), 0),
        (retry.ZIP, Failure(Cause.CUT_SHORT), 2),
        (retry.LISTING, Failure(Cause.BAD_LISTING), 2),
        (retry.LISTING, Failure(Cause.TIMED_OUT), 0),
    ],
)
def test_what_is_tried_again_and_how_often(
    policy: retry.Policy, failure: Failure, times: int, slept: list[float]
) -> None:
    attempts = Attempts(policy)
    assert [attempts.again(failure) for _ in range(6)] == [True] * times + [False] * (6 - times)


def test_nothing_is_asked_of_a_server_that_is_away(slept: list[float]) -> None:
    failure = Failure(Cause.UNREACHABLE)
    failure.away = True
    assert not Attempts(retry.CONTENTS).again(failure)


def test_no_other_module_has_a_policy_of_its_own() -> None:
    """Nor `requests` and urllib3, whose retries would multiply with ours."""
    own = re.compile(r"_ATTEMPTS\b|_CURED|max_retries|backoff_factor|status_forcelist|2 ?\*\* ?(n|attempt)\b")
    package = Path(retry.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "demo" not in path.parts and own.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []
