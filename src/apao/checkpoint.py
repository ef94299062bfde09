"""One file with everything that a training needs to resume as if it had not been interrupted.

A safetensors file holds the tensors (weights, best weights, optimizer moments, objective state, random states)
and, as metadata, progress and history. It is replaced atomically after each epoch, so the last complete one
survives a kill at any moment. It contains a hash of its content, by which damage is detected.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from apao.errors import UserError
from apao.files import atomic_path

Tensors = dict[str, Tensor]


@dataclass
class Checkpoint:
    """State after a whole number of epochs of a training, of a recommender or a tokenizer.

    Attributes:
        tensors: by group (such as ``model`` and ``optimizer``), then name.
        progress: JSON values, such as the history of the epochs.
    """

    tensors: dict[str, Tensors]
    progress: dict[str, Any]


def _digest(tensors: Tensors, metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint, fingerprint: str) -> None:
    """Write ``path`` atomically; ``fingerprint`` identifies the run's parameters, inputs and code."""
    flat = {
        f"{group}/{name}": value.detach().cpu().contiguous()
        for group, tensors in checkpoint.tensors.items()
        for name, value in tensors.items()
    }
    metadata = {"fingerprint": fingerprint, "progress": json.dumps(checkpoint.progress)}
    metadata["digest"] = _digest(flat, metadata)
    with atomic_path(path) as temporary:
        save_file(flat, temporary, metadata=metadata)


def load_checkpoint(path: Path, fingerprint: str) -> Checkpoint | None:
    """The state saved in ``path``; None when there is none or its fingerprint differs.

    Raises:
        UserError: when the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        digest = metadata.pop("digest", "")
        intact = digest == _digest(flat, metadata)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not intact:
        raise _damaged(path, "its content does not match the hash inside")
    if metadata.get("fingerprint") != fingerprint:
        return None
    tensors: dict[str, Tensors] = {}
    for name, value in flat.items():
        group, _, key = name.partition("/")
        tensors.setdefault(group, {})[key] = value
    try:
        return Checkpoint(tensors, json.loads(metadata["progress"]))
    except (LookupError, ValueError, RecursionError) as error:
        raise _damaged(path, f"its progress cannot be read: {error}") from error


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged checkpoint ({why}); delete it to start from the beginning")
