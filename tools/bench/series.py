"""Who uses what in the benchmark: attribute sets of realistic length, as many as are asked for."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256

MODELS = (
    "gpt-4o-2024-11-20",
    "gpt-4o-mini-2024-07-18",
    "gpt-4.1-2025-04-14",
    "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano-2025-04-14",
    "o4-mini-2025-04-16",
    "o3-2025-04-16",
    "gpt-5-2025-08-07",
)
MEASURES = 8
"""Series that one attribute set of completions makes: six token types, requests and the estimated
cost.
"""


@lru_cache(maxsize=20_000)
def _random(number: int) -> str:
    """As ids look: nothing that would compress well."""
    return b64encode(sha256(str(number).encode()).digest()[:18], b"Aa").decode()


def dimensions(index: int) -> dict[str, str | bool]:
    """The attribute set of that number: sixteen to an API key, keys spread over 500 users and 50
    projects.
    """
    key = index // 16
    return {
        "project_id": f"proj_{_random(key % 50)}",
        "user_id": f"user-{_random(key % 500)}",
        "api_key_id": f"key_{_random(key)}",
        "model": MODELS[index % 8],
        "batch": index % 16 >= 8,
    }


def amounts(index: int, minute: int) -> dict[str, int]:
    """What it used in that minute: every measure above zero."""
    used = 1000 + (index * 31 + minute * 17) % 9000
    return {
        "input_tokens": used,
        "output_tokens": used // 3,
        "input_cached_tokens": used // 4,
        "input_audio_tokens": used // 10,
        "output_audio_tokens": used // 20,
        "input_cache_write_tokens": used // 15,
        "num_model_requests": 1 + used % 7,
    }


TOKEN_TYPES = {
    "input": "input_tokens",
    "output": "output_tokens",
    "input_cached": "input_cached_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
    "input_cache_write": "input_cache_write_tokens",
}


class Titles(Mapping[str, str]):
    """A name for every id, made when it is asked for."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __getitem__(self, id_: str) -> str:
        return f"{self._word} {id_[-6:]}"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, id_: object) -> bool:
        return True

    def get(self, id_: str, default: object = None) -> str:
        """As `titles[id_]`."""
        return self[id_]


def exposed(sets: int) -> Iterator[tuple[str, dict[str, str], float]]:
    """The same series for the yardsticks: instrument, attributes, value."""
    projects = Titles("project")
    keys = Titles("key")
    for index in range(sets):
        dims = dimensions(index)
        common = {
            "organization": "default",
            "operation": "completions",
            **{
                name: str(value).lower() if name == "batch" else str(value)
                for name, value in dims.items()
            },
            "project_name": projects[str(dims["project_id"])],
            "api_key_name": keys[str(dims["api_key_id"])],
        }
        used = amounts(index, 1_000_000 + index)
        for token_type, name in TOKEN_TYPES.items():
            yield "openai.api.tokens", {**common, "token_type": token_type}, used[name] * 1000
        yield "openai.api.requests", common, used["num_model_requests"] * 1000
        priced = {name: value for name, value in common.items() if name != "user_id"}
        yield "openai.api.estimated_cost", {**priced, "currency": "usd"}, used["input_tokens"] / 7
