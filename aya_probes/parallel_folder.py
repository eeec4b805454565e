"""The parallel corpus of any folder of line-parallel texts, such as TICO-19.

Line n of every file is the same sentence in another language. The language of a file is the part of
its name before the first dot: a BCP-47 tag (``hi.txt``, ``sr-Latn.txt``) or a name of FLORES
(``hin_Deva.devtest``). ``languages.tsv`` names the language of other files, one code, a tab and a
file name per line. ``documents.tsv`` has the id of each line's document, one per line.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import langcodes

from aya_probes import corpora, errors, suites
from aya_probes.corpora import ParallelCorpus
from aya_probes.errors import StudyError

CORPUS = "parallel"
MAPPING, DOCUMENTS = "languages.tsv", "documents.tsv"
_MAP_IT = f"name it after the language (BCP-47), or map it in {MAPPING} (code, tab, file name)"
_LISTED = 10  # files that a message names


def load_folder(
    languages: Sequence[str], pivot: str, folder: Path, limit: int | None
) -> ParallelCorpus:
    """Return the sentences of those ``languages`` that have a file; a warning names the others.

    Raises StudyError without a file of the pivot or of another language, for unequal line counts
    and for a blank line.
    """
    found = find_files(folder)
    paths = {code: found.paths[code] for code in languages if code in found.paths}
    if pivot not in paths or len(paths) < 2:
        wanted = f"the pivot {pivot!r}" if pivot not in paths else f"any language but {pivot!r}"
        raise StudyError(f"{folder}: no file of {wanted}; {_MAP_IT}; {found.describe()}")
    missing = [code for code in languages if code not in paths]
    if missing:
        errors.warn(f"{folder}: no file of {', '.join(missing)}, which are left out; {_MAP_IT}")
    if found.unknown:
        errors.warn(f"{folder}: not read, as their language is unknown: {_list(found.unknown)}")
    texts = {code: corpora.read_lines(path, _MAP_IT) for code, path in paths.items()}
    corpora.check_aligned(texts, {code: str(path) for code, path in paths.items()}, pivot)
    documents = _documents(folder, len(texts[pivot]))
    if limit is not None:
        texts = {code: lines[:limit] for code, lines in texts.items()}
        documents = documents[:limit] if documents else None
    metadata = {
        "corpus": CORPUS,
        "source": "folder of line-parallel texts",
        "revision": None,
        "licence": "that of the folder",
        "files": {code: path.name for code, path in paths.items()},
    }
    ids = [f"line-{n:04d}" for n in range(1, len(texts[pivot]) + 1)]
    return corpora.describe(ids, texts, pivot, metadata, documents)


@dataclass(frozen=True)
class Found:
    """The files of a folder."""

    paths: dict[str, Path] = field(default_factory=dict)
    """The file of each known language."""
    unknown: list[str] = field(default_factory=list)
    """The names of all other files."""

    def describe(self) -> str:
        """Return what was found, in one line."""
        names = [path.name for path in self.paths.values()]
        return f"found: {_list(names) or 'no file of a known language'}; other files: " + (
            _list(self.unknown) or "none"
        )


def find_files(folder: Path) -> Found:
    """Return the file of each language in ``folder``, by mapping file and by name.

    Raises StudyError for two files of one language.
    """
    try:
        present = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise StudyError(
            f"--parallel-dir: {folder}: {error.strerror}; give a folder of texts"
        ) from None
    mapped = _mapped(folder)
    found = Found()
    for path in present:
        if path.name in (MAPPING, DOCUMENTS) or path.name.startswith("."):
            continue
        code = mapped.get(path.name) or language_of(path.name.partition(".")[0])
        if code is None:
            found.unknown.append(path.name)
        elif code in found.paths:
            raise StudyError(
                f"{folder}: {found.paths[code].name} and {path.name} are both {code}; remove one, "
                f"or map it in {MAPPING} (code, tab, file name)"
            )
        else:
            found.paths[code] = path
    return found


def _mapped(folder: Path) -> dict[str, str]:
    """Return the language of each file that the mapping file names; none without such a file."""
    path, found = folder / MAPPING, dict[str, str]()
    if not path.is_file():
        return found
    for number, line in enumerate(corpora.read_lines(path, "fix it"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}: line {number}"
        name, _, file = (part.strip() for part in line.partition("\t"))
        if not name or not file:
            raise StudyError(f"{where} must be a code, a tab and a file name, is {line!r}")
        code = language_of(name)
        if code is None:
            raise StudyError(
                f"{where}: unknown language {name!r}; write a code of data/languages.toml"
            )
        if Path(file).name != file or not (folder / file).is_file():
            raise StudyError(f"{where}: no file {file!r} in this folder; fix its name")
        if file in found:
            raise StudyError(f"{where}: {file} has two languages; keep one")
        found[file] = code
    return found


def language_of(name: str) -> str | None:
    """Return the known language that a tag or a FLORES name stands for; None if there is none.

    Equivalent tags are one language: ``zh`` is ``zh-Hans``, ``tl`` is ``fil``, ``pt-BR`` is ``pt``.
    """
    known = suites.load_languages()
    if name in known:
        return name
    renamed = corpora.FLORES_RENAMED
    for code, language in known.items():
        if name in (language.flores, renamed.get(language.flores)):
            return code
    tag = _full_tag(name)
    return None if tag is None else _by_full_tag(tuple(known)).get(tag)


@functools.cache
def _by_full_tag(codes: tuple[str, ...]) -> Mapping[str, str]:
    """Return the language of each tag written out in full; an ambiguous one has none."""
    tags = {code: _full_tag(code) for code in codes}
    counts = list(tags.values())
    return {tag: code for code, tag in tags.items() if tag is not None and counts.count(tag) == 1}


@functools.cache
def _full_tag(tag: str) -> str | None:
    """Return a tag with its macrolanguage, usual script and region; None if it is no valid tag."""
    if not langcodes.tag_is_valid(tag):
        return None
    return langcodes.get(langcodes.standardize_tag(tag, macro=True)).maximize().to_tag()


def _documents(folder: Path, expected: int) -> list[str] | None:
    """Return the document of each line; None without the file."""
    path = folder / DOCUMENTS
    if not path.is_file():
        errors.warn(
            f"{path}: missing, so all sentences count as independent; if some are of one document, "
            "write the document's id of each line into it"
        )
        return None
    ids = corpora.read_lines(path, "fix it")
    if len(ids) != expected:
        raise StudyError(f"{path}: {len(ids)} lines, but the texts have {expected}; fix it")
    if blank := [str(n) for n, name in enumerate(ids, start=1) if not name.strip()]:
        raise StudyError(f"{path}: line {blank[0]} is blank; write the id of a document")
    return ids


def _list(names: Sequence[str]) -> str:
    """Return up to 10 names in one line, and how many there are more."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
