"""A low-rank update beside frozen weights, through peft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kdft_lib.features import find
from kdft_lib.strategies.base import Strategy, find_head, keep_frozen_still


class LoRA(Strategy):
    """Each chosen layer W learns W + (alpha / r) · B A, with B and A of rank r: low-rank adaptation, LoRA (Hu et al.,
    2022), a parameter-efficient method (PEFT), through the library peft. W is frozen.

    Afterwards the update is added to W, and the model has the layers that it had before; or it stays
    beside W, for peft to keep or to take out. Arguments are named as in peft's ``LoraConfig``, but for
    ``alpha`` and ``dropout``, which are ``lora_alpha`` and ``lora_dropout`` there.

    Args:
        lr: The learning rate at the schedule's peak; LoRA takes larger ones than full fine-tuning.
        r: The rank of the update, 1 or more.
        alpha: The scale of the update, positive; twice the rank is usual.
        target_modules: The names of the linear layers and convolutions to update, in full as in
            ``model.named_modules()``. By default all linear layers but the head and those that share their weight, as
            a language model's last often does with its table of tokens; or, in a model without them, all convolutions
            that are not grouped.
        head: The name of a new head, which moves whole; none by default.
        dropout: The share of what goes into the update that is left out in training, from 0 to below 1.
        merge: Whether the update is added to W at the end.
        weight_decay: The decay of A, B and the head's weight matrices, 0 or more.
        decay_all: Whether the head's biases and normalisation decay too.

    Raises:
        ImportError: In use, without peft.
        ValueError: If an argument is out of range; in use, if a layer does not exist or cannot be updated, or the model
            carries other updates already.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
        >>> strategy = LoRA(lr=1e-3, r=2, head="1")
        >>> strategy.prepare(model)
        >>> sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        50
        >>> strategy.finish(model)
        >>> model
        Sequential(
          (0): Linear(in_features=8, out_features=8, bias=True)
          (1): Linear(in_features=8, out_features=2, bias=True)
        )
    """

    def __init__(
        self,
        *,
        lr: float,
        r: int = 8,
        alpha: float = 16.0,
        target_modules: Sequence[str] | None = None,
        head: str | None = None,
        dropout: float = 0.0,
        merge: bool = True,
        weight_decay: float = 0.01,
        decay_all: bool = False,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, decay_all=decay_all)
        if r < 1 or int(r) != r:
            raise ValueError(f"r is {r}; it must be a whole number of 1 or more")
        if not alpha > 0:
            raise ValueError(f"alpha is {alpha}; it must be positive")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be from 0 to below 1")
        if target_modules is not None and (isinstance(target_modules, str) or not target_modules):
            raise ValueError(f"target_modules is {target_modules!r}; it must be a list of one or more names")
        self.r, self.alpha, self.head, self.dropout, self.merge = r, alpha, head, dropout, merge
        self.target_modules = None if target_modules is None else list(target_modules)

    def prepare(self, model: nn.Module) -> None:
        head = find_head(model, self.head) if self.head is not None else None
        if updates := _updates(model):
            self._check_same(updates)
        else:
            self._inject(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".lora_" in name)
        if head is not None:
            head.requires_grad_(True)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        keep_frozen_still(model, but=self.head)

    def finish(self, model: nn.Module) -> None:
        if not self.merge:
            return
        for name, layer in _updates(model).items():
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
        vars(model).pop("peft_config", None)

    def _check_same(self, updates: dict[str, Any]) -> None:
        """Refuse to train on with another rank or scale, or in other layers, than the updates have."""
        layer = next(iter(updates.values()))
        own: dict[str, Any] = {"r": next(iter(layer.r.values())), "alpha": next(iter(layer.lora_alpha.values()))}
        wanted: dict[str, Any] = {"r": self.r, "alpha": self.alpha}
        if self.target_modules is not None:
            own["target_modules"], wanted["target_modules"] = sorted(updates), sorted(self.target_modules)
        for name, value in own.items():
            if value != wanted[name]:
                raise ValueError(
                    f"{name} is {wanted[name]}, but the model carries updates of an earlier LoRA(merge=False) with"
                    f" {value}; give that, or merge them first"
                )

    def _inject(self, model: nn.Module) -> None:
        try:
            from peft import LoraConfig, inject_adapter_in_model
            from peft.tuners import lora
        except ImportError:
            raise ImportError(
                "LoRA needs peft, which is not installed; pip install 'kdft-lib[language]' brings it"
            ) from None
        names = self._chosen(model)
        shared = [name for name in names if _is_shared(model, model.get_submodule(name))]
        if shared and self.merge:
            raise ValueError(
                f"{shared[0]!r} shares its weight with another layer, which a merged update would change too; leave it"
                " out of target_modules, or keep the update apart with merge=False"
            )
        config = LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules="|".join(map(re.escape, names)),
        )
        plain: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: lora.Linear, nn.Conv2d: lora.Conv2d}
        if all(type(model.get_submodule(name)) in plain for name in names):
            # Otherwise peft looks for torchao first, and refuses where it is too old for it, as on Colab.
            config._register_custom_module(plain)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            raise ValueError(f"target_modules is {names}, and peft cannot update them: {error}") from None
        for layer in _updates(model).values():
            layer.register_forward_pre_hook(_looked_at)
        for name, parameter in model.named_parameters():
            if ".lora_" in name and parameter.dtype in (torch.bfloat16, torch.float16):
                parameter.data = parameter.data.float()  # In 16 bits, small steps would be rounded away.

    def _chosen(self, model: nn.Module) -> list[str]:
        if self.target_modules is not None:
            for name in self.target_modules:
                find(model, name, "target_modules")
                if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
                    raise ValueError(
                        f"target_modules has {name!r}, whose weight torch's attention reads past its module, so that an"
                        " update would do nothing; choose other layers"
                    )
            return self.target_modules
        # Attention of torch's own kind reads the weights of its layers past their modules.
        hidden = tuple(
            f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)
        )
        free = {
            name: module
            for name, module in model.named_modules()
            if not name.startswith(hidden) and (self.head is None or not f"{name}.".startswith(f"{self.head}."))
        }
        linear = [
            name for name, module in free.items()
            if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and not _is_shared(model, module)
        ]  # fmt: skip
        kernels = [name for name, module in free.items() if isinstance(module, nn.Conv2d) and module.groups == 1]
        if not linear and not kernels:
            raise ValueError(
                f"{type(model).__name__} has no linear layer or convolution to update; name some in target_modules"
            )
        return linear or kernels


def _is_shared(model: nn.Module, layer: nn.Module) -> bool:
    """Whether another module has the same weight, as the table of tokens of a language model often has."""
    weight = getattr(layer, "weight", None)
    return any(getattr(other, "weight", None) is weight for other in model.modules() if other is not layer)


def _looked_at(*_: Any) -> None:
    """Where a layer inside has a hook, torch's encoder layers call it in evaluation, and do not read its weight."""


def _updates(model: nn.Module) -> dict[str, Any]:
    """The layers that carry an update, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
