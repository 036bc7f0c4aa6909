"""What is taken out, and which test must miss it.

One entry a piece. Where the code of an entry is not found any more the trial fails and says so: whoever moves the code
moves the entry. Tests that are named here are short, and isolate their piece: no other one does its work for it.
"""

from __future__ import annotations

from mutations.of_retention import RETENTION
from mutations.trial import Edit, Mutation

LOG = "tests/faults/test_log_pieces.py::"
ONCE = "tests/faults/test_once_pieces.py::"

MUTATIONS: tuple[Mutation, ...] = (
    # -- on disk -----------------------------------------------------------------------------------------------------
    Mutation(
        "fsync",
        (
            Edit(
                "wal/segment_writer.py",
                "        self._files.fdatasync(self._fd)\n        self.dirty",
                "        self.dirty",
            ),
        ),
        f"{LOG}test_a_power_cut_takes_no_row_that_was_told_durable[writes are lost]",
        "durable rows are gone",
        "A power cut takes rows that were told durable.",
    ),
    Mutation(
        "fsync, of the real disk",
        (Edit("wal/files.py", "        os.fdatasync(fd)\n", "        pass\n"),),
        "tests/faults/test_wal_io_faults.py::test_a_rotation_is_on_disk_before_its_rows_are_told",
        r"KeyError|assert .* == ",
        "The same on ext4, which is shut down without its journal.",
        root=True,
    ),
    Mutation(
        "directory fsync",
        (Edit("wal/segment_writer.py", "            files.sync_folder(self.path.parent)\n", ""),),
        f"{LOG}test_a_power_cut_takes_no_row_that_was_told_durable[names are lost]",
        "durable rows are gone",
        "A power cut takes the name of a segment, and with it rows that were told durable.",
    ),
    Mutation(
        "directory fsync, of the real disk",
        (
            Edit(
                "wal/files.py",
                "        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n"
                "        try:\n            os.fsync(fd)\n",
                "        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)\n"
                "        try:\n            pass\n",
            ),
        ),
        "tests/faults/test_wal_io_faults.py::test_a_rotation_is_on_disk_before_its_rows_are_told",
        r"KeyError|assert .* == ",
        "The same on ext4, which is shut down without its journal.",
        root=True,
    ),
    Mutation(
        "failed fsync: the segment is left",
        (
            Edit(
                "wal/flush.py", "            number = self._disk.abandon()\n", "            number = None\n"
            ),
            Edit("wal/flush.py", "            again = self._intake.again()\n", "            again = 0\n"),
        ),
        f"{LOG}test_a_sync_that_failed_is_not_asked_again",
        "durable rows are gone",
        "The next fsync of the same file says that all is well, and the rows are not on disk.",
    ),
    Mutation(
        "fsync, of a segment before the next",
        (
            Edit(
                "wal/flush.py",
                "                self._sync()  # in every case: ",
                "                # ",
            ),
            Edit("wal/log_disk.py", "        assert not self.dirty\n", ""),
        ),
        f"{LOG}test_no_segment_is_on_disk_before_the_one_it_follows",
        "a hole before rows that are on disk",
        "Where syncs are rare a power cut leaves rows and takes those before them.",
    ),
    # -- what is read ------------------------------------------------------------------------------------------------
    Mutation(
        "CRC, of a payload",
        (
            Edit(
                "wal/frames.py",
                "    return found if crc32c(found) == frame.header.payload_crc else None\n",
                "    return found\n",
            ),
        ),
        f"{LOG}test_a_flipped_bit_of_a_payload_costs_its_frame_and_makes_no_other_row",
        "rows are not what was written",
        "A bit that flipped makes another number of a row.",
    ),
    Mutation(
        "CRC, of a frame's header",
        (
            Edit(
                "wal/format.py",
                "    if crc32c(_WHERE.pack(number, epoch, offset) + head[8:]) != checksum:\n        return None\n",
                "",
            ),
        ),
        f"{LOG}test_a_flipped_bit_of_a_header_puts_no_row_at_another_place",
        "rows stand where none was written",
        "A bit that flipped moves rows to places of others.",
    ),
    Mutation(
        "CRC, of a preamble",
        (
            Edit(
                "wal/format.py",
                "    if len(packed) < whole or _preamble_crc(packed) != checksum:\n",
                "    if len(packed) < whole:\n",
            ),
        ),
        f"{LOG}test_a_flipped_bit_of_a_preamble_is_made_good_by_its_copy",
        "rows are not under their epoch",
        "A segment is believed to be of another epoch, and none of its frames is found.",
    ),
    Mutation(
        "second preamble",
        (
            Edit(
                "wal/format.py",
                "        if second is not None and second.bytes_each == offset:\n",
                "        if False:\n",
            ),
        ),
        f"{LOG}test_a_flipped_bit_of_a_preamble_is_made_good_by_its_copy",
        "rows are not under their epoch",
        "One bit costs a whole segment.",
    ),
    Mutation(
        "CRC, of the checkpoint",
        (Edit("wal/checkpoint.py", "    if crc32c(body) != int(said[1], 16):\n", "    if False:\n"),),
        f"{LOG}test_a_flipped_bit_of_a_checkpoint_vouches_for_nothing",
        "rows count as sent that never were",
        "A bit that flipped has rows skipped that were never sent.",
    ),
    Mutation(
        "place in a frame's checksum",
        (
            Edit(
                "wal/format.py",
                "    return FRAME_MAGIC + crc32c(_WHERE.pack(number, epoch, offset) + rest)",
                "    return FRAME_MAGIC + crc32c(rest)",
            ),
            Edit(
                "wal/format.py",
                "    if crc32c(_WHERE.pack(number, epoch, offset) + head[8:]) != checksum:\n",
                "    if crc32c(head[8:]) != checksum:\n",
            ),
        ),
        "tests/property/test_wal_format.py::test_a_frame_inside_a_payload_is_no_frame",
        "assert",
        "Bytes of a frame inside a payload are read as a frame.",
    ),
    Mutation(
        "rows read once",
        (
            Edit(
                "wal/ledger.py",
                "        known = self._met.common_of(rows) if first < self._next[epoch] else []\n",
                "        known: list[Range] = []\n",
            ),
        ),
        f"{LOG}test_rows_that_were_written_again_are_read_once",
        "rows are read twice",
        "What a writer wrote again, since a sync had failed, comes twice.",
    ),
    # -- who a row is ------------------------------------------------------------------------------------------------
    Mutation(
        "epoch",
        (
            Edit(
                "wal/writer.py",
                "        epoch = secrets.randbits(64) or 1\n",
                '        epoch = int.from_bytes(name.encode()[:8], "little")\n',
            ),
        ),
        f"{LOG}test_a_log_put_back_from_a_backup_gives_no_place_twice",
        "two rows have one place",
        "A log that was put back from a backup gives new rows old identities.",
    ),
    Mutation(
        "lock",
        (
            Edit(
                "wal/lock.py",
                "            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
                "            pass\n",
            ),
        ),
        "tests/unit/test_wal_lock.py::test_a_process_refuses_itself",
        "DID NOT RAISE",
        "Two writers write to one log.",
    ),
    # -- once --------------------------------------------------------------------------------------------------------
    Mutation(
        "seal",
        (
            Edit(
                "recorder/flush_worker.py",
                "            await self._seals.seal(batch)\n",
                "            pass\n",
            ),
        ),
        f"{ONCE}test_an_insert_that_still_runs_when_the_next_run_sends_it_comes_once[chdb]",
        "rows that came twice",
        "The next run sends rows under another token while the insert of the run before still goes on.",
    ),
    Mutation(
        "seal, on disk first",
        (Edit("recorder/table_log.py", "        if self.waits_for_sync:\n", "        if False:\n"),),
        f"{ONCE}test_a_batch_goes_out_after_its_seal_is_on_disk[chdb]",
        "sent before its seal was on disk",
        "A batch is sent of which, after a power cut, nobody knows the token.",
    ),
    Mutation(
        "durable after the sync",
        (
            Edit(
                "recorder/table_log.py",
                "        synced = self.writer.synced_mark\n        line",
                "        synced = 2**63\n        line",
            ),
        ),
        f"{ONCE}test_a_batch_goes_out_after_its_seal_is_on_disk[chdb]",
        "durable before it was synced",
        "Rows are told durable, and messages acknowledged, that a power cut takes.",
    ),
    Mutation(
        "token",
        (
            Edit(
                "recorder/sink/statements.py",
                '        "insert_deduplication_token": batch.token,\n',
                '        "insert_deduplication_token": batch.renamed().token,\n',
            ),
        ),
        f"{ONCE}test_an_insert_that_still_runs_when_it_is_sent_again_comes_once[chdb]",
        "rows that came twice",
        "An insert that still runs when its rows are sent again doubles them: each attempt has another token.",
    ),
    Mutation(
        "token, none at all",
        (Edit("recorder/sink/statements.py", '        "insert_deduplication_token": batch.token,\n', ""),),
        f"{ONCE}test_what_a_restarted_server_lost_is_sent_again[chdb]",
        "a row that it lost is not put back",
        "The server goes by what is in the rows: what it lost and still remembers it takes from nobody any more.",
    ),
    Mutation(
        "token, of each half",
        (
            Edit(
                "recorder/subset.py",
                "    return batch.part(0, middle).renamed(), batch.part(middle, batch.rows).renamed()\n",
                "    return batch.part(0, middle), batch.part(middle, batch.rows)\n",
            ),
        ),
        f"{ONCE}test_each_half_of_a_refused_batch_has_a_token_of_its_own[chdb]",
        "rows that count as inserted are not there",
        "The second half of a batch that was refused is swallowed under the token of the first.",
    ),
    Mutation(
        "yes to a second sending",
        (Edit("recorder/flush_worker.py", "            if again:\n", "            if False:\n"),),
        f"{ONCE}test_a_token_that_outlived_its_rows_is_not_believed[chdb]",
        "rows that count as inserted are not there",
        "A server that knows the token and lost the rows is believed.",
    ),
    Mutation(
        "void",
        (Edit("recorder/flush_worker.py", "            self._seals.void(batch)\n", "            pass\n"),),
        f"{ONCE}test_a_seal_that_was_taken_back_is_not_sent_by_the_next_run[chdb]",
        "some rows of partition .* are there and some are not",
        "A batch that was halved is taken up as a whole again, and its table held since half of it is there.",
    ),
    Mutation(
        "look-up",
        (
            Edit(
                "recorder/flush_worker.py",
                "        verdict = judge(batch, present, self._policy.partition)\n",
                "        verdict = judge(batch, frozenset(), self._policy.partition)\n",
            ),
        ),
        f"{ONCE}test_what_the_table_has_is_not_sent_again[chdb]",
        "rows that came twice",
        "An insert whose answer was lost is sent again when the table has forgotten its token.",
    ),
    Mutation(
        "look-up, of what an earlier run had sealed",
        (
            Edit(
                "recorder/flush_worker.py",
                "phase = _Phase.SENT if sent_before else",
                "phase = _Phase.READY if sent_before else",
            ),
        ),
        f"{ONCE}test_what_an_earlier_run_sent_is_looked_up[chdb-sealed]",
        "rows that came twice",
        "The next run sends what a killed one had sent, though the table has it and forgot its token.",
    ),
    Mutation(
        "look-up, of what an earlier run left",
        (
            Edit(
                "recorder/log_earlier.py",
                "batches = batches_of(self._table, rows, ranges, from_source=True)",
                "batches = batches_of(self._table, rows, ranges, from_source=False)",
            ),
        ),
        f"{ONCE}test_what_an_earlier_run_sent_is_looked_up[chdb-unsealed]",
        "rows that came twice",
        "The next run sends what a killed one had sent without a seal, since its log was full.",
    ),
    Mutation(
        "look-up, row by row",
        (
            Edit(
                "recorder/flush_worker.py",
                "        present = await self._persist(lambda: self._sink.look_up(part.batch))\n",
                "        present: Identities = frozenset()\n",
            ),
        ),
        f"{ONCE}test_what_a_source_brings_again_is_left_out[chdb]",
        "rows that came twice",
        "What a source delivers again is inserted again.",
    ),
    # -- confirmed, settled, purged ----------------------------------------------------------------------------------
    Mutation(
        "confirmed after the insert",
        (
            Edit(
                "recorder/pipeline.py",
                "            await self._worker.flush(batch, sent_before=cut.sent_before)\n",
                "            if self.wal is not None:\n"
                "                self.wal.confirm(batch.places, server, letters=False)\n"
                "            await self._worker.flush(batch, sent_before=cut.sent_before)\n",
            ),
        ),
        f"{ONCE}test_nothing_is_confirmed_before_the_database_has_it[chdb]",
        "confirmed, and not in the database",
        "A kill between the two loses the batch.",
    ),
    Mutation(
        "dead letter before confirmed",
        (
            Edit(
                "recorder/table_log.py",
                "        await self._letters_durable()\n        self.done.confirm(places, server)\n",
                "        self.done.confirm(places, server)\n",
            ),
        ),
        f"{ONCE}test_a_refused_row_is_confirmed_after_its_dead_letter_is_durable[chdb]",
        "confirmed before its dead letter was durable",
        "A kill between the two leaves a row nowhere.",
    ),
    Mutation(
        "dead letter before settled",
        (
            Edit(
                "recorder/table_log.py",
                "        await self._letters_durable()\n        self.done.resolve(places)\n",
                "        self.done.resolve(places)\n",
            ),
        ),
        f"{ONCE}test_a_refused_row_is_confirmed_after_its_dead_letter_is_durable[chdb]",
        "confirmed before its dead letter was durable",
        "The same, where what is settled at once is the refused row itself.",
    ),
    Mutation(
        "settled mark",
        (
            Edit(
                "wal/settled.py",
                "            if one.server == server and one.at_s * _NS_PER_S <= before_ns:\n",
                "            if True:\n",
            ),
        ),
        f"{ONCE}test_what_a_restarted_server_lost_is_sent_again[chdb]",
        "a row that it lost is not put back",
        "What the database loses after it confirmed it is not sent again.",
    ),
    Mutation(
        "settled mark, its grace",
        (
            Edit(
                "wal/settled.py",
                "            if one.server == server and one.at_s * _NS_PER_S <= before_ns:\n",
                "            if one.server == server:\n",
            ),
        ),
        f"{LOG}test_only_what_a_run_that_goes_on_confirmed_long_ago_is_settled[within the grace]",
        "settled too early",
        "Rows are purged that the database has not had the time to make safe.",
    ),
    Mutation(
        "settled mark, its run of the server",
        (
            Edit(
                "wal/settled.py",
                "            if one.server == server and one.at_s * _NS_PER_S <= before_ns:\n",
                "            if one.at_s * _NS_PER_S <= before_ns:\n",
            ),
        ),
        f"{LOG}test_only_what_a_run_that_goes_on_confirmed_long_ago_is_settled[another run]",
        "settled too early",
        "What a server confirmed and lost in its restart is purged before it was looked up.",
    ),
    Mutation(
        "looked up after a restart",
        (Edit("recorder/logs.py", "                recheck[name](again)\n", ""),),
        f"{ONCE}test_what_a_restarted_server_lost_is_sent_again[chdb]",
        "a row that it lost is not put back",
        "A restart of the server that lost rows goes unnoticed.",
    ),
    Mutation(
        "purge after settled",
        (
            Edit(
                "wal/purge.py",
                "purgeable(segments, active, PlaceSet(checkpoint.settled), seals)",
                "purgeable(segments, active, checkpoint.done(), seals)",
            ),
        ),
        f"{LOG}test_nothing_goes_that_is_confirmed_and_not_settled",
        "rows that are not settled are gone",
        "What the database may lose yet is in no log any more.",
    ),
    *RETENTION,
)
