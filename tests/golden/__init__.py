"""Stored bytes, which every later version reads."""
