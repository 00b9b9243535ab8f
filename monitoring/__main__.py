"""`python -m monitoring`: writes the dashboards and rules; `python -m monitoring draw`: draws them."""

from __future__ import annotations

import argparse
from pathlib import Path

from monitoring import files


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m monitoring", description=__doc__)
    actions = parser.add_subparsers(dest="action")
    drawing = actions.add_parser("draw", help="draw what the dashboards' queries answer, as PNGs")
    drawing.add_argument("--prometheus", default="http://127.0.0.1:9090", help="its URL")
    drawing.add_argument("--namespace", default="kgents-agents", help="whose series")
    drawing.add_argument("--minutes", type=float, default=180, help="how far back")
    drawing.add_argument("--out", type=Path, default=Path(), help="the folder to write to")
    given = parser.parse_args()
    if given.action == "draw":
        from monitoring import draw

        draw.write(given.out, given.prometheus, given.namespace, given.minutes * 60)
        return
    for path, text in files.written().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
