"""docs/space.md: a folder with only what a Space gets starts and serves."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from aya_probes import project


def test_the_folder_of_a_space_serves_the_page(tmp_path: Path) -> None:
    text = (project.ROOT / "docs" / "space.md").read_text(encoding="utf-8")
    for line in re.findall(r"^   (mkdir .*)$", text, re.MULTILINE):
        command = line.replace("space", str(tmp_path / "space"))
        subprocess.run(["bash", "-c", command], cwd=project.ROOT, check=True)
    space = tmp_path / "space"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "AYA_PROBES_PAGE": f"--demo --port {port}", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=space, stdout=subprocess.PIPE, text=True, env=env
    ) as server:
        try:
            assert server.stdout is not None
            assert any(f":{port}" in line for line in server.stdout)
            address = f"http://127.0.0.1:{port}/files/view.csv?view=about"
            table = urllib.request.urlopen(address).read().decode("utf-8-sig")
        finally:
            server.terminate()
    assert "suite,mini" in table


def test_the_versions_of_the_space_are_those_of_the_project() -> None:
    text = (project.ROOT / "docs" / "space.md").read_text(encoding="utf-8")
    wanted = (project.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r"sdk_version: (\d+\.\d+)", text)
    assert version is not None
    assert f"gradio>={version[1]}" in wanted
    for name in ("numpy", "pandas", "pydantic>=2.12,<3", "scipy"):
        assert f'"{name}"' in wanted
