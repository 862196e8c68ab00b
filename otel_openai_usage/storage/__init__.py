"""Where totals and rows are kept. Only this package knows a database."""
