"""Retention as a recorder has it: what the settings ask of each table, one run alone on a database, and when it is."""
