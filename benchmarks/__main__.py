"""``python -m benchmarks [NAME ...]``: run all rows, or those named, and print a table."""

from __future__ import annotations

import os
import platform
import sys
import time

from benchmarks.rows import ROWS, Row


def main(names: list[str]) -> int:
    """Run benchmarks; the exit code says whether every first target was reached."""
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 2
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    rows: list[Row] = []
    for name in names or list(ROWS):
        begun = time.monotonic()
        for row in ROWS[name]():
            rows.append(row)
            mark = "reached" if row.is_met else "NOT reached"
            print(f"  {row.path:55} {row.figure:38} {row.ceiling:34} {row.target:28} {mark}", flush=True)
        print(f"  ({name}: {time.monotonic() - begun:.0f} s)", flush=True)
    missed = [row.path for row in rows if not row.is_met]
    print(
        f"{len(rows) - len(missed)} of {len(rows)} first targets reached"
        + (f"; not: {'; '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
