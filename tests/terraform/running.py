"""Runs the real terraform on files, without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.provider_schema import SCHEMA

from tests.terraform.provider import Account

ROOT = Path(__file__).parents[2]
TERRAFORM = shutil.which("terraform")

_PROVIDER = re.compile(r"provider\[(.+?/hashicorp/aws)\]")


class Refused(Exception):
    """Terraform found something wrong: what it says."""


class Terraform:
    """Terraform with a mirror of one provider, whose place a server on `port` takes.

    `init` finds a provider of the right version in the mirror, so that what the files require is
    checked; that file is empty, and what asks the provider something is told of the server.
    """

    def __init__(self, directory: Path, port: int, pid: int, account: Account) -> None:
        assert TERRAFORM is not None
        self._directory = directory
        self.account = account
        config = directory / "terraform.rc"
        mirror = json.dumps(str(directory / "mirror"))
        config.write_text(
            f"provider_installation {{\n  filesystem_mirror {{\n    path = {mirror}\n  }}\n}}\n"
        )
        self._environment = {
            "HOME": str(directory),
            "CHECKPOINT_DISABLE": "1",
            "TF_CLI_CONFIG_FILE": str(config),
            "TF_IN_AUTOMATION": "1",
        }
        server = {
            "Protocol": "grpc",
            "ProtocolVersion": 6,
            "Pid": pid,
            "Test": True,  # Nobody but who started it ends it.
            "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
        }
        self._attached = {"TF_REATTACH_PROVIDERS": json.dumps({"hashicorp/aws": server})}
        self._fill_mirror()

    def _fill_mirror(self) -> None:
        asking = self._directory / "asking"
        asking.mkdir()
        (asking / "main.tf").write_text('provider "aws" {}')
        found = _PROVIDER.search(self.run(asking, "providers"))
        assert found is not None
        platform = json.loads(self.run(asking, "version", "-json"))["platform"]
        version = json.loads(SCHEMA.read_text())["provider_version"]
        place = self._directory / "mirror" / found[1] / version / platform
        place.mkdir(parents=True)
        (place / f"terraform-provider-aws_v{version}").touch(mode=0o755)

    def run(self, directory: Path, *arguments: str, given: str = "", attached: bool = False) -> str:
        """What a command prints; raises `Refused` with what it complains about."""
        done = subprocess.run(
            [str(TERRAFORM), *arguments],
            cwd=directory,
            env=self._environment | (self._attached if attached else {}),
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stdout + done.stderr)
        return done.stdout

    def write(self, directory: Path, files: Mapping[str, str]) -> None:
        """Write files instead of those there are, and have terraform find their modules."""
        for old in directory.glob("**/*.tf"):
            old.unlink()
        for name, text in files.items():
            (directory / name).parent.mkdir(exist_ok=True, parents=True)
            (directory / name).write_text(text)
        if not (directory / ".terraform").exists():
            self.run(directory, "init", "-input=false", "-no-color")

    def check(self, directory: Path, files: Mapping[str, str]) -> None:
        """Write files, and have terraform check their format and what they say."""
        self.write(directory, files)
        self.run(directory, "fmt", "-check", "-list=true", "-recursive")
        self.run(directory, "validate", "-no-color", attached=True)

    def plan(self, directory: Path, files: Mapping[str, str]) -> dict[str, Any]:
        """The plan of files that pass `check`, as `terraform show -json` tells it."""
        self.check(directory, files)
        return self.plan_written(directory)

    def plan_written(self, directory: Path) -> dict[str, Any]:
        """The plan of the files of a directory."""
        self.run(directory, "plan", "-input=false", "-no-color", "-out=plan", attached=True)
        plan: dict[str, Any] = json.loads(
            self.run(directory, "show", "-json", "plan", attached=True)
        )
        return plan

    def apply(self, directory: Path, files: Mapping[str, str]) -> None:
        """Apply files to the account in memory."""
        self.write(directory, files)
        options = ("-input=false", "-no-color", "-auto-approve")
        self.run(directory, "apply", *options, attached=True)


@contextmanager
def offline_terraform(directory: Path) -> Iterator[Terraform]:
    """Terraform, and the server that it takes for the AWS provider."""
    assert SCHEMA.exists(), f"Run `{sys.executable} -m scripts.provider_schema` in {ROOT}."
    path = directory / "account.json"
    command = [sys.executable, "-m", "tests.terraform.provider", str(SCHEMA), str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield Terraform(directory, int(server.stdout.readline()), server.pid, Account(path))
        finally:
            server.terminate()
