"""The Valkey engine, and Redis: the same contract on a server that keeps items in memory."""
