"""Compile every registered kernel ahead of time and report what it takes; no GPU is needed.

    python kernels/compile_table.py                        # all ops, all targets
    python kernels/compile_table.py --target sm_90 --op local_attention --dtype bf16
    python kernels/compile_table.py --markdown kernels/COMPILED.md

Fails on register spills, on shared memory above the chip's limit, and where tensor-core instructions are
missing from a kernel that was registered with them. An op registers its kernels in ``<op>/triton/specs.py``:
``specs(arch)`` yields ``triton_support.KernelSpec`` at the tiles that ``tile_tables/`` holds for that chip.
"""

import argparse
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "torch-ext"))

TARGETS = ("sm_80", "sm_89", "sm_90", "sm_100", "gfx942")

TENSOR_CORES = re.compile(r"\b(wgmma|mma\.sync|tcgen05\.mma|v_mfma)")


class Report(NamedTuple):
    """What one kernel takes on one target; ``error`` is empty where it compiles and fits."""

    kernel: str
    target: str
    label: str
    tile: str
    registers: int = 0
    shared: int = 0
    spills: int = 0
    matrix: str = ""
    error: str = ""


def registered(op: str | None, target: str) -> Iterator[Any]:
    """The kernels of ``op``, or of all ops, as registered for ``target``."""
    import clit_kernels

    for module in pkgutil.iter_modules(clit_kernels.__path__):
        specs = Path(clit_kernels.__path__[0], module.name, "triton", "specs.py")
        if op in (None, module.name) and specs.is_file():
            yield from importlib.import_module(f"clit_kernels.{module.name}.triton.specs").specs(target)


def compile_spec(spec: Any, target: str) -> Any:
    """Compile one registered kernel for ``target``."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from clit_kernels.tile_table import OPTIONS
    from clit_kernels.triton_support import LAUNCH

    names = spec.kernel.arg_names
    unknown = (set(spec.types) | set(spec.constants)) ^ set(names)
    if unknown:
        raise ValueError(f"{spec.name}: the registration and the kernel differ in {sorted(unknown)}")
    # tensors begin at multiples of 16 bytes, and the strides over b, y and x are multiples of 16 numbers
    aligned = [i for i, n in enumerate(names) if spec.types.get(n, "").startswith("*") or "stride_" in n]
    source = ASTSource(
        fn=spec.kernel,
        signature={name: spec.types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in spec.constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = {k: v for k, v in spec.tile.items() if k in OPTIONS} | LAUNCH
    if target.startswith("sm_"):
        chip = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    else:
        chip = GPUTarget("hip", target, 64)
    return triton.compile(source, target=chip, options=options)


def measure(spec: Any, target: str) -> Report:
    """Compile and read registers per thread, shared memory and spills in bytes, and matrix instructions."""
    from clit_kernels.tile_table import shared_memory

    report = Report(spec.name, target, spec.label, tile_text(spec.tile))
    try:
        binary = compile_spec(spec, target)
    except Exception as e:  # a compiler's failure is a row of the table, whatever its type
        return report._replace(error=f"does not compile: {str(e).strip().splitlines()[-1][:160]}")
    text = binary.asm["ptx" if target.startswith("sm_") else "amdgcn"]
    registers, spills = _cuda_usage(binary, target) if target.startswith("sm_") else _amd_usage(text)
    found = TENSOR_CORES.search(text)
    report = report._replace(
        registers=registers, spills=spills, shared=binary.metadata.shared, matrix=found[1] if found else "-"
    )
    if spills:
        return report._replace(error=f"spills {spills} bytes")
    limit = shared_memory(target)
    if report.shared > limit * 1024:
        return report._replace(error=f"shared memory above {limit} KiB")
    if spec.tensor_cores and not found:
        return report._replace(error="no tensor-core instructions")
    return report


def _cuda_usage(binary: Any, target: str) -> tuple[int, int]:
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(binary.asm["cubin"])
        usage = _output([tools / "cuobjdump", "-res-usage", cubin])
        registers, stack = (int(re.findall(rf"\b{key}:(\d+)", usage)[-1]) for key in ("REG", "STACK"))
        if not stack:
            return registers, 0
        # a stack is not always a spill (sin's argument reduction has one): ask the assembler
        ptx = Path(folder, "kernel.ptx")
        ptx.write_text(binary.asm["ptx"])
        arch = re.findall(r"^\.target\s+(\w+)", binary.asm["ptx"], re.MULTILINE)[0]
        for name in ("ptxas-blackwell", "ptxas"):  # the one that knows this version of PTX
            said = _output([tools / name, "-v", f"-arch={arch}", ptx, "-o", Path(folder, "again.cubin")])
            spilled = re.findall(r"(\d+) bytes spill", said)
            if spilled:
                return registers, sum(map(int, spilled))
        return registers, stack


def _amd_usage(text: str) -> tuple[int, int]:
    count = {key: int(value) for key, value in re.findall(r"\.(\w+_count|\w+_fixed_size):\s+(\d+)", text)}
    registers = count["vgpr_count"] + count.get("agpr_count", 0)
    # scalar registers that do not fit go to lanes of vector registers, not to memory
    return registers, max(4 * count["vgpr_spill_count"], count["private_segment_fixed_size"])


def _output(command: list[Any]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    return done.stdout + done.stderr


def _measure_numbered(op: str, number: int, target: str) -> Report:
    return measure(list(registered(op, target))[number], target)


def tile_text(tile: Mapping[str, int]) -> str:
    """A tile in words: ``SLOTS=16 warps=4 stages=1``."""
    return " ".join(f"{name.removeprefix('num_')}={value}" for name, value in tile.items())


def digest(specs: Iterable[tuple[Any, str]]) -> str:
    """Twelve digits for the registered settings and their tiles, of (spec, target) pairs in any order."""
    lines = sorted(f"{s.name} | {s.label} | {target} | {tile_text(s.tile)}" for s, target in specs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def markdown(reports: Sequence[Report], compiler: str, settings: str) -> str:
    """What each kernel takes at most on each target, as a page; and every failure."""
    from clit_kernels.tile_table import shared_memory

    groups: dict[tuple[str, str], list[Report]] = {}
    for r in reports:
        groups.setdefault((r.kernel, r.target), []).append(r)
    failed = [r for r in reports if r.error]
    limits = ", ".join(f"{shared_memory(target)} on {target}" for target in TARGETS)
    lines = [
        "# The kernels, compiled ahead of time",
        "",
        "Written by `python kernels/compile_table.py --markdown kernels/COMPILED.md`; no GPU takes part. The",
        "tiles are those of `tile_tables/<chip>.json`, or the heuristics of `<op>/triton/tiles.py`.",
        "",
        "- settings: shapes, dtypes and kinds of queries; the other columns have the most of all",
        "- registers: of one thread (gfx942: vector and accumulation registers)",
        f"- shared: memory of one block in KiB, which may be {limits}",
        "- spills: bytes",
        "- matrix: the matrix instructions; float32 has none on NVIDIA's chips, tf32 has",
        "",
        f"{compiler}: {len(reports)} compiled, {len(failed)} failed; settings {settings}.",
        "",
        "| kernel | target | settings | registers | shared | spills | matrix |",
        "|---|---|---|---|---|---|---|",
    ]
    for (kernel, target), rows in groups.items():
        found = ", ".join(sorted({r.matrix for r in rows} - {"-"})) or "-"
        lines.append(
            f"| {kernel} | {target} | {len(rows)} | {max(r.registers for r in rows)} | "
            f"{max(r.shared for r in rows) / 1024:.1f} | {sum(r.spills for r in rows)} | {found} |"
        )
    lines += [f"\n{r.kernel} {r.label} on {r.target}, {r.tile}: **{r.error}**" for r in failed]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write beside the place and rename: a run cut short leaves the former file."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def main() -> int:
    """Print the table; 1 where a kernel fails, 2 where nothing was selected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all of them")
    parser.add_argument("--op", help="folder of one op; default: all")
    parser.add_argument("--kernel", help="only kernels whose name contains this")
    parser.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], help="only settings of this dtype")
    parser.add_argument("--match", default="", help="only settings whose description contains this")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write a summary of all of it to a page"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="default: all CPUs")
    args = parser.parse_args()
    if args.markdown and (args.target or args.op or args.kernel or args.dtype or args.match):
        parser.error("--markdown writes the whole table: leave out what selects a part of it")
    if importlib.util.find_spec("triton") is None:
        parser.error("Triton is not installed here, and it is the compiler; on Linux: pip install triton")

    work = []
    for target in args.target or TARGETS:
        numbers: dict[str, int] = {}
        for spec in registered(args.op, target):
            op = spec.name.partition("/")[0]
            number = numbers[op] = numbers.get(op, -1) + 1
            wanted = args.dtype is None or args.dtype in spec.label.split()
            if wanted and args.match in spec.label and (args.kernel or "") in spec.name:
                work.append((op, number, target))
    if not work:
        print("no registered kernel matches", file=sys.stderr)
        return 2
    reports = []
    print(
        f"{'kernel':36} {'target':7} {'setting':28} {'regs':>4} {'shared':>8} {'spill':>5} {'matrix':12} tile"
    )
    with ProcessPoolExecutor(min(args.jobs, len(work)), mp_context=get_context("spawn")) as pool:
        for r in pool.map(_measure_numbered, *zip(*work, strict=True)):
            kib = f"{r.shared / 1024:.1f}K"
            row = (
                f"{r.kernel:36} {r.target:7} {r.label:28} {r.registers:4} {kib:>8} {r.spills:5} {r.matrix:12}"
            )
            print(f"{row} {r.tile}{'  <- ' + r.error if r.error else ''}", flush=True)
            reports.append(r)
    failed = sum(bool(r.error) for r in reports)
    print(f"{len(reports)} compiled, {failed} failed")
    if args.markdown:
        settings = digest((spec, target) for target in TARGETS for spec in registered(None, target))
        write(args.markdown, markdown(reports, f"Triton {version('triton')}", settings))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
