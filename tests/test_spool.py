"""The spool: what was acknowledged survives crashes, damage and a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalk_online_store.errors import SpoolDamaged, SpoolError, SpoolFull, SpoolInUse, StoreClosed
from chalk_online_store.writer.spool import Commit, Fetch, Left, Spool
from tests.helpers import stress

TABLE = "features pk sk ttl"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "writer.spool"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    found = Spool(path, table=TABLE)
    yield found
    found.close()


def append(spool: Spool, *bodies: bytes) -> list[int]:
    ids: list[int] = spool.send(Commit(bodies), 1)
    return ids


def left(path: Path) -> dict[int, bytes]:
    """What a spool holds, opened anew."""
    spool = Spool(path, table=TABLE)
    try:
        assert spool.damaged == 0
        return dict(spool.send(Left(0, 100_000), 1))
    finally:
        spool.close()


def test_records_are_there_when_it_is_opened_again(spool: Spool, path: Path) -> None:
    """Appended records are read back in order, until they are removed."""
    ids = append(spool, b"a", b"b", b"c")
    assert spool.send(Left(0, 2), 1) == [(ids[0], b"a"), (ids[1], b"b")]
    assert spool.send(Commit([b"d"], [ids[1]]), 1) == [ids[2] + 1]
    assert (spool.records, spool.size) == (3, 3)
    spool.close()
    again = Spool(path, table=TABLE)
    assert again.send(Left(ids[0], 10), 1) == [(ids[2], b"c"), (ids[2] + 1, b"d")]
    assert again.send(Fetch([ids[0], ids[1]]), 1) == {ids[0]: b"a"}
    assert (again.records, again.size, again.newest, again.damaged) == (3, 3, ids[2] + 1, 0)
    again.close()


def test_only_its_owner_may_read_it(spool: Spool, path: Path) -> None:
    """The file holds values, so nobody else may look into it, nor into its log."""
    append(spool, b"a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{path}-wal").stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_second_writer_is_refused(spool: Spool, path: Path) -> None:
    """Neither this process nor another one opens a spool that is in use, however often it tries."""
    append(spool, b"a")
    for _ in range(3):
        with pytest.raises(SpoolInUse, match="in use"):
            Spool(path, table=TABLE)
        assert "SpoolInUse" in run(f"Spool({str(path)!r}, table={TABLE!r})").stderr
    assert append(spool, b"b")


def test_a_killed_process_gives_its_spool_back(path: Path) -> None:
    """The lock ends with the process that held it."""
    assert run(f"Spool({str(path)!r}, table={TABLE!r}); os.kill(os.getpid(), 9)").returncode == -9
    Spool(path, table=TABLE).close()


def test_another_tables_spool_is_refused(spool: Spool, path: Path) -> None:
    """Ids mean nothing in another table: the error says which table the spool is for."""
    spool.close()
    with pytest.raises(SpoolError, match="'features pk sk ttl', not for 'other'"):
        Spool(path, table="other")


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    """A missing directory is said with the path."""
    with pytest.raises(SpoolError, match=r"nowhere/writer\.spool"):
        Spool(tmp_path / "nowhere" / "writer.spool", table=TABLE)


def test_a_closed_spool_takes_nothing(spool: Spool) -> None:
    """Also closing it twice does no harm."""
    spool.close()
    spool.close()
    with pytest.raises(StoreClosed):
        append(spool, b"a")


# --- bounds --------------------------------------------------------------------------------


def test_it_holds_no_more_than_it_may(path: Path) -> None:
    """A commit that would exceed the bound is refused whole; what makes room is done."""
    spool = Spool(path, table=TABLE, max_bytes=1000)
    first, second = append(spool, b"x" * 400, b"y" * 400)
    with pytest.raises(SpoolFull, match="1,000 bytes"):
        append(spool, b"z" * 100, b"z" * 200)
    assert spool.records == 2
    spool.send(Commit([], [first]), 1)
    (third,) = append(spool, b"z" * 300)
    assert [record_id for record_id, _ in spool.send(Left(0, 9), 1)] == [second, third]
    spool.close()


def test_the_file_stays_about_as_large_as_the_records(path: Path) -> None:
    """Room that removed records had is used again, and the log is cut."""
    spool = Spool(path, table=TABLE)
    ids: list[int] = []
    for _ in range(300):
        ids = spool.send(Commit([b"x" * 100_000], ids), 1)
    assert path.stat().st_size < 3_000_000
    assert Path(f"{path}-wal").stat().st_size < 6_000_000
    spool.close()


def test_a_full_disk_is_said_and_survived(path: Path) -> None:
    """Where the disk has no room, nothing of the commit is kept, and the spool goes on."""
    code = f"""
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool({str(path)!r}, table={TABLE!r})
(first,) = spool.send(Commit([b"a" * 50_000]), 1)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize({str(path)!r} + "-wal") + 4096, hard))
for _ in range(2):
    try:
        spool.send(Commit([b"b" * 500_000]), 1)
        print("kept")
    except SpoolFull:
        print("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
spool.send(Commit([b"c"], [first]), 1)
print(spool.records, spool.size)
"""
    done = run(code)
    assert done.stdout.split() == ["full", "full", "1", "1"], done.stderr
    assert list(left(path).values()) == [b"c"]


# --- crashes -------------------------------------------------------------------------------

WRITES_FOR_EVER = """
spool = Spool(sys.argv[1], table=sys.argv[2])
rng, last = random.Random(int(sys.argv[3])), []
while True:
    bodies = [rng.randbytes(rng.randrange(1, 9000)) for _ in range(rng.randrange(1, 9))]
    gone = last[: rng.randrange(0, 3)]
    ids = spool.send(Commit(bodies, gone), 1)
    last = last[len(gone):] + ids
    text = " ".join(f"+{i}:{zlib.crc32(b)}" for i, b in zip(ids, bodies))
    os.write(1, (text + " " + " ".join(f"-{i}" for i in gone) + "\\n").encode())
"""


@pytest.mark.parametrize("seed", range(stress(8)))
def test_what_was_committed_survives_a_kill(path: Path, seed: int) -> None:
    """After `kill -9` at any moment every acknowledged record is there, intact."""
    rng = random.Random(seed)
    with subprocess.Popen(
        python(WRITES_FOR_EVER, str(path), TABLE, str(seed)), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(rng.randrange(1, 60))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    expected: dict[int, int] = {}
    for line in lines:
        if line.endswith("\n"):
            added = [word[1:].split(":") for word in line.split() if word[0] == "+"]
            expected |= {int(record_id): int(crc) for record_id, crc in added}
            for word in line.split():
                if word[0] == "-":
                    del expected[int(word[1:])]
    found = {record_id: zlib.crc32(body) for record_id, body in left(path).items()}
    # The commit after the last that was heard of may have removed two records, and added some.
    missing = expected.keys() - found.keys()
    assert len(missing) <= 2
    assert all(found[i] == crc for i, crc in expected.items() if i not in missing)


def test_a_log_that_was_cut_off_is_read_up_to_there(path: Path, tmp_path: Path) -> None:
    """Wherever the log ends, all commits that are whole in it are there, and no part of another."""
    spool = Spool(path, table=TABLE)
    for number in range(12):
        append(spool, bytes([number]) * 3000, bytes([number]) * 200)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("writer.spool", "writer.spool-wal"):
        shutil.copy(tmp_path / name, copy / name)
    spool.close()
    whole = Path(copy / "writer.spool-wal").read_bytes()
    before = -1
    for cut in range(0, len(whole), 1777):
        target = tmp_path / f"cut-{cut}"
        target.mkdir()
        shutil.copy(copy / "writer.spool", target / "s")
        (target / "s-wal").write_bytes(whole[:cut])
        bodies = list(left(target / "s").values())
        assert bodies == [
            body
            for number in range(len(bodies) // 2)
            for body in (bytes([number]) * 3000, bytes([number]) * 200)
        ]
        assert len(bodies) >= before
        before = len(bodies)
    assert before >= 20


# --- damage --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(stress(40)))
def test_damage_gives_no_garbage_and_leaves_the_rest(tmp_path: Path, seed: int) -> None:
    """Random bytes in the files: no record is handed out altered, and the spool goes on."""
    rng = random.Random(seed)
    path = tmp_path / "s"
    spool = Spool(path, table=TABLE)
    bodies = [rng.randbytes(rng.randrange(1, 6000)) for _ in range(60)]
    ids = [append(spool, body)[0] for body in bodies[:40]]
    if seed % 2:  # Into the database; the rest stays in the log.
        spool.close()
        spool = Spool(path, table=TABLE)
    ids += [append(spool, body)[0] for body in bodies[40:]]
    copy = tmp_path / "copy"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    spool.close()
    victim = Path(f"{copy}{rng.choice(['', '-wal'])}")
    data = bytearray(victim.read_bytes())
    start = rng.randrange(len(data))
    size = rng.choice([1, 16, 500, 5000])
    data[start : start + size] = rng.randbytes(len(data[start : start + size]))
    victim.write_bytes(data)
    opened = Spool(copy, table=TABLE)
    found = dict(opened.send(Left(0, 1000), 1))
    expected = dict(zip(ids, bodies, strict=True))
    assert all(expected[record_id] == body for record_id, body in found.items())
    (new,) = append(opened, b"new")
    assert new not in found
    assert opened.send(Fetch([new]), 1) == {new: b"new"}
    opened.close()


def damaged_pages(path: Path, *pages: int) -> None:
    data = bytearray(path.read_bytes())
    for page in pages:
        data[page * 4096 : (page + 1) * 4096] = os.urandom(4096)
    path.write_bytes(data)


def test_commits_that_a_damaged_log_hides_are_counted(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite takes what follows a damaged frame for never written: here it is said, and kept."""
    spool = Spool(path, table=TABLE)
    for number in range(20):
        append(spool, bytes([number]) * 3000)
    copy = tmp_path / "copy"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    spool.close()
    log = bytearray(Path(f"{copy}-wal").read_bytes())
    log[len(log) // 2] ^= 255
    Path(f"{copy}-wal").write_bytes(log)
    opened = Spool(copy, table=TABLE)
    assert opened.records + opened.damaged == 20
    assert 5 < opened.damaged < 15
    assert "commits cannot be read" in caplog.text
    assert Path(f"{copy}.damaged-1-wal").read_bytes() == log
    opened.close()


def test_a_damaged_page_costs_only_what_lies_on_it(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What other pages hold is kept in a new spool; the damaged file is kept beside it."""
    spool = Spool(path, table=TABLE)
    ids = append(spool, *[bytes([number]) * 3000 for number in range(100)])
    spool.close()
    damaged_pages(path, 40)
    opened = Spool(path, table=TABLE)
    found = dict(opened.send(Left(0, 1000), 1))
    assert 90 <= len(found) < 100
    assert all(found[i] == bytes([i - ids[0]]) * 3000 for i in found)
    assert opened.damaged > 0
    assert "lost" in caplog.text
    opened.close()
    assert left(path) == found


def test_without_a_header_nothing_can_be_read_but_the_file_is_kept(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is no database any more is put aside, never deleted, and that is said."""
    spool = Spool(path, table=TABLE)
    append(spool, b"a" * 3000)
    spool.close()
    for number in (1, 2):
        damaged_pages(path, 0)
        opened = Spool(path, table=TABLE)
        assert opened.records == 0
        opened.close()
        assert Path(f"{path}.damaged-{number}").exists()
    assert f"{path}.damaged-2" in caplog.text


def test_damage_while_it_is_in_use_is_said(path: Path) -> None:
    """What SQLite cannot read any more is an error of ours, with the way out."""
    spool = Spool(path, table=TABLE)
    (record_id,) = append(spool, b"a" * 3000)
    spool._connection.execute("PRAGMA writable_schema = ON")
    spool._connection.execute("UPDATE sqlite_schema SET sql = 'nothing'")
    spool._connection.execute("PRAGMA schema_version = 99")
    with pytest.raises(SpoolDamaged, match="Open it anew"):
        spool.send(Fetch([record_id]), 1)
    spool.close()


# --- forks ---------------------------------------------------------------------------------


def test_a_fork_leaves_the_parents_spool_alone(path: Path) -> None:
    """A child can neither use nor close it, also not by ending; the parent goes on."""
    code = f"""
spool = Spool({str(path)!r}, table={TABLE!r})
spool.send(Commit([b"a"]), 1)
child = os.fork()
if not child:
    try:
        spool.send(Commit([b"child"]), 1)
    except SpoolInUse as error:
        print(error, flush=True)
    spool.close()
    del spool
    gc.collect()
    sys.exit(0)
os.waitpid(child, 0)
for number in range(5):
    spool.send(Commit([b"b"]), 1)
os.kill(os.getpid(), 9)
"""
    done = run(code)
    assert "belongs to the process that opened it" in done.stdout
    assert list(left(path).values()) == [b"a"] + [b"b"] * 5


def test_ids_are_used_once_by_one_process(spool: Spool) -> None:
    """Also a record that was removed leaves its id to no other."""
    (first,) = append(spool, b"a")
    spool.send(Commit([], [first]), 1)
    assert append(spool, b"b") == [first + 1]


IMPORTS = """
import gc, os, random, resource, signal, sys, zlib
from chalk_online_store.errors import SpoolFull, SpoolInUse
from chalk_online_store.writer.spool import Commit, Spool
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", IMPORTS + code, *arguments]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process."""
    return subprocess.run(python(code), capture_output=True, text=True, timeout=60, check=False)
