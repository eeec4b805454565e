"""Benchmarks as Markdown tables: speed, memory, waiting, the cost model.

They read benchmarks/results/*.json. A benchmark that was not run leaves the command that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aya_probes import files, project
from aya_probes.run_folder import RunPaths
from tables_alignment import markdown

RESULTS = project.ROOT / "benchmarks" / "results"
TITLES = {
    "ours": "**ours**",
    "ours_bf16": "**ours, bf16**",
    "naive": "naive loop",
    "base": "base-model loop",
    "padded": "batches of 16, padded",
    "sorted": "sorted batches, padded",
    "nnsight": "nnsight",
    "transformer_lens": "TransformerLens",
}


class NotRun(Exception):
    """A benchmark has left no numbers; the message is the command that makes them."""


COMMANDS = {
    "planted_run": "uv run benchmarks/planted_run.py",
    "gpu": "uv run benchmarks/gpu.py --flores-dir PATH",
    "extract": "uv run --group bench benchmarks/extract.py",
    "extract-mini": "uv run --group bench benchmarks/extract.py --model mini "
    "--out benchmarks/results/extract-mini.json",
}


def numbers(name: str) -> dict[str, Any]:
    """Return a benchmark's JSON."""
    path = RESULTS / f"{name}.json"
    command = COMMANDS.get(name, f"uv run benchmarks/{name}.py")
    if not path.is_file():
        raise NotRun(command)
    return dict(files.load_json(path, command))


def spread(value: dict[str, Any], digits: int = 2, scale: float = 1.0, unit: str = "") -> str:
    """Write ``median (min–max)``."""
    low, middle, high = (value[key] * scale for key in ("min", "median", "max"))
    return f"{middle:.{digits}f}{unit} ({low:.{digits}f}–{high:.{digits}f})"


def the_machine() -> str:
    """The machine of the extraction benchmark."""
    data = numbers("extract")
    box = data["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in box["versions"].items() if v)
    return (
        f"{box['processor']}, {box['cores']} cores, {box['memory_gib']} GiB, "
        f"{', '.join(box['instructions'])}; {box['system']}, Python {box['python']}, {versions}. "
        f"One thread, CPU time, {data['rounds']} interleaved rounds: median (smallest–largest)."
    )


def extraction() -> str:
    """Every way of every case of the random models."""
    return _ways(numbers("extract")["cases"])


def extraction_mini() -> str:
    """Every way on the embedded suite's real weights."""
    return _ways(numbers("extract-mini")["cases"])


def _ways(cases: dict[str, Any]) -> str:
    blocks = []
    for title, case in cases.items():
        low, _, middle, _, high = case["lengths"]
        rows = []
        for name, way in sorted(case["ways"].items(), key=lambda item: list(TITLES).index(item[0])):
            if "skip" in way:
                rows.append([TITLES[name], f"SKIP: {way['skip']}", "", "", "", "", ""])
                continue
            job, peak = way.get("speed_up_of_a_job"), way.get("extra_peak_mb")
            rows.append(
                [
                    TITLES[name],
                    spread(way["speed_up"]),
                    f"{job['median']:.2f}" if job else "",
                    spread(way["floor_share"], 0, 100, "%"),
                    f"{peak['median']:.0f}" if peak else "",
                    f"{way['peak_of_naive']['median']:.2f}" if peak else "",
                    f"{way['relative_error']:.1e} / {way['cosine_error']:.1e}",
                ]
            )
        rates = ", ".join(
            f"{spread(rate, 0)} in {'bf16' if 'bf16' in name else 'float32'}"
            for name, rate in case["gflop_per_s"].items()
        )
        blocks.append(
            f"**{title}** ({case['label']}); {case['texts']} texts of {low}–{high} tokens (median "
            f"{middle}), {case['tokens']:,} in all. Floor: {rates} GFLOP/s.\n\n"
            + markdown(
                [
                    "way",
                    "x naive",
                    "x naive, whole job",
                    "of the floor",
                    "extra peak MB",
                    "peak / naive's",
                    "error: relative / cosine",
                ],
                rows,
            )
        )
    return "\n\n".join(blocks)


def bars() -> str:
    """The bars of this project and where ours stands."""
    data, rows = numbers("extract")["cases"], []
    for case, way, field, bar, what in (
        ("A probes", "ours", "speed_up", 2.7, "x naive"),
        ("A mixed", "ours", "speed_up", 2.0, "x naive"),
        ("A long", "ours", "speed_up", 2.0, "x naive"),
        ("B mixed", "ours", "speed_up", 1.9, "x naive"),
        ("A probes", "ours", "floor_share", 0.85, "of the floor"),
        ("A mixed", "ours", "floor_share", 0.85, "of the floor"),
        ("A long", "ours", "floor_share", 0.85, "of the floor"),
        ("B mixed", "ours", "floor_share", 0.90, "of the floor"),
        ("A mixed", "ours_bf16", "speed_up", 6.0, "x naive float32"),
        ("B mixed", "ours_bf16", "speed_up", 6.0, "x naive float32"),
    ):
        if case not in data or way not in data[case]["ways"]:
            continue
        ways = data[case]["ways"]
        found = ways[way][field]
        met = "yes" if found["median"] >= bar else "**no**"
        # No way can be faster than the floor: what the floor itself would reach.
        most = 1 / ways["naive"]["floor_share"]["median"]
        limit = f"{most:.2f}" if field == "speed_up" and way == "ours" else ""
        ahead = _ahead(ways, way) if field == "speed_up" else ""
        rows.append([case, TITLES[way], what, f"{bar:g}", spread(found), met, limit, ahead])
    return markdown(
        ["case", "way", "", "bar", "measured", "met", "the floor's own", "best peer, ours / it"],
        rows,
    )


def _ahead(ways: dict[str, Any], mine: str) -> str:
    """Return the best peer and how far ahead of it we are, worst and best rounds paired."""
    peers = {
        name: way["speed_up"]
        for name, way in ways.items()
        if not name.startswith("ours") and "speed_up" in way
    }
    best = max(peers, key=lambda name: float(peers[name]["median"]))
    ours, theirs = ways[mine]["speed_up"], peers[best]
    low, high = ours["min"] / theirs["max"], ours["max"] / theirs["min"]
    return f"{TITLES[best]}, {ours['median'] / theirs['median']:.2f} ({low:.2f}–{high:.2f})"


def analysis_cost() -> str:
    """What the analysis costs at Tiny Aya's size, on noise."""
    cost = numbers("planted_run")
    size = (
        "5 variants, 45 language pairs, 37 layers and `final_norm`, hidden size 2048, no parallel "
        "corpus, 10,000 resamples and permutations"
    )
    return (
        f"`concept_alignment.py` at Tiny Aya's size ({size}) takes "
        f"{cost['cpu_seconds']:.0f} s of CPU time and {cost['peak_gib']:.2f} GiB of memory on "
        f"simulated noise (`{COMMANDS['planted_run']}`)."
    )


def pipeline_cost() -> str:
    """What the README's command costs."""
    data = numbers("pipeline_cost")
    box = data["machine"]
    rows = [
        [f"{name} run", f"{run['seconds']:.0f} s", f"{run['peak_gb']:.1f} GB"]
        for name, run in data["runs"].items()
    ]
    return (
        f"`uv run pipeline.py` on {box['processor']}, {box['cores']} cores, {box['system']}, "
        f"Python {box['python']} (`uv run benchmarks/pipeline_cost.py`):\n\n"
    ) + markdown(["", "wall time", "peak memory of a process"], rows)


def gpu() -> str:
    """Extraction of the full shape on a GPU."""
    data = numbers("gpu")
    rows = [
        ["texts, tokens", f"{data['texts']:,}, {data['tokens']:,}"],
        ["one variant, cold", f"{data['cold_s']:.1f} s"],
        ["one variant, warm", spread(data["warm_s"], 2, unit=" s")],
        ["three variants, warm (bar 30 s)", spread(data["job_s"], 1, unit=" s")],
        ["tokens a second, warm", spread(data["tokens_per_s"], 0)],
        ["of the bf16 matrix rate (bar 50%)", spread(data["share_of_gemm"], 0, 100, "%")],
        ["matrix rate", f"{data['gemm_tflop_per_s']:.0f} TFLOP/s"],
        ["peak memory of the device (bar 12 GiB)", f"{data['peak_gib']} GiB"],
        ["smallest cosine with the CPU, float32 (bar 0.9999)", f"{data['parity_cosine']:.6f}"],
    ]
    return f"{data['device']}\n\n" + markdown(["Tiny Aya shape, random weights", ""], rows)


def or_command(table: Callable[[], str]) -> Callable[[RunPaths], str]:
    """Return the table as the documents ask for it; benchmarks belong to no run folder."""

    def filled(paths: RunPaths) -> str:
        try:
            return table()
        except NotRun as command:
            return f"Not measured yet: `{command}`."

    return filled


_FUNCTIONS = (
    the_machine,
    extraction,
    extraction_mini,
    bars,
    analysis_cost,
    pipeline_cost,
    gpu,
)
TABLES = {table.__name__: or_command(table) for table in _FUNCTIONS}
