"""What DynamoDB costs, for an example: from the prices that come along, nothing is looked up."""

from chalk_online_store.planning.prices import read_prices

_PRICES = read_prices()
_EXAMPLE = _PRICES.of("us-east-1")

PRICE = _EXAMPLE.standard.million_rru
"""Dollars for a million read request units."""

WRITE_PRICE = _EXAMPLE.standard.million_wru
"""Dollars for a million write request units."""

IMPORT_PRICE = _EXAMPLE.import_gb
"""Dollars for a GB, uncompressed, that is imported from S3."""

PRICE_OF = f"on-demand, us-east-1, {_PRICES.as_of:%B %Y}"
