"""What a `FaultProxy`, or a `ValkeyFaultProxy`, can do to requests and answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


def _check(good: bool, why: str) -> None:
    if not good:
        raise ValueError(why)


@dataclass(frozen=True, slots=True)
class Fault:
    """Base of all faults. Those that cannot be are refused by a `ValueError`."""

    @property
    def is_total(self) -> bool:
        """Whether it is a state of the network, which cannot hit a part of the requests."""
        return False


@dataclass(frozen=True, slots=True)
class Latency(Fault):
    """Each answer comes `seconds` later, and up to `jitter` seconds more, evenly drawn."""

    seconds: float
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _check(self.seconds >= 0 and self.jitter >= 0, "no answer comes earlier")


@dataclass(frozen=True, slots=True)
class Slowdown(Fault):
    """The engine takes `factor` times as long, which is 1 or more: a brown-out."""

    factor: float

    def __post_init__(self) -> None:
        _check(self.factor >= 1, "factor is 1 or more")


@dataclass(frozen=True, slots=True)
class Blackhole(Fault):
    """Requests are swallowed: no answer ever comes, and the connection stays open.

    With `connect`, new connections are not even established: their SYN is not answered, as when
    a host is gone. That needs Linux.
    """

    connect: bool = False

    @property
    def is_total(self) -> bool:
        """Only where connections are concerned."""
        return self.connect


@dataclass(frozen=True, slots=True)
class Refused(Fault):
    """Nobody listens: connects are refused, and the connections that are open get reset."""

    @property
    def is_total(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class AcceptThenClose(Fault):
    """Connections are accepted and then closed, as by a load balancer without backends.

    Each connection, also one that is open at injection, is closed after a random delay of at most
    `within` seconds. `reset` closes by an RST instead of a FIN. `garbage` is the number of random
    bytes that are sent before.
    """

    within: float = 0.0
    reset: bool = False
    garbage: int = 0

    def __post_init__(self) -> None:
        _check(self.within >= 0, "within is a number of seconds, 0 or more")
        _check(self.garbage >= 0, "garbage is a number of bytes, 0 or more")

    @property
    def is_total(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class ForgottenConnections(Fault):
    """The connections that are open at injection are forgotten, as by a NAT gateway.

    The next bytes that a client sends on one are answered by an RST; if `silent`, they are
    swallowed. New connections are not affected. A forgotten connection stays so after `clear`.
    """

    silent: bool = False

    @property
    def is_total(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class SwappedResponses(Fault):
    """The responses to two requests that are in flight at once are exchanged.

    A response waits at most `wait` seconds for another one, and is delivered unchanged if none
    comes.
    """

    wait: float = 0.3

    def __post_init__(self) -> None:
        _check(self.wait > 0, "wait is a number of seconds above 0")


@dataclass(frozen=True, slots=True)
class LateDuplicates(Fault):
    """Each response is sent a second time on its connection, `seconds` later.

    The duplicate precedes the response to the next request on that connection.
    """

    seconds: float = 0.02

    def __post_init__(self) -> None:
        _check(self.seconds >= 0, "seconds is 0 or more")


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """The connection is reset (RST) when `after` bytes of the answer are sent.

    An answer of Valkey's that has no more than that comes unharmed.
    """

    after: int = 0

    def __post_init__(self) -> None:
        _check(self.after >= 0, "after is a number of bytes")


@dataclass(frozen=True, slots=True)
class Truncated(Fault):
    """The answer's head promises the whole body; the part `keep` of it comes, then the end.

    Of Valkey's answers, which have no head, it is a part of what would come first.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        _check(0 <= self.keep < 1, "keep is a part of the body, below 1")


@dataclass(frozen=True, slots=True)
class LostAnswer(Fault):
    """The request takes effect in the engine; the connection ends without an answer."""


@dataclass(frozen=True, slots=True)
class LostRequest(Fault):
    """The first `after` bytes of a request reach Valkey; then the connection is reset (RST).

    Those of its commands that are whole by then take effect.
    """

    after: int = 0

    def __post_init__(self) -> None:
        _check(self.after >= 0, "after is a number of bytes")


@dataclass(frozen=True, slots=True)
class DamagedCRC(Fault):
    """A bit of the body is flipped, so that it does not match its `x-amz-crc32`."""


@dataclass(frozen=True, slots=True)
class SlowDrip(Fault):
    """The body comes in small pieces, `bytes_per_second` altogether."""

    bytes_per_second: float

    def __post_init__(self) -> None:
        _check(self.bytes_per_second > 0, "bytes_per_second is above 0")


@dataclass(frozen=True, slots=True)
class ServerFault(Fault):
    """The request is not done: DynamoDB's answer for a fault of its own, 500 or 503."""

    status: int = 500

    def __post_init__(self) -> None:
        _check(self.status in {500, 503}, "status is 500 or 503")


@dataclass(frozen=True, slots=True)
class Throttling(Fault):
    """The request is not done: `ProvisionedThroughputExceededException`."""


@dataclass(frozen=True, slots=True)
class Unprocessed(Fault):
    """The part `share` of each batch is left: `UnprocessedKeys` and `UnprocessedItems`.

    At least one key or item of a batch is done, as DynamoDB has it; with a `share` of 1, none,
    which DynamoDB answers by a throttle.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        _check(0 <= self.share <= 1, "share is a part of a batch, from 0 to 1")


@dataclass(frozen=True, slots=True)
class ClockSkew(Fault):
    """The engine's clock is `seconds` ahead of this machine's.

    A signature whose `X-Amz-Date` is more than five minutes off is refused, as AWS does it. The
    `Date` of every answer shows the engine's clock.
    """

    seconds: float


KINDS: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        Latency,
        Slowdown,
        Blackhole,
        Refused,
        AcceptThenClose,
        ForgottenConnections,
        SwappedResponses,
        LateDuplicates,
        Reset,
        Truncated,
        LostAnswer,
        LostRequest,
        DamagedCRC,
        SlowDrip,
        ServerFault,
        Throttling,
        Unprocessed,
        ClockSkew,
    )
}


def dump(fault: Fault) -> dict[str, Any]:
    """A fault as JSON takes it."""
    return {"kind": type(fault).__name__, "options": asdict(fault)}


def load(dumped: dict[str, Any]) -> Fault:
    """The inverse of `dump`."""
    return KINDS[dumped["kind"]](**dumped["options"])
