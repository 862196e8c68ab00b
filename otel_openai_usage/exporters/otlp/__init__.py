"""Snapshot → requests → sender: exports over OTLP."""
