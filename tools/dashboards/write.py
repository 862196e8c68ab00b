"""Write deploy/grafana/dashboards/*.json: `python -m tools.dashboards.write`."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards.pages import PAGES

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


def rendered() -> dict[Path, str]:
    """File to text of every dashboard."""
    encode = JSONEncoder(sort_keys=True, indent=2).encode
    return {FOLDER / f"{name}.json": encode(make().build()) + "\n" for name, make in PAGES.items()}


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
