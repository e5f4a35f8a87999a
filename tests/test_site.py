"""The documentation as it is built: complete, whole, and nothing in it from elsewhere."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGE = "chalk_online_store"
OFFERING = [
    PACKAGE,
    f"{PACKAGE}.testing",
    *(
        f"{PACKAGE}.integrations.{name}"
        for name in ("arrow", "bulk", "chalkpy", "feast", "frames", "health", "opentelemetry")
    ),
]

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELSEWHERE = re.compile(r"(?:https?:)?//")
LOADED = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]*)""")
UNRENDERED = re.compile(r"\]\[|\]\(|--8<--|^!!!|^:::|\*\*", re.MULTILINE)
Origins: TypeAlias = dict[tuple[str, str], str]

# In a process of its own: importing Feast takes seconds, and a minute in one that has many tests.
ORIGINS = """
import importlib, inspect, json, sys


def offered(module):
    if hasattr(module, "__all__"):
        return module.__all__
    return [name for name, thing in vars(module).items() if is_defined_by(module, name, thing)]


def is_defined_by(module, name, thing):
    is_code = inspect.isfunction(thing) or inspect.isclass(thing)
    return is_code and thing.__module__ == module.__name__ and not name.startswith("_")


def origin(module, name):
    if not hasattr(module, name):  # It is a module, which nobody has imported yet.
        importlib.import_module(f"{module.__name__}.{name}")
    thing = getattr(module, name)
    defines = module if inspect.ismodule(thing) else inspect.getmodule(thing)
    return getattr(defines, "__name__", "")


modules, pairs = map(json.loads, sys.argv[1:])
pairs += [[module, name] for module in modules for name in offered(importlib.import_module(module))]
print(json.dumps([[*pair, origin(importlib.import_module(pair[0]), pair[1])] for pair in pairs]))
"""

ESCAPED_IN_CODE = re.compile(r"<td[^>]*>(?:[^<]|</?code>)*\\\|")


class Page(HTMLParser):
    """What is looked at in a page: what it loads, its ids, its headings, and its prose."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.headings: list[int] = []
        self.pictures_without_words: list[str] = []
        self.diagrams = 0
        self.prose = ""
        self._article = False
        self._aside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.ids.add(named.get("id", ""))
        self.diagrams += "mermaid" in named.get("class", "").split()
        self._article |= tag == "article"
        if tag == "link" or "src" in named:
            self.loads.append(named.get("src") or named["href"])
        if tag == "img" and not named.get("alt"):
            self.pictures_without_words.append(named["src"])
        if self._article and re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in ("pre", "code", "script", "style"):
            self._aside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._article &= tag != "article"
        if self._aside and self._aside[-1] == tag:
            self._aside.pop()

    def handle_data(self, data: str) -> None:
        if self._article and not self._aside:
            self.prose += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: a link to nothing, or a page in no menu, ends it."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--site-dir", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = sorted(site.rglob("*.html"))
    return {path.relative_to(site).as_posix(): Page(path.read_text()) for path in found}


def test_every_document_is_a_page(pages: dict[str, Page]) -> None:
    """None is missing, those at the root included, and none is a bare link."""
    for name in ("index", "security/index", "changelog/index", "contributing/index"):
        assert len(pages[f"{name}.html"].prose) > 1000, name
    assert len(pages) == len(TEXTS) - 1 + 1  # without README, and with a page for errors


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    """Scripts, styles, fonts and pictures are all its own: it can be read without a network."""
    assert {url for page in pages.values() for url in page.loads if ELSEWHERE.match(url)} == set()
    assert [url for path in site.rglob("*.css") for url in LOADED.findall(path.read_text())] == []
    assert sum(page.diagrams for page in pages.values()) == 0  # These fetch their renderer.


def test_what_is_loaded_is_there(site: Path, pages: dict[str, Page]) -> None:
    """No picture, script or style is missing from the site."""
    for name, page in pages.items():
        place = site if name == "404.html" else (site / name).parent
        files = [place / url.partition("?")[0].lstrip("/") for url in page.loads]
        assert [path for path in files if not path.exists()] == [], name


def test_pages_are_whole(pages: dict[str, Page]) -> None:
    """One title each, no level of headings left out, pictures described, no Markdown left over."""
    for name, page in pages.items():
        if name != "404.html":
            assert page.headings.count(1) == 1, name
        steps = zip([0, *page.headings], page.headings, strict=False)
        assert [step for step in steps if step[1] > step[0] + 1] == [], name
        assert page.pictures_without_words == [], name
        assert UNRENDERED.findall(page.prose) == [], name
        assert ESCAPED_IN_CODE.search(page.text) is None, name


def test_examples_are_shown(site: Path) -> None:
    """The page of examples has the programs, not a mark where they should be."""
    shown = re.sub("<[^>]+>", "", (site / "examples" / "index.html").read_text())
    for path in (ROOT / "examples").glob("[a-z]*.py"):
        assert path.read_text().partition("\n")[0].strip('"') in shown, path


@pytest.fixture(scope="module")
def origins() -> Origins:
    """The module that defines each public name, and each name that the documentation imports."""
    command = [sys.executable, "-c", ORIGINS, json.dumps(OFFERING), json.dumps(sorted(USED))]
    found = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return {(module, name): origin for module, name, origin in json.loads(found)}


def test_what_a_module_offers_is_in_the_reference(origins: Origins, pages: dict[str, Page]) -> None:
    """Every public name of the package, of its helpers for tests and of its integrations."""
    offered = {pair for pair in origins if pair[0] in OFFERING}
    assert {module for module, _ in offered} == set(OFFERING)
    assert undescribed(offered, origins, pages) == set()


def test_what_the_documentation_imports_is_in_the_reference(
    origins: Origins, pages: dict[str, Page]
) -> None:
    """No example uses what nobody described, beside numbers and the command line itself."""
    used = {pair for pair in USED if not pair[1].isupper()}
    assert undescribed(used, origins, pages) == {f"{PACKAGE}.cli.main"}


def undescribed(pairs: set[tuple[str, str]], origins: Origins, pages: dict[str, Page]) -> set[str]:
    """The names that the reference has neither under their module nor where they are defined."""
    described = {
        name for path, page in pages.items() if path.startswith("reference/") for name in page.ids
    }
    return {
        f"{module}.{name}"
        for module, name in pairs
        if f"{module}.{name}" not in described
        and f"{origins[module, name]}.{name}" not in described
    }


def imported(text: str) -> Iterator[tuple[str, str]]:
    """What the Python of a document imports from the package: modules and names."""
    for source in PYTHON.findall(text):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                yield from ((str(node.module), alias.name) for alias in node.names)


USED = {pair for text in TEXTS for pair in imported(text.read_text())}
