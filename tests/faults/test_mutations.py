"""Each piece that the log's safety hangs on, taken out of a copy of the code, is missed by the test named for it."""

from __future__ import annotations

import os

import pytest
from mutations.table import MUTATIONS
from mutations.trial import ROOT, CodeMoved, Edit, Mutation, Verdict, judge, mutated, try_out

NEEDED = (
    *("fsync", "directory fsync", "CRC", "seal", "token", "look-up", "epoch", "settled mark", "lock", "void"),
    "purge",
    "retention",
)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_is_taken_out_is_missed(mutation: Mutation) -> None:
    """By its own test, and for its own reason. That the tests pass with everything in place this suite shows itself."""
    if mutation.root and os.geteuid() != 0:
        pytest.skip("its test mounts a disk, which needs root")
    outcome = try_out(mutation)
    assert outcome.verdict is Verdict.MISSED, f"{mutation.test}: {outcome.message}"


def test_every_piece_has_its_entry() -> None:
    """Also when the table is worked over; no two entries have one name."""
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names)
    assert [piece for piece in NEEDED if not any(name.startswith(piece) for name in names)] == []


def test_code_that_is_not_there_is_told() -> None:
    """Not taken for a mutation that changed nothing."""
    with pytest.raises(
        CodeMoved, match=r"a\.py: the code .* 0 times, expected once; mend tests/mutations/table\.py"
    ):
        mutated("x = 2\n", Edit("a.py", "x = 1\n", ""))
    with pytest.raises(CodeMoved, match="2 times"):
        mutated("x = 1\nx = 1\n", Edit("a.py", "x = 1\n", ""))
    for mutation in MUTATIONS:
        for edit in mutation.edits:
            text = (ROOT / edit.file).read_text()
            compile(mutated(text, edit), edit.file, "exec")


def test_what_changes_nothing_survives_and_what_breaks_all_is_no_proof() -> None:
    """A test that passes, one that never comes to its law, and one that fails for another reason."""
    mutation = Mutation("a", (), "t.py::test", "rows are gone", "")
    seen = {"id": "t.py::test", "when": "call", "message": ""}
    verdicts = [
        judge(mutation, report)[0]
        for report in (
            {"tests": [seen | {"outcome": "passed"}]},
            {"tests": [seen | {"outcome": "failed", "message": "ImportError: wal"}]},
            {"tests": [seen | {"outcome": "failed", "when": "setup", "message": "rows are gone"}]},
            {"tests": [], "end": "exit status 4"},
            {"tests": [seen | {"outcome": "failed", "message": "AssertionError: rows are gone"}]},
        )
    ]
    other = Verdict.FAILED_OTHERWISE
    assert verdicts == [Verdict.SURVIVED, other, other, other, Verdict.MISSED]
