"""A stand-in for OpenAI's completions endpoint that answers quickly, however much: `python -m
tools.bench.upstream`.

It says on standard output where it listens. POST /stretch lets minutes have rows; nothing else ever
changes.
"""

import json
import sys
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web

from tools.bench.series import amounts, dimensions

_WIDTHS = {"1m": 60, "1h": 3600, "1d": 86400}


@dataclass(frozen=True, slots=True)
class Stretch:
    """`minutes` minutes from `start` on (Unix seconds), each with `rows` of the `sets` attribute
    sets that begin at `first`, in turn.
    """

    start: int
    minutes: int
    rows: int
    sets: int
    first: int = 0

    def indices(self, minute: int) -> list[int]:
        """The attribute sets that used something in that minute (its start, Unix seconds)."""
        nth = (minute - self.start) // 60
        if not 0 <= nth < self.minutes:
            return []
        return [self.first + (nth * self.rows + at) % self.sets for at in range(self.rows)]


class World:
    """What was used when."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.requests = 0
        self._texts: dict[tuple[int, int], str] = {}

    def add(self, stretch: Stretch) -> None:
        """Have this used, too."""
        self.stretches.append(stretch)
        end = stretch.start + stretch.minutes * 60
        for start, width in list(self._texts):
            if start < end and stretch.start < start + width:
                del self._texts[start, width]

    def bucket(self, start: int, width: int) -> str:
        """One bucket as JSON."""
        if (text := self._texts.get((start, width))) is None:
            found: dict[int, dict[str, int]] = {}
            for stretch in self.stretches:
                low = max(start, stretch.start)
                high = min(start + width, stretch.start + stretch.minutes * 60)
                for minute in range(low, high, 60):
                    for index in stretch.indices(minute):
                        used = amounts(index, minute // 60)
                        before = found.get(index)
                        found[index] = (
                            used
                            if before is None
                            else {name: before[name] + value for name, value in used.items()}
                        )
            results = ",".join(
                [f"{{{_head(index)},{json.dumps(used)[1:-1]}}}" for index, used in found.items()]
            )
            text = f'{{"object":"bucket","start_time":{start},"end_time":{start + width},"results":[{results}]}}'
            self._texts[start, width] = text
        return text

    async def completions(self, request: web.Request) -> web.Response:
        """GET /v1/organization/usage/completions, one page."""
        self.requests += 1
        start = int(request.query["start_time"])
        end = int(request.query["end_time"])
        width = _WIDTHS[request.query["bucket_width"]]
        buckets = ",".join([self.bucket(at, width) for at in range(start, end, width)])
        body = f'{{"object":"page","data":[{buckets}],"has_more":false,"next_page":null}}'
        return web.Response(text=body, content_type="application/json")

    async def stretch(self, request: web.Request) -> web.Response:
        """POST /stretch with the fields of a Stretch."""
        self.add(Stretch(**await request.json()))
        return web.Response(text="ok")


@lru_cache(maxsize=200_000)
def _head(index: int) -> str:
    dims = {
        "object": "organization.usage.completions.result",
        **dimensions(index),
        "service_tier": None,
    }
    return json.dumps(dims)[1:-1]


async def _started(app: web.Application) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()


async def main() -> None:
    """Serve until standard input ends."""
    import asyncio

    world = World()
    app = web.Application()
    app.router.add_get("/v1/organization/usage/completions", world.completions)
    app.router.add_post("/stretch", world.stretch)
    await _started(app)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
