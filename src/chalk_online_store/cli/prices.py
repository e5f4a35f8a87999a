"""What read units cost, for an example: nothing is looked up."""

PRICE = 0.125
"""Dollars for a million read request units."""

PRICE_OF = "on-demand, us-east-1, November 2024"
