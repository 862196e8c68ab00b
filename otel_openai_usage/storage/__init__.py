"""Stores rows, totals and progress behind two ports. Only this package knows a database."""
