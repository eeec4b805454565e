"""Turn what the lens measured on a cell into its rows of the result tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_probes import files, records
from aya_probes.alignment import inference
from aya_probes.lens import accuracy, claims
from aya_probes.lens.claims import CellLanguages, LensTests, Tested
from aya_probes.results.lens import LensCell, LensQuality, LensRow
from aya_probes.stage_files import StageFile


@dataclass(frozen=True)
class Draws:
    """The random draws of the analysis."""

    count: int
    """Permutations, and bootstrap resamples."""
    seed: int
    """Their seed."""


@dataclass(frozen=True)
class VariantLens:
    """What the lens stage measured on one variant."""

    variant: str
    """Its name."""
    settings: Mapping[str, Any]
    """The settings that it was measured with."""
    inputs_sha256: str
    """Hash of what decides the numbers, and of the rows."""
    arrays_sha256: str | None
    """Hash of the arrays."""
    tokens: Mapping[str, Any]
    """The row about first tokens."""
    cells: Sequence[Mapping[str, Any]]
    """A row per cell."""
    fit: Mapping[str, Any] | None
    """The row about the fitted lens; None without a testable cell."""
    arrays: Mapping[str, np.ndarray]
    """The arrays of testable cells (lens.stage)."""

    def quality(self) -> LensQuality | None:
        """Return how well the lenses predict the last layer."""
        if self.fit is None:
            return None
        curves = {
            name: tuple(files.finite_list(np.array(self.fit[name])))
            for name in ("r2_plain", "r2_fitted", "kl_plain", "kl_fitted")
        }
        return LensQuality(tokens=self.fit["tokens"], penalty=tuple(self.fit["penalty"]), **curves)


def from_file(variant: str, content: StageFile, arrays: Mapping[str, np.ndarray]) -> VariantLens:
    """Return a variant's measurements from its file."""
    by_kind: dict[str, list[dict[str, Any]]] = {"tokens": [], "cell": [], "fit": []}
    for row in content.rows:
        by_kind[row["kind"]].append(row)
    return VariantLens(
        variant,
        content.inputs.settings,
        files.digest([records.to_json(content.inputs), content.rows]),
        content.arrays_sha256,
        by_kind["tokens"][0],
        by_kind["cell"],
        by_kind["fit"][0] if by_kind["fit"] else None,
        arrays,
    )


def analyse(
    measured: VariantLens, row: Mapping[str, Any], pivot: str, draws: Draws
) -> tuple[LensCell, list[LensRow]]:
    """Return a cell's row, and its rows by layer and language where it is testable."""
    rates = list(row["rates"].values())
    total, n = sum(rates), len(rates)
    lower, upper = accuracy.wilson(total, n)
    languages = CellLanguages(
        tuple(measured.tokens["languages"]), row["source"], row["target"], pivot
    )
    lenses: tuple[LensTests, LensTests] | None = None
    if row["testable"]:
        orders = inference.permutations(n, draws.count, draws.seed)
        plain, fitted = (
            claims.compare_languages(_table(measured, row, lens), languages, orders)
            for lens in ("plain", "fitted")
        )
        lenses = (plain, fitted)
    found = _Found(measured.variant, row, languages, lenses, draws)
    cell = LensCell(
        variant=measured.variant,
        task=row["task"],
        source=row["source"],
        target=row["target"],
        concepts=n,
        prompts=row["prompts"],
        accuracy=total / n,
        lower=lower,
        upper=upper,
        chance=1 / n,
        status=_status(row, total, n),
        **found.claims(),
    )
    return cell, found.rows(measured.arrays)


def _status(row: Mapping[str, Any], total: float, n: int) -> str:
    if row["testable"]:
        return "testable"
    if accuracy.above_chance(list(row["rates"].values())):
        return f"untestable (words {row['words']} of {n})"
    return f"untestable (accuracy {total:.3g} of {n})"


def _table(measured: VariantLens, row: Mapping[str, Any], lens: str) -> np.ndarray:
    """Return a lens's table of a cell, square in the concepts that were asked."""
    order = list(measured.tokens["concepts"])
    places = [order.index(name) for name in row["rates"]]
    return measured.arrays[f"{row['cell']}/{lens}"][..., places].astype(np.float64)


@dataclass(frozen=True)
class _Found:
    """A cell and its tests."""

    variant: str
    row: Mapping[str, Any]
    languages: CellLanguages
    lenses: tuple[LensTests, LensTests] | None
    draws: Draws

    def _weights(self, n: int) -> np.ndarray:
        return inference.resample_weights(n, self.draws.count, self.draws.seed)

    def _onset(self, language: str) -> int | None:
        """Return the first layer at which a language is present in both lenses."""
        assert self.lenses is not None
        both = set(self.lenses[0].layers_present(language))
        both &= set(self.lenses[1].layers_present(language))
        return min(both, default=None)

    def claims(self) -> dict[str, Any]:
        """Return the columns of ``LensCell`` that depend on the tests."""
        empty = dict.fromkeys(
            (
                "lead",
                "lead_lower",
                "lead_upper",
                "detectable",
                "onset_pivot",
                "onset_source",
                "onset_target",
            )
        )
        if self.lenses is None:
            return {**empty, "verdict": "", "lead_layers": "", "other_leads": ""}
        made = claims.claim(*self.lenses, self.languages)
        found: dict[str, Any] = {
            **empty,
            "verdict": made.verdict,
            "lead_layers": f"{made.layers[0]}-{made.layers[-1]}" if made.layers else "",
            "other_leads": "+".join(made.others),
            "onset_pivot": self._onset(self.languages.pivot),
            "onset_source": self._onset(self.languages.source),
            "onset_target": self._onset(self.languages.target),
        }
        lead = self.lenses[0].leads.get(self.languages.pivot)
        if made.verdict and lead is not None:
            found["detectable"] = float(np.median(inference.detectable(lead.values[1:])))
            if made.layers:
                values = lead.values[list(made.layers)].mean(0)
                low, high = inference.expanded_interval(values, self._weights(len(values)))
                found |= {
                    "lead": float(values.mean()),
                    "lead_lower": float(low),
                    "lead_upper": float(high),
                }
        return found

    def _role(self, language: str) -> str:
        for role in ("target", "pivot", "source"):
            if language == getattr(self.languages, role):
                return role
        return "other"

    def rows(self, arrays: Mapping[str, np.ndarray]) -> list[LensRow]:
        """Return a row per language and layer; none for an untestable cell."""
        if self.lenses is None:
            return []
        plain, fitted = self.lenses
        name = self.row["cell"]
        few = {k: arrays[f"{name}/{k}"] for k in ("probability", "control", "spread")}
        made: list[LensRow] = []
        for place, language in enumerate(self.languages.names):
            if language in plain.present and language in fitted.present:
                own = plain.present[language]
                columns = {
                    "advantage": own.mean,
                    "p": own.p,
                    "advantage_fitted": fitted.present[language].mean,
                    "p_fitted": fitted.present[language].p,
                    "lead_p": _p(plain.leads.get(language), own),
                    "lead_p_fitted": _p(fitted.leads.get(language), own),
                    "probability": _mean(few["probability"][:, :, place]),
                }
                low, high = own.interval(self._weights(int(own.kept.sum())))
                columns |= {"lower": low, "upper": high, **self._about(language, few)}
                made += self._language_rows(language, int(own.kept.sum()), columns)
        return made

    def _language_rows(
        self, language: str, n: int, columns: Mapping[str, np.ndarray]
    ) -> list[LensRow]:
        """Return a language's rows from columns by layer; NaN becomes an empty cell."""
        empty = dict.fromkeys(("control", "control_mean", "entropy", "rank", "jsd"))
        return [
            LensRow(
                variant=self.variant,
                task=self.row["task"],
                source=self.row["source"],
                target=self.row["target"],
                language=language,
                role=self._role(language),
                layer=layer,
                n=n,
                **{
                    **empty,
                    **{
                        name: files.finite(float(column[layer])) for name, column in columns.items()
                    },
                },  # type: ignore[arg-type]
            )
            for layer in range(len(columns["p"]))
        ]

    def _about(self, language: str, few: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what stands on the pivot's rows (controls) and the target's (the layer itself)."""
        found: dict[str, np.ndarray] = {}
        if language == self.languages.pivot:
            matched, everyone = _mean(few["control"]).T
            found |= {"control": matched, "control_mean": everyone}
        if language == self.languages.target:
            entropy, _, jsd = few["spread"].mean(0).T
            rank = _median(few["spread"][..., 1])
            found |= {"entropy": entropy, "rank": rank, "jsd": jsd}
        return found


def _p(tested: Tested | None, like: Tested) -> np.ndarray:
    """Return p-values by layer, NaN for what was not tested."""
    return np.full(len(like.values), np.nan) if tested is None else tested.p


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over prompts of those that have a value; NaN where none has."""
    known = np.isfinite(values)
    total = np.where(known, values, 0).sum(0)
    return np.asarray(np.where(known.any(0), total / known.sum(0).clip(1), np.nan))


def _median(values: np.ndarray) -> np.ndarray:
    """Return the median over prompts of those that have a value; NaN where none has."""
    known = values[np.isfinite(values).all(axis=1)]
    return np.median(known, axis=0) if len(known) else np.full(values.shape[1], np.nan)
