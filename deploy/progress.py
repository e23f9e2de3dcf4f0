"""Run a long command with one line of progress: what it is doing, and for how long.

    python deploy/progress.py pip install ...

pip installs a hundred packages in silence or in a thousand lines; this counts them. Standard library only, for it
runs before anything is installed. The command's own output is shown when it fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time


def main() -> int:
    command = [argument for argument in sys.argv[1:] if argument not in ("--quiet", "-q")]
    began, collected, lines, stage = time.monotonic(), 0, [], "starting"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    shown = 0.0
    for line in process.stdout:
        lines.append(line)
        if re.match(r"\s*Collecting ", line):
            collected += 1
            stage = f"fetching: {collected} packages, {line.split()[1]}"
        elif line.startswith("Installing collected packages"):
            stage = f"unpacking {line.count(',') + 1} packages, the longest step (1 to 2 minutes)"
        now = time.monotonic()
        redraw = sys.stdout.isatty()
        if now - shown > (0.2 if redraw else 15) or line.startswith("Installing collected"):
            shown = now
            text = f"  {now - began:4.0f} s  {stage}"
            print(f"\r{text[:110]:<110}" if redraw else text, end="" if redraw else "\n", flush=True)
    if process.wait():
        sys.stdout.write("\n" + "".join(lines[-40:]))
    else:
        print(f"\n  installed in {time.monotonic() - began:.0f} s" if sys.stdout.isatty() else "  installed")
    return process.returncode


if __name__ == "__main__":
    raise SystemExit(main())
