"""What those who only read may say, beside a recorder: which settings, and which ways of writing a statement.

The engine's `readonly` refuses what changes tables, and most of what reaches beyond them. It does not refuse functions
that read files, nor settings that come before it: some are SQL of their own, name files that are read or written, or
raise a thread's priority. So settings are those known to be harmless, and what could hide a name is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from recorder.devserver.errors import Code, StatementError
from recorder.devserver.lexer import beyond_ascii
from recorder.devserver.statement import Query

_HARMLESS = frozenset(
    (
        # how much, and how long
        "max_block_size", "max_bytes_before_external_group_by", "max_bytes_before_external_sort",
        "max_bytes_in_distinct", "max_bytes_in_join", "max_bytes_in_set", "max_bytes_to_read", "max_bytes_to_sort",
        "max_columns_to_read", "max_estimated_execution_time", "max_execution_speed", "max_execution_time",
        "max_memory_usage", "max_memory_usage_for_user", "max_query_size", "max_result_bytes", "max_result_rows",
        "max_rows_in_distinct", "max_rows_in_join", "max_rows_in_set", "max_rows_to_group_by", "max_rows_to_read",
        "max_rows_to_sort", "max_temporary_data_on_disk_size_for_query", "max_threads", "max_untracked_memory",
        "min_execution_speed", "preferred_block_size_bytes", "timeout_before_checking_execution_speed",
        "distinct_overflow_mode", "group_by_overflow_mode", "join_overflow_mode", "read_overflow_mode",
        "result_overflow_mode", "set_overflow_mode", "sort_overflow_mode", "timeout_overflow_mode",
        # what a statement means
        "aggregate_functions_null_for_empty", "allow_experimental_analyzer", "any_join_distinct_right_table_keys",
        "asterisk_include_alias_columns", "asterisk_include_materialized_columns", "cast_keep_nullable",
        "data_type_default_nullable", "empty_result_for_aggregation_by_empty_set", "enable_analyzer",
        "enable_optimize_predicate_expression", "except_default_mode", "extremes", "final", "force_index_by_date",
        "force_primary_key", "group_by_use_nulls", "intersect_default_mode", "join_algorithm", "join_any_take_last_row",
        "join_default_strictness", "join_use_nulls", "limit", "offset", "optimize_read_in_order",
        "prefer_column_name_to_alias", "session_timezone", "totals_mode", "transform_null_in", "union_default_mode",
        "use_skip_indexes",
        # how it is answered
        "bool_false_representation", "bool_true_representation", "date_time_output_format",
        "date_time_overflow_behavior", "format", "format_csv_delimiter", "format_tsv_null_representation",
        "format_csv_null_representation", "interval_output_format", "low_cardinality_allow_in_native_format",
        # of HTTP and of clients
        "add_http_cors_header", "cancel_http_readonly_queries_on_client_close", "connect_timeout",
        "enable_http_compression", "http_connection_timeout", "http_headers_progress_interval_ms",
        "http_receive_timeout", "http_response_buffer_size", "http_send_timeout", "http_wait_end_of_query",
        "http_write_exception_in_output_format", "http_zlib_compression_level", "log_comment", "readonly",
        "receive_timeout", "replace_running_query", "send_progress_in_http_headers", "send_timeout",
    )
)  # fmt: skip
_HARMLESS_KINDS = ("output_format_",)
_HARMFUL = frozenset(("output_format_schema",))
"""Of those kinds: it names a file that is written."""


def may_set(names: Mapping[str, str]) -> None:
    """See that a request sets nothing but what is harmless.

    Raises:
        StatementError: it does; as ClickHouse says it for `readonly`.
    """
    for name in names:
        if name not in _HARMLESS and (name in _HARMFUL or not name.startswith(_HARMLESS_KINDS)):
            raise StatementError.ours(Code.READONLY, f"Cannot modify '{name}' setting in readonly mode.")


def may_ask(query: Query, parameters: Mapping[str, str], hidden: frozenset[str]) -> None:
    """See that a statement can be told by its words, and hands none of the functions `hidden` to another one to call.

    Raises:
        StatementError: it cannot, or does.
    """
    if beyond_ascii(query.sql):
        raise _refused(
            "it has characters beyond ASCII (an unusual space, maybe) outside of strings and quoted names; write names "
            "with them in quotes."
        )
    if query.escaped is not None:
        raise _refused("a quoted name has a backslash in it; write it as it reads.")
    if query.inner is not None:
        raise _refused("settings of a part of it cannot be changed; give them for all of it in the URL.")
    for name in query.handed & hidden:
        raise _refused(
            f"{name} may be the function that reads files here; write a column of this name as t.{name}."
        )
    for name in query.handed_parameters:
        value = parameters.get(name, "")
        if "\\" in value or value.strip(' `"').lower() in hidden:
            raise _refused(f"parameter {name} may name a function there.")


def _refused(why: str) -> StatementError:
    return StatementError.ours(Code.READONLY, f"Cannot execute query in readonly mode: {why}")
