"""What the safety of retention hangs on, as `mutations.table` has it for the log: rows go only when they may."""

from __future__ import annotations

from mutations.trial import Edit, Mutation

APPLY = "tests/integration/test_retention_apply.py::"
DROPPED = r"'drop'>, <State\.DONE: 'done'>\) != "
"""The drop was done, and something else was expected."""

RETENTION: tuple[Mutation, ...] = (
    Mutation(
        "retention: another look at the archive",
        (
            Edit(
                "retention/runner.py",
                "if proved is None or not self._whole(known) or known.sums.rows < proved.rows:",
                "if proved is None:",
            ),
        ),
        f"{APPLY}test_nothing_goes_whose_archive_went[chdb-receipt-0000.json]",
        r"State\.DONE.* is .*State\.FAILED",
        "Rows go whose receipt went since they were archived.",
    ),
    Mutation(
        "retention: receipts of long ago",
        (
            Edit(
                "retention/runner.py",
                "                read_back(piece.manifest, self._store)\n",
                "                pass\n",
            ),
        ),
        "tests/integration/test_retention_old_receipts.py::"
        "test_a_bit_that_flipped_since_the_receipt_keeps_the_rows[as it was]",
        DROPPED,
        "Rows go whose archive cannot be read any more.",
    ),
    Mutation(
        "retention: the parts that were looked at",
        (
            Edit(
                "retention/runner.py",
                "            dropped = 0\n            for part in parts:\n",
                "            dropped = 0\n            for part in tuple(there):\n",
            ),
        ),
        f"{APPLY}test_a_row_that_comes_without_an_archive_stays_too[chdb]",
        r"assert \[\] == \[2\]",
        "A row that comes late goes with the others of its partition.",
    ),
    Mutation(
        "retention: the hold under the lock",
        (
            Edit(
                "retention/runner.py",
                "            if (hold := self._hold(policy, action)) is not None:\n"
                '                return Outcome(action, State.LEFT, f"held by {hold.name} meanwhile")\n'
                "            there = ",
                "            there = ",
            ),
        ),
        f"{APPLY}test_what_is_held_stays[chdb]",
        DROPPED,
        "Rows go that were held a moment before.",
    ),
    Mutation(
        "retention: bars of the very parts",
        (
            Edit(
                "retention/runner.py",
                "            if policy.bars and there != set(parts):\n",
                "            if False:\n",
            ),
        ),
        "tests/integration/test_retention_bars.py::"
        "test_a_row_that_comes_between_verification_and_drop_is_in_the_bars_before_it_goes[chdb]",
        DROPPED,
        "The rows go that the bars of one that came late would have to be made of.",
    ),
    Mutation(
        "retention: rows that moved before",
        (
            Edit(
                "retention/tiers.py",
                "    twins = _drop_twins(executor, database, table, partition, renew)\n",
                "    twins = 0\n",
            ),
        ),
        "tests/integration/test_retention_tiers.py::"
        "test_a_row_that_is_inserted_again_after_it_moved_is_there_once[chdb]",
        "are there twice|Moved",
        "A row moves to a table that has it.",
    ),
)
