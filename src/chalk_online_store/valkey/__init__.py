"""Valkey and Redis: commands, scripts, the layout of items, and the transports."""
