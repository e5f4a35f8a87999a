"""Drivers perform the effects of operations: for threads, for asyncio, and in virtual time."""
