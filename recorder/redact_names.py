"""Which names are those of secrets. Pure.

A name is read as words: `X-MBX-APIKEY`, `api_key`, `apiKey` and `listenKey2` end like `api_key` and `listen_key`, so
they name secrets; `tokenId`, `signatureVersion`, `secretary` and `TOKENUSDT` do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SECRET_NAMES = (
    "access_key", "access_key_id", "access_sign", "api_key", "api_sign", "auth_key", "authorization", "bapi_sign",
    "cookie", "cookies", "credential", "credentials", "encryption_key", "jwt", "listen_key", "mnemonic",
    "passcode", "passphrase", "passwd", "password", "passwords", "private_key", "pwd", "secret", "secret_key",
    "secrets", "seed_phrase", "signature", "signing_key", "token",
)  # fmt: skip
"""Names of secrets, in words; a name that ends with one of them is one too."""
TRADED = frozenset(
    b"base buy collateral dedup deduplication fee from gas in input lp margin native next out output page pay pool "
    b"quote reward sell settle settlement stable staked to underlying unexpected".split()
)
"""Words before `token` that make a coin, or a mark in a list or a log, of it."""
MOST_WORDS = 4
LONGEST_NAME = 128
"""Bytes of a name that are looked at: its last ones."""

_WORDS = re.compile(rb"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[A-Z]")
_SEPARATOR = rb"[_. -]?"
_REMEMBERED = 4_096


class SecretNames:
    """The names of secrets: the built-in ones and more.

    Raises:
        ValueError: one of `more` has no letter in it.
    """

    def __init__(self, more: Iterable[str] = ()):
        given = (*SECRET_NAMES, *more)
        names = [_words(name.encode()) for name in given]
        for name, words in zip(given, names, strict=True):
            if not any(word.isalpha() for word in words):
                raise ValueError(f"{name!r} is no name; use letters, digits, _ and -")
        self._joined = frozenset(b"".join(words) for words in names)
        self._most_words = max(MOST_WORDS, *map(len, names))
        self._verdicts: dict[bytes, bool] = {}
        self.pattern = b"|".join(_SEPARATOR.join(words) for words in _to_look_for(names))
        """A regular expression, for Python's `re` and for RE2, that is in every such name, in lower case."""

    def __contains__(self, name: bytes) -> bool:
        """Whether this is the name of a secret."""
        name = name[-LONGEST_NAME:]
        verdict = self._verdicts.get(name)
        if verdict is None:
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            verdict = self._verdicts[name] = self._ends_like_one(_words(name))
        return verdict

    def _ends_like_one(self, words: list[bytes]) -> bool:
        numbered = False
        while True:
            for count in range(1, min(self._most_words, len(words)) + 1):
                joined = b"".join(words[-count:])
                if joined in self._joined and not (joined == b"token" and _is_traded(words, numbered)):
                    return True
            if not words or not words[-1].isdigit():
                return False
            words = words[:-1]
            numbered = True


def _to_look_for(names: list[list[bytes]]) -> list[list[bytes]]:
    """The names without those of one word that contain another one; longer ones first, so that they are found whole."""
    single = [words[0] for words in names if len(words) == 1]
    found = {
        b"_".join(words): words
        for words in names
        if len(words) > 1 or not any(other != words[0] and other in words[0] for other in single)
    }
    return [found[name] for name in sorted(found, key=lambda name: (-len(name), name))]


def _is_traded(words: list[bytes], numbered: bool) -> bool:
    """Whether a name that ends with `token` is one of a coin: `token0` and `quoteToken` are."""
    return numbered or (len(words) > 1 and words[-2] in TRADED)


def _words(name: bytes) -> list[bytes]:
    return [word.lower() for word in _WORDS.findall(name)]
