"""The networks that detect: the paper's, and small ones for small scenes."""

from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from experiments.errors import UserError, explained
from experiments.tasks.coco import Annotations

__all__ = ["LONGEST", "SCRATCH", "SMALL", "Weights", "paper", "small", "weights"]

LONGEST = 1333  # pixels of a side that torchvision's detectors take by default
SMALL = 96  # and these here
SCRATCH = Path("none")  # in place of a file: begin with random weights
_NUMBERS = {  # of a small detector: pixels, proposals and detections of an image
    "min_size": SMALL,
    "max_size": SMALL,
    "rpn_pre_nms_top_n_train": 200,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_train": 100,
    "rpn_post_nms_top_n_test": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 32,
    "box_detections_per_img": 20,
}
Weights = tuple[dict[str, Any] | None, str]  # of the backbone, and how their file is known


def weights(file: Path | None) -> Weights:
    """Return the weights of ResNet-50 in a file, and how its SHA-256 begins.

    Args:
        file: a state dict as torchvision's or timm's ResNet-50 has it, of which `fc` is of no use;
            `SCRATCH` for random weights.

    Raises:
        UserError: if there is no file, or it holds something else, or what is not finite.
    """
    if file is None:
        raise UserError(
            "`--weights` must be a file with ResNet-50's weights of ImageNet, with which the paper "
            "begins (torchvision's resnet50-0676ba61.pth, or timm's), or none for random ones"
        )
    if file == SCRATCH:
        return None, str(SCRATCH)
    with explained(f"{file}: cannot be read"):
        content = file.read_bytes()
        try:
            state = torch.load(file, "cpu", weights_only=True)
        except Exception:  # what it raises depends on which bytes it meets: KeyError, struct.error
            raise UserError(f"{file}: not a state dict that torch.save has written") from None
    if not isinstance(state, dict):
        raise UserError(f"{file}: must hold a state dict, got {type(state).__name__}")
    if other := [name for name in state if not isinstance(name, str)]:
        raise UserError(f"{file}: must hold a state dict, whose keys are names, got {other[0]!r}")
    kept = {name: each for name, each in state.items() if not name.startswith("fc.")}
    _fitting(file, kept)
    return kept, sha256(content).hexdigest()[:16]


def _fitting(file: Path, state: dict[str, Any]) -> None:
    """Refuse what is not of ResNet-50, or not finite."""
    body = _resnet(FrozenBatchNorm2d).body
    try:
        body.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise UserError(f"{file}: not of ResNet-50: {' '.join(lines[1:])[:160]}") from None
    for name, each in body.state_dict().items():
        if not each.isfinite().all():
            raise UserError(f"{file}: {name} must be finite numbers")


def paper(source: Annotations, begin: dict[str, Any] | None) -> nn.Module:
    """Return torchvision's Mask or Keypoint R-CNN, ResNet-50 with FPN, all of it to be trained.

    As in torchvision, batch norm that comes with weights stays as it is (its factors and statistics
    are no parameters), for a batch of a few large images has no good statistics; with random ones
    it learns.

    Args:
        source: what is learnt: its categories, or its keypoints.
        begin: the weights of the backbone, see `weights`.
    """
    backbone = _resnet(FrozenBatchNorm2d if begin else nn.BatchNorm2d)
    if begin:
        backbone.body.load_state_dict(begin)
    classes = 1 + len(source.categories)
    if source.kind == "instances":
        return MaskRCNN(backbone, classes)  # type: ignore[no-any-return]
    keypoints = len(source.keypoints)
    return KeypointRCNN(backbone, classes, num_keypoints=keypoints)  # type: ignore[no-any-return]


def small(source: Annotations, _begin: dict[str, Any] | None = None) -> nn.Module:
    """Return a detector for scenes of 96 x 96: the same parts, but few and narrow.

    Six convolutions with group norm, an FPN of three levels (strides 4, 8 and 16), three anchors a
    place, 32 proposals of an image to learn from, and heads of two layers.
    """
    width, classes = 32, 1 + len(source.categories)
    pools = [MultiScaleRoIAlign(["0", "1"], size, 1) for size in (5, 10)]
    settings: dict[str, Any] = {
        **_NUMBERS,
        "rpn_anchor_generator": AnchorGenerator(((16,), (28,), (48,)), ((0.5, 1.0, 2.0),) * 3),
        "box_roi_pool": pools[0],
        "box_head": TwoMLPHead(width * 25, 128),
        "box_predictor": FastRCNNPredictor(128, classes),
    }
    if source.kind == "instances":
        return MaskRCNN(  # type: ignore[no-any-return]
            _narrow(width),
            mask_roi_pool=pools[1],
            mask_head=MaskRCNNHeads(width, (width,) * 2, 1),
            mask_predictor=MaskRCNNPredictor(width, width, classes),
            **settings,
        )
    return KeypointRCNN(  # type: ignore[no-any-return]
        _narrow(width),
        keypoint_roi_pool=pools[1],
        keypoint_head=KeypointRCNNHeads(width, (width,) * 2),
        keypoint_predictor=KeypointRCNNPredictor(width, len(source.keypoints)),
        **settings,
    )


def _resnet(norm: type[nn.Module]) -> Any:
    return resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=norm, trainable_layers=5
    )


def _narrow(width: int) -> Any:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        layer1=_halving(3, 16), layer2=_halving(16, 32), layer3=_halving(32, 64)
    )
    return BackboneWithFPN(nn.Sequential(layers), {"layer2": "0", "layer3": "1"}, [32, 64], width)


def _halving(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, of which the first halves the image, each normalised by group."""
    layers: list[nn.Module] = []
    for channels, stride in ((inputs, 2), (outputs, 1)):
        layers += [nn.Conv2d(channels, outputs, 3, stride, 1, bias=False)]
        layers += [nn.GroupNorm(4, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
