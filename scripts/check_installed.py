"""Write and read a few features with an installed library, and tell which decoder it has.

Usage: `python scripts/check_installed.py [--compiled | --pure]`, with the interpreter of the
installation. It needs nothing but the library, and exits with 1 if the decoder is another one.
"""

from __future__ import annotations

import sys

import chalk_online_store
from chalk_online_store import OnlineStore, Vector, features


@features
class User:
    id: int
    email: str | None
    risk: float
    embedding: Vector[4]


def main() -> None:
    with OnlineStore.open("sqlite://", schema=[User]) as store:
        row = {"id": 1, "email": None, "risk": 0.1, "embedding": [1, 2, 3, 4]}
        store.write(User, [row])
        rows = store.read(User, [1, 2])
    assert rows[0]["risk"] == 0.1, rows[0]
    assert [rows[0].status(name).value for name in ("email", "risk")] == ["null", "hit"]
    assert rows[1].status("risk").value == "missing"
    compiled = chalk_online_store.compiled
    print(chalk_online_store.__file__, "compiled" if compiled else "pure Python")
    unexpected = "--pure" if compiled else "--compiled"
    raise SystemExit(unexpected in sys.argv)


if __name__ == "__main__":
    main()
