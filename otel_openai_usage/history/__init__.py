"""The past: read into the store (backfill), written out of it (export, OpenMetrics, OTLP). Never
moves a counter.
"""
