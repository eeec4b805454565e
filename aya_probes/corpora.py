"""Parallel corpora: the same items in every language, from CLDR (offline) or FLORES.

``cldr`` has the names of territories, languages, currencies, units, months and days that CLDR gives
in every language of the suite, read through Babel. They are professionally reviewed. Many names
are the same in two languages, so the share equal to the pivot's is recorded for each language.
``flores`` has sentences, from a FLORES-200 folder or from ``openlanguagedata/flores_plus``.
``parallel_folder`` reads any other folder of line-parallel texts.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import babel
from babel import localedata

from aya_probes import errors, files, probes, suites
from aya_probes.errors import StudyError
from aya_probes.models import hub

CLDR_PER_KIND = 80  # so that no kind of name dominates
CLDR_MINIMUM = 30  # names that all languages must share
FLORES_REPO = "openlanguagedata/flores_plus"
FLORES_SPLIT = "devtest"
FLORES_RENAMED = {  # FLORES-200's name of a language -> that in FLORES+
    "aka_Latn": "twi_Latn_asan1239",
    "ajp_Arab": "apc_Arab_sout3123",
    "apc_Arab": "apc_Arab_nort3139",
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "kon_Latn": "ktu_Latn",
    "tgl_Latn": "fil_Latn",
    "twi_Latn": "twi_Latn_akua1239",
    "tzm_Tfng": "zgh_Tfng",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}
_FLORES_HINT = f"--flores-dir must hold {FLORES_SPLIT}/eng_Latn.{FLORES_SPLIT} …"
_FLORES_200 = {new: old for old, new in FLORES_RENAMED.items()}


@dataclass(frozen=True)
class ParallelCorpus:
    """Aligned items: ``texts[language][n]`` is item ``ids[n]`` in that language."""

    ids: list[str]
    """Ids of the items."""
    texts: dict[str, list[str]]
    """The texts by language, in the order of ``ids``."""
    metadata: dict[str, Any]
    """Name, source, revision, licence, hash, and share of texts equal to the pivot's."""
    documents: list[int]
    """The document that each item comes from, numbered from 0; an item without one is its own."""


def describe(
    ids: list[str],
    texts: dict[str, list[str]],
    pivot: str,
    metadata: dict[str, Any],
    documents: list[str] | None = None,
) -> ParallelCorpus:
    """Return a corpus with its size, hash and shares of texts equal to the pivot's.

    ``documents`` names the document of each item; None if every item is its own.
    """
    content = hashlib.sha256()
    for code in sorted(texts):
        content.update("\n".join([code, *texts[code]]).encode())
    numbers: dict[str, int] = {}
    known = [numbers.setdefault(name, len(numbers)) for name in documents or ids]
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
        {
            **metadata,
            "items": len(ids),
            "documents": len(numbers),
            "identical_to_pivot": same,
            "sha256": content.hexdigest(),
        },
        known,
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
    """Return the CLDR names that exist in every language, at most 80 of each kind.

    A name is left out if another item of its language has it too, or if it is only the code of the
    item. Raises StudyError for a language that CLDR lacks, and for fewer than 30 names.
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
            f"--corpus cldr: {', '.join(languages)} share only {len(ids)} names; "
            "use --corpus flores"
        )
    return describe(
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
    """Return an independent copy of CLDR's data of a language.

    In Babel, languages share the tables that they inherit, and a look-up writes into them: after
    Swahili's weekdays are read, another language that inherits the same table has them too.
    """
    try:
        name = str(babel.Locale.parse(code, sep="-"))
    except (babel.UnknownLocaleError, ValueError):
        raise StudyError(
            f"--corpus cldr: CLDR has no language {code!r}; use --corpus flores"
        ) from None
    return localedata.LocaleDataDict(copy.deepcopy(localedata.load(name)))


def _choose_names(kind: str, names: dict[str, dict[str, str]]) -> list[str]:
    """Return the keys of ``CLDR_PER_KIND`` names, or fewer, that all languages have (by hash)."""
    shared = set.intersection(*(set(table) for table in names.values()))
    usable = [
        key for key in sorted(shared) if all(_is_name(table[key], key) for table in names.values())
    ]
    for table in names.values():  # keep one item per name: no two items of a language are equal
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
    """Return FLORES devtest sentences from ``folder``; None means the Hugging Face hub.

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
        paths = {code: _flores_path(folder, known[code].flores) for code in languages}
        texts = {code: read_lines(path, _FLORES_HINT) for code, path in paths.items()}
        urls = None
        named = {code: str(path) for code, path in paths.items()}
    else:
        metadata |= {"source": FLORES_REPO}
        configs = {c: FLORES_RENAMED.get(known[c].flores, known[c].flores) for c in languages}
        texts, metadata["revision"], urls = _flores_hub(configs)
        named = {code: f"{FLORES_REPO}/{config}" for code, config in configs.items()}
    check_aligned(texts, named, pivot)
    documents = _flores_documents(folder, len(texts[pivot])) if folder is not None else urls
    if limit is not None:
        texts = {code: lines[:limit] for code, lines in texts.items()}
        documents = documents[:limit] if documents else None
    ids = [f"{FLORES_SPLIT}-{n:04d}" for n in range(1, len(texts[pivot]) + 1)]
    return describe(ids, texts, pivot, metadata, documents)


def check_aligned(texts: Mapping[str, Sequence[str]], named: Mapping[str, str], pivot: str) -> None:
    """Check the lines of each language; ``named`` holds the name of its file.

    Raises StudyError for another number of lines than the pivot's, a blank line or hidden
    characters.
    """
    expected = len(texts[pivot])
    wrong = [f"{named[c]} has {len(t)}" for c, t in texts.items() if len(t) != expected]
    if wrong:
        raise StudyError(
            f"the corpus is not aligned: line counts differ: {named[pivot]} has {expected}, but "
            f"{', '.join(wrong)}; line n of every file must translate line n of the pivot's"
        )
    if not expected:
        raise StudyError(f"{named[pivot]}: no lines; fill it")
    for code, lines in texts.items():
        for number, line in enumerate(lines, start=1):
            where = f"{named[code]}: line {number}"
            if not line.strip():
                raise StudyError(
                    f"{where} is blank; translate it, or remove the line from every file"
                )
            probes.check_text(line, where, "fix the corpus")


def _flores_documents(folder: Path, expected: int) -> list[str] | None:
    """Return the article of each sentence, from FLORES-200's metadata file; None without one."""
    path = folder / f"metadata_{FLORES_SPLIT}.tsv"
    if not path.is_file():
        errors.warn(
            f"{path}: missing, so sentences of one article count as independent and intervals are "
            "too narrow; it is part of FLORES-200"
        )
        return None
    header, *lines = read_lines(path, _FLORES_HINT)
    columns = header.split("\t")
    if "URL" not in columns:
        raise StudyError(f"{path}: no column URL, only {', '.join(columns)}; fetch it again")
    rows = [line.split("\t") for line in lines]
    urls = [row[columns.index("URL")] for row in rows if len(row) == len(columns)]
    if len(urls) != expected:
        raise StudyError(
            f"{path}: {len(urls)} whole rows, but the corpus has {expected} lines; fetch it again"
        )
    return urls


def _flores_path(folder: Path, name: str) -> Path:
    """Return the file of a language, under the name that it has in FLORES-200 or in FLORES+."""
    paths = [
        folder / FLORES_SPLIT / f"{code}.{FLORES_SPLIT}"
        for code in (name, FLORES_RENAMED.get(name), _FLORES_200.get(name))
        if code is not None
    ]
    return next((path for path in paths if path.is_file()), paths[0])


def read_lines(path: Path, hint: str) -> list[str]:
    """Return the lines of a text file (UTF-8); StudyError with ``hint`` if it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{path}: {error.strerror}; {hint}") from None
    lines = files.decode(content, str(path), "fetch the corpus again").split("\n")
    while lines and not lines[-1].strip():  # blank lines at the end are no sentences
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def _flores_hub(
    configs: dict[str, str],
) -> tuple[dict[str, list[str]], str, list[str] | None]:
    """Return the sentences by language, the commit that they come from, and their articles."""
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
    commits, urls = set(), None
    for code, config in configs.items():
        with hub.explain_errors(repository, datasets.exceptions.DatasetsError, ArrowException):
            builder = _flores_builder(code, config, commit)
            builder.download_and_prepare()
            if FLORES_SPLIT not in (builder.info.splits or {FLORES_SPLIT}):
                raise StudyError(
                    f"{FLORES_REPO}/{config}: no {FLORES_SPLIT} sentences; leave {code} out "
                    "(--languages)"
                )
            table = builder.as_dataset(split=FLORES_SPLIT)
        if "text" not in table.column_names:
            columns = ", ".join(table.column_names)
            raise StudyError(f"{FLORES_REPO}/{config}: no column 'text', only {columns}")
        found[code] = (list(table["text"]), list(table["id"]) if "id" in table.column_names else [])
        if urls is None and "url" in table.column_names:
            urls = [str(url) for url in table["url"]]
        commits.add(str(builder.hash))
    if len(commits | ({commit} if commit else set())) != 1:
        raise StudyError(
            f"{FLORES_REPO}: the cache mixes commits {', '.join(sorted(commits))}"
            f"{f' and not {commit}' if commit else ''}; run once with the hub reachable"
        )
    _check_same_ids({configs[code]: ids for code, (_, ids) in found.items()})
    return {code: lines for code, (lines, _) in found.items()}, commits.pop(), urls


def _flores_builder(code: str, config: str, commit: str | None) -> Any:
    """Return the builder of one language; raises StudyError for a config that FLORES+ lacks."""
    import datasets

    try:
        return datasets.load_dataset_builder(FLORES_REPO, config, revision=commit)
    except ValueError as error:
        if "BuilderConfig" not in str(error):
            raise
        raise StudyError(
            f"{FLORES_REPO} has no config {config}; fix `flores` of {code} in "
            f"data/languages.toml, or leave {code} out (--languages)"
        ) from None


def _check_same_ids(ids: dict[str, list[Any]]) -> None:
    first, *others = ids
    for config in others:
        if ids[config] != ids[first]:
            raise StudyError(
                f"{FLORES_REPO}: the ids of {config} and {first} differ; the corpus is not aligned"
            )
