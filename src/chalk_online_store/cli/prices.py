"""What DynamoDB costs, for an example: nothing is looked up."""

PRICE = 0.125
"""Dollars for a million read request units."""

WRITE_PRICE = 0.625
"""Dollars for a million write request units."""

IMPORT_PRICE = 0.15
"""Dollars for a GB, uncompressed, that is imported from S3."""

PRICE_OF = "on-demand, us-east-1, November 2024"
