"""The schema of the files on disk as Markdown tables, from the records' own documentation."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from aya_probes import records
from aya_probes.extraction.plan import Inputs as PlanInputs
from aya_probes.extraction.plan import Plan, Shard
from aya_probes.results import alignment, behaviour, curves, failures, run_info, tables
from aya_probes.run_folder import RunPaths
from tables_alignment import markdown

KINDS: dict[str, type[Any]] = {
    "plan": Plan,
    "plan_inputs": PlanInputs,
    "plan_shard": Shard,
    "curves_file": alignment.CurvesFile,
    "curve": curves.Curve,
    "run_info": run_info.RunInfo,
    "provenance": run_info.Provenance,
    "variant_provenance": run_info.VariantProvenance,
    "inputs": curves.Inputs,
    "tokens": curves.Tokens,
    "cue": curves.Cue,
    "shape": curves.Shape,
    "curve_row": tables.CurveRow,
    "layers": tables.Layers,
    "contrast": tables.Contrast,
    "language_pair": tables.LanguagePair,
    "failure_case": failures.FailureCase,
    "category_test": failures.CategoryTest,
    "borrowed_words": failures.BorrowedWords,
    "behaviour": behaviour.Behaviour,
    "behaviour_summary": behaviour.BehaviourSummary,
    "loss_test": behaviour.LossTest,
    "case_decision": behaviour.CaseDecision,
    "edge_case_file": failures.EdgeCaseFile,
    "edge_case": failures.EdgeCase,
    "evidence": failures.Evidence,
}


def _type_name(hint: Any) -> str:
    text = getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint)
    for prefix in ("aya_probes.results.", "aya_probes.extraction.", "typing."):
        text = text.replace(prefix, "")
    for module in ("alignment.", "curves.", "run_info.", "tables.", "failures.", "plan."):
        text = text.replace(module, "")
    return text.replace("|", "or").replace("NoneType", "None")


def _table(kind: type[Any]) -> Callable[[RunPaths], str]:
    def describe(paths: RunPaths) -> str:
        hints = typing.get_type_hints(kind)
        rows = [
            (f"`{name}`", _type_name(hints[name]), text.replace("|", "or"))
            for name, text in records.describe(kind).items()
        ]
        return markdown(["field", "type", "meaning"], rows)

    return describe


TABLES = {f"record_{name}": _table(kind) for name, kind in KINDS.items()}
