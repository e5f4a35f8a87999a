"""How long the path of a call is: see `scripts/count_calls.py`."""

from __future__ import annotations

import pytest
from scripts.count_calls import Count, counts
from scripts.count_calls import main as count_calls

MOST = {"read": (43, 19), "write": (82, 27)}
"""The most calls and files. Lower them with the path; raise them only for a reason."""


@pytest.fixture(scope="module")
def counted() -> dict[str, Count]:
    return counts()


@pytest.mark.parametrize("operation", MOST)
def test_the_path_of_a_call_does_not_grow(counted: dict[str, Count], operation: str) -> None:
    """A call runs through no more functions and files than it did when this was last looked at."""
    count, (calls, files) = counted[operation], MOST[operation]
    assert len(count.calls) <= calls, count.calls
    assert len(count.files) <= files, sorted(count.files)


@pytest.mark.parametrize(
    ("operation", "first", "request_"),
    [
        ("read", "store.py:OnlineStore.read", "dynamodb/wire.py:Wire._ask"),
        ("write", "store.py:OnlineStore.write", "dynamodb/wire.py:Wire._ask"),
    ],
)
def test_the_count_covers_the_whole_call(
    counted: dict[str, Count], operation: str, first: str, request_: str
) -> None:
    """What is counted begins with the user's call and sends one request."""
    calls = counted[operation].calls
    assert calls[0] == first
    assert calls.count(request_) == 1


def test_the_script_prints_both_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints a line for each operation, after the calls if these are asked for."""
    monkeypatch.setattr("sys.argv", ["count_calls", "--calls"])
    count_calls()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines if line[0] != " "] == list(MOST)
    assert "  store.py:OnlineStore.read" in lines
