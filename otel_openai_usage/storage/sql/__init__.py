"""The statements that both stores share: SQL that SQLite and PostgreSQL understand alike.

Where the two differ, `database.Database` has a method for it. A store adds to this package how a
connection is opened, its migrations, its locks and its errors.

==================  ==================================================================
`database`          the connection that the statements need
`writer`            the port Writer, apart from opening and losses
`queries`, `sums`   the port Queries; its SQL
`sources`           a source, how far it was read, its groupings
`series`            an attribute set with its totals and estimated costs
`rows`              the row of a bucket, downsampling, unconfirmed decreases
`shares`            how much of the usage events explain
`names`, `notes`    names and spend limits; small facts by key
`overflow`          series beyond the limit of an instrument
`organizations`     which OpenAI organization the data belongs to
`retention`         downsamples and purges old rows
`content_check`     are all values readable, is every total the sum of its rows
`columns`           the columns that today's endpoints need
`values`            encoding of amounts and attribute sets, quoting of names
==================  ==================================================================
"""
