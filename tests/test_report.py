"""The page of what was reckoned: whole, offline, and as a browser shows it."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from chalk_online_store import feature, features
from chalk_online_store.cli import main
from chalk_online_store.cli.capacity import SizingReport, estimate
from chalk_online_store.cli.report import page as page_module
from chalk_online_store.cli.report.page import (
    bars,
    component_rows,
    multiples,
    render_page,
    savings,
    sentences,
)
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.modes import MODES
from chalk_online_store.planning.prices import read_prices

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


def mix_of(*regions: str, query: tuple[Query, ...] = (), write: tuple[Write, ...] = ()) -> Mix:
    part = NamespaceMix(f"{__name__}:User", 5_000_000, query=query, write=write)
    return Mix((part,), regions=regions, trough=0.3)


READS = (Query(2000, 20, absent=0.1, bloom=0.99, hottest=0.1),)


@pytest.fixture(scope="module", autouse=True)
def _few_reads() -> Iterator[None]:
    """Curves of caches from fewer reads: their form is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "_READS", 2000)
        yield


@pytest.fixture(scope="module")
def account() -> SizingReport:
    mix = mix_of("us-east-1", "us-west-2", query=READS, write=(Write(500, ("risk",)),))
    return estimate(mix, read_prices(), 70.0)


@pytest.fixture(scope="module")
def page(account: SizingReport) -> str:
    return render_page(account, NOW)


@pytest.fixture(scope="module")
def text(page: str) -> str:
    """The text of the page, as it is read."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page.split("</style>")[1])))


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
    assert len(found.links) == 3
    assert all(link.startswith("data:image/svg+xml;base64,") for link in found.links)
    assert "url(" not in page
    assert "@import" not in page


def test_the_page_says_what_the_terminal_says(text: str, account: SizingReport) -> None:
    """Totals, every line with its rule, findings, the recommendation and the date of prices."""
    assert f"Recommended: {account.modes.mode} : {account.modes.reason}." in text
    for line in account.sizing.lines:
        assert line.arithmetic in text
    for finding in account.findings:
        assert finding.what in text
    for one in account.bill.components:
        assert one.arithmetic in text
    for each in account.bill.not_counted:
        assert f"{each.name} {each.reason}" in text
    assert account.prices.as_of.isoformat() in text


def test_the_answer_has_three_sentences(account: SizingReport) -> None:
    """The first sentence has the units, the second the mode and its bill, the third a saving."""
    found = savings(account)
    answer = list(sentences(account, found))
    assert answer[0].startswith("At the peak the table takes 36,040 RCU, and 500 WCU in each of 2")
    monthly = account.modes.dollars(account.modes.mode)
    assert answer[1].startswith(f"Choose {account.modes.mode} capacity for ${monthly:,.0f} per")
    assert answer[2].startswith(f"The largest saving is {found[0].name}: ${found[0].dollars:,.0f}")
    assert len(answer) == 3


def test_the_largest_saving_is_first(account: SizingReport, text: str) -> None:
    """Savings are sorted, include those of groups and alternatives, and show their arithmetic."""
    found = savings(account)
    dollars = [each.dollars for each in found]
    assert dollars == sorted(dollars, reverse=True)
    assert {"other groups of user", "Database Savings Plan, 1 year"} <= {e.name for e in found}
    for each in found:
        assert all(step.strip() in text for step in each.arithmetic)
        if each.components:
            total = sum(one.dollars for one in each.components)
            assert account.bill.monthly - total == pytest.approx(each.dollars)


def test_components_add_up_in_every_mode(account: SizingReport) -> None:
    """The table of components has the whole bill of each mode, as the bars have."""
    rows = component_rows(account)
    for place, mode in enumerate(MODES):
        total = account.modes.dollars(mode)
        assert sum(row.by_mode[place] for row in rows) == pytest.approx(total)
    for bar in bars(account):
        assert sum(dollars for _, dollars, _ in bar.segments) == pytest.approx(bar.dollars)
    assert max(sum(each[2] for each in bar.segments) for bar in bars(account)) == pytest.approx(100)


def test_the_sensitivity_is_that_of_the_traffic(account: SizingReport, text: str) -> None:
    """Half, twice and four times the traffic take as many units, and store the same."""
    found = multiples(account)
    assert [each.factor for each in found] == [0.5, 1.0, 2.0, 4.0]
    for each in found:
        scaled = each.account.sizing
        assert scaled.total("RCU") == pytest.approx(account.sizing.total("RCU") * each.factor)
        assert scaled.total("WCU") == pytest.approx(account.sizing.total("WCU") * each.factor)
        assert scaled.gb == account.sizing.gb
        assert f" {each.factor:g} {scaled.total('RCU'):,.0f} {scaled.total('WCU'):,.0f}" in text


def test_nothing_empty_is_drawn() -> None:
    """Without reads and writes there is no chart of them; without prices there are no dollars."""
    idle = estimate(mix_of("us-east-1"), read_prices(), 70.0)
    shown = render_page(idle, NOW)
    assert "<img" not in shown
    assert "no traffic" in shown
    written = estimate(mix_of("us-east-1", write=(Write(50),)), read_prices(), 70.0)
    assert re.findall(r'alt="(\w+)', render_page(written, NOW)) == ["Writes"]
    unpriced = estimate(mix_of("xx-nowhere-1", write=(Write(50),)), read_prices(), 70.0)
    shown = render_page(unpriced, NOW)
    assert 'class="bar"' not in shown
    assert "No region has prices" in shown
    assert re.findall(r"\$[\d.]+", shown.split("<h2>Not counted")[0].split("</style>")[1]) == []


def test_the_same_account_is_the_same_page(page: str, account: SizingReport) -> None:
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
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(page: str, tmp_path: Path, width: int) -> None:
    """Headless Chromium draws the bars on a screen and on a phone, and reports no problem."""
    path, shot = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(page)
    done = subprocess.run(
        [
            str(CHROMIUM),
            *QUIET,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},3000",
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
    for colour in ("#0072B2", "#E69F00"):  # Reads and writes in the bars of the modes.
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(drawn - wanted).max(axis=2) < 4).sum() > 500
