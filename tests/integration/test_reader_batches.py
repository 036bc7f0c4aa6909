"""Batches of a reader's answer belong to whoever holds them: they outlive the answer, its reader and its connection."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from harness.backends import Place
from harness.ingest_files import child_environment

ROWS = 2_000_000
HOLDING = """
import gc, json, sys
import numpy as np
import pyarrow as pa
from recorder.reading.reader import open_reader
from recorder.settings import Settings

HOW = "max_block_size = 10000, output_format_arrow_compression_method = 'none'"
rows = int(sys.argv[1])
reader = open_reader(Settings(data_dir=sys.argv[2]))
one = f"SELECT number AS n, repeat(toString(number % 7), 30) AS text FROM numbers({rows})"
held = list(reader.arrow(f"{one} SETTINGS {HOW}")[1])
given_up = reader.arrow(f"{one} SETTINGS {HOW}")[1]
held.append(next(given_up))
other = f"SELECT number + 1 AS n, repeat('x', 30) AS text FROM numbers({rows})"
for _ in reader.arrow(f"{other} SETTINGS {HOW}")[1]:
    pass  # takes as much room, and the same if it is free
given_up.close()
reader.close()
del reader, given_up
gc.collect()
last = held.pop()
whole = pa.Table.from_batches(held)
print(json.dumps([
    bool(np.array_equal(whole["n"], np.arange(rows))),
    bool(np.array_equal(last["n"], np.arange(last.num_rows))),
    sorted(text.decode() for text in whole["text"].cast(pa.binary()).unique().to_pylist()),
    len(held),
]))
"""


@pytest.mark.timeout(120)
def test_batches_stay_what_they_were(place: Place, tmp_path: pathlib.Path) -> None:
    """Also those of an answer that was given up in the middle."""
    environment = child_environment(**place.variables)
    migrated = [sys.executable, "-c", "from recorder.cli import main; main()", "migrate", "up", "--no-ttl"]
    folder = str(tmp_path / "data")
    subprocess.run(
        [*migrated[:3], "--data-dir", folder, *migrated[3:]], check=True, env=environment, capture_output=True
    )
    told = subprocess.run(
        [sys.executable, "-c", HOLDING, str(ROWS), folder],
        env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    all_of_them, of_one_given_up, texts, batches = json.loads(told.stdout)
    assert all_of_them
    assert of_one_given_up
    assert texts == [str(digit) * 30 for digit in range(7)]
    assert batches > 1
