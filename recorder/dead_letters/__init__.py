"""Dead letters again: looked at, made into rows anew, and inserted under the identity they always had.

`letter` what one is, `store` how they are found, `origin` what its bytes are, `payload` a row from its bytes, `rebuild`
rows from a letter, `columns` batches from rows, `examine` what a retry would do, `retry` doing it, `one_at_a_time` the
lock of retries on a server.
"""
