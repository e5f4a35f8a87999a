"""A hook of MkDocs: SECURITY.md, CHANGELOG.md and CONTRIBUTING.md as pages of the site.

They lie at the root, where GitHub and package indexes look for them. A page of docs that is nothing
but a link to one of them, `[Security](../SECURITY.md)`, shows its text in the site.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ONLY_A_LINK = re.compile(r"\s*\[[^\]]+\]\(\.\./(?P<name>[A-Z]+\.md)\)\s*")
LINK_TO_ANOTHER = re.compile(r"\]\((?P<name>[A-Z]+)\.md")


def on_page_markdown(markdown: str, **_: object) -> str:
    """The text of the document that a page only links to; any other page as it is."""
    found = ONLY_A_LINK.fullmatch(markdown)
    return in_site((ROOT / found["name"]).read_text()) if found else markdown


def in_site(text: str) -> str:
    """A document of the root with its links as they are within docs."""
    text = text.replace("](docs/", "](")
    return LINK_TO_ANOTHER.sub(lambda found: f"]({found['name'].lower()}.md", text)
