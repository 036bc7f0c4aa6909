"""Moves a table's rows under another partition key: the same days, parted into other symbol groups, or into none.

    way = Repartition(executor, database, table, policy)
    way.look()   what there is to do
    way.run()    do it, or go on with it

The way of it, under the lock of migrations. A run that is killed anywhere is run again, and goes on:

1. a table of the wanted key is made beside the other, `<table>_repartition`, which syncs what it writes;
2. day by day, rows are copied into it, until it has the same rows as the table, by a hash of every column of every row
   (`copy`, `alike`);
3. `EXCHANGE TABLES` swaps the names, in one step for whoever reads or writes;
4. rows that came to the old table since they were compared are inserted where its others are, by identity (`late`);
5. the old table is dropped, when none of its rows lacks.

Which of the two tables is the copy stands in its comment, by the other's number (`there`): it goes with the table
wherever names go. Nothing else is ever dropped or emptied, and `checks` refuses what would lose anything.

Nobody may write to the table meanwhile (`writers`). Step 4 is for who does all the same: a row that is sent again in
that moment could come twice. Views that run at insert, and replicated tables, are refused.
"""

from recorder.repartition.errors import CannotRepartition
from recorder.repartition.run import Look, Moved, Repartition

__all__ = ["CannotRepartition", "Look", "Moved", "Repartition"]
