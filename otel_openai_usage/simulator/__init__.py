"""A simulated OpenAI organization: deterministic, seeded, with known true totals, and with trouble
on demand.

`world` is what the company used and what OpenAI would show of it, `faults` are scripts of trouble,
`server` is the API over both. Only `server` does I/O.
"""
