"""Basic authentication against bcrypt hashes."""

import asyncio
import base64
import functools
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

_MAX_REMEMBERED = 256
"""Right, and as many wrong, passwords whose comparison is remembered."""
_MAX_WAITING = 16
"""Passwords that may wait for bcrypt, which is slow on purpose."""
_BCRYPT_BYTES = 72
"""bcrypt has always ignored what follows, and newer versions raise for more."""


class PasswordCheck:
    """Compares users and passwords. Remembers the result, because bcrypt is slow on purpose."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        # Apart from each other, so that wrong guesses cannot displace a right password.
        self._right: set[bytes] = set()
        self._wrong: set[bytes] = set()
        self._waiting = 0
        self._worker = ThreadPoolExecutor(
            1, "bcrypt"
        )  # one, so that guessing takes one CPU at most

    async def is_right(self, authorization: str, users: Mapping[str, str]) -> bool | None:
        """Return whether the header names one of `users` (name → hash) with its password.

        None if too many passwords are waiting to be compared.
        """
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        user, password = credentials
        hashed = users.get(user)
        digest = self._digest(user, hashed or "", password)
        if digest in self._right:
            return True
        if digest in self._wrong:
            return False
        if self._waiting >= _MAX_WAITING:
            return None
        matches = await self._compare(password, hashed)
        is_right = matches and hashed is not None
        self._remember(digest, is_right=is_right)
        return is_right

    def _digest(self, user: str, hashed: str, password: bytes) -> bytes:
        # Keyed, so that the time of a look-up says nothing about the password.
        message = b"\0".join((user.encode(), hashed.encode(), password))
        return hmac.digest(self._key, message, hashlib.sha256)

    async def _compare(self, password: bytes, hashed: str | None) -> bool:
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._worker, _matches, password, hashed)
        finally:
            self._waiting -= 1

    def _remember(self, digest: bytes, *, is_right: bool) -> None:
        remembered = self._right if is_right else self._wrong
        if len(remembered) >= _MAX_REMEMBERED:
            remembered.clear()
        remembered.add(digest)


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    """Return user and password of an Authorization header; None if it is not basic."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
        user, colon, password = decoded.partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:  # neither base64 nor UTF-8
        return None


@functools.cache
def _unknown_user_hash() -> str:
    """Compared for an unknown user, so that the answer takes as long as for a known one.

    Made at the first comparison: it takes as long as one, and most exporters need none.
    """
    return bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10)).decode()


def _matches(password: bytes, hashed: str | None) -> bool:
    # Made for a known user, too: else the first unknown one would take longer.
    unknown = _unknown_user_hash()
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], (hashed or unknown).encode())
    except ValueError:  # bcrypt refuses this password, such as one with a NUL
        return False
