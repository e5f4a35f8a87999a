"""The page of what was reckoned: whole, offline, and as a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from chalk_online_store import feature, features
from chalk_online_store.capacity.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.capacity.prices import read_prices
from chalk_online_store.cli import main
from chalk_online_store.cli.capacity.account import Account, reckon
from chalk_online_store.cli.report.page import render_page

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--enable-logging=stderr",
]


@features
class User:
    id: int
    name: str
    risk: float = feature(group="realtime")


@pytest.fixture(scope="module")
def account() -> Account:
    part = NamespaceMix(
        f"{__name__}:User",
        5_000_000,
        query=(Query(2000, 20, absent=0.1, bloom=0.99, hottest=0.1),),
        write=(Write(500, ("risk",)),),
    )
    mix = Mix((part,), regions=("us-east-1", "us-west-2"), trough=0.3)
    return reckon(mix, read_prices(), 70.0)


@pytest.fixture(scope="module")
def page(account: Account) -> str:
    return render_page(account, NOW)


class _Links(HTMLParser):
    """Everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_whole(page: str) -> None:
    """It loads nothing: no script, no style sheet, and each image lies in its own address."""
    found = _Links()
    found.feed(page)
    assert not found.tags & {"script", "link", "iframe", "object"}
    assert len(found.links) == 4
    assert all(link.startswith("data:image/svg+xml;base64,") for link in found.links)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_says_what_the_terminal_says(page: str, account: Account) -> None:
    """Totals, every line with its rule, findings, the recommendation and the date of prices."""
    text = re.sub(r"\s+", " ", page)
    assert f"Recommended: <strong>{account.modes.mode}</strong>" in text
    for line in account.sizing.lines:
        assert line.arithmetic in text
    for finding in account.findings:
        assert finding.what in text
    assert "2025-08-28" in text


def test_the_same_account_is_the_same_page(page: str, account: Account) -> None:
    """Nothing in it is random, so two pages can be compared."""
    assert render_page(account, NOW) == page


def test_the_command_writes_it(tmp_path: Path) -> None:
    """And says where it cannot."""
    mix, report = tmp_path / "mix.toml", tmp_path / "page.html"
    mix.write_text(f'[[namespace]]\nschema = "{__name__}:User"\nentities = 10\n')
    for path, code in ((report, 0), (tmp_path / "nowhere" / "page.html", 1)):
        with pytest.raises(SystemExit) as exit_:
            main(["capacity", str(mix), "--report", str(path)])
        assert (exit_.value.code or 0) == code
    assert "<title>Capacity of an online store</title>" in report.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed.")
def test_a_browser_shows_it(page: str, tmp_path: Path) -> None:
    """Headless Chromium draws the charts and complains of nothing."""
    path, shot = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(page)
    done = subprocess.run(
        [
            str(CHROMIUM),
            *QUIET,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1100,3600",
            f"--screenshot={shot}",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    drawn = (matplotlib.image.imread(shot)[..., :3] * 255).round().astype(int)
    for colour in ("#0072B2", "#E69F00"):  # Reads and writes in the chart of the modes.
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(drawn - wanted).max(axis=2) < 4).sum() > 5000
