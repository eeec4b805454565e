"""The original study's published curves, re-analysed; never a run of this project."""

from __future__ import annotations

from typing import Any

MAKE_PUBLISHED = "uv run viz/published_reanalysis.py"


def ratio_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the published headline ratios, per language."""

    def ratio(entry: dict[str, float]) -> str:
        return f"{entry['estimate']:+.0%} [{entry['lower']:+.0%}, {entry['upper']:+.0%}]"

    header, rows = ["language"], []
    for variant in ("fire", "earth"):
        header += [f"{variant} / base, own peaks (layers)",
                   f"{variant} / base, layer {found['matched_layer']}"]  # fmt: skip
    for code in found["claims"]["fire"]:
        line = [code]
        for variant in ("fire", "earth"):
            entry = found["claims"][variant][code]
            layers = " vs ".join(map(str, entry["layers_compared"]))
            line += [f"{ratio(entry['own_peaks'])} ({layers})", ratio(entry["at_matched_layer"])]
        start = found["layer_0"]["base"][code]
        fixed = ", the same for all concepts" if start["constant"] else ""
        rows.append([*line, f"{start['cosine']:.2f}{fixed}"])
    return [*header, "base, cosine at layer 0"], rows
