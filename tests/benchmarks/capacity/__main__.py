"""What an installation needs: `python -m tests.benchmarks.capacity`, from the repository's root.

RESULTS are files with what `tests.benchmarks` and `tests.benchmarks.store` have printed. Their figures are taken into
`measured.json`, and the tables of `deploy/capacity.md` and of the README are made anew. With `--given calls=25000 tracks=1`
nothing is written: the sheet is computed with these numbers, and printed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks.capacity import page, sheet
from tests.benchmarks.capacity.measured import Figures, learned, sheet_inputs

MEASURED: Final = Path(__file__).with_name("measured.json")
PAGES: Final = tuple(Path(__file__).parents[3] / name for name in ("deploy/capacity.md", "README.md"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.capacity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", nargs="*", type=Path, help="files of JSON")
    parser.add_argument("--where", help="the machine that the results are of, as a sentence")
    parser.add_argument("--given", nargs="+", metavar="name=value", type=_given, help="inputs of the sheet")
    wanted = parser.parse_args(arguments)
    figures = known()
    if wanted.given:
        given = sheet.values(sheet_inputs(figures)) | dict(wanted.given)
        sys.stdout.write(page.results(given, [given["calls"]] if "calls" in given else sheet.SIZES) + "\n")
        return 0
    for path in wanted.results:
        try:
            figures = learned(figures, json.loads(path.read_text()))
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"{path} has no results of these benchmarks: {error!r}")
    if wanted.where:
        figures["where"] = wanted.where
    MEASURED.write_text(json.dumps(figures, indent=2) + "\n")
    for path in PAGES:
        path.write_text(page.filled(path.read_text(), figures))
    return 0


def known() -> Figures:
    """What was measured up to now."""
    figures: Figures = json.loads(MEASURED.read_text())
    return figures


def _given(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    names = {"calls", *sheet.MEASURED, *(each.name for each in sheet.ASSUMED)}
    try:
        if name in names:
            return name, float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"must be one of {', '.join(sorted(names))}, = and a number, not {text!r}"
    )


if __name__ == "__main__":
    sys.exit(main())
