"""Polls sources and records what they say, in one thread."""
