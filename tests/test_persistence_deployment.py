"""What `examples/persistence_service` shows is valid, and does what it says."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from chalk_online_store import OnlineStore
from chalk_online_store.integrations.persistence import check_service, load_config
from chalk_online_store.schema import seconds
from tests.helpers import exit_status
from tests.kafka import PATIENCE, MockCluster, running, wait_until

HOME = Path(__file__).parents[1] / "examples" / "persistence_service"
MANIFESTS = ["kubernetes.yaml", "kubernetes-spool.yaml"]
UNIT = HOME / "chalk-online-store-persist.service"

every_manifest = pytest.mark.parametrize("name", MANIFESTS)


def manifest(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return [*yaml.safe_load_all((HOME / name).read_text())]


def workload(name: str) -> dict[str, Any]:
    (found,) = [each for each in manifest(name) if each["kind"] in ("Deployment", "StatefulSet")]
    return found


@every_manifest
def test_manifests_are_valid(name: str) -> None:
    """Each resource passes the schema of the newest Kubernetes release, without unknown fields."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    version = kubernetes_validate.latest_version()
    for resource in manifest(name):
        kubernetes_validate.validate(resource, version, strict=True)


@every_manifest
def test_a_manifest_has_the_configuration_of_the_example(
    name: str, check: Callable[[str, Path], None], tmp_path: Path
) -> None:
    """The ConfigMap holds the example's files, and the service accepts them with its arguments."""
    (config,) = [each for each in manifest(name) if each["kind"] == "ConfigMap"]
    shown = tomllib.loads((HOME / "writer.toml").read_text())
    given = tomllib.loads(config["data"]["writer.toml"])
    assert shown.items() <= given.items()
    assert config["data"]["user.py"] == (HOME / "user.py").read_text()
    for file, text in config["data"].items():
        (tmp_path / file).write_text(text)
    (container,) = workload(name)["spec"]["template"]["spec"]["containers"]
    bus, option, path = container["args"]
    assert option == "--config"
    check(bus, tmp_path / Path(path).name)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """Checks a configuration as `--check` does, with the modules of its directory."""
    pytest.importorskip("confluent_kafka")

    def run(bus: str, config: Path) -> None:
        monkeypatch.syspath_prepend(str(config.parent))
        monkeypatch.delitem(sys.modules, "user", raising=False)
        check_service(bus, load_config(config), config.parent)
        monkeypatch.delitem(sys.modules, "user")

    return run


@every_manifest
def test_a_pod_has_time_to_drain(name: str) -> None:
    """The grace period is longer than a drain, the last commit and the end of the writer."""
    config = load_config(HOME / "writer.toml")
    spec = workload(name)["spec"]["template"]["spec"]
    needed = seconds(config.settings().drain_timeout) + 5 + 2 + 5 + 5
    assert spec["terminationGracePeriodSeconds"] > needed
    assert config.http is not None
    (container,) = spec["containers"]
    assert container["ports"][0]["containerPort"] == config.http.port
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    paths = [container[each]["httpGet"]["path"] for each in probes]
    assert paths == ["/healthz", "/healthz", "/readyz"]
    stuck = timedelta(seconds=seconds(config.http.stuck_after))
    assert stuck >= timedelta(seconds=container["livenessProbe"]["periodSeconds"])


def test_the_unit_is_valid() -> None:
    """Systemd finds nothing wrong but that the command is not installed here."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    program, command, *arguments = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("chalk-online-store", "persist")
    assert arguments[1:] == ["--config", "writer.toml"]
    assert int(service["TimeoutStopSec"]) > 39
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([analyze, "verify", UNIT], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert [line for line in said if "is not executable" not in line] == []


def test_the_image_runs_the_command_as_nobody(check: Callable[[str, Path], None]) -> None:
    """The entry point is the command, and its user is not root."""
    text = (HOME / "Containerfile").read_text()
    instructions = dict(re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE))
    assert json.loads(instructions["ENTRYPOINT"]) == ["chalk-online-store", "persist"]
    assert instructions["USER"].split(":")[0].isdecimal()
    assert int(instructions["USER"].split(":")[0]) > 0
    copied = instructions["COPY"].split()[:-1]
    assert all((HOME / each).is_file() for each in copied)
    check(json.loads(instructions["CMD"])[0], HOME / "writer.toml")


def test_the_configuration_is_checked_by_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`persist --check` prints one line, and exits with status 1 for a wrong setting."""
    pytest.importorskip("prometheus_client")
    config = tmp_path / "writer.toml"
    config.write_text('[[topics]]\nname = "r"\nresults = true\n[dead_letters]\nfile = "d"\n')
    arguments = ["persist", "sqs:///r?region=us-east-1", "--config", str(config), "--check"]
    assert exit_status(*arguments) == 0
    assert capsys.readouterr().out == f"{config} is valid.\n"
    config.write_text(config.read_text() + "topics = 3\n")
    assert exit_status(*arguments) == 1
    assert "topics" in capsys.readouterr().err
    config.write_text('[[topics]]\nname = "r"\nresults = true\n[dead_letters]\nfile = "d"\n')
    assert exit_status("persist", "nats://", "--config", str(config), "--check") == 2


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Uvicorn in a thread; yields its address, and ends the app's lifespan."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def test_a_query_is_a_hit_once_the_service_has_stored_its_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The example's server computes once; the service writes its result; then it is a hit."""
    pytest.importorskip("confluent_kafka")
    cluster = MockCluster()
    url = f"sqlite:///{tmp_path}/features.db"
    monkeypatch.setenv("CHALK_ONLINE_STORE_URL", url)
    monkeypatch.setenv("KAFKA_BROKERS", cluster.servers)
    config = tmp_path / "writer.toml"
    text = (HOME / "writer.toml").read_text().replace('"0.0.0.0"', '"127.0.0.1"')
    config.write_text(text.replace("port = 9464", "port = 0"))
    monkeypatch.syspath_prepend(str(HOME))
    from examples.persistence_service.query_server import app

    def ask(amount: int) -> dict[str, Any]:
        answer = client.post("/score", json={"user": 1, "amount": amount})
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    with running(cluster.servers, config, url):
        with serving(app) as address, httpx.Client(base_url=address, timeout=PATIENCE) as client:
            computed = ask(100)
            assert computed["from"] == "computation"
            wait_until(lambda: ask(100)["from"] == "table")
            assert ask(100)["score"] == computed["score"]
            assert ask(101)["from"] == "computation"
        with OnlineStore.open(url, []) as store:  # The server delivers its last result as it ends.
            last = {"user": 1, "amount": 101}
            wait_until(lambda: store.read_result("score", last, version="1").status == "hit")
