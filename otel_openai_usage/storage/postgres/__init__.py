"""The store in a PostgreSQL database, 14 or newer. It implements both ports of `storage.ports`.

The tables are in the first schema of the connection's `search_path`, so two states may share a
database. Nothing here needs a session: every statement works through pgbouncer in transaction mode.

==================  ==================================================================
`backend`           the entry points, for `composition/stores.py`
`store`             the port Writer: connects again, commits, checks its lease
`queries`           the port Queries
`connection`        opens a connection; what the shared statements of `storage.sql` need
`lease`             one writer: a row with an owner and a token that only grows
`migrations`        released migrations, frozen; `schema` runs them
`events`            which events were recorded
`errors`            errors of the driver as StateError
`state_info`        the commands `state info` and `check`
==================  ==================================================================
"""
