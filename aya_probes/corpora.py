"""Parallel corpora: the same items in every language, from CLDR (offline) or FLORES.

``cldr`` gives names of territories, languages, currencies, units, months and days that CLDR has in
every language of the suite, through Babel: professionally reviewed, but names, not sentences, so
the share of items whose string equals the English one is recorded per language. ``flores`` gives
sentences, from a folder in the FLORES-200 layout or from ``openlanguagedata/flores_plus``.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import babel
from babel import localedata

from aya_probes import probes, suites
from aya_probes.errors import StudyError
from aya_probes.models import hub

CLDR_PER_KIND = 80  # stratified: no kind outweighs the others
CLDR_MINIMUM = 30
FLORES_REPO = "openlanguagedata/flores_plus"
FLORES_SPLIT = "devtest"


@dataclass(frozen=True)
class ParallelCorpus:
    """Aligned items: ``texts[language][n]`` is item ``ids[n]``."""

    ids: list[str]
    """Ids of the items."""
    texts: dict[str, list[str]]
    """The items by language, all in the order of ``ids``."""
    metadata: dict[str, Any]
    """Name, source, revision, licence, hash and share of strings equal to the pivot's."""


def _described(
    ids: list[str], texts: dict[str, list[str]], pivot: str, metadata: dict[str, Any]
) -> ParallelCorpus:
    content = hashlib.sha256()
    for code in sorted(texts):
        content.update("\n".join([code, *texts[code]]).encode())
    same = {
        code: round(
            sum(a == b for a, b in zip(texts[code], texts[pivot], strict=True)) / len(ids), 4
        )
        for code in texts
        if code != pivot
    }
    return ParallelCorpus(
        ids,
        texts,
        {**metadata, "items": len(ids), "identical_to_pivot": same, "sha256": content.hexdigest()},
    )


# --- CLDR -------------------------------------------------------------------------------------


def _plain(table: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in table.items()}


def _units(data: Any) -> dict[str, str]:
    patterns = data["unit_display_names"]
    return {str(key): str(names["long"]) for key, names in patterns.items() if names.get("long")}


_CLDR_KINDS: dict[str, Callable[[Any], dict[str, str]]] = {
    "territory": lambda data: _plain(data["territories"]),
    "language": lambda data: _plain(data["languages"]),
    "currency": lambda data: _plain(data["currency_names"]),
    "unit": _units,
    "month": lambda data: _plain(data["months"]["stand-alone"]["wide"]),
    "day": lambda data: _plain(data["days"]["stand-alone"]["wide"]),
}


def load_cldr(languages: Sequence[str], pivot: str) -> ParallelCorpus:
    """Return the CLDR names that exist in every language, stratified by kind.

    Items that read the same as another item of their language, or whose name is only the code
    itself, are left out. Raises StudyError for a language that CLDR does not have.
    """
    data = {code: _locale_data(code) for code in languages}
    ids: list[str] = []
    texts: dict[str, list[str]] = {code: [] for code in languages}
    counts = {}
    for kind, names_of in _CLDR_KINDS.items():
        names = {code: names_of(data[code]) for code in languages}
        chosen = _choose_names(kind, names)
        counts[kind] = len(chosen)
        ids += [f"{kind}-{key}" for key in chosen]
        for code in languages:
            texts[code] += [names[code][key] for key in chosen]
    if len(ids) < CLDR_MINIMUM:
        raise StudyError(
            f"--corpus cldr: only {len(ids)} names are shared by {', '.join(languages)}; "
            "use --corpus flores"
        )
    return _described(
        ids,
        texts,
        pivot,
        {
            "corpus": "cldr",
            "source": "Unicode CLDR through Babel",
            "revision": babel.__version__,
            "licence": "Unicode License V3",
            "kinds": counts,
        },
    )


def _locale_data(code: str) -> localedata.LocaleDataDict:
    """Return CLDR's data of a language, in a copy of its own.

    Babel's locales share the tables that a language inherits, and write into them what they look
    up: after Swahili's weekdays are read, another language that inherits the same table gets them.
    """
    try:
        name = str(babel.Locale.parse(code))
    except (babel.UnknownLocaleError, ValueError):
        raise StudyError(
            f"--corpus cldr: CLDR has no language {code!r}; use --corpus flores"
        ) from None
    return localedata.LocaleDataDict(copy.deepcopy(localedata.load(name)))


def _choose_names(kind: str, names: dict[str, dict[str, str]]) -> list[str]:
    """Return the keys of at most ``CLDR_PER_KIND`` names that every language has, by hash."""
    shared = set.intersection(*(set(table) for table in names.values()))
    usable = [
        key for key in sorted(shared) if all(_is_name(table[key], key) for table in names.values())
    ]
    for table in names.values():  # one item per name: no two items of a language read the same
        first: dict[str, str] = {}
        for key in usable:
            first.setdefault(table[key], key)
        usable = sorted(first.values())
    usable.sort(key=lambda key: hashlib.sha256(f"{kind}:{key}".encode()).hexdigest())
    return sorted(usable[:CLDR_PER_KIND])


def _is_name(name: str, key: str) -> bool:
    return bool(name.strip()) and name != key and any(char.isalpha() for char in name)


# --- FLORES -----------------------------------------------------------------------------------


def load_flores(
    languages: Sequence[str], pivot: str, folder: Path | None, limit: int | None
) -> ParallelCorpus:
    """Return FLORES devtest sentences from ``folder``, or from the hub where it is None.

    Raises StudyError for a missing file, a blank line or unequal line counts.
    """
    known = suites.load_languages()
    metadata: dict[str, Any] = {
        "corpus": "flores",
        "licence": "CC BY-SA 4.0",
        "split": FLORES_SPLIT,
    }
    if folder is not None:
        metadata |= {"source": "FLORES-200 folder", "revision": None}
        files = {c: folder / FLORES_SPLIT / f"{known[c].flores}.{FLORES_SPLIT}" for c in languages}
        texts = {code: _flores_file(path) for code, path in files.items()}
        named = {code: str(path) for code, path in files.items()}
    else:
        metadata |= {"source": FLORES_REPO}
        texts, metadata["revision"] = _flores_hub({c: known[c].flores for c in languages})
        named = {code: f"{FLORES_REPO}/{known[code].flores}" for code in languages}
    counts = {named[code]: len(lines) for code, lines in texts.items()}
    if len(set(counts.values())) != 1:
        raise StudyError(f"unequal line counts: {counts}; the corpus is not aligned")
    for code, lines in texts.items():
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                raise StudyError(f"{named[code]}: line {number} is blank")
            probes.check_text(line, f"{named[code]}: line {number}", "fix the corpus")
    if limit is not None:
        texts = {code: lines[:limit] for code, lines in texts.items()}
    ids = [f"{FLORES_SPLIT}-{n:04d}" for n in range(1, len(texts[pivot]) + 1)]
    return _described(ids, texts, pivot, metadata)


def _flores_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise StudyError(
            f"{path}: {error.strerror}; --flores-dir must hold "
            f"{FLORES_SPLIT}/eng_Latn.{FLORES_SPLIT} …"
        ) from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 ({error})") from None
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _flores_hub(configs: dict[str, str]) -> tuple[dict[str, list[str]], str]:
    """Return the sentences by language and the commit that they come from."""
    import datasets
    from pyarrow import ArrowException

    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    repository = hub.Repository(
        FLORES_REPO,
        "--corpus flores",
        "or give a folder with --flores-dir PATH, or use --corpus cldr",
        kind="dataset",
    )
    commit = hub.dataset_commit(repository)
    found: dict[str, tuple[list[str], list[Any]]] = {}
    commits = set()
    for code, config in configs.items():
        with hub.explain_errors(repository, datasets.exceptions.DatasetsError, ArrowException):
            builder = datasets.load_dataset_builder(FLORES_REPO, config, revision=commit)
            builder.download_and_prepare()
            table = builder.as_dataset(split=FLORES_SPLIT)
        if "text" not in table.column_names:
            columns = ", ".join(table.column_names)
            raise StudyError(f"{FLORES_REPO}/{config}: no column 'text', only {columns}")
        found[code] = (list(table["text"]), list(table["id"]) if "id" in table.column_names else [])
        commits.add(str(builder.hash))
    if len(commits | ({commit} if commit else set())) != 1:
        raise StudyError(
            f"{FLORES_REPO}: the cache mixes commits {', '.join(sorted(commits))}"
            f"{f' and not {commit}' if commit else ''}; run once with the hub reachable"
        )
    _check_same_ids({configs[code]: ids for code, (_, ids) in found.items()})
    return {code: lines for code, (lines, _) in found.items()}, commits.pop()


def _check_same_ids(ids: dict[str, list[Any]]) -> None:
    first, *others = ids
    for config in others:
        if ids[config] != ids[first]:
            raise StudyError(
                f"{FLORES_REPO}: the ids of {config} and {first} differ; the corpus is not aligned"
            )
