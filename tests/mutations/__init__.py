"""What the safety of the log and of retention hangs on, taken out piece by piece: for each a test fails that says so.

    make mutations                          all of them, as a table
    make mutations ARGS="--only seal"       those whose names hold a text
    make mutations ARGS="--json"            for a program

`table` and `of_retention` say what is taken out and which test must miss it, `trial` does it in a copy of the code, and
`tests/faults/test_mutations.py` has CI try all of them.
"""
