"""Exchange of weights and configs with ``transformers``: key names, checks and reading of files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from apao.errors import UserError
from apao.files import verified

if TYPE_CHECKING:
    from apao.backbones.base import BackboneParams

MAX_SIZE = 1 << 24
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

probability = Annotated[float, Field(ge=0, lt=1)]


def load_named(
    module: nn.Module, names: Mapping[str, str], weights: Mapping[str, Tensor], aliases: Collection[str] = ()
) -> None:
    """Copy ``weights``, which have the names of ``transformers``, into ``module``.

    Args:
        module: the model to load into.
        names: name in ``module`` to name in ``weights``. Tensors of the module without a name here are kept.
        weights: tensors by their ``transformers`` names.
        aliases: further names that ``weights`` may have, for copies of tied tensors.

    Raises:
        UserError: when a weight is missing, unknown, of another shape, or not of finite numbers.
    """
    state = module.state_dict()
    absent = [foreign for foreign in names.values() if foreign not in weights]
    unknown = set(weights) - set(names.values()) - set(aliases)
    if absent or unknown:
        raise UserError(
            f"these weights do not belong to this backbone: missing {sorted(absent)[:3]}, unknown {sorted(unknown)[:3]}"
        )
    for ours, foreign in names.items():
        if state[ours].shape != weights[foreign].shape:
            raise UserError(
                f"weight {foreign} has shape {tuple(weights[foreign].shape)}; "
                f"this backbone expects {tuple(state[ours].shape)} (other sizes or another vocabulary)"
            )
        if weights[foreign].dtype not in DTYPES or not weights[foreign].isfinite().all():
            raise UserError(f"weight {foreign} ({weights[foreign].dtype}) does not hold finite floating-point numbers")
    module.load_state_dict({**state, **{ours: weights[foreign] for ours, foreign in names.items()}})


def check_config(config: Mapping[str, Any], computed: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse the config of a ``transformers`` model that computes something other than our backbone.

    ``computed`` maps each key to the value that corresponds to our backbone, and to the default of
    ``transformers`` where the key is absent or null.

    Raises:
        UserError: naming the key, its value and the supported one.
    """
    for key, (supported, default) in computed.items():
        found = config.get(key)
        value = default if found is None else found
        if value != supported:
            absent = " (the default of transformers, as the key is missing)" if found is None else ""
            raise UserError(f"{key}: {value!r}{absent} is not supported; this backbone has {supported!r}")


def config_size(config: Mapping[str, Any], key: str) -> int:
    """A required size in a config of ``transformers``.

    Raises:
        UserError: when it is missing or not a whole number from 1 to ``MAX_SIZE``.
    """
    value = config.get(key)
    if type(value) is not int or not 1 <= value <= MAX_SIZE:
        found = f"found {value!r}" if key in config else "but it is missing"
        raise UserError(f"{key}: expected a whole number from 1 to {MAX_SIZE}, {found}")
    return value


def read_weights(path: Path) -> dict[str, Tensor]:
    """A run's weights, under the key names of ``transformers``.

    Raises:
        UserError: when the file is missing or damaged.
    """
    try:
        return load_file(verified(path))
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); delete it and train the run again") from error


class _SizesOnly(TorchFunctionMode):
    """Mode for modules without storage, in which they draw no weights and count positions on the CPU.

    Either would load torch's compiler, which takes a second.
    """

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        filled = {} if kwargs is None else kwargs
        if getattr(func, "__module__", None) == nn.init.__name__:
            return filled["tensor"]
        if func is torch.arange:
            filled = {"device": "cpu", **filled}
        return func(*args, **filled)


def check_sizes(params: BackboneParams, vocabulary: int, weights: Mapping[str, Tensor], folder: Path = Path()) -> None:
    """Refuse sizes far too large for the weights in ``folder``, before a model of those sizes exhausts the memory.

    Raises:
        UserError: when there are fewer tensors than layers, or less than a tenth of the model's parameters.
    """
    layers = max((size for key, size in params if key.endswith("layers")), default=0)
    held, wanted = sum(value.numel() for value in weights.values()), 0
    if layers <= len(weights) and max(size for _, size in params if type(size) is int) <= MAX_SIZE:
        with torch.device("meta"), _SizesOnly():
            wanted = sum(value.numel() for value in params.to_load(vocabulary, folder).parameters())
    if not 0 < wanted <= 10 * held:
        raise UserError(f"holds {len(weights)} tensors of {held} numbers, too few for a model of the given sizes")
