"""The packs that settings name, checked against them."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.errors import SettingsError
from recorder.settings import Settings
from schemas.errors import PackError
from schemas.pack import Pack, load_packs


def packs_of(settings: Settings, packs: Sequence[Pack] | None = None) -> tuple[Pack, ...]:
    """The packs that the settings name, or `packs` in their place, with their tables' policies as the settings say.

    Raises:
        SettingsError: a pack cannot be loaded, or there are settings of a table that none of them has.
    """
    if packs is None:
        try:
            packs = load_packs(settings.packs)
        except PackError as error:
            raise SettingsError(f"packs: {error}") from error
    settings.check_tables(table.name for pack in packs for table in pack.tables)
    return settings.resolve_packs(packs)
