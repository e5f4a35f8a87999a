"""`chalk-online-store registry`, run as a user does, on SQLite and dynoxide."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from chalk_online_store import Feature, Namespace, OnlineStore, OnlineStoreError, RegistryError
from chalk_online_store.cli import main
from chalk_online_store.cli.app import app
from chalk_online_store.testing import Dynoxide, create_table

USER = Namespace("user", int, [Feature("email", str), Feature("risk", float, group="now")])
CHANGED = Namespace(
    "user", int, [Feature("email", bytes), Feature("risk", float), Feature("x", int)]
)
OTHER = Namespace("user", int, [Feature("visits", int)])


def run(*arguments: object, fails: bool = False) -> Result:
    """What a command says; it succeeds, unless it is expected to fail."""
    result = CliRunner().invoke(app, ["registry", *map(str, arguments)])
    assert (result.exit_code != 0) is fails, (result.output, result.exception)
    return result


def refusal(*arguments: object) -> str:
    """The error that a command ends with, which `main` prints."""
    result = run(*arguments, fails=True)
    assert isinstance(result.exception, OnlineStoreError)
    return str(result.exception)


def rows(result: Result) -> dict[str, list[str]]:
    """The lines of a table by their first column, without the head."""
    _, *lines = result.output.splitlines()
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}


@pytest.fixture(params=["sqlite", "dynoxide"])
def url(request: pytest.FixtureRequest, tmp_path: Path, dynoxide: Dynoxide) -> str:
    """The URL of a table in which `USER` is registered."""
    found = f"sqlite:///{tmp_path}/features.db"
    if request.param == "dynoxide":
        found = table_url(dynoxide)
    register(found, USER)
    return found


def table_url(dynoxide: Dynoxide) -> str:
    table = f"cli-{uuid.uuid4().hex}"
    create_table(dynoxide.endpoint_url, table)
    return dynoxide.url(table)


def register(url: str, namespace: Namespace) -> None:
    value: dict[str, Any] = {"email": "e", "risk": 1.0, "visits": 1}
    with OnlineStore.open(url, [namespace]) as store:
        store.write(namespace, [{"id": 1} | {n: value[n] for n in namespace.by_name}])


@pytest.fixture
def lock(url: str, tmp_path: Path) -> Path:
    """The lock file of that table."""
    path = tmp_path / "registry.lock"
    run("export", "--url", url, "--output", path)
    return path


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory with `USER` and `CHANGED`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    name = f"schemas_{uuid.uuid4().hex}"
    source = f"from {__name__} import CHANGED, USER\n"
    (tmp_path / f"{name}.py").write_text(source)
    return name


def test_list_shows_every_entry(url: str) -> None:
    """Namespaces, groups and features are listed with id, type, group and state."""
    assert rows(run("list", "--url", url)) == {
        "user": ["a", "int", "", "active"],
        "user/default": ["a", "group", "", "active"],
        "user/now": ["b", "group", "", "active"],
        "user.email": ["a", "str", "default", "active"],
        "user.risk": ["b", "float", "now", "active"],
    }
    assert list(rows(run("list", "--url", url, "--prefix", "user."))) == ["user.email", "user.risk"]


def test_rename_and_drop(url: str) -> None:
    """A rename leaves an alias, and a drop leaves nothing but the retired id."""
    run("rename", "user.risk", "user.score", "--url", url)
    listed = rows(run("list", "--url", url))
    assert (listed["user.risk"][3], listed["user.score"][3]) == ("alias", "active")
    run("drop", "user.risk", "--url", url)
    listed = rows(run("list", "--url", url, "--prefix", "user."))
    assert listed == {
        "user.email": ["a", "str", "default", "active"],
        "user.score!b": ["b", "float", "now", "retired"],
    }
    assert "user.risk is not in the registry" in refusal("drop", "user.risk", "--url", url)
    assert "only features" in refusal("drop", "user", "--url", url)
    assert "cannot become" in refusal("rename", "user/now", "user/then", "--url", url)


def test_a_lock_file_is_stable(url: str, lock: Path, tmp_path: Path) -> None:
    """A lock file is JSON with an entry a line, ordered by name, and exports alike each time."""
    assert run("export", "--url", url).output == lock.read_text()
    entries = json.loads(lock.read_text())["entries"]
    assert [entry["name"] for entry in entries] == sorted(entry["name"] for entry in entries)
    assert sum('"name"' in line for line in lock.read_text().splitlines()) == len(entries)


def test_a_lock_file_moves_a_registry(url: str, tmp_path: Path, dynoxide: Dynoxide) -> None:
    """An import gives every name its id again, aliases and retired ids included."""
    register(url, OTHER)
    run("rename", "user.email", "user.mail", "--url", url)
    run("drop", "user.risk", "--url", url)
    lock = tmp_path / "registry.lock"
    run("export", "--url", url, "-o", lock)
    for target in (f"sqlite:///{tmp_path}/copy.db", table_url(dynoxide)):
        for _ in range(2):
            run("import", lock, "--url", target)
            assert run("export", "--url", target).output == lock.read_text()
        register(target, USER)
        assert rows(run("list", "--url", target))["user.risk"][0] == "d"


def test_an_import_that_does_not_fit_is_refused(
    url: str, lock: Path, tmp_path: Path, dynoxide: Dynoxide
) -> None:
    """Where a name or an id is taken otherwise, nothing at all is imported."""
    target = f"sqlite:///{tmp_path}/other.db"
    register(target, OTHER)
    before = run("export", "--url", target).output
    assert "is in the way of user.visits (int, id a," in refusal("import", lock, "--url", target)
    assert run("export", "--url", target).output == before
    assert "names a key" in refusal("import", lock, "--url", table_url(dynoxide) + "&ttl=b")


def test_check_of_a_lock_file_and_a_table(url: str, lock: Path) -> None:
    """What the lock file has and the table has not, or otherwise, is said; more is no harm."""
    register(url, OTHER)
    assert "Nothing differs" in run("check", "--url", url, "--lock", lock).output
    changed = lock.read_text().replace('"b","type":"float"', '"c","type":"int"')
    lock.write_text(changed.replace("user.email", "user.mail"))
    lines = run("check", "--url", url, "--lock", lock, fails=True).output.splitlines()
    assert lines[1:] == [
        "user.mail\tthe table\tmissing\tstr\t",
        "user.risk\tthe table\tother type\tint\tfloat",
        "user.risk\tthe table\tother id\tc\tb",
    ]


def test_check_of_a_schema(url: str, lock: Path, schemas: str) -> None:
    """In CI, a schema is held to the lock file without any table; it can be held to one, too."""
    for options in (["--lock", lock], ["--url", url], ["--lock", lock, "--url", url]):
        run("check", *options, "--schema", f"{schemas}:USER")
        run("check", *options, "--schema", f"{schemas}:CHANGED", fails=True)
    found = run("check", "--lock", lock, "--schema", f"{schemas}:CHANGED", fails=True)
    assert found.output.splitlines()[1:] == [
        "user.email\tthe lock file\tother type\tbytes\tstr",
        "user.risk\tthe lock file\tother group\tdefault\tnow",
        "user.x\tthe lock file\tmissing\tint\t",
    ]


def test_checks_that_make_no_sense(url: str, lock: Path) -> None:
    """One thing alone cannot be compared, and a schema that is not there is named."""
    assert "two things" in refusal("check", "--url", url)
    for name in ("no_such_module:X", "json:NotThere", "json"):
        assert name in refusal("check", "--lock", lock, "--schema", name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "entries": []}',
        '{"version": 1, "entries": [{"name": "user", "id": "!", "type": "int"}]}',
        '{"version": 1, "entries": [{"name": "#user", "id": "a", "type": "int"}]}',
        '{"version": 1, "entries": [{"name": "user", "id": "a", "type": "int", "state": "x"}]}',
        '{"version": 1, "entries": [{"name": "u.x!b", "id": "a", "type": "", "state": "retired"}]}',
        '{"version": 1, "entries": [{"name": "u.x", "id": "a", "type": "", "state": "alias"}]}',
        '{"version":1,"entries":[{"name":"u","id":"a","type":""},{"name":"v","id":"a","type":""}]}',
    ],
)
def test_what_is_no_lock_file_is_refused(text: str, tmp_path: Path) -> None:
    """A lock file that was damaged never reaches a table."""
    lock, target = tmp_path / "registry.lock", f"sqlite:///{tmp_path}/new.db"
    lock.write_text(text)
    with pytest.raises(RegistryError):
        raise run("import", lock, "--url", target, fails=True).exception or AssertionError
    assert rows(run("list", "--url", target)) == {}


def test_errors_are_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program says what is wrong and exits with status 1."""
    with pytest.raises(SystemExit) as ended:
        main(["registry", "import", str(tmp_path / "none.lock"), "--url", "sqlite://"])
    assert ended.value.code == 1
    assert "cannot be read" in capsys.readouterr().err
