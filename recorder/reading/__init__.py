"""Asking a database from outside of a recorder, embedded or a server: for commands, and for retention."""
