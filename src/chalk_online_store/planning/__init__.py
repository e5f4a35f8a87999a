"""Capacity units, sizing, prices, and simulations of autoscaling and caches. Pure."""
