"""The command `prices fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import typer

from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json
from chalk_online_store.cli.terminal import say
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.prices import OFFER_URL, Prices, parse_offer, read_prices

app = typer.Typer(help="Write price files for `capacity` and `autoscale`.", no_args_is_help=True)

_TIMEOUT_SECONDS = 60
_MAX_BYTES = 256 * 1024**2
"""Larger than any offer file of DynamoDB, which has some 10 MB for all regions."""


@app.callback()
def _group() -> None:
    """Make `fetch` a subcommand: Typer would run a single command without its name."""


@app.command()
def fetch(
    output: Annotated[Path, typer.Argument(help="Price file to write.")] = Path("prices.json"),
    offer: Annotated[
        Path | None,
        typer.Option(help="Downloaded offer file. Default: AWS's public price list."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download AWS's public price list of DynamoDB and write it as a price file.

    Needs no AWS account. Pass the file to `capacity` and `autoscale` with --prices.

    Example: chalk-online-store prices fetch prices.json
    """
    bundled = read_prices()
    prices = parse_offer(_download() if offer is None else _read(offer), bundled)
    try:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(prices), indent=2) + b"\n")
    except OSError as error:
        raise InvalidValue(f"{output} cannot be written: {error.strerror}.") from None
    if as_json:
        print_json({"file": str(output), "as_of": prices.as_of.isoformat(), **_counts(prices)})
        return
    nodes = [region for region, each in prices.regions.items() if each.valkey is not None]
    say(f"Written: {output}, {len(prices.regions)} regions, published {prices.as_of}.")
    say(
        f"Prices of cache nodes ({', '.join(nodes) or 'no region'}) and of other services are the "
        "bundled ones: the offer file has DynamoDB alone.",
        err=True,
    )


def _counts(prices: Prices) -> dict[str, object]:
    return {"source": prices.source, "regions": sorted(prices.regions)}


def _download() -> bytes:
    try:
        with urlopen(OFFER_URL, timeout=_TIMEOUT_SECONDS) as response:
            body: bytes = response.read(_MAX_BYTES + 1)
    except (URLError, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise InvalidValue(
            f"Cannot download {OFFER_URL}: {reason}. Download it elsewhere and pass it by --offer."
        ) from error
    if len(body) > _MAX_BYTES:
        raise InvalidValue(f"{OFFER_URL} has more than {_MAX_BYTES:,} bytes. Pass --offer.")
    return body


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}.") from None


# --- What DynamoDB costs, for an example: from the prices that come along, nothing is loo ---


_PRICES = read_prices()
_EXAMPLE = _PRICES.of("us-east-1")

PRICE = _EXAMPLE.standard.million_rru
"""Dollars for a million read request units."""

WRITE_PRICE = _EXAMPLE.standard.million_wru
"""Dollars for a million write request units."""

IMPORT_PRICE = _EXAMPLE.import_gb
"""Dollars for a GB, uncompressed, that is imported from S3."""

PRICE_OF = f"on-demand, us-east-1, {_PRICES.as_of:%B %Y}"
