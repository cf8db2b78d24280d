"""Peak memory of enlarging one picture to 4 times and to 8 times its side, each in a process of its own.

What is compared is the highest resident size of the process, less what it was before the picture came
(interpreter, libraries, weights, one tiny enlargement), less the part of the output that has been written.
The larger output's bands are all alike, so a few of them show its peak: from the second on, each holds rows
of the one before, too.
"""

import json
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from measure import Row
from model_cases import load, picture

INPUT, OUTPUTS = 512, (2048, 4096)
WANTED = 1.3
MIB = 2**20


class EnoughError(Exception):
    """As many bands as were asked for are done."""


def peak(size: int, bands: int) -> dict[str, Any]:
    """Enlarge INPUT x INPUT to size x size in this process, the first ``bands`` bands of it (0: all)."""
    device, shares = torch.device("cpu"), []
    model = load("edsr-clit", device)

    def progress(share: float) -> None:
        shares.append(share)
        if len(shares) == bands:
            raise EnoughError

    with torch.inference_mode():
        model(picture(16, 16, device), (160, 160))
        image = picture(INPUT, INPUT, device)
        before = _highest()
        with suppress(EnoughError):
            model(image, (size, size), progress=progress)
    written = round(12 * size * size * shares[-1])
    return {
        "bands": len(shares), "share": shares[-1], "peak_bytes": _highest(), "before_bytes": before,
        "output_bytes": written, "working_bytes": _highest() - before - written,
    }  # fmt: skip


def _highest() -> int:
    """Highest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_rows(bands: int, threads: int) -> list[Row]:
    """A row for each output: the smaller whole, of the larger so many bands (0: all)."""
    rows: list[Row] = []
    for size in OUTPUTS:
        some = bands if size == OUTPUTS[-1] else 0
        command = [sys.executable, str(Path(__file__).resolve()), str(size), str(some), str(threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row: Row = {"case": f"memory {INPUT}x{INPUT} to {size}x{size}", **json.loads(done.stdout)}
        part = "" if row["share"] == 1 else f", first {row['bands']} bands ({row['share']:.1%})"
        row["text"] = f"    {row['working_bytes'] / MIB:.0f} MiB beside the output{part}"
        rows.append(row)
    ratio = rows[1]["working_bytes"] / rows[0]["working_bytes"]
    kept = ratio <= WANTED
    rows[1] |= {"ratio": ratio, "promises": {f"at most {WANTED:g}": kept}}
    rows[1]["text"] += f", {ratio:.2f} times   at most {WANTED:g}: {'yes' if kept else 'NO'}"
    return rows


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(peak(int(sys.argv[1]), int(sys.argv[2]))))
