"""AdamW by torch's fused kernel, without torch's compiler.

``torch.optim.AdamW`` imports the compiler when it is made, which takes longer than everything else that happens
between the start of a process and its first step, except for importing torch. The kernel needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPS = 1e-8


class AdamW:
    """``torch.optim.AdamW(fused=True)`` with torch's default betas and epsilon; the same numbers.

    Attributes:
        groups: parameters and their weight decay.
        lr: learning rate of the next step.
        moments: of every parameter that had a gradient: ``step``, ``exp_avg`` and ``exp_avg_sq``.
    """

    def __init__(self, groups: Iterable[tuple[Iterable[nn.Parameter], float]], lr: float) -> None:
        self.groups = [(list(parameters), weight_decay) for parameters, weight_decay in groups]
        self.lr = lr
        self.parameters = [parameter for parameters, _ in self.groups for parameter in parameters]
        self.moments: dict[nn.Parameter, dict[str, Tensor]] = {}

    def zero_grad(self, set_to_none: bool) -> None:
        """Remove all gradients, or set those that exist to 0 in place."""
        if set_to_none:
            for parameter in self.parameters:
                parameter.grad = None
        else:
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            torch._foreach_zero_(gradients)

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for parameters, weight_decay in self.groups:
            updated = [parameter for parameter in parameters if parameter.grad is not None]
            moments = [self._moments_of(parameter) for parameter in updated]
            adamw(
                list[Tensor](updated),
                [parameter.grad for parameter in updated if parameter.grad is not None],
                [one["exp_avg"] for one in moments],
                [one["exp_avg_sq"] for one in moments],
                [],
                [one["step"] for one in moments],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=self.lr,
                weight_decay=weight_decay,
                eps=EPS,
                maximize=False,
            )

    def tensors(self) -> dict[str, Tensor]:
        """The moments by number of the parameter and name, such as ``3.exp_avg``."""
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self.parameters)
            for name, value in self.moments.get(parameter, {}).items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue with what ``tensors`` returned for the same parameters.

        Raises:
            LookupError, ValueError or RuntimeError: when they are those of other parameters.
        """
        self.moments = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            self._moments_of(self.parameters[int(index)])[name].copy_(value)

    def _moments_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if parameter not in self.moments:
            self.moments[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
        return self.moments[parameter]
