"""The store in one SQLite file. It implements both ports of `storage.ports`.

Where to look:

==================  ==================================================================
`backend`           the entry points, for `composition/stores.py`
`store`             the port Writer: opens the file, commits, closes
`queries`, `sums`   the port Queries: reads beside the writer; its SQL
`sources`           a source, how far it was read, its groupings
`series`            an attribute set with its totals and estimated costs
`rows`              the row of a bucket, downsampling, unconfirmed decreases
`events`            which events were recorded; how much usage events explain
`names`, `notes`    names and spend limits; small facts by key
`organizations`     which OpenAI organization the data belongs to
`retention`         downsamples and purges old rows
------------------  ------------------------------------------------------------------
`file`, `lock`      opening a file, refusing an unusable one, one writer
`migrations`        released migrations, frozen; `schema`: columns of new endpoints
`values`            encoding of amounts and attribute sets, quoting of names
`errors`            errors of SQLite and the system as StateError
------------------  ------------------------------------------------------------------
`start_check`       the check at a start: compares the state with its marker
`marker`            the file beside the state with its newest commit; `marker_writer`
`page_checksums`    checksums of the pages, read from the file and its log
`content_check`     are all values readable, is every total the sum of its rows
`losses`            losses that a start found, until somebody accepts them
`checkpoints`       writes the log back into the main file
------------------  ------------------------------------------------------------------
`state_info`        the commands `state info` and `check`
`backup`            the commands `state backup` and `state restore`
==================  ==================================================================
"""
