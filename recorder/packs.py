"""The packs that settings name, checked against them."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.errors import SettingsError
from recorder.redact import put_in_force
from recorder.settings import Settings
from schemas.errors import PackError
from schemas.pack import Pack, load_packs


def packs_of(settings: Settings, packs: Sequence[Pack] | None = None) -> tuple[Pack, ...]:
    """The packs that the settings name, or `packs` in their place, with their tables' policies as the settings say.

    What they and the settings name as secret is redacted from now on.

    Raises:
        SettingsError: a pack cannot be loaded, or there are settings of a table that none of them has.
    """
    if packs is None:
        try:
            packs = load_packs(settings.packs)
        except PackError as error:
            raise SettingsError(f"packs: {error}") from error
    for pack in packs:
        try:
            put_in_force(pack.redact_keys, pack.redact_patterns)
        except ValueError as error:
            raise SettingsError(f"packs: {pack.name}: what it names as secret: {error}") from error
    put_in_force(settings.redact_keys, settings.redact_patterns)
    settings.check_tables(table.name for pack in packs for table in pack.tables)
    return settings.resolve_packs(packs)
