"""What is published: the source distribution and the wheel, and the wheel installed by itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from scripts.licences import page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "chalk_online_store"
KERNELS = f"chalk_online_store/codec/_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
NOT_PUBLISHED = (".*", "__pycache__", "*.py[cod]", "*.so", "*.egg-info", "build", "dist", "site")
"""What a work tree has beside the project's own files."""

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

BEGINNING = """
from chalk_online_store import MissingDependency, OnlineStore, feature, features

@features
class User:
    id: int
    risk: float

store = OnlineStore.open("sqlite:///features.db", schema=[User])
store.write(User, [{"id": 1, "risk": 0.5}])
rows = store.read(User, [1, 2], ["risk"])
assert rows.to_dict() == {"risk": [0.5, None]}, rows.to_dict()
"""

WITHOUT_EXTRAS = [
    ("rows.to_arrow()", "[arrow]"),
    ("import chalk_online_store.integrations.frames", "[arrow]"),
    ("import chalk_online_store.integrations.arrow", "[arrow]"),
    ("import chalk_online_store.integrations.bulk", "[arrow]"),
    ("import chalk_online_store.integrations.ray", "[arrow]"),
    ("import chalk_online_store.integrations.spark", "[arrow]"),
    ("from chalk_online_store.integrations import opentelemetry as o; o.observe(store)", "[otel]"),
    ("from chalk_online_store.testing import Moto; Moto().start()", "moto[dynamodb,server]"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files alone, as a fresh checkout has them."""
    tree = tmp_path_factory.mktemp("package") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_PUBLISHED))
    return tree


@pytest.fixture(scope="module")
def sdist(tree: Path) -> Path:
    """The source distribution."""
    return build(tree, "--sdist", ".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution builds: the one that users get."""
    unpacked = tmp_path_factory.mktemp("sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    return build(next(unpacked.iterdir()), "--wheel", ".whl")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment with the wheel and what it cannot do without."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    run("-m", "uv", "venv", "--quiet", "--python", sys.executable, str(home))
    python = home / "bin" / "python"
    run("-m", "uv", "pip", "install", "--quiet", "--python", str(python), str(wheel))
    return python


def test_the_sdist_holds_the_project(sdist: Path, tree: Path) -> None:
    """Whoever has the source distribution can build, test, benchmark and read the docs."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert files(tree, tree) - inside == set()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module, the data, the types and the decoder are in it; no test and no C is."""
    expected = {name for name in files(PACKAGE, PACKAGE.parent) if not name.endswith((".c", ".h"))}
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == expected | {KERNELS}


def test_the_tree_builds_the_wheel_of_the_sdist(wheel: Path, tree: Path) -> None:
    """An installation from the repository is the published one."""
    own, published = contents(build(tree, "--wheel", ".whl")), contents(wheel)
    assert own.keys() == published.keys()
    binary = (KERNELS, "RECORD")  # Debug information has the path of the source.
    assert [
        name for name in own if own[name] != published[name] and not name.endswith(binary)
    ] == []


def test_an_index_takes_both(sdist: Path, wheel: Path) -> None:
    """The metadata is complete and the README renders, by twine's strictest check."""
    run("-m", "twine", "check", "--strict", str(sdist), str(wheel))


def test_the_wheel_works_alone(python: Path, tmp_path: Path) -> None:
    """Without any extra it writes, reads, and decodes in C."""
    decoder = "from chalk_online_store.codec import _kernels\nassert _kernels.__file__\n"
    assert ask(python, tmp_path, BEGINNING + decoder + "print(rows[0]['risk'])") == "0.5\n"


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/getting-started.md"])
def test_the_quick_start_works_alone(page: str, python: Path, tmp_path: Path) -> None:
    """Who has installed the wheel, and copies what the first pages show, gets no error."""
    blocks = PYTHON.findall((ROOT / page).read_text())
    assert ask(python, tmp_path, "\n".join(blocks)) == ""


@pytest.mark.parametrize(("code", "way_out"), WITHOUT_EXTRAS)
def test_what_an_extra_brings_is_refused(
    code: str, way_out: str, python: Path, tmp_path: Path
) -> None:
    """Where a package is missing, the error says what to install."""
    caught = f"try:\n    {code}\nexcept MissingDependency as error:\n    print(error)\n"
    assert way_out in ask(python, tmp_path, BEGINNING + caught)


def test_the_command_says_what_it_needs(python: Path, tmp_path: Path) -> None:
    """The installed command, without its extra, ends with a sentence in place of a traceback."""
    command = python.with_name("chalk-online-store")
    done = subprocess.run([command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "pip install 'chalk-online-store[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_extra_is_documented() -> None:
    """docs/getting-started.md lists each extra of pyproject.toml, sorted by name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    table = (ROOT / "docs" / "getting-started.md").read_text().partition("| extra |")[2]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == sorted(extras)


def test_every_dependency_has_its_licence_listed() -> None:
    """docs/licences.md knows the dependencies that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = (ROOT / "docs" / "licences.md").read_text()
    rows = page(project).splitlines()
    missing = [row for row in rows if row.rpartition("|")[0].rpartition("|")[0] not in listed]
    assert missing == []


def build(source: Path, kind: str, suffix: str) -> Path:
    out = source.parent / f"{source.name}{kind}"
    run("-m", "build", "--installer", "uv", kind, "--outdir", str(out), str(source))
    (built,) = out.glob(f"*{suffix}")
    return built


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def ask(python: Path, directory: Path, code: str) -> str:
    """What a program prints that sees nothing of the repository."""
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", code],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(directory: Path, root: Path) -> set[str]:
    """The paths, from `root` on, of what is published below a directory."""
    ignored = shutil.ignore_patterns(*NOT_PUBLISHED)
    found: set[str] = set()
    for path in directory.iterdir():
        if ignored(str(directory), [path.name]):
            continue
        found |= files(path, root) if path.is_dir() else {path.relative_to(root).as_posix()}
    return found


def contents(wheel: Path) -> dict[str, int]:
    """Names and checksums of what is in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.CRC for info in archive.infolist()}
