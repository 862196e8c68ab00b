"""What survives: an SQLite file, one writer, one transaction for rows and cursor."""
