"""Texts as a terminal can show them, without what it would obey."""

from __future__ import annotations

import unicodedata

_CONTROL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of characters that act on what is shown: ESC, newlines, bidi, surrogates."""


def visible(text: str) -> str:
    r"""Return a text with control characters as escapes, such as `\x1b` and `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(c) if unicodedata.category(c) in _CONTROL else c for c in text)


def visible_lines(text: str) -> str:
    """Return a text of several lines, each of them visible."""
    return "\n".join(map(visible, text.split("\n")))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
