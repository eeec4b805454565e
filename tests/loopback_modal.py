"""A small Modal on loopback, for the real client to talk to: gRPC, Volumes, containers.

It takes what the client uploads and runs a function's calls in a process that sees only that: the
files of the function's mounts, the environment of its image and secrets, its Volumes as folders.
The image is not built: this project's own environment stands for what ``uv sync`` installs. Calls
that no test needs are refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.server import Server
from modal_proto import api_pb2 as api
from modal_proto.api_grpc import ModalClientBase

TOKEN = {"MODAL_TOKEN_ID": "ak-loopback", "MODAL_TOKEN_SECRET": "as-loopback"}
BLOCK = 8 * 1024 * 1024  # the client expects a Volume's files in blocks of this size
# What a container runs: the call's pickled arguments come on stdin, its pickled result goes out.
CONTAINER = """
import importlib, json, os, pickle, shutil, sys
function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
import modal_config
class Volume:
    def __init__(self, path): self.here, self.there = json.loads(os.environ["VOLUMES"])[path]
    def commit(self):
        def links(folder, names):  # those that are there already cannot be made again
            there = os.path.join(self.there, os.path.relpath(folder, self.here))
            return [name for name in names if os.path.islink(os.path.join(there, name))]
        shutil.copytree(self.here, self.there, symlinks=True, ignore=links, dirs_exist_ok=True)
modal_config.weights_volume = Volume(modal_config.WEIGHTS_DIR)
modal_config.activations_volume = Volume(modal_config.ACTIVATIONS_DIR)
modal_config.ACTIVATIONS_DIR = modal_config.activations_volume.here
args, kwargs = pickle.load(sys.stdin.buffer)
out = os.dup(1)
os.dup2(2, 1)
try:
    os.write(out, pickle.dumps(function.local(*args, **kwargs)))
except Exception as error:
    os.write(out, pickle.dumps(error))
    sys.exit(1)
"""


BEFORE_THE_BODY = ""  # code that a test puts before it


@dataclass
class Call:
    """A function call and its inputs by index."""

    function_id: str
    inputs: dict[int, api.FunctionInput] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)  # outputs that were handed over


@dataclass
class Workspace:
    """What the client has made, and what the tests look at."""

    folder: Path
    http: str = ""
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # uploaded, by sha256
    mounts: dict[str, list[api.MountFile]] = field(default_factory=dict)
    images: dict[str, api.Image] = field(default_factory=dict)
    functions: dict[str, api.Function] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # of every container
    rpcs: list[str] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)  # files of Volumes that arrive altered, once
    dies: str = ""  # what a container says that dies before the call returns
    waits: bool = False  # a container computes until the client disconnects
    started: threading.Event = field(default_factory=threading.Event)  # a container has
    disconnected: threading.Event = field(default_factory=threading.Event)  # the client has
    _containers: Iterator[int] = field(default_factory=itertools.count)

    def image_commands(self, image_id: str) -> list[str]:
        """Return the Dockerfile of an image and of those it is built on."""
        image = self.images[image_id]
        below = [line for base in image.base_images for line in self.image_commands(base.image_id)]
        return [*below, *image.dockerfile_commands]

    def shipped(self, function_id: str) -> dict[str, bytes]:
        """Return the files that a container of the function gets, by path."""
        files = [f for mount in self.functions[function_id].mount_ids for f in self.mounts[mount]]
        return {file.filename: self.files[file.sha256_hex] for file in files}

    def run(self, function_id: str, arguments: bytes) -> api.GenericResult:
        """Run one call in a container of its own."""
        function = self.functions[function_id]
        self.started.set()
        if self.waits:
            self.disconnected.wait()  # the app is stopped, and its containers with it
            return api.GenericResult(status=api.GenericResult.GENERIC_STATUS_TERMINATED)
        if self.dies:
            failed = api.GenericResult.GENERIC_STATUS_FAILURE
            return api.GenericResult(status=failed, exception=self.dies)
        root = self.folder / f"container-{next(self._containers)}"
        root.mkdir()
        for name, data in self.shipped(function_id).items():
            path = root / PurePosixPath(name).relative_to("/root")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        # A container works on a copy; what it does not commit is lost.
        copies = {
            m.mount_path: (str(root / f"volume-{n}"), str(self.volumes[m.volume_id]))
            for n, m in enumerate(function.volume_mounts)
        }
        for here, there in copies.values():
            shutil.copytree(there, here, symlinks=True)
        folders = {path: here for path, (here, _) in copies.items()}
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR")}
        for line in self.image_commands(function.image_id):
            name, _, value = line.removeprefix("ENV ").partition("=")
            if line.startswith("ENV ") and name != "PATH":
                environment[name] = folders.get(value, value)
        for secret in function.secret_ids:
            environment |= self.secrets[secret]
        environment |= self.environment
        packages = sysconfig.get_paths()["purelib"]
        environment |= {"PYTHONPATH": f"{root}:{packages}", "OMP_NUM_THREADS": "1"}
        environment["VOLUMES"] = json.dumps(copies)
        done = subprocess.run(
            [
                sys.executable,
                "-S",
                "-c",
                BEFORE_THE_BODY + CONTAINER,
                function.module_name,
                function.function_name,
            ],
            input=arguments,
            cwd=root,
            env=environment,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            words = done.stderr.decode().strip().splitlines()[-1:]
            failed = api.GenericResult.GENERIC_STATUS_FAILURE
            return api.GenericResult(status=failed, exception=" ".join(words), data=done.stdout)
        return api.GenericResult(status=api.GenericResult.GENERIC_STATUS_SUCCESS, data=done.stdout)


class _Service:
    """The service that the client knows: answers what ``ANSWERS`` has, refuses the rest."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def __mapping__(self) -> Any:
        return ModalClientBase.__mapping__(self)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, name)

    async def _call(self, name: str, stream: Any) -> None:
        self._workspace.rpcs.append(name)
        if name not in ANSWERS:
            raise GRPCError(Status.UNIMPLEMENTED, f"the loopback Modal has no {name}")
        response = ANSWERS[name](self._workspace, await stream.recv_message())
        await stream.send_message(await response if asyncio.iscoroutine(response) else response)


def _id(kind: str, message: Any) -> str:
    return (
        f"{kind}-{hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:20]}"
    )


def _environment(workspace: Workspace, request: Any) -> Any:
    settings = api.EnvironmentSettings(image_builder_version="2025.06")
    metadata = api.EnvironmentMetadata(name="main", settings=settings)
    return api.EnvironmentGetOrCreateResponse(environment_id="en-main", metadata=metadata)


def _secret(workspace: Workspace, request: Any) -> Any:
    made = _id("st", request)
    workspace.secrets[made] = dict(request.env_dict)
    return api.SecretGetOrCreateResponse(secret_id=made)


def _volume(workspace: Workspace, request: Any) -> Any:
    made = f"vo-{request.deployment_name}"
    workspace.volumes[made] = workspace.folder / request.deployment_name
    workspace.volumes[made].mkdir(exist_ok=True)
    metadata = api.VolumeMetadata(version=api.VOLUME_FS_VERSION_V2, name=request.deployment_name)
    return api.VolumeGetOrCreateResponse(volume_id=made, metadata=metadata)


def _missing(workspace: Workspace, request: Any) -> Any:
    missing = [sha for sha in request.sha256_hex_hashes if sha not in workspace.files]
    return api.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)


def _put(workspace: Workspace, request: Any) -> Any:
    assert hashlib.sha256(request.data).hexdigest() == request.sha256_hex
    workspace.files[request.sha256_hex] = request.data
    return api.MountPutFileResponse(exists=True)


def _mount(workspace: Workspace, request: Any) -> Any:
    made = _id("mo", request)
    workspace.mounts[made] = list(request.files)
    return api.MountGetOrCreateResponse(
        mount_id=made, handle_metadata=api.MountHandleMetadata(content_checksum_sha256_hex="0" * 64)
    )


def _image(workspace: Workspace, request: Any) -> Any:
    made = _id("im", request.image)
    workspace.images[made] = request.image
    return api.ImageGetOrCreateResponse(
        image_id=made,
        result=api.GenericResult(status=api.GenericResult.GENERIC_STATUS_SUCCESS),
        metadata=api.ImageMetadata(image_builder_version=request.builder_version),
    )


def _precreate(workspace: Workspace, request: Any) -> Any:
    return api.FunctionPrecreateResponse(
        function_id=f"fu-{request.function_name}", handle_metadata=_handle(request.function_name)
    )


def _handle(name: str) -> Any:
    return api.FunctionHandleMetadata(
        function_name=name,
        function_type=api.Function.FUNCTION_TYPE_FUNCTION,
        supported_input_formats=[api.DATA_FORMAT_PICKLE],
        supported_output_formats=[api.DATA_FORMAT_PICKLE],
    )


def _function(workspace: Workspace, request: Any) -> Any:
    workspace.functions[request.existing_function_id] = request.function
    ranked = api.FunctionData.RankedFunction(rank=0, function=request.function)
    return api.FunctionCreateResponse(
        function_id=request.existing_function_id,
        function=request.function,
        function_data=api.FunctionData(ranked_functions=[ranked]),
        handle_metadata=_handle(request.function.function_name),
    )


def _bind(workspace: Workspace, request: Any) -> Any:
    made = f"{request.function_id}-{_id('fv', request.function_options)}"
    bound = api.Function()
    bound.CopyFrom(workspace.functions[request.function_id])
    if request.function_options.HasField("resources"):
        bound.resources.CopyFrom(request.function_options.resources)
    workspace.functions[made] = bound
    return api.FunctionBindParamsResponse(
        bound_function_id=made, handle_metadata=_handle(bound.function_name)
    )


def _map(workspace: Workspace, request: Any) -> Any:
    made = f"fc-{len(workspace.calls)}"
    call = workspace.calls[made] = Call(request.function_id)
    items = [_take(call, item) for item in request.pipelined_inputs]
    return api.FunctionMapResponse(
        function_call_id=made,
        function_call_jwt=made,
        pipelined_inputs=items,
        max_inputs_outstanding=100,
    )


def _take(call: Call, item: Any) -> Any:
    call.inputs[item.idx] = item.input
    return api.FunctionPutInputsResponseItem(
        idx=item.idx, input_id=f"in-{item.idx}", input_jwt=f"jwt-{item.idx}"
    )


def _inputs(workspace: Workspace, request: Any) -> Any:
    call = workspace.calls[request.function_call_id]
    return api.FunctionPutInputsResponse(inputs=[_take(call, item) for item in request.inputs])


async def _outputs(workspace: Workspace, request: Any) -> Any:
    call = workspace.calls[request.function_call_id]
    todo = sorted(set(call.inputs) - call.sent)
    if not todo:
        return api.FunctionGetOutputsResponse(num_unfinished_inputs=0)
    call.sent |= set(todo)

    async def one(index: int) -> Any:
        arguments = call.inputs[index].args
        result = await asyncio.to_thread(workspace.run, call.function_id, arguments)
        return api.FunctionGetOutputsItem(
            idx=index, input_id=f"in-{index}", result=result, data_format=api.DATA_FORMAT_PICKLE
        )

    items = await asyncio.gather(*(one(index) for index in todo))
    return api.FunctionGetOutputsResponse(outputs=items, last_entry_id="1-0")


def _file(workspace: Workspace, request: Any) -> Any:
    path = workspace.volumes[request.volume_id] / request.path
    if not path.is_file():
        raise GRPCError(Status.NOT_FOUND, f"{request.path}: no such file")
    size = path.stat().st_size
    blocks = range(0, size, BLOCK)
    base = f"{workspace.http}/volumes/{request.volume_id}/{request.path}"
    urls = [f"{base}?start={start}" for start in blocks]
    return api.VolumeGetFile2Response(get_urls=urls, size=size, start=0, len=size)


def _disconnect(workspace: Workspace, request: Any) -> Any:
    workspace.disconnected.set()
    return Empty()


def _always(response: Any) -> Answer:
    return lambda workspace, request: response


Answer = Callable[[Workspace, Any], Any]
ANSWERS: dict[str, Answer] = {
    "ClientHello": _always(api.ClientHelloResponse()),
    "AppCreate": _always(api.AppCreateResponse(app_id="ap-1", app_page_url="http://app")),
    "AppGetLogs": _always(api.TaskLogsBatch(app_done=True, entry_id="1-0")),
    "AppHeartbeat": _always(Empty()),
    "AppPublish": _always(api.AppPublishResponse(url="http://app")),
    "AppClientDisconnect": _disconnect,
    "FunctionFinishInputs": _always(Empty()),
    "EnvironmentGetOrCreate": _environment,
    "SecretGetOrCreate": _secret,
    "VolumeGetOrCreate": _volume,
    "MountBatchedCheckExistence": _missing,
    "MountPutFile": _put,
    "MountGetOrCreate": _mount,
    "ImageGetOrCreate": _image,
    "FunctionPrecreate": _precreate,
    "FunctionCreate": _function,
    "FunctionBindParams": _bind,
    "FunctionMap": _map,
    "FunctionPutInputs": _inputs,
    "FunctionGetOutputs": _outputs,
    "VolumeGetFile2": _file,
}


class _Http(BaseHTTPRequestHandler):
    workspace: Workspace

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        path, _, start = self.path.partition("?start=")
        _, _, volume, *rest = path.split("/")
        file = self.workspace.volumes[volume].joinpath(*rest)
        data = file.read_bytes()[int(start) : int(start) + BLOCK]
        if file.name in self.workspace.cut:
            self.workspace.cut.remove(file.name)
            data = data[:-10] + bytes(10)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Workspace]:
    """Run a Modal on free ports of 127.0.0.1 until the context ends."""
    workspace = Workspace(folder)
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Http", (_Http,), {"workspace": workspace}))
    http.daemon_threads = True
    workspace.http = f"http://127.0.0.1:{http.server_address[1]}"
    loop, started = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def run() -> None:
        server = Server([_Service(workspace)])
        await server.start("127.0.0.1", 0)
        listening: Any = server._server
        port = listening.sockets[0].getsockname()[1]
        workspace.url = f"http://127.0.0.1:{port}"
        started.set()
        await stop.wait()
        server.close()
        await server.wait_closed()

    threads = [
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}),
        threading.Thread(target=loop.run_until_complete, args=(run(),)),
    ]
    for thread in threads:
        thread.start()
    started.wait()
    try:
        yield workspace
    finally:
        loop.call_soon_threadsafe(stop.set)
        http.shutdown()
        http.server_close()
        for thread in threads:
            thread.join()
        loop.close()


def client_environment(workspace: Workspace, home: Path) -> dict[str, str]:
    """Return an environment whose Modal client knows ``workspace`` only."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL_", "HF_"))}
    return (
        clean
        | TOKEN
        | {
            "MODAL_SERVER_URL": workspace.url,
            "MODAL_CONFIG_PATH": str(home / "modal.toml"),
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(home / "hf"),
        }
    )
