"""Names, suites, paths and common flags: what every stage agrees on.

Standard library only, so that ``--help`` of every stage answers at once. A suite (a set of
variants of one model) is data, declared in TOML (``data/suites/``); no model name, layer count or
language list is in code.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import re
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent
SUITE_DIR = ROOT / "data" / "suites"
LANGUAGE_FILE = ROOT / "data" / "languages.toml"
DEFAULT_SUITE = "mini"
SCHEMA_VERSION = 1
SEED = 20260201  # one seed for every random draw of a run unless --seed says otherwise

ROLES = ("base", "control", "regional", "untrained")
CORPORA = ("flores", "cldr")
POOLINGS = ("span_mean", "content_mean", "last_content", "last")
DEVICES = ("auto", "cuda", "mps", "cpu")
DTYPES = ("auto", "float32", "bf16")

EXIT_DATA = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class StudyError(Exception):
    """Bad data or an environment that cannot serve: one message that says what mends it."""

    exit_code = EXIT_DATA


class UsageError(StudyError):
    """A flag or a name that does not exist: the message lists the valid ones."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Language:
    """One row of ``data/languages.toml``."""

    code: str  # BCP-47, as used in every artefact
    name: str
    script: str  # ISO 15924
    flores: str  # FLORES config, e.g. eng_Latn
    ntrex: str  # file code of NTREX-128, "" where it has none


@dataclass(frozen=True)
class Variant:
    """One model of a suite: where its weights come from and what part it plays."""

    name: str
    role: str
    repo: str | None = None
    revision: str | None = None
    path: str | None = None
    package: str | None = None
    sha256: str | None = None
    adapter: str | None = None
    adapter_sha256: str | None = None
    targets: tuple[str, ...] = ()
    default: bool = True
    seed: int = 0  # role "untrained": seed of the random weights
    note: str | None = None


@dataclass(frozen=True)
class Suite:
    """A set of variants of one model, the languages to compare and the parallel corpus."""

    name: str
    pivot: str
    languages: tuple[str, ...]
    corpus: str
    variants: tuple[Variant, ...]
    probes: str = "data/concept_probes.json"
    perturbations: str = "data/perturbations.json"
    label: str = ""  # what figures and reports call the model
    note: str = ""
    allow_cpu: bool = False  # on Modal: compute without a GPU rather than stop

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``; raises UsageError listing the valid names."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UsageError(unknown("variant", name, self.names()))

    def names(self) -> list[str]:
        """Return all variant names in the order of the suite file."""
        return [variant.name for variant in self.variants]

    def default_names(self) -> list[str]:
        """Return the variants that a run without ``--variants`` uses."""
        return [variant.name for variant in self.variants if variant.default]

    def by_role(self, role: str) -> list[Variant]:
        """Return the variants that play ``role``."""
        return [variant for variant in self.variants if variant.role == role]

    def to_dict(self) -> dict[str, Any]:
        """Return the suite as plain JSON types, for the manifest."""
        plain = _plain(asdict(self))
        if not self.allow_cpu:  # as in manifests written before this key
            del plain["allow_cpu"]
        return plain

    @classmethod
    def from_dict(cls, raw: dict[str, Any], source: str) -> Suite:
        """Rebuild a suite from a manifest; ``source`` names the file in errors."""
        entries = raw.get("variants", [])
        tables: dict[str, Any] = {}
        for entry in entries if isinstance(entries, list) else []:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name in tables:
                raise StudyError(f"{source}: variants: a name is missing or occurs twice")
            tables[name] = {key: value for key, value in entry.items() if key != "name"}
        return _parse_suite({**raw, "variants": tables}, source)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def unknown(kind: str, value: object, valid: Iterable[str]) -> str:
    """Say that ``value`` is not a known ``kind`` and list the valid ones."""
    return f"unknown {kind} {value!r}; valid: {', '.join(valid)}"


def visible(text: str) -> str:
    """Show what a screen hides: format, control and lone surrogate characters as code points."""
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char
        for char in text
    )


def load_languages(path: Path = LANGUAGE_FILE) -> dict[str, Language]:
    """Return every known language by BCP-47 code."""
    languages = {}
    for code, row in _read_toml(path).items():
        where = f"{path}: [{code}]"
        if not isinstance(row, dict):
            raise StudyError(f"{where} must be a table; mend the file")
        row = _check_types(row, _LANGUAGE_TYPES, where)
        for key in ("name", "script", "flores"):
            if not row.get(key):
                raise StudyError(f"{where}: {key} is missing; mend the file")
        languages[code] = Language(code=code, **{"ntrex": "", **row})
    return languages


def suite_names() -> list[str]:
    """Return the suites that ship with the project."""
    return sorted(path.stem for path in SUITE_DIR.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """Load a suite by name or from a TOML path.

    Raises UsageError for an unknown name, StudyError for a file that breaks the schema.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in suite_names():
            hint = "or a path ending in .toml"
            raise UsageError(f"{unknown('suite', name_or_path, suite_names())} ({hint})")
        path = SUITE_DIR / f"{name_or_path}.toml"
    if not path.is_file():
        raise UsageError(f"--suite: no file {path}; shipped suites: {', '.join(suite_names())}")
    raw = _read_toml(path)
    tables = raw.get("variants")
    for table in tables.values() if isinstance(tables, dict) else ():
        for key in ("path", "adapter"):
            if isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = _portable(path.parent / table[key])
    for key in ("probes", "perturbations"):
        if isinstance(raw.get(key), str):
            raw[key] = _portable(path.parent / raw[key])
    return _parse_suite(raw, str(path))


def _portable(path: Path) -> str:
    """Spell a path relative to the repository where it lies inside it, else absolute."""
    if "\0" in str(path):
        return str(path)  # not a path; refused with the other control characters
    resolved = path.resolve()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else str(resolved)


def resolve(path: str) -> Path:
    """Return the file that a suite's path names (relative paths start at the repository)."""
    return Path(path) if Path(path).is_absolute() else ROOT / path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None


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
_LANGUAGE_TYPES: dict[str, type] = {"name": str, "script": str, "flores": str, "ntrex": str}
_VARIANT_TYPES = {
    "role": str,
    "repo": str,
    "revision": str,
    "path": str,
    "package": str,
    "sha256": str,
    "adapter": str,
    "adapter_sha256": str,
    "targets": list,
    "default": bool,
    "seed": int,
    "note": str,
}


def _check_types(raw: dict[str, Any], types: dict[str, type], where: str) -> dict[str, Any]:
    clean = {key: value for key, value in raw.items() if value is not None}
    for key, value in clean.items():
        if key not in types:
            raise StudyError(f"{where}: {unknown('key', key, types)}")
        if not isinstance(value, types[key]) or (types[key] is int and isinstance(value, bool)):
            kind = types[key].__name__
            raise StudyError(f"{where}: {key} must be a {kind}, is {_short(value)}")
        for text in value if isinstance(value, list) else [value]:
            if isinstance(value, list) and not isinstance(text, str):
                raise StudyError(f"{where}: {key} must hold strings, holds {_short(text)}")
            if isinstance(text, str) and (len(text) > 1000 or visible(text) != text):
                raise StudyError(
                    f"{where}: {key} holds hidden or control characters, or is longer than 1000 "
                    f"characters: {_short(text)}"
                )
    return clean


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse_suite(raw: dict[str, Any], source: str) -> Suite:
    raw = _check_types(raw, _SUITE_TYPES, source)
    for key in ("name", "pivot", "languages", "corpus", "variants"):
        if not raw.get(key):
            raise StudyError(f"{source}: {key} is missing or empty")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", raw["name"]):
        name = _short(raw["name"])
        raise StudyError(f"{source}: name {name} must be lower-case letters, digits, ._-")
    known = load_languages()
    languages = tuple(raw["languages"])
    for code in languages:
        if code not in known:
            valid = unknown("language", code, known)
            raise StudyError(f"{source}: languages: {valid} (add a row to data/languages.toml)")
    if len(set(languages)) != len(languages):
        raise StudyError(f"{source}: languages: a language is listed twice")
    if raw["pivot"] not in languages:
        raise StudyError(f"{source}: pivot {raw['pivot']!r} is not in languages")
    if raw["corpus"] not in CORPORA:
        raise StudyError(f"{source}: {unknown('corpus', raw['corpus'], CORPORA)}")
    variants = tuple(
        _parse_variant(name, table, languages, source) for name, table in raw["variants"].items()
    )
    return Suite(**{**raw, "languages": languages, "variants": variants})


def _parse_variant(name: str, raw: Any, languages: tuple[str, ...], source: str) -> Variant:
    where = f"{source}: variants.{name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):  # names a folder of the run
        named = f"{source}: variants: {_short(name)}"
        raise StudyError(f"{named}: a variant's name must be letters, digits, _ and -")
    if not isinstance(raw, dict):
        raise StudyError(f"{where} must be a table")
    raw = _check_types(raw, _VARIANT_TYPES, where)
    if raw.get("role") not in ROLES:
        raise StudyError(f"{where}: {unknown('role', raw.get('role'), ROLES)}")
    given = [key for key in ("path", "package", "repo") if raw.get(key)]
    if not given:
        raise StudyError(f"{where}: needs one source: repo, path or package")
    if "path" in given and len(given) > 1:
        raise StudyError(f"{where}: path cannot stand with {given[1]}: name one source")
    if raw.get("repo") and not re.fullmatch(_REPOSITORY, raw["repo"]):
        raise StudyError(f"{where}: repo {_short(raw['repo'])} is not a hub name (owner/name)")
    if raw.get("package") and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", raw["package"]):
        raise StudyError(f"{where}: package {_short(raw['package'])} is not a package's name")
    if "package" in given and not raw.get("sha256"):
        raise StudyError(f"{where}: package needs sha256, the hash of the weights in it")
    targets = tuple(raw.get("targets", ()))
    for code in targets:
        if code not in languages:
            raise StudyError(f"{where}: targets: {unknown('language', code, languages)}")
    return Variant(**{**raw, "name": name, "targets": targets})


@dataclass(frozen=True)
class RunPaths:
    """Where a run's files lie: the repository root or ``--run-dir``."""

    run_dir: Path = ROOT

    @property
    def manifest(self) -> Path:
        return self.run_dir / "data" / "stimulus_manifest.json"

    @property
    def activations(self) -> Path:
        return self.run_dir / "activations"

    @property
    def results(self) -> Path:
        return self.run_dir / "results"

    @property
    def curves(self) -> Path:
        return self.results / "alignment_curves.json"

    @property
    def commitment(self) -> Path:
        return self.results / "commitment_matrix.csv"

    @property
    def contrasts(self) -> Path:
        return self.results / "contrasts.csv"

    @property
    def token_audit(self) -> Path:
        return self.results / "token_audit.json"

    @property
    def published(self) -> Path:
        return self.results / "published_reanalysis.json"

    @property
    def failure_cases(self) -> Path:
        return self.results / "failure_cases.csv"

    @property
    def failure_tests(self) -> Path:
        return self.results / "failure_tests.csv"

    @property
    def edge_cases(self) -> Path:
        return self.run_dir / "p1_edge_cases.json"

    @property
    def assets(self) -> Path:
        return self.run_dir / "assets"

    def flag(self) -> str:
        """Return the `` --run-dir …`` that later commands need, or nothing for the default."""
        return "" if self.run_dir.resolve() == ROOT else f" --run-dir {self.run_dir}"


def cache_dir() -> Path:
    """Return the user's cache folder of this project (``AYA_PROBES_CACHE`` overrides it)."""
    override = os.environ.get("AYA_PROBES_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aya-cross-lingual-probes"


def code_hash(*files: str) -> str:
    """Return the sha256 over the named source files, the ``code version`` of an artefact."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode())
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


# --- flags ------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def comma_list(text: str) -> tuple[str, ...]:
    """Split ``a,b,c``; an empty item is an error."""
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list")
    if len(set(items)) != len(items):
        raise argparse.ArgumentTypeError(f"{text!r} names an item twice")
    return items


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


_FLAGS: dict[str, dict[str, Any]] = {
    "variants": {"type": comma_list, "metavar": "A,B", "help": "only these variants"},
    "languages": {"type": comma_list, "metavar": "hi,am", "help": "only these languages"},
    "concepts": {"type": comma_list, "metavar": "C01,C02", "help": "only these concepts"},
    "device": {"choices": DEVICES, "default": "auto", "help": "where to compute (default auto)"},
    "dtype": {
        "choices": DTYPES,
        "default": "auto",
        "help": "compute precision (auto: bf16 on CUDA, else float32)",
    },
    "batch-size": {
        "type": positive_int,
        "metavar": "TOKENS",
        "help": "tokens computed at once (default 512 on CPU, 8192 on a GPU)",
    },
    "limit": {"type": positive_int, "metavar": "N", "help": "only the first N parallel items"},
    "seed": {"type": int, "default": SEED, "help": f"seed of random draws (default {SEED})"},
    "overwrite": {"action": "store_true", "help": "recompute what is already there"},
}


def common_parser(prog: str, description: str, *flags: str) -> argparse.ArgumentParser:
    """Return a parser with ``--run-dir`` and the named common flags, spelled once for all."""
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=ROOT,
        metavar="DIR",
        help="folder that holds what the run writes (default: the repository)",
    )
    for flag in flags:
        parser.add_argument(f"--{flag}", **_FLAGS[flag])
    return parser


def choose(kind: str, asked: Sequence[str] | None, valid: Sequence[str]) -> list[str]:
    """Return ``asked`` in the order of ``valid`` (all if None); raises UsageError on others."""
    if asked is None:
        return list(valid)
    for name in asked:
        if name not in valid:
            raise UsageError(unknown(kind, name, valid))
    return [name for name in valid if name in asked]


def run_stage(prog: str, stage: Callable[[], object]) -> int:
    """Run a stage and turn a user's mistake into one message and an exit code.

    Returns 0, 1 (data or environment), 2 (usage), 130 (Ctrl-C) or 143 (SIGTERM). Other exceptions
    are bugs of ours and keep their traceback.
    """
    try:
        stage()
    except StudyError as error:
        lines = (visible(line) for line in str(error).split("\n"))
        print(f"{prog}: error: " + "\n".join(lines), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        print(f"\n{interrupted(prog)}", file=sys.stderr)
        return int(getattr(stop, "exit_code", EXIT_INTERRUPTED))
    except OSError as error:
        if not is_disk_error(error):
            raise
        where = visible(str(error.filename or "the run folder"))
        mend = _OS_MENDS[error.errno or errno.ENOSPC]
        print(f"{prog}: error: {where}: {error.strerror}; {mend}", file=sys.stderr)
        return EXIT_DATA
    return 0


def interrupted(prog: str) -> str:
    """Return what a stage says when it is interrupted."""
    return f"{prog}: interrupted; what was finished is kept; run again, without any --overwrite."


def is_disk_error(error: Exception) -> bool:
    """Say whether this machine's disk refused: full, read-only, not permitted …"""
    if not isinstance(error, OSError) or error.errno not in _OS_MENDS:
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def leave(code: int) -> NoReturn:
    """End the process; when interrupted at once, without tearing down a loaded model."""
    if code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


_OS_MENDS = {
    errno.ENOSPC: "free some disk space, then run again without --overwrite (what is done stays)",
    errno.EDQUOT: "your disk quota is used up: free some, then run again without --overwrite",
    errno.EACCES: "make it writable, or choose another folder with --run-dir DIR",
    errno.EPERM: "make it writable, or choose another folder with --run-dir DIR",
    errno.EROFS: "it is on a read-only disk: choose another folder with --run-dir DIR",
    errno.ENOTDIR: "a part of this path is a file: choose another folder with --run-dir DIR",
    errno.EEXIST: "a file stands where a folder should be: choose another with --run-dir DIR",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one with --run-dir DIR",
    errno.ELOOP: "its links lead in a circle: choose another folder with --run-dir DIR",
    errno.EISDIR: "a folder stands where a file should be: move it away",
    errno.EFBIG: "the file size limit was reached: raise it (ulimit -f) and run again",
}
