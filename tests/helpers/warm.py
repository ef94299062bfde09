"""``apao`` for the jobs of a workflow, started in milliseconds instead of seconds.

A server has imported what every job imports. The command ``apao`` on the PATH of a test's workflow passes its
arguments, folder, environment and open files to it, and the server runs the real command line in a fork. Signals
are passed on; if the command is killed, so is the fork.

``warm.py serve SOCKET`` is the server, ``warm.py run ...`` the command, which imports hardly anything.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
SOCKET = "WARM_SOCKET"
"""Environment variable with the path of the server's socket."""
PRELOADED = (
    *("fontTools.subset", "fontTools.ttLib", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf"),
    *("matplotlib.pyplot", "pyarrow.dataset", "pyarrow.parquet", "scipy.stats", "sklearn.cluster"),
    *("sentence_transformers.sentence_transformer.modules", "tensorboard.compat.proto.event_pb2"),
    *("tensorboard.summary.writer.record_writer", "transformers.models.bert.modeling_bert"),
)
"""What the modules of apao import only when they need it."""
OPTIONAL = ("apao.stages.search", "apao.trackers.mlflow", "apao.trackers.wandb")
"""Modules that need packages of an extra, which may be missing."""


def run(arguments: list[str]) -> int:
    """The command ``apao``: let the server run it, and return its exit status."""
    # A project with code of its own needs a process of its own.
    code = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", TESTS)]
    if code or SOCKET not in os.environ:
        real = os.path.join(os.path.dirname(sys.executable), "apao")
        os.execv(real, [real, *arguments])
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[SOCKET])

    def pass_on(number: int, frame: FrameType | None) -> None:
        connection.send(bytes([number]))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(asked).encode()
    socket.send_fds(connection, [len(text).to_bytes(4, "big")], [0, 1, 2])
    connection.sendall(text)
    answer = connection.recv(4)
    status = int.from_bytes(answer, "big", signed=True) if answer else 1
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def serve(path: str) -> None:
    """Run commands until standard input, which the tests hold open, is closed."""
    import pkgutil

    import apao

    own = [module.name for module in pkgutil.walk_packages(apao.__path__, "apao.") if module.name not in OPTIONAL]
    for module in (*own, *PRELOADED):
        __import__(module)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(64)
    # Forks end by themselves; nobody waits for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([server, 0], [], [])
        if 0 in ready:
            return
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> None:
    """Run one command in a fork, and pass on signals and the status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        if not (part := connection.recv(size - len(text))):
            os._exit(1)  # the command was killed
        text += part
    asked = json.loads(text)
    ended, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended)
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        _run(asked)
    os.close(pipe)
    for file in files:
        os.close(file)
    # The pipe closes when the fork ends, as its other processes do not have it.
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            break
        received = connection.recv(16)
        if not received:
            os.kill(child, signal.SIGKILL)
            break
        for number in received:
            os.kill(child, number)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        connection.send(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))
    os._exit(0)


def _run(asked: dict[str, object]) -> None:
    """The command line, as in a process of its own."""
    from apao.__main__ import main

    status: object = 0
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        sys.argv = ["apao", *asked["arguments"]]
        main()
    except SystemExit as stopped:
        status = stopped.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(run(sys.argv[2:]))
    serve(sys.argv[2])
