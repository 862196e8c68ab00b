"""From stored totals to what readers see: series, gauges and the frozen snapshot."""
