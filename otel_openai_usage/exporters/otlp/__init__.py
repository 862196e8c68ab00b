"""Sending the snapshot over OTLP."""
