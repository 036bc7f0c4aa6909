"""What redaction cuts and what it leaves, format by format; names, patterns, columns, and that it stays linear."""

from __future__ import annotations

import base64
import dataclasses
import json
import pickle
import time

import msgspec
import pyarrow as pa
import pytest
from harness.redaction_work import Steps

from recorder import redact
from recorder.arrow_rows import exact_columns
from recorder.bad_rows import row_bytes
from recorder.build import BatchBuilder
from recorder.entries import ArrowBlock
from recorder.errors import SettingsError
from recorder.log import get_logger
from recorder.packs import packs_of
from recorder.redact import Redactor, put_in_force, redacted
from recorder.redact_columns import ColumnRedactor
from recorder.redact_spans import MARKS_MOST
from recorder.settings import Settings
from recorder.sink.errors import HoldError
from schemas.core.tables import PACK

REDACTOR = Redactor()
SECRET = "hunter2-s3cr3t"
LISTEN_KEY = "pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4\n{SECRET}\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

CUT = {
    "json": ('{"apiKey": "§", "x": 1.10}', '{"apiKey": "***", "x": 1.10}'),
    "json, escapes": (r'{"secret":"§\"\\","x":1}', '{"secret":"***","x":1}'),
    "json, number": ('{"token":12.50e3,"x":1}', '{"token":"***","x":1}'),
    "json, object": ('{"credentials":{"a":["}","§"]},"x":1}', '{"credentials":"***","x":1}'),
    "json, in a text": (r'{"d":"{\"api_key\":\"§\\\"\"}"}', r'{"d":"{\"api_key\":\"***\"}"}'),
    "json, number in a text": (r'{"d":"{\"token\":7}"}', r'{"d":"{\"token\":\"***\"}"}'),
    "json, cut off": ('{"x":1,"password":"§', '{"x":1,"password":"***'),
    "json, object cut off": ('{"x":1,"secret":{"a":"§"', '{"x":1,"secret":"***"'),
    "json, javascript": ("{token: '§', x: 1}", "{token: '***', x: 1}"),
    "repr": ("{'token': '§\\'', 'x': None}", "{'token': '***', 'x': None}"),
    "repr, bytes": ("[(b'X-MBX-APIKEY', b'§'), (b'x', b'y')]", "[(b'X-MBX-APIKEY', b'***'), (b'x', b'y')]"),
    "repr, object": ("Login(user='u', password='§', port=1)", "Login(user='u', password='***', port=1)"),
    "repr, call": ("Login(password=Secret('§'), port=1)", "Login(password=***, port=1)"),
    "repr, json": ("b'{\"token\": \"§\"}'", "b'{\"token\": \"***\"}'"),
    "repr, json with an escape": (r"""'{"token": "§\\"§"}'""", """'{"token": "***"}'"""),
    "repr, msgpack": (r"x: b'\x81\xa5token\xae§' y", r"x: b'\x81\xa5token***' y"),
    "header": ("GET /\r\nX-MBX-APIKEY: § §\r\nHost: h", "GET /\r\nX-MBX-APIKEY: ***\r\nHost: h"),
    "header, bearer": ("authorization: Bearer §\nx: y", "authorization: ***\nx: y"),
    "header, cookie": ("Cookie: a=§; b=§\nx: y", "Cookie: ***\nx: y"),
    "header, digest": ('Proxy-Authorization: Digest a="§", b="§"\nx: y', "Proxy-Authorization: ***\nx: y"),
    "header, in json": (r'{"h":"Set-Cookie: §\r\nX: y","z":1}', r'{"h":"Set-Cookie: ***\r\nX: y","z":1}'),
    "header, in a command": ("curl -H 'X-MBX-APIKEY: §' https://h/", "curl -H 'X-MBX-APIKEY: ***' https://h/"),
    "query": ("POST /order?symbol=A&signature=§&x=1 HTTP/1.1", "POST /order?symbol=A&signature=***&x=1 HTTP/1.1"),
    "query, in json": ('{"u":"/userDataStream?listenKey=§"}', '{"u":"/userDataStream?listenKey=***"}'),
    "query, encoded": ("u=x%3Fsignature%3D§%26a%3D1", "u=x%3Fsignature%3D***%26a%3D1"),
    "query, encoded json": ("%7B%22token%22%3A%22§%22%2C%22x", "%7B%22token%22%3A%22***%22%2C%22x"),
    "url": ("to https://u:§@h:8443/db?x=1", "to https://u:***@h:8443/db?x=1"),
    "url, no user": ("redis://:§@h/0", "redis://:***@h/0"),
    "url, two hosts": ("http://u:§@a:1,b:2/db", "http://u:***@a:1,b:2/db"),
    "url, unescaped": ("http://u:§/#?§@h:1", "http://u:***@h:1"),
    "url, quote": ('http://u:§"§@h:1', "http://u:***@h:1"),
    "url, escaped slashes": (r'{"u":"https:\/\/u:§@h\/db"}', r'{"u":"https:\/\/u:***@h\/db"}'),
    "logfmt": ('a=1 token=§ b="x" secret="§ §" c=3', 'a=1 token=*** b="x" secret="***" c=3'),
    "arguments": ("connect(host=h, token=§)", "connect(host=h, token=***)"),
    "commas": ("a=1,token=§,b=2", "a=1,token=***,b=2"),
    "option": ("run --password § --port 1", "run --password *** --port 1"),
    "assignment": ("os.environ['API_SECRET'] = '§'", "os.environ['API_SECRET'] = '***'"),
    "sentence": ("login failed, password: § was wrong", "login failed, password: *** was wrong"),
    "bearer alone": ("sent Bearer §0123456789 to h", "sent Bearer *** to h"),
    "basic alone": ("sent Basic dTpodW50ZXIyLXMzY3IzdA== to h", "sent Basic *** to h"),
    "jwt": (f"got {JWT} back", "got *** back"),
    "pem": (f"a\n{PEM}\nb", "a\n-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----\nb"),
    "pem, cut off": (PEM[:60], "-----BEGIN RSA PRIVATE KEY-----***"),
    "pem, in json": (r'{"k":"-----BEGIN PRIVATE KEY-----\n§\n-----END PRIVATE KEY-----"}',
                     '{"k":"-----BEGIN PRIVATE KEY-----***-----END PRIVATE KEY-----"}'),
    "private stream": ('{"stream":"' + LISTEN_KEY + '","data":{}}', '{"stream":"***","data":{}}'),
    "private stream's url": (f"wss://h:9443/ws/{LISTEN_KEY}", "wss://h:9443/ws/***"),
}  # fmt: skip

KEPT = [
    '{"tokenId":"5","token_id":5,"signatureVersion":2,"symbol":"TOKENUSDT","secretary":"x","passenger":"y"}',
    '{"quoteToken":"USDT","token0":"0xabc","tokens_seen":3,"deduplication_token":"ab12"}',
    '{"token":null,"password":"","secret":false,"credentials":{},"cookies":[]}',
    '{"p":"0.10264410","price":1.10,"sign":-1,"u":"http://host:8123/x?a=b@c","mail":"a@b.de"}',
    '{"stream":"btcusdt@depth20@100ms","data":{"e":"depthUpdate"}}',
    "Invalid signature. The token is missing; check the password and the API key",
    "Unexpected token, expected one of: token, secret, password",
    "Cookie:\r\nHost: h",
    "token= table=fills",
    "a key: 5, keys=3, monkey: 4",
    "basic settings, Basic authentication, bearer of news",
    "password::new token://host",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "no column token, signature, in rows (token)",
]


@pytest.mark.parametrize("name", CUT)
def test_a_secret_is_cut_and_nothing_else(name: str) -> None:
    """Every format, to the byte; cutting again changes nothing."""
    given, expected = (text.replace("§", SECRET) for text in CUT[name])
    cut, count = REDACTOR.cut(given.encode())
    assert cut.decode() == expected
    assert count == expected.count("***")
    assert REDACTOR.cut(cut) == (cut, 0)
    assert REDACTOR.text(given) == expected


@pytest.mark.parametrize("value", ["§", '"§"', "[§]", "Bearer §", "https://u:§@h"])
def test_a_secret_that_is_no_text_is_cut_to_the_end(value: str) -> None:
    """It is of binary data, where a blank or a quote may be a length, and what follows belong to another secret."""
    binary = value.encode().replace("§".encode(), b"\x0cK\xd9z\xa6apiKey\xd9 hunter2 ")
    payload = b"\0\x01 a=b Authorization=" + binary + b" hunter2"
    cut, _ = REDACTOR.cut(payload)
    assert (b"hunter2" in cut, b" a=b " in cut) == (False, True)
    assert REDACTOR.cut(cut) == (cut, 0)


LETTERS = [0x2D, 0x30, 0x41, 0x5F, 0x7A]
"""Bytes that are a part of a length, and in a text would be one of a name."""
LENGTHS = [
    bytes([first]) + length
    for first, width in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4))
    for letter in LETTERS
    for length in {bytes([letter]).rjust(width, fill) for fill in (b"\0", b"\x01", b"A", b"\xff")}
]


@pytest.mark.parametrize(
    "before", [b"CR\x01\x02\0", b"x" * 40, b"\x95\x07"], ids=["frame", "text", "msgpack"]
)
@pytest.mark.parametrize("inside", [b"token=hunter2", b"X-MBX-APIKEY: hunter2", b"https://u:hunter2@h/"])
def test_a_length_that_looks_like_letters_is_no_part_of_a_name(before: bytes, inside: bytes) -> None:
    """MessagePack behind something else, or broken, and as `repr` shows it: a text may begin behind any length."""
    for length in LENGTHS:
        payload = before + length + inside
        for given in (payload, repr(payload).encode()):
            cut, count = REDACTOR.cut(given)
            assert (b"hunter2" in cut, count) == (False, 1), given
            assert REDACTOR.cut(cut) == (cut, 0)


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    """Words, identifiers, symbols, empty values."""
    assert REDACTOR.cut(text.encode()) == (text.encode(), 0)


def test_names_are_read_as_words() -> None:
    """However they are written; a name that ends with a secret's name is one."""
    for name in ("apiKey", "api_key", "API-KEY", "apikey", "X-MBX-APIKEY", "binance.apiKey", "APIKey", "apiKey2",
                 "OK-ACCESS-SIGN", "accessToken", "DB_PASSWORD", "client-secret"):  # fmt: skip
        assert REDACTOR.is_secret(name), name
    for name in ("key", "tokenId", "monkey", "secretary", "tokens", "passwordless", "baseToken", "", "é"):
        assert not REDACTOR.is_secret(name), name


def test_keys_and_patterns_of_ones_own() -> None:
    """A key is known in all its spellings, a pattern wherever it matches; both in every format."""
    own = Redactor(keys=["pin code"], patterns=["sk_live_[0-9a-z]{8,}"])
    text = '{"pinCode": 1234, "PIN_CODE": "x", "k": "sk_live_0123456789"}'
    assert own.text(text) == '{"pinCode": "***", "PIN_CODE": "***", "k": "***"}'
    assert own.cut(own.cut(text.encode())[0])[1] == 0
    assert REDACTOR.text(text) == text
    packed = msgspec.msgpack.encode({"pinCode": "1234", "k": "a sk_live_0123456789", "x": "y"})
    assert msgspec.msgpack.decode(own.cut(packed)[0]) == {"pinCode": "****", "k": "*" * 20, "x": "y"}
    assert pickle.loads(pickle.dumps(own)).text(text) == own.text(text)


def test_a_pattern_matches_the_characters_of_a_text() -> None:
    """A sound text stays one, alike as text and as bytes, alone and in a column; bytes that are no text may be cut."""
    own = Redactor(patterns=["sk-.{3}", "k[é]y", r"x\Cx"])
    for text, expected in {"a sk-éàü b": "a *** b", "sk-aé": "sk-aé", "k€y kéy": "k€y ***"}.items():
        assert own.text(text) == expected
        assert own.cut(text.encode())[0] == expected.encode()
        for many in (0, 20):
            rest = [b"\xff"] * many
            payload = pa.array([text.encode(), *rest], pa.binary())
            found = ColumnRedactor(PACK.table("dead_letters"), own)._redacted(payload)
            cut = payload if found is None else found
            assert cut.to_pylist() == [expected.encode(), *rest]
    assert own.cut("sk-éà".encode() + b"\xff") == (b"***" + "éà".encode()[3:] + b"\xff", 1)
    assert Redactor(patterns=[r"q\C"]).text("qé") == "***\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("pattern", ["(", "x*", r"\*+", "."])
def test_patterns_that_cannot_be(pattern: str) -> None:
    """No regular expression, one that matches nothing, one that matches the mask."""
    with pytest.raises(ValueError, match=r"regular expression|matches"):
        Redactor(patterns=[pattern])


def test_settings_say_what_else_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment: keys with commas, one pattern or a list; what cannot be is one line that says where."""
    monkeypatch.setenv("RECORDER_REDACT_KEYS", "pin,otp_code")
    monkeypatch.setenv("RECORDER_REDACT_PATTERNS", "[A-Z]{4},[0-9]{4}")
    settings = Settings()
    assert (settings.redact_keys, settings.redact_patterns) == (("pin", "otp_code"), ("[A-Z]{4},[0-9]{4}",))
    monkeypatch.setenv("RECORDER_REDACT_PATTERNS", '["a{3}", "b{3}"]')
    assert Settings().redact_patterns == ("a{3}", "b{3}")
    monkeypatch.setenv("RECORDER_REDACT_PATTERNS", "(")
    with pytest.raises(SettingsError, match=r"RECORDER_REDACT_PATTERNS.*no regular expression"):
        Settings()


@pytest.fixture
def _force(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test puts in force ends with it."""
    monkeypatch.setattr(redact, "_in_force", redact.in_force())


@pytest.mark.usefixtures("_force")
def test_a_pack_says_what_else_is_secret() -> None:
    """Its keys and patterns are in force from its loading on, beside the settings' and the built-in ones."""
    pack = dataclasses.replace(PACK, redact_keys=("pack_pin",), redact_patterns=("pk_[0-9]{4}",))
    packs_of(Settings(redact_keys=("own_pin",)), [pack])
    assert redacted("pack_pin=1 own_pin=2 token=3 pk_0123") == "pack_pin=*** own_pin=*** token=*** ***"
    with pytest.raises(SettingsError, match=r"packs: core: .*no regular expression"):
        packs_of(Settings(), [dataclasses.replace(PACK, redact_patterns=("(",))])


@pytest.mark.usefixtures("_force")
def test_what_is_in_force_only_grows() -> None:
    """Two recorders in one process: each one's secrets stay out of the lines of both."""
    put_in_force(["first_pin"])
    put_in_force(["second_pin"])
    assert redacted("first_pin=1 second_pin=2") == "first_pin=*** second_pin=***"


def test_errors_of_the_sink_have_no_secrets() -> None:
    """Servers quote data and drivers quote URLs; it ends in status, logs and dead letters."""
    assert SECRET not in str(
        HoldError(f'Code: 27. Cannot parse {{"token":"{SECRET}"}} at http://u:{SECRET}@h')
    )


def test_bytes_in_a_dead_row_are_cut_before_they_become_base64() -> None:
    """Nobody would find a secret in them afterwards."""
    payload, _ = row_bytes({"payload": f'{{"apiKey":"{SECRET}"}}'.encode()})
    assert base64.b64decode(json.loads(payload)["payload"]["base64"]) == b'{"apiKey":"***"}'


def test_columns_by_their_type() -> None:
    """Payloads, texts and tags are cut, whatever the table; names and ids stay; rows without secrets are untouched."""
    table = PACK.table("metrics_timeseries")
    tags = next(column.name for column in table.columns if column.type.foreign)
    rows = pa.table({"ts_local": [0, 0], "name": ["token=x", "b"], "value": [1.0, 2.0], tags: pa.array(
        [[("apiKey", SECRET), ("a", f"token={SECRET}")], [("a", "b")]], pa.map_(pa.string(), pa.string())
    )})  # fmt: skip
    good, _ = exact_columns(table, rows.to_batches()[0])
    builder = BatchBuilder(table, epoch=1, run_id="r", on_bad=lambda bad: None)
    assert list(builder.add([ArrowBlock(good, 1, good.nbytes)])) == [2]
    data = builder.seal()[0].data
    assert data[tags].to_pylist() == [[("apiKey", "***"), ("a", "token=***")], [("a", "b")]]
    assert data["name"].to_pylist() == ["token=x", "b"]
    assert builder.redacted_spans == 2


@pytest.mark.parametrize("many", [0, 300])
def test_a_column_without_secrets_is_handed_back_as_it_is(many: int) -> None:
    """No copy, however many rows there are; and of a column with secrets only theirs change."""
    table = PACK.table("dead_letters")
    names = [column.name for column in table.columns]
    rest = [None] * 20 + [b"\xff\x00"] * many
    arrays = [pa.nulls(3 + len(rest)) for _ in names]
    arrays[names.index("payload")] = pa.array([b'{"p":"1.10"}', None, b"\xff\x00", *rest], pa.binary())
    columns = ColumnRedactor(table, REDACTOR)
    assert columns.redact(arrays) is arrays
    arrays[names.index("payload")] = pa.array([b'{"p":"1.10"}', None, b'{"token":"x"}', *rest], pa.binary())
    changed = columns.redact(arrays)
    assert changed[names.index("payload")].to_pylist() == [b'{"p":"1.10"}', None, b'{"token":"***"}', *rest]
    assert columns.spans == 1


LINEAR_BYTES = 48_000
"""Of a hostile payload: enough for what is quadratic to stand out, and less than where marks are no longer counted."""
CLOCK_S = 0.002
"""What the clock may add to so short a time."""

HOSTILE = {
    "names": b"token",
    "names with signs": b"token=",
    "names in blanks": b"token ",
    "names in escaped blanks": b"token\\n\\n",
    "lines": b"\ntoken: ",
    "literals": b"token:null,",
    "open texts": b'token="x\\',
    "open objects": b'"token":{',
    "brackets": b"token:[[((",
    "pairs": b'("token","x" ',
    "pairs in pairs": b'("token",\'("token",\'',
    "fields": b"token=,a",
    "encoded": b"token%3D%22",
    "backslashes": b"\\",
    "quotes behind backslashes": b'"token":"\\\\\\"',
    "urls": b"://@",
    "logins": b"://u:x",
    "hosts": b"://h:1/@",
    "web tokens": b"eyJ",
    "parts of web tokens": b"eyJaaaaaaaa.",
    "private keys": b"-----BEGIN PRIVATE KEY-----",
    "bearers": b"Bearer x ",
    "streams": b"stream=",
    "containers": b"\x91",
    "long texts": b"\xdb",
    "maps": b"\x81\xa5token\x81",
    "pairs with commas": b"token=a,",
    "pairs with semicolons": b";secret:",
    "options behind closers": b"=},token--",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_twice_the_bytes_take_about_twice_the_steps(kind: str) -> None:
    """Whatever is repeated: nothing is looked at again and again."""
    piece = HOSTILE[kind]
    steps = Steps()
    REDACTOR.cut(piece * 4)  # what is remembered is remembered now
    small, large = (steps.of(piece * count) for count in (200, 800))
    assert large <= 4.5 * small + 400


def cpu_s(data: bytes) -> float:
    """Seconds of this thread's CPU that cutting takes, the best of three, so that no other process is in it."""
    times = []
    for _ in range(3):
        before = time.thread_time()
        REDACTOR.cut(data)
        times.append(time.thread_time() - before)
    return min(times)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", HOSTILE)
def test_four_times_the_bytes_take_less_than_eight_times_the_cpu(kind: str) -> None:
    """The same for the regular expressions, which run in C: a quadratic one would take sixteen times as long."""
    many = HOSTILE[kind] * (LINEAR_BYTES // len(HOSTILE[kind]))
    assert cpu_s(many) < 8 * cpu_s(many[: len(many) // 4]) + CLOCK_S


@pytest.mark.parametrize("piece", [b"token=a,", b"token: null\n", b'token="x" ', b"tokenId "])
def test_what_has_too_many_marks_loses_the_rest(piece: bytes) -> None:
    """What is before stays as ever; the rest is one mask, and cutting again changes nothing."""
    data = piece * (MARKS_MOST + 1) + b" token=" + SECRET.encode()
    cut, count = REDACTOR.cut(data)
    before = REDACTOR.cut(piece * MARKS_MOST)
    assert (cut, count) == (before[0] + b"***", before[1] + 1)
    assert REDACTOR.cut(cut) == (cut, 0)
    packed = msgspec.msgpack.encode([data])
    masked = REDACTOR.cut(packed)[0]
    assert len(masked) == len(packed)
    assert SECRET.encode() not in masked
    assert REDACTOR.cut(masked) == (masked, 0)


def test_many_marks_without_a_secret_stay() -> None:
    """Addresses hide nothing: a page full of them is kept, and one secret behind them is not."""
    text = "https://host/path?a=b " * (MARKS_MOST + 8) + "@name"
    assert REDACTOR.cut(text.encode()) == (text.encode(), 0)
    assert SECRET not in REDACTOR.text(f"{text} token={SECRET}")


@pytest.mark.parametrize(
    "data",
    [b"token=a," * 500_000, b'"token":"' + b'\\"' * 2_000_000, b'"token":' + b"[" * 4_000_000,
     b'token="' + b'\\"' * 15 + b'" ', b"token: " + b'"' * 4_000_000],
    ids=["marks", "quotes", "brackets", "quotes in many", "quotes in a line"],
)  # fmt: skip
def test_four_hostile_megabytes_are_cut_soon(data: bytes) -> None:
    """Linear is not enough for who pays with the recorder's thread."""
    if len(data) < 1_000:
        data *= 4_000_000 // len(data)
    REDACTOR.cut(data[:1_000])
    assert cpu_s(data) < 1.5


def test_a_hosts_handlers_get_no_secret_of_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Neither from the line, nor from what stands beside it; an exception without secrets is handed on as it is."""
    log = get_logger("recorder.x")
    for text in (f"token={SECRET}", "plain"):
        try:
            raise ValueError(text)
        except ValueError as error:
            log.exception("failed", why=error, nested=[{"password": SECRET}])
    assert SECRET not in caplog.text
    assert all(SECRET not in repr(vars(record)) for record in caplog.records)
    assert "ValueError: token=***" in caplog.text
    assert [record.exc_info is not None for record in caplog.records] == [False, True]
