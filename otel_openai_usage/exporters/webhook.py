"""Posts JSON to a webhook: https only, except on loopback; no redirects; bounded time and memory."""

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

import aiohttp

from otel_openai_usage.errors import WebhookFailed

TIMEOUT = 10.0
"""Seconds for the whole exchange."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read."""


class WebhookSender:
    """Sends to the URL that `url` returns at that time. No message of an error contains it."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    async def __call__(self, body: bytes) -> None:
        """Send a JSON body. Raises WebhookFailed."""
        url = self._url()
        if problem := why_unsafe(url):
            raise WebhookFailed(f"sent to the webhook: {problem}")
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                await answer.content.read(MAX_ANSWER)
                status = answer.status
        except TimeoutError as error:
            raise WebhookFailed(
                f"sent to the webhook: no answer within {TIMEOUT:g} s; check that it is reachable"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of the error may have the URL, which is a secret.
            raise WebhookFailed(
                f"sent to the webhook: {type(error).__name__}; check budgets.webhook.url and the"
                " network"
            ) from None
        if 300 <= status < 400:
            raise WebhookFailed(
                f"sent to the webhook: {status}, a redirect, which is not followed; set its target"
            )
        if not 200 <= status < 300:
            raise WebhookFailed(f"sent to the webhook: it answered {status}")


def why_unsafe(url: str) -> str | None:
    """Why a URL is not sent to, None if it is https, or http on loopback."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError:
        return "budgets.webhook.url is no URL"
    if parts.scheme == "https" and host:
        return None
    if parts.scheme == "http" and _is_loopback(host):
        return None
    return "expected an https URL in budgets.webhook.url (http only for loopback)"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
