"""HTTP: what Prometheus, probes and people ask of us."""
