"""The store in one SQLite file. It implements both ports of `storage.ports`.

Where to look:

==================  ==================================================================
`backend`           the entry points, for `composition/stores.py`
`store`             the port Writer: opens the file, commits, closes
`queries`           the port Queries: reads beside the writer
`connection`        what the shared statements of `storage.sql` need
`events`            which events were recorded
------------------  ------------------------------------------------------------------
`file`, `lock`      opening a file, refusing an unusable one, one writer
`migrations`        released migrations, frozen; `schema`: columns of new endpoints
`errors`            errors of SQLite and the system as StateError
------------------  ------------------------------------------------------------------
`start_check`       the check at a start: compares the state with its marker
`marker`            the file beside the state with its newest commit; `marker_writer`
`page_checksums`    checksums of the pages, read from the file and its log
`integrity`         is the database sound, is its content right
`losses`            losses that a start found, until somebody accepts them
`checkpoints`       writes the log back into the main file
------------------  ------------------------------------------------------------------
`state_info`        the commands `state info` and `check`
`backup`            the commands `state backup` and `state restore`
==================  ==================================================================
"""
