"""`copy`: a store into another one, between all engines, through interruptions and writes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalk_online_store import Feature, Namespace, OnlineStore, feature, features
from chalk_online_store.cli.checkpoint import save_checkpoint
from chalk_online_store.cli.copying import run as copying
from chalk_online_store.cli.rows.plain import to_plain
from chalk_online_store.operations import copying as operations
from chalk_online_store.planning.items import typical_rows
from chalk_online_store.schema import namespace_of
from chalk_online_store.testing import Dynoxide, Valkey, create_table
from tests.helpers import exit_status
from tests.test_cli_rows import Everything

NOW = datetime.now(UTC).replace(microsecond=7)
OLDER, NEWER = NOW - timedelta(hours=2), NOW - timedelta(hours=1)


@features(max_staleness="30d")
class User:
    id: int
    name: str
    note: str | None
    risk: float = feature(max_staleness="3h", group="realtime")


NAMES = ["name", "note", "risk"]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Callable[[], str]]]:
    """How to make an empty store on each engine: its URL."""
    with Dynoxide() as dynoxide, Valkey() as valkey:

        def table() -> str:
            name = f"copy-{next(_numbers)}"
            create_table(dynoxide.endpoint_url, name)
            return dynoxide.url(name)

        yield {"dynoxide": table, "valkey": lambda: f"{valkey.url()}?prefix=p{next(_numbers)}:"}


@pytest.fixture
def make(engines: dict[str, Callable[[], str]], tmp_path: Path) -> Callable[[str], str]:
    def made(engine: str) -> str:
        if engine == "sqlite":
            return f"sqlite:///{tmp_path / f'{next(_numbers)}.db'}"
        return engines[engine]()

    return made


def run(*arguments: str | Path) -> int:
    return exit_status("copy", *map(str, arguments))


@pytest.fixture
def copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Copies, and gives what the command tells."""

    def copied(source: str, target: str, *options: str, code: int = 0) -> dict[str, Any]:
        kept = ("--progress", tmp_path / "progress", "--yes", "--json")
        assert run(source, target, *kept, *options) == code
        return dict(json.loads(capsys.readouterr().out))

    return copied


def fill(url: str, count: int = 40) -> None:
    """Rows with values of different times, nulls, deletions and late writes."""
    with OnlineStore.open(url, [User]) as store:
        rows = [{"id": n, "name": f"n{n}", "note": None, "risk": n / 7} for n in range(count)]
        store.write(User, rows, observed_at=OLDER)
        store.write(User, [{"id": n, "note": "new"} for n in range(0, count, 3)], observed_at=NEWER)
        store.delete(User, range(0, count, 5), observed_at=NEWER + timedelta(minutes=1))
        store.delete(User, range(1, count, 7), ["name"], observed_at=NEWER)
        store.write(User, [{"id": 0, "name": "late"}], observed_at=OLDER)


def seen(url: str, count: int = 40) -> Any:
    """All that a reader sees, times included."""
    with OnlineStore.open(url, [User]) as store:
        rows = store.read(User, range(count), NAMES, consistent=True)
        return [[(row.status(n), row.get(n), row.observed_at(n)) for n in NAMES] for row in rows]


@pytest.mark.parametrize(
    ("source", "target"),
    list(itertools.product(["sqlite", "dynoxide", "valkey"], repeat=2)),
)
def test_a_copy_is_read_as_the_original(
    make: Callable[[str], str], copy: Callable[..., dict[str, Any]], source: str, target: str
) -> None:
    """From every engine to every engine, with each value's time, and twice as well as once."""
    ours, theirs = make(source), make(target)
    fill(ours)
    told = copy(ours, theirs)
    assert told["compared"] == {"alike": told["items"], "only_source": 0, "only_target": 0} | {
        "same": True
    }
    assert seen(theirs) == seen(ours)
    copy(ours, theirs)
    assert seen(theirs) == seen(ours)
    with OnlineStore.open(theirs, [User]) as store:  # Late writes lose there as they did here.
        store.write(User, [{"id": 3, "note": "late"}], observed_at=OLDER)
        assert store.read(User, [3])[0]["note"] == "new"


@pytest.mark.parametrize("engine", ["dynoxide", "valkey"])
def test_every_type_is_copied(
    make: Callable[[str], str], copy: Callable[..., dict[str, Any]], engine: str
) -> None:
    """Each value of each type, there and back again."""
    first, second, third = make("sqlite"), make(engine), make("sqlite")
    rows = typical_rows(namespace_of(Everything), 5)
    with OnlineStore.open(first, [Everything]) as store:
        store.write(Everything, rows)
    copy(first, second)
    copy(second, third)
    keys = [row["id"] for row in rows]
    shown = []
    for url in (first, third):
        with OnlineStore.open(url, [Everything]) as store:
            rows_of = store.read(Everything, keys)
            shown.append([json.dumps(to_plain(row.to_dict())) for row in rows_of])
    assert shown[0] == shown[1]


def test_what_is_newer_in_the_target_stays(
    make: Callable[[str], str], copy: Callable[..., dict[str, Any]]
) -> None:
    """Both may be written meanwhile; the difference is told."""
    source, target = make("sqlite"), make("dynoxide")
    fill(source)
    copy(source, target)
    with OnlineStore.open(target, [User]) as store:
        store.write(User, [{"id": 2, "name": "newest"}], observed_at=NOW)
    told = copy(source, target, code=1)
    assert (told["compared"]["only_source"], told["compared"]["only_target"]) == (1, 1)
    with OnlineStore.open(target, [User]) as store:
        assert store.read(User, [2])[0]["name"] == "newest"


def test_an_interrupted_copy_goes_on(
    make: Callable[[str], str],
    copy: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Ctrl-C in the middle: the same command reads no page again that was copied."""
    monkeypatch.setattr(operations, "PAGE_ITEMS", 10)
    monkeypatch.setattr(copying, "KEEP_EVERY", -1.0)
    source, target = make("sqlite"), make("dynoxide")
    fill(source, 100)
    pages, write = itertools.count(), operations.write_items

    def interrupted(*arguments: Any) -> Any:
        if next(pages) == 5:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(copying, "write_items", interrupted)
    progress = tmp_path / "progress"
    assert run(source, target, "--progress", progress, "--yes") == 130
    before = json.loads(progress.read_bytes())["items"]
    told = copy(source, target)
    assert told["items"] == told["compared"]["alike"]
    assert next(pages) < 25  # Of 22 pages; all of them again would be 28.
    assert before > 0
    assert not progress.exists()
    assert seen(target, 100) == seen(source, 100)


def test_expired_items_stay_behind(
    make: Callable[[str], str], copy: Callable[..., dict[str, Any]]
) -> None:
    """What nobody may read any more is not copied, and counted."""
    source, target = make("dynoxide"), make("sqlite")
    with OnlineStore.open(source, [User]) as store:
        rows = [{"id": n, "name": "n", "risk": 0.5} for n in range(3)]
        store.write(User, rows, observed_at=NOW - timedelta(hours=5))
    told = copy(source, target)
    assert (told["items"], told["expired"], told["compared"]["same"]) == (3, 3, True)


def test_two_meanings_of_an_id_are_refused(
    make: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target whose ids stand for other features gets nothing."""
    source, target = make("sqlite"), make("dynoxide")
    fill(source)
    other = Namespace("shop", str, [Feature("rating", float)])
    with OnlineStore.open(target, [other]) as store:
        store.write(other, [{"id": "a", "rating": 0.5}])
    assert run(source, target, "--yes", "--progress", tmp_path / "progress") == 1
    assert "in the way of" in capsys.readouterr().err
    assert [s for row in seen(target) for s, *_ in row] == ["missing"] * 120


def test_mistakes_are_told(
    make: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One store twice, and the progress of another copy; passwords are in no file."""
    source, target, progress = make("sqlite"), make("sqlite"), tmp_path / "progress"
    assert run(source, source) == 2
    save_checkpoint(progress, copying.take_up(progress, "valkey://me:secret@h", target))
    assert "secret" not in progress.read_text()
    assert run(source, target, "--progress", progress, "--yes") == 1
    progress.write_text("{")
    assert run(source, target, "--progress", progress, "--yes") == 1
    error = capsys.readouterr().err
    assert "one store" in error
    assert "progress of another copy" in error
    assert "no progress of a copy" in error
