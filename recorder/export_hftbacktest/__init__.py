"""Recorded market data as event files of hftbacktest, and recorded orders as its order latencies.

`read` asks the database, `events` and `top` turn rows into hftbacktest's events, `order` says in which order rows came
in, `correct` has hftbacktest's own functions mend clocks and order, `latency` does orders, `export` does all in
turn. Of these only `read` does I/O; nothing here writes a file.

hftbacktest's functions take whole arrays, so memory is proportional to the time that is exported.
"""
