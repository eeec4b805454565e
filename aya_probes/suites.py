"""Suites: variants of one model, and the languages to compare, declared in TOML.

The code has no model names, layer counts or lists of languages: they are in ``data/suites/`` and
``data/languages.toml``.

``[defaults]`` gives keys to every variant of the file. ``extends = "mini"`` (a shipped suite, or
the path of a TOML file) inherits all keys of another suite. The file's own keys override them, and
a variant of the same name is replaced completely.
"""

from __future__ import annotations

import functools
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aya_probes import errors, project
from aya_probes.toml_tables import Table, check_types, read_toml, short

SUITE_DIR = project.ROOT / "data" / "suites"
LANGUAGE_FILE = project.ROOT / "data" / "languages.toml"
DEFAULT_SUITE = "mini"
ROLES = ("base", "control", "regional", "untrained", "seed", "dose")
REPEATS = ("seed", "dose")  # roles of variants that train another one of the suite again
CORPORA = ("flores", "cldr", "parallel")
JOIN_GGUF = "join the parts with llama.cpp's `llama-gguf-split --merge` and name the joined file"


@dataclass(frozen=True)
class Language:
    """One entry of ``data/languages.toml``."""

    code: str
    """Language code (BCP-47), as used in every artefact."""
    name: str
    """English name."""
    script: str
    """Script (ISO 15924), such as Latn."""
    flores: str
    """FLORES config, such as eng_Latn: the name in FLORES-200, if the language is in it."""
    ntrex: str
    """Code of the language in NTREX-128; empty where no suite needs it."""
    region: str = ""
    """Region where the language is at home, such as South Asia; empty if unknown."""


@dataclass(frozen=True)
class Variant:
    """One model of a suite: the source of its weights, and its role."""

    name: str
    """Name of the variant, and of its folder in a run."""
    role: str
    """base, control, regional, untrained, seed or dose."""
    repo: str | None = None
    """Hugging Face hub repository; with ``package``, only the source of tokenizer settings."""
    revision: str | None = None
    """Branch, tag or commit of ``repo``."""
    path: str | None = None
    """Folder of a model on this machine."""
    gguf: str | None = None
    """GGUF file in ``path`` or ``repo`` that holds the weights."""
    package: str | None = None
    """Python package that holds the weights."""
    sha256: str | None = None
    """Hash of the weights in ``package``."""
    adapter: str | None = None
    """Folder of a LoRA adapter."""
    adapter_sha256: str | None = None
    """Hash of the adapter's weights."""
    targets: tuple[str, ...] = ()
    """Languages that the variant was tuned for."""
    of: str | None = None
    """Roles seed and dose: the variant that was trained again, with another seed or more text."""
    default: bool = True
    """Whether a run without ``--variants`` includes it."""
    seed: int = 0
    """Seed of the random weights of the role untrained."""
    note: str | None = None
    """Remark for readers of the suite."""


@dataclass(frozen=True)
class Suite:
    """A set of variants of one model, the languages to compare and the parallel corpus."""

    name: str
    """Name of the suite."""
    pivot: str
    """Language that all others are compared with (BCP-47)."""
    languages: tuple[str, ...]
    """All languages, including the pivot."""
    corpus: str
    """Parallel corpus: cldr, flores or parallel (a folder of texts)."""
    variants: tuple[Variant, ...]
    """The variants, in the order of the file."""
    probes: str = "data/concept_probes.json"
    """File of the concept probes, relative to the repository or absolute; "" for none."""
    perturbations: str = "data/perturbations.json"
    """File of the perturbation pairs, relative to the repository or absolute; "" for none."""
    label: str = ""
    """Name of the model in figures and reports."""
    note: str = ""
    """Caution for readers of the results."""
    allow_cpu: bool = False
    """Whether a Modal container without a GPU computes on the CPU instead of stopping."""

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``; raises UsageError listing the valid names."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise errors.UsageError(errors.unknown("variant", name, self.names()))

    def names(self) -> list[str]:
        """Return all variant names in the order of the suite file."""
        return [variant.name for variant in self.variants]

    def default_names(self) -> list[str]:
        """Return the variants that a run without ``--variants`` uses."""
        return [variant.name for variant in self.variants if variant.default]

    def by_role(self, role: str) -> list[Variant]:
        """Return the variants with this role."""
        return [variant for variant in self.variants if variant.role == role]

    def to_dict(self) -> Table:
        """Return the suite as plain JSON types, for the manifest."""
        plain = _plain(asdict(self))
        if not self.allow_cpu:  # manifests written before this key existed lack it
            del plain["allow_cpu"]
        for variant in plain["variants"]:
            for key in ("gguf", "of"):  # likewise
                if variant[key] is None:
                    del variant[key]
        return plain

    @classmethod
    def from_dict(cls, raw: Table, source: str) -> Suite:
        """Return the suite in a manifest; raises StudyError, in which ``source`` names the file."""
        entries = raw.get("variants", [])
        tables: Table = {}
        for entry in entries if isinstance(entries, list) else []:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name in tables:
                raise errors.StudyError(f"{source}: variants: a name is missing or occurs twice")
            tables[name] = {key: value for key, value in entry.items() if key != "name"}
        return _parse_suite({**raw, "variants": tables}, source)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def load_languages(path: Path = LANGUAGE_FILE) -> dict[str, Language]:
    """Return all known languages by BCP-47 code; raises StudyError for a bad file."""
    return dict(_languages(path))


@functools.cache
def _languages(path: Path) -> dict[str, Language]:
    languages = {}
    for code, row in read_toml(path).items():
        where = f"{path}: [{code}]"
        if not isinstance(row, dict):
            raise errors.StudyError(f"{where} must be a table; fix the file")
        row = check_types(row, _LANGUAGE_TYPES, where)
        for key in ("name", "script", "flores"):
            if not row.get(key):
                raise errors.StudyError(f"{where}: {key} is missing; fix the file")
        languages[code] = Language(code=code, **{"ntrex": "", **row})
    return languages


def suite_names() -> list[str]:
    """Return the names of the shipped suites."""
    return sorted(path.stem for path in SUITE_DIR.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """Load a suite by name or from a TOML path.

    Raises UsageError for an unknown name, and StudyError for a file that breaks the schema.
    """
    path = _suite_path(name_or_path)
    if path is None:
        hint = "or a path ending in .toml"
        raise errors.UsageError(f"{errors.unknown('suite', name_or_path, suite_names())} ({hint})")
    if not path.is_file():
        raise errors.UsageError(
            f"--suite: no file {path}; shipped suites: {', '.join(suite_names())}"
        )
    return _parse_suite(_read_suite(path, ()), str(path))


def _suite_path(name_or_path: str, folder: Path = Path()) -> Path | None:
    """Return the TOML file of a suite's name or path (from ``folder``); None if unknown."""
    if name_or_path.endswith(".toml"):
        return folder / name_or_path
    return SUITE_DIR / f"{name_or_path}.toml" if name_or_path in suite_names() else None


def _read_suite(path: Path, children: tuple[Path, ...]) -> Table:
    """Return the merged table of a suite file and its parents; ``children`` extend ``path``."""
    raw = check_types(read_toml(path), {**_SUITE_TYPES, **_INHERITANCE_TYPES}, str(path))
    parent, defaults = raw.pop("extends", None), raw.pop("defaults", {})
    check_types(defaults, _VARIANT_TYPES, f"{path}: defaults")
    for key in ("probes", "perturbations"):
        if raw.get(key):  # "" stands for none
            raw[key] = _portable(path.parent / raw[key])
    for name, table in raw.get("variants", {}).items():
        if isinstance(table, dict):
            raw["variants"][name] = _locate(defaults | table, path.parent)
    if parent is None:
        return raw
    base = _read_parent(parent, path, children)
    return {**base, **raw, "variants": base.get("variants", {}) | raw.get("variants", {})}


def _read_parent(parent: str, path: Path, children: tuple[Path, ...]) -> Table:
    found, line = _suite_path(parent, path.parent), (*children, path.resolve())
    if found is None:
        valid = errors.unknown("suite", parent, suite_names())
        raise errors.StudyError(f"{path}: extends: {valid} (or a path ending in .toml)")
    if found.resolve() in line:
        raise errors.StudyError(f"{path}: extends: {found} extends itself")
    try:
        return _read_suite(found, line)
    except errors.StudyError as error:
        raise errors.StudyError(f"{path}: extends: {error}") from None


def _locate(variant: Table, folder: Path) -> Table:
    """Return a variant's table with its paths, given relative to ``folder``, made portable."""
    paths = {
        key: _portable(folder / variant[key])
        for key in ("path", "adapter")
        if isinstance(variant.get(key), str)
    }
    return variant | paths


def _portable(path: Path) -> str:
    """Return a path relative to the repository if it is inside it, and else absolute."""
    if "\0" in str(path):
        return str(path)  # not a path; check_types refuses it
    resolved = path.resolve()
    return (
        resolved.relative_to(project.ROOT).as_posix()
        if resolved.is_relative_to(project.ROOT)
        else str(resolved)
    )


def resolve_path(path: str) -> Path:
    """Return the absolute path of a path in a suite, which is relative to the repository."""
    return Path(path) if Path(path).is_absolute() else project.ROOT / path


_REPOSITORY = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"
_SUITE_TYPES = {
    "name": str,
    "pivot": str,
    "languages": list,
    "corpus": str,
    "variants": dict,
    "probes": str,
    "perturbations": str,
    "label": str,
    "note": str,
    "allow_cpu": bool,
}
_INHERITANCE_TYPES = {"extends": str, "defaults": dict}
_LANGUAGE_TYPES: dict[str, type] = dict.fromkeys(
    ("name", "script", "flores", "ntrex", "region"), str
)
_VARIANT_TYPES = {
    "role": str,
    "repo": str,
    "revision": str,
    "path": str,
    "gguf": str,
    "package": str,
    "sha256": str,
    "adapter": str,
    "adapter_sha256": str,
    "targets": list,
    "of": str,
    "default": bool,
    "seed": int,
    "note": str,
}


def _parse_suite(raw: Table, source: str) -> Suite:
    raw = check_types(raw, _SUITE_TYPES, source)
    for key in ("name", "pivot", "languages", "corpus", "variants"):
        if not raw.get(key):
            raise errors.StudyError(f"{source}: {key} is missing or empty")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", raw["name"]):
        name = short(raw["name"])
        raise errors.StudyError(f"{source}: name {name} must be lower-case letters, digits, ._-")
    known = load_languages()
    languages = tuple(raw["languages"])
    for code in languages:
        if code not in known:
            raise errors.StudyError(f"{source}: languages: {_unknown_language(code, known)}")
    if len(set(languages)) != len(languages):
        raise errors.StudyError(f"{source}: languages: a language is listed twice")
    if raw["pivot"] not in languages:
        raise errors.StudyError(f"{source}: pivot {raw['pivot']!r} is not in languages")
    if raw["corpus"] not in CORPORA:
        raise errors.StudyError(f"{source}: {errors.unknown('corpus', raw['corpus'], CORPORA)}")
    variants = tuple(
        _parse_variant(name, table, languages, source) for name, table in raw["variants"].items()
    )
    _check_repeats(variants, source)
    return Suite(**{**raw, "languages": languages, "variants": variants})


def _unknown_language(code: str, known: dict[str, Language]) -> str:
    """Return the message for a code that is not in ``known``."""
    for row in known.values():
        if code in (row.flores, row.ntrex):
            return f"unknown language {code!r}; write {row.code!r}"
    return f"unknown language {code!r}; add it to data/languages.toml, or fix the code (BCP-47)"


def _parse_variant(name: str, raw: Any, languages: tuple[str, ...], source: str) -> Variant:
    where = f"{source}: variants.{name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):  # it becomes a folder name
        named = f"{source}: variants: {short(name)}"
        raise errors.StudyError(f"{named}: a variant's name must be letters, digits, _ and -")
    if not isinstance(raw, dict):
        raise errors.StudyError(f"{where} must be a table")
    raw = check_types(raw, _VARIANT_TYPES, where)
    if raw.get("role") not in ROLES:
        raise errors.StudyError(f"{where}: {errors.unknown('role', raw.get('role'), ROLES)}")
    given = [key for key in ("path", "package", "repo") if raw.get(key)]
    if not given:
        raise errors.StudyError(f"{where}: a source is missing: give repo, path or package")
    if "path" in given and len(given) > 1:
        raise errors.StudyError(f"{where}: path and {given[1]} exclude each other; keep one")
    if raw.get("repo") and not re.fullmatch(_REPOSITORY, raw["repo"]):
        raise errors.StudyError(
            f"{where}: repo {short(raw['repo'])} is not a hub name (owner/name)"
        )
    if raw.get("package") and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", raw["package"]):
        raise errors.StudyError(f"{where}: package {short(raw['package'])} is not a package name")
    if "package" in given and not raw.get("sha256"):
        raise errors.StudyError(f"{where}: package needs sha256, the hash of the weights in it")
    if "gguf" in raw:
        _check_gguf(raw, where)
    targets = tuple(raw.get("targets", ()))
    for code in targets:
        if code not in languages:
            raise errors.StudyError(
                f"{where}: targets: {errors.unknown('language', code, languages)}"
            )
    return Variant(**{**raw, "name": name, "targets": targets})


def _check_repeats(variants: tuple[Variant, ...], source: str) -> None:
    """Check that a variant of role seed or dose, and no other, names the variant it repeats."""
    origins = {v.name: v for v in variants if v.role in ("control", "regional")}
    for variant in variants:
        where = f"{source}: variants.{variant.name}"
        if variant.role not in REPEATS:
            if variant.of is not None:
                raise errors.StudyError(
                    f"{where}: of belongs to the roles {' and '.join(REPEATS)}; remove it"
                )
        elif variant.of not in origins:
            valid = errors.unknown("control or regional variant", variant.of, origins)
            raise errors.StudyError(f"{where}: of: {valid}")


def _check_gguf(raw: Table, where: str) -> None:
    name = raw["gguf"]
    if raw.get("package"):
        raise errors.StudyError(f"{where}: gguf and package exclude each other; keep one")
    if not re.fullmatch(r"[^/\\]+\.gguf", name):
        raise errors.StudyError(
            f"{where}: gguf {short(name)} is not the name of a .gguf file in path or repo"
        )
    parts = re.search(r"-\d{5}-of-(\d{5})\.gguf$", name)
    if parts and int(parts[1]) > 1:
        raise errors.StudyError(
            f"{where}: gguf {short(name)} is one of {int(parts[1])} parts; {JOIN_GGUF}"
        )
