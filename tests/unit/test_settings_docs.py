"""docs/settings.md lists every setting as the model has it; RECORDER_TEST_WRITE_DOCS=1 writes the tables anew."""

from __future__ import annotations

import os
import pathlib
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recorder.settings import BUILTIN, PROFILES, BinanceSettings, Settings, TableSettings

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "settings.md"

MADE = {
    "data_dir": "`./data`",
    "target": "`chdb://{data_dir}/db`",
    "database": "the target's, else `default`",
    "run_id": "random for each process",
}


def _default(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    if model is TableSettings:
        return f"`{BUILTIN[name]:g}`" if isinstance(BUILTIN.get(name), float) else (
            f"`{BUILTIN[name]}`" if name in BUILTIN else "by table"
        )  # fmt: skip
    if name in MADE:
        return MADE[name]
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _choices(annotation: Any) -> str:
    """Values of a Literal among the annotation's parts."""
    if typing.get_origin(annotation) is typing.Literal:
        return " One of " + ", ".join(f"`{value}`" for value in typing.get_args(annotation)) + "."
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return "".join(_choices(part) for part in typing.get_args(annotation) if part is not type(None))
    return ""


def _rows(model: type[BaseModel], skip: tuple[str, ...] = ()) -> str:
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in skip:
            text = (field.description or "").replace("|", "\\|")
            choices = "" if "`" in text or "forever" in text else _choices(field.annotation)
            lines.append(f"| `{name}` | {_default(model, name, field)} | {text}{choices} |")
    return "\n".join(lines)


def _profiles() -> str:
    lines = ["| profile | sets |", "|---|---|"]
    for name, values in PROFILES.items():
        said = ", ".join(f"`{key} = {value}`" for key, value in values.items())
        lines.append(f"| `{name}` | {said or 'nothing beyond the defaults'} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "settings": lambda: _rows(Settings, skip=("defaults", "tables", "normalisers")),
    "tables": lambda: _rows(TableSettings),
    "binance": lambda: _rows(BinanceSettings),
    "profiles": _profiles,
}


def test_settings_page_is_the_model() -> None:
    """Every table between its markers in docs/settings.md is what the model says."""
    text = DOCS.read_text(encoding="utf-8")
    made = text
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        made, found = re.subn(
            pattern, lambda match, table=table: match[1] + table() + "\n" + match[2], made, flags=re.DOTALL
        )
        assert found == 1, f"docs/settings.md needs the markers of {name} once"
    if os.environ.get("RECORDER_TEST_WRITE_DOCS"):
        DOCS.write_text(made, encoding="utf-8")
    assert made == DOCS.read_text(encoding="utf-8"), "run this test with RECORDER_TEST_WRITE_DOCS=1 and look"


def test_every_setting_is_described() -> None:
    """No setting goes without a sentence."""
    for model in (Settings, TableSettings, BinanceSettings):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}"
