"""`chalk-online-store bloom`: the price first, then the build, and how a filter stands."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from chalk_online_store import OnlineStore
from chalk_online_store.cli import main
from chalk_online_store.testing import Dynoxide, create_table

SCHEMA = """
from chalk_online_store import BloomFilter, OnlineStoreConfig, features

@features(name="user")
class Plain:
    id: int
    a: int

@features(online_store_config=OnlineStoreConfig(bloom_filter=BloomFilter(100)))
class User:
    id: int
    a: int
"""


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table in which a namespace without a filter was written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bloom_schema.py").write_text(SCHEMA)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = f"sqlite:///{tmp_path}/features.db"
    if request.param == "dynoxide":
        engine: Dynoxide = request.getfixturevalue("dynoxide")
        create_table(engine.endpoint_url, table := f"bloom-{tmp_path.name}")
        found = engine.url(table)
    from bloom_schema import Plain  # type: ignore[import-not-found]

    with OnlineStore.open(found, [Plain]) as store:
        store.write(Plain, [{"id": i, "a": i} for i in range(50)])
    return found


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bloom", *arguments])
    assert ended.value.code in (0, None)


def test_a_build_says_its_price_and_what_it_found(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The price comes before the Scan; afterwards a server that loads the filter trusts it."""
    schema = ("--url", url, "--schema", "bloom_schema:User")
    run("build", *schema, "--wait", "0", "--yes")
    out, err = capsys.readouterr()
    assert "user\t50" in out
    assert ("$0.125 a million" in err) == url.startswith("dynamodb:")
    assert "items scanned" in err
    run("status", *schema)
    out, _ = capsys.readouterr()
    assert "trusted\tTrue" in out
    assert "entities\t50" in out


def test_a_build_asks_first(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does not confirm the price has nothing scanned, and no filter."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    schema = ("--url", url, "--schema", "bloom_schema:User")
    with pytest.raises(SystemExit) as ended:
        main(["bloom", "build", *schema])
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        main(["bloom", "status", *schema])
    assert ended.value.code == 1
    assert "There is no filter yet" in capsys.readouterr().out


@pytest.mark.usefixtures("url")
def test_a_table_that_is_not_there(dynoxide: Dynoxide, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong table is named, with the way out."""
    with pytest.raises(SystemExit) as ended:
        main(["bloom", "build", "--url", dynoxide.url("nothing"), "--schema", "bloom_schema:User"])
    assert ended.value.code == 1
    assert "There is no table 'nothing'" in capsys.readouterr().err
