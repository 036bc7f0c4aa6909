"""Bars of recorded market data: which are due, the SQL that computes them, building and verifying.

`windows` says what a bar is of, `due` decides what is to be computed from what is recorded and what is built, `sql` has
the statements; none of these does I/O. `survey` reads, `build` inserts, `verify` compares.

Bars are derived: nothing here changes a recorded row, and no insert of a recorder goes through this. As long as the
rows are there, their bars can be made again.
"""
