"""docs/retention.md says of every table what its policy comes to; RECORDER_TEST_WRITE_DOCS=1 writes the table anew."""

from __future__ import annotations

import os
import pathlib
import re

from retention.partitions import at_full_retention
from schemas.core.tables import PACK

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "retention.md"


def _counts() -> dict[str, int | None]:
    policies = {table.name: table.policy for table in PACK.tables}
    return {
        name: None if policy.keep_days is None else at_full_retention(policy.partition, policy.keep_days)
        for name, policy in policies.items()
    }


def _rows() -> str:
    counts = _counts()
    lines = ["| table | kept | partition | partitions |", "|---|---|---|---|"]
    for table in PACK.tables:
        days, count = table.policy.keep_days, counts[table.name]
        kept = "for ever" if days is None else f"{days:,} days"
        lines.append(
            f"| `{table.name}` | {kept} | {table.policy.partition} | {count if count else '12 more a year'} |"
        )
    return "\n".join(lines)


def test_the_page_has_every_table_and_what_it_comes_to() -> None:
    """The table of partitions is the packs' policies, and the sum in the text is theirs."""
    text = DOCS.read_text(encoding="utf-8")
    made, found = re.subn(
        r"(<!-- partitions -->\n).*?(<!-- /partitions -->)",
        lambda match: match[1] + _rows() + "\n" + match[2],
        text,
        flags=re.DOTALL,
    )
    assert found == 1, "docs/retention.md needs the markers of partitions once"
    if os.environ.get("RECORDER_TEST_WRITE_DOCS"):
        DOCS.write_text(made, encoding="utf-8")
    assert made == DOCS.read_text(encoding="utf-8"), "run this test with RECORDER_TEST_WRITE_DOCS=1 and look"
    counts = [count for count in _counts().values() if count is not None]
    words = " ".join(made.split())
    assert f"the {len(counts)} tables that are not kept for ever come to {sum(counts):,} partitions" in words
