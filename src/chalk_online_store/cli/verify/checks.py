"""The parts of a check: its name, the expected text, and a function that returns a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from chalk_online_store.cli.verify.context import CheckContext

Verdict: TypeAlias = Literal["ok", "differs", "skipped"]

VERDICTS: list[Verdict] = ["ok", "differs", "skipped"]


class Measured(NamedTuple):
    """A figure, which no text can be compared with."""

    text: str
    as_expected: bool
    figures: dict[str, float] | None = None
    """The same figures for JSON, by name."""


class NotApplicable(Exception):
    """Raised by a check if this URL or account gives it nothing to check. The text says why."""


class Units(NamedTuple):
    """Capacity units that a check consumes, the removal of its items included.

    Refused writes count as well: AWS bills them and does not report them.
    """

    rcu: float = 0.0
    wcu: float = 0.0


NO_UNITS = Units()


@dataclass(frozen=True, slots=True)
class Check:
    """One assumption of the library.

    `run` returns the seen text, which is as expected if it equals `expected`.
    """

    name: str
    expected: str
    run: Callable[[CheckContext], str | Measured]
    units: Units = NO_UNITS


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. `detail` is the engine's message if a request failed."""

    name: str
    expected: str
    seen: str
    verdict: Verdict
    seconds: float
    rcu: float
    wcu: float
    detail: str = ""
    figures: dict[str, float] | None = None

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON has it."""
        return asdict(self)
