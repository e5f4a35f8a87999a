"""Short stable ids: the shortest base-62 strings, in one fixed order."""

from __future__ import annotations

import itertools
import string
from collections.abc import Container, Iterator

ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits


def all_ids() -> Iterator[str]:
    """a, b, … 9, aa, ab, …: every id, shortest first. The order is part of the stored form."""
    for length in itertools.count(1):
        for letters in itertools.product(ALPHABET, repeat=length):
            yield "".join(letters)


def place(name_id: str) -> tuple[int, list[int]]:
    """What sorts ids as `all_ids` gives them."""
    return len(name_id), [ALPHABET.index(letter) for letter in name_id]


def free_ids(taken: Container[str]) -> Iterator[str]:
    """The ids that are not taken, shortest first."""
    return (candidate for candidate in all_ids() if candidate not in taken)
