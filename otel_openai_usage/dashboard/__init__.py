"""The expenditure dashboard: Dash over the store. Reads, never writes."""
