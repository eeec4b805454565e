"""The frames of data/behaviour_frames.toml, in which a model is asked what a text means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from aya_probes import files, project
from aya_probes.errors import StudyError
from aya_probes.toml_tables import check_types, read_toml

FRAME_FILE = project.ROOT / "data" / "behaviour_frames.toml"
SLOTS = ("source", "target", "text")
MIN_FRAMES = 3  # so that no claim hangs on one prompt
_SLOT = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Frame:
    """A prompt with slots, after which the pivot's sentence follows."""

    name: str
    """Name of the frame, a table of the file."""
    template: str
    """The prompt, with the slots {source}, {target} and {text}."""

    def fill(self, text: str, source: str, target: str) -> str:
        """Return the prompt for a text; braces in the text itself are left as they are."""
        values = {"text": text, "source": source, "target": target}
        return _SLOT.sub(lambda slot: values[slot[1]], self.template)


def load_frames(path: Path = FRAME_FILE) -> tuple[Frame, ...]:
    """Return the frames of a file.

    Raises StudyError naming the frame for a missing, repeated or unknown slot, white space at the
    end, and fewer than 3 frames.
    """
    frames = tuple(
        _parse_frame(name, table, f"{path}: [{name}]") for name, table in read_toml(path).items()
    )
    if len(frames) < MIN_FRAMES:
        raise StudyError(
            f"{path}: {len(frames)} frames, at least {MIN_FRAMES} are needed, so that no result "
            "depends on one prompt; add a table with `lines`"
        )
    if len({frame.template for frame in frames}) != len(frames):
        raise StudyError(f"{path}: two frames are the same; change the lines of one")
    return frames


def _parse_frame(name: str, table: object, where: str) -> Frame:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
        raise StudyError(f"{where}: a frame's name must be lower-case letters, digits, _ and -")
    if not isinstance(table, dict):
        raise StudyError(f"{where} must be a table with `lines`")
    lines = check_types(table, {"lines": list}, where).get("lines")
    if not lines:
        raise StudyError(f"{where}: lines is missing or empty; give the lines of the prompt")
    template = "\n".join(lines)
    found = _SLOT.findall(template)
    for slot in SLOTS:
        if found.count(slot) != 1:
            raise StudyError(
                f"{where}: the slot {{{slot}}} occurs {found.count(slot)} times in lines; every "
                f"frame needs {', '.join(f'{{{s}}}' for s in SLOTS)} once each"
            )
    unknown = [slot for slot in found if slot not in SLOTS]
    if unknown:
        raise StudyError(f"{where}: unknown slot {{{unknown[0]}}}; valid: {', '.join(SLOTS)}")
    if "{" in _SLOT.sub("", template) or "}" in _SLOT.sub("", template):
        raise StudyError(f"{where}: a brace that is not part of a slot; take it out of lines")
    if template != template.rstrip():
        raise StudyError(
            f"{where}: white space at the end; the pivot's sentence follows after one space"
        )
    return Frame(name, template)


def frames_digest(frames: tuple[Frame, ...]) -> str:
    """Return the hash of the frames, which decides a stage's rows."""
    return files.digest([[frame.name, frame.template] for frame in frames])
