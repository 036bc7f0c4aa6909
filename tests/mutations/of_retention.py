"""What the safety of retention hangs on, as `mutations.table` has it for the log: rows go only when they may."""

from __future__ import annotations

from mutations.trial import Edit, Mutation

APPLY = "tests/integration/test_retention_apply.py::"
DAYS = "tests/property/test_retention_runner_days.py::"
FIRST_RUN = "test_rows_go_with_the_first_run_after_their_time_and_late_ones_too"
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
    Mutation(
        "retention: late rows in the archive",
        (
            Edit(
                "retention/runner.py",
                "if (known.sums.rows, known.sums.identity_sum) != (rows, identity_sum) or",
                "if not known.pieces or",
            ),
            Edit(
                "retention/runner.py",
                "not self._whole(known) or known.sums.rows < proved.rows:",
                "not self._whole(known):",
            ),
        ),
        f"{DAYS}{FIRST_RUN}[archive]",
        "is not archived",
        "Rows that come after the archive of their day was made go without one.",
    ),
    Mutation(
        "retention: who the rows of an archive are",
        (
            Edit(
                "retention/runner.py",
                "if (known.sums.rows, known.sums.identity_sum) != (rows, identity_sum) or",
                "if known.sums.rows != rows or",
            ),
        ),
        f"{DAYS}{FIRST_RUN}[archive]",
        "is not archived|no verified piece has",
        "Rows go since the archive has as many others.",
    ),
    Mutation(
        "retention: a piece with a receipt",
        (
            Edit(
                "retention/archive/pieces.py",
                "bool(self.pieces) and all(piece.receipt is not None for piece in self.pieces)",
                "bool(self.pieces)",
            ),
        ),
        f"{DAYS}test_a_run_that_is_killed_before_the_receipt_takes_no_row",
        "no verified piece has",
        "Rows go by what a run had written when it was killed, and nobody has read back.",
    ),
    Mutation(
        "retention: reading back what was written",
        (
            Edit(
                "retention/archive/write.py",
                "            read_back(manifest, self._store, self._progress)\n",
                "            pass\n",
            ),
        ),
        f"{DAYS}test_a_file_that_is_wrong_as_it_is_written_is_no_archive",
        "no verified piece has|dropped rows are in no verified piece",
        "Rows go whose archive was wrong from the first.",
    ),
    Mutation(
        "retention: the newest row of a partition",
        (
            Edit(
                "retention/due.py",
                "expired = older_than(part.max_ns, self.policy.keep_days, now_ns)",
                "expired = older_than(part.min_ns, self.policy.keep_days, now_ns)",
            ),
            Edit(
                "retention/runner.py",
                "if live.rows != action.rows or not older_than(live.newest_ns, days, self._now_ns()):",
                "if live.rows != action.rows:",
            ),
        ),
        f"{DAYS}{FIRST_RUN}[archive]",
        "is gone before its time",
        "Rows go with the oldest one of their day.",
    ),
    Mutation(
        "retention: what has expired goes",
        (
            Edit(
                "retention/due.py",
                "expired = older_than(part.max_ns, self.policy.keep_days, now_ns)",
                "expired = False",
            ),
        ),
        f"{DAYS}{FIRST_RUN}[archive]",
        "is kept past its time",
        "Rows stay for ever.",
    ),
    Mutation(
        "retention: bars before rows go",
        (
            Edit(
                "retention/due.py",
                "            in_bars = proven(part, policy.logical, barred)\n",
                "            pass\n",
            ),
            Edit("retention/runner.py", "            parts = barred\n        if not", "        if not"),
            Edit(
                "retention/runner.py",
                "            barred = self._bars.proven_parts(action)\n",
                "            barred = parts\n",
            ),
        ),
        f"{DAYS}{FIRST_RUN}[bars]",
        "bars are not those of the rows that went",
        "Rows go that no bars were made of.",
    ),
    Mutation(
        "retention: a move beside what moved before",
        (
            Edit(
                "retention/tiers.py",
                """        f"ALTER TABLE {_name(database, table)} MOVE PARTITION ID {quote_text(partition)} "
        f"TO TABLE {_name(database, tier)}"
    )
""",
                """        f"ALTER TABLE {_name(database, tier)} REPLACE PARTITION ID {quote_text(partition)} "
        f"FROM {_name(database, table)}"
    )
    executor.command(f"ALTER TABLE {_name(database, table)} DROP PARTITION ID {quote_text(partition)}")
""",
            ),
        ),
        f"{DAYS}{FIRST_RUN}[tier]",
        "is gone before its time",
        "A late row that moves takes the place of those that moved before.",
    ),
    Mutation(
        "retention: rows that wait in a log",
        (
            Edit(
                "retention/due.py",
                "        if pending is not None and pending < span.end_ns:\n",
                "        if False:\n",
            ),
        ),
        f"{DAYS}test_what_is_held_or_waited_for_stays_until_it_is_not",
        "wait in a log",
        "A partition goes, or moves, that rows on a log are of.",
    ),
)
