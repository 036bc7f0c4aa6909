"""How long rows are kept, and how they leave: what is due, and the Parquet archive.

What destroys data proves first that it may. The package knows schemas and no recorder: what it needs from outside it
declares as Protocols.
"""
