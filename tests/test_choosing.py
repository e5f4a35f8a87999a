"""docs/choosing.md: what its tables of prices say is what its code computes.

The code itself runs as every document's does.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "choosing.md").read_text()
CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d[\d,_]*(?:\.\d+)?")
PRICED = ("| per month |", "| entities | queries/s")


def table(head: str) -> list[list[str]]:
    """The cells below a heading that begins like this."""
    lines = PAGE[PAGE.index(head) :].partition("\n\n")[0].splitlines()
    return [line.strip("|").split("|") for line in lines[2:]]


def numbers(text: str) -> set[float]:
    return {float(re.sub("[,_]", "", found)) for found in NUMBER.findall(text)}


def test_prices_in_tables_are_computed() -> None:
    """Every price, and every break-even, is one that an assertion on the page holds."""
    computed = set().union(*(numbers(code) for code in CODE.findall(PAGE)))
    cells = [cell for head in PRICED for row in table(head) for cell in row[1:]]
    found = set().union(*map(numbers, cells))
    assert len(found) > 20
    assert found <= computed
