"""Every optimizer of the experiments, by the name that the command line and paths have for it.

The published package is used where there is one that does what its paper says, with the settings
that its authors recommend, and is imported when the optimizer is built. A rate is 0.1 by default
where one is taken, as in the ZENITH paper. `tests/experiments` holds a step of each against numbers
worked out by hand.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, ReduceLROnPlateau

from experiments import rivals
from experiments.errors import UserError
from experiments.recipe import Paper, Recipe, Setting
from experiments.rivals import signals, variants
from zenith.torch import Zenith

__all__ = ["BLOCKS", "OPTIMIZERS", "Paper", "Recipe", "Setting", "recipe"]


def recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a name.

    Raises:
        UserError: if there is none, or it does not take one of the options.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    found = OPTIMIZERS[name]
    if wrong := sorted(set(options) - set(found.options)):
        taken = ", ".join(f"--{option}" for option in sorted(found.options)) or "no option"
        raise UserError(f"`--{wrong[0]}` is no option of {name}, which takes {taken}")
    return found


def _tenthed_twice(optimizer: Any, steps: int) -> Any:
    return MultiStepLR(optimizer, [steps // 2, 3 * steps // 4])


def _none(optimizer: Any) -> float:
    return float("nan")


def _of_dog(optimizer: Any) -> float:
    return float(optimizer.param_groups[0]["eta"][0])


def _of_prodigy(optimizer: Any) -> float:
    group = optimizer.param_groups[0]
    return float(group["d"] * group["lr"])


def _of_d_adaptation(optimizer: Any) -> float:
    return _of_prodigy(optimizer) / float(optimizer.param_groups[0]["g0_norm"])


def _doubling(setting: Setting) -> dict[str, float]:
    return {"growth": 2 ** (1 / setting.epoch)}


def _by_norm(setting: Setting) -> dict[str, float]:
    return {"reps_rel": 1e-4 if setting.batch_norm else 1e-6}


def _warmed_up(setting: Setting) -> dict[str, int]:
    return {"warmup_steps": setting.steps // 20}


def _patient(setting: Setting) -> dict[str, int]:
    """1,000 numbers, or those of 2.5 epochs, which is as many on CIFAR-10 in batches of 128."""
    return {"least": min(1000, round(2.5 * setting.epoch))}


def _counted(setting: Setting) -> dict[str, float]:
    return {"epoch": setting.epoch}


_LR = {"lr": 0.1}
_SGD = {"lr": 0.1, "momentum": 0.0}
_ZENITH = {"lr": 0.1, "window": 500, "momentum": 0.0}
_DECAY = {"weight_decay": 0.0}
_CLIP = {"max_grad_norm": 1.0}
_ADAMW, _ADAMW_LR = partial(AdamW, weight_decay=0.0), {"lr": 1e-3}
_MOMENTUM = {"momentum": 0.9}
_D_ADAPTATION, _PRODIGY = "dadaptation:DAdaptSGD", "prodigyopt:Prodigy"

OPTIMIZERS = {
    "sgd": Recipe("SGD", SGD, _SGD, color="#D55E00", dash="--", paper=Paper(17.24, 0.0, 0)),
    "pal": Recipe("PAL", rivals.PAL, {}, paper=Paper(25.86, 49.99, 1)),
    "lqa": Recipe("LQA", rivals.LQA, _LR, told=_counted, paper=Paper(81.45, 372.3, 5)),
    "gen": Recipe("GeN", rivals.GeN, _LR, paper=Paper(22.29, 29.25, 1)),
    "cocob": Recipe(
        "COCOB",
        "parameterfree:COCOB",
        {},
        rate=_none,
        told=lambda _: {"alpha": 100.0},
        paper=Paper(25.95, 50.49, 5),
    ),
    "dog": Recipe("DoG", "dog:DoG", {}, rate=_of_dog, told=_by_norm, paper=Paper(19.98, 15.86, 1)),
    "dowg": Recipe("DoWG", rivals.DoWG, {}, paper=Paper(22.06, 27.91, 1)),
    "d-adaptation": Recipe(
        "D-Adaptation", _D_ADAPTATION, {}, rate=_of_d_adaptation, paper=Paper(24.16, 40.12, 3)
    ),
    "prodigy": Recipe("Prodigy", _PRODIGY, {}, rate=_of_prodigy, paper=Paper(29.14, 68.97, 4)),
    "l4": Recipe("L4", rivals.L4, {}, paper=Paper(31.31, 81.55, 2)),
    "ali-g": Recipe(
        "ALI-G", "pytorch_optimizer:AliG", _SGD, paper=Paper(20.47, 18.72, 0), lr_name="max_lr"
    ),
    "sps": Recipe("SPS", rivals.SPS, _LR, paper=Paper(20.44, 18.56, 0)),
    "zenith": Recipe(
        "ZENITH",
        Zenith,
        _ZENITH,
        color="#0072B2",
        paper=Paper(17.47, 1.337, 0),
    ),
    "sgd-cosine": Recipe(
        "SGD + cosine", SGD, _SGD, CosineAnnealingLR, horizon=True, color="#009E73", dash="-."
    ),
    "sgd-step": Recipe("SGD + step decay", SGD, _SGD, _tenthed_twice, horizon=True),
    "sgd-plateau": Recipe(
        "SGD + ReduceLROnPlateau", SGD, _SGD, lambda o, _: ReduceLROnPlateau(o), "epoch"
    ),
    "schedule-free": Recipe(
        "schedule-free SGD",
        "schedulefree:SGDScheduleFree",
        {"lr": 1.0, "momentum": 0.9},
        averages=True,
        told=_warmed_up,
        horizon=True,
    ),
    "adamw-cosine": Recipe("AdamW + cosine", _ADAMW, _ADAMW_LR, CosineAnnealingLR, horizon=True),
    "dog-averaged": Recipe(
        "DoG, averaged",
        "dog:DoG",
        {},
        rate=_of_dog,
        told=_by_norm,
        averager="dog:PolynomialDecayAverager",
    ),
    "gen-same-batch": Recipe("GeN, same batch", partial(rivals.GeN, ahead=False), _LR),
    "sps-smooth": Recipe("SPS smooth", rivals.SPS, {"lr": 1.0}, told=_doubling),
    "d-adaptation-step": Recipe(
        "D-Adaptation + step decay",
        _D_ADAPTATION,
        {"momentum": 0.9},
        _tenthed_twice,
        rate=_of_d_adaptation,
        horizon=True,
    ),
    "prodigy-cosine": Recipe(
        "Prodigy + cosine", _PRODIGY, {}, CosineAnnealingLR, rate=_of_prodigy, horizon=True
    ),
    # From here on in studies of their own alone, and in neither of the blocks below.
    **{
        f"signal-ema-{decay}": Recipe(
            f"ZENITH, EMA of {decay}", partial(signals.Ema, decay=decay), _ZENITH
        )
        for decay in (0.9, 0.99, 0.999)
    },
    "signal-halves": Recipe("ZENITH, half batches", signals.Halves, _ZENITH),
    "signal-successive": Recipe("ZENITH, successive steps", signals.Successive, _ZENITH),
    "signal-loss": Recipe("ZENITH, the loss", signals.Loss, _ZENITH),
    "sasa": Recipe("SASA+", signals.Sasa, _LR, told=_patient),
    "ablation-exponential": Recipe("ZENITH, exponential mean", variants.Exponential, _ZENITH),
    "ablation-first": Recipe("ZENITH, first mean", variants.First, _ZENITH),
    "ablation-late": Recipe("ZENITH, one step late", variants.Late, _ZENITH),
    "ablation-layers": Recipe("ZENITH, layer by layer", variants.Layers, _ZENITH, rate=_none),
    "zenith-decay": Recipe("ZENITH, coupled", Zenith, _ZENITH | _DECAY),
    "zenith-decay-in-norm": Recipe(
        "ZENITH, coupled and in the norm", partial(Zenith, decay_in_norm=True), _ZENITH | _DECAY
    ),
    "zenith-clip": Recipe("ZENITH, clipped", Zenith, _ZENITH | _CLIP),
    "sgd-clip": Recipe("SGD, clipped", variants.Clipped, _SGD | _CLIP),
    "adamw": Recipe("AdamW", _ADAMW, _ADAMW_LR),
    "adamw-zenith": Recipe("AdamW + ZENITH", variants.AdamWZenith, {"lr": 1e-3, "window": 500}),
}

# The rows of two tables, which are never compared across: names with the options that are not as by
# default. A is without momentum, but for what is an optimizer's own, and with 0.1 where a rate is
# taken, as in the paper; B is as the authors recommend.
BLOCKS: Mapping[str, tuple[tuple[str, Mapping[str, float]], ...]] = {
    "A": tuple(
        (name, {})
        for name in (
            *("sgd", "sgd-cosine", "sgd-step", "sgd-plateau", "zenith", "pal", "lqa", "gen"),
            *("gen-same-batch", "cocob", "dog", "dog-averaged", "dowg", "d-adaptation", "prodigy"),
            *("l4", "ali-g", "sps"),
        )
    ),
    "B": (
        *((name, _MOMENTUM) for name in ("zenith", "sgd-cosine", "sgd-step", "ali-g")),
        *((name, {"lr": 0.01} | _MOMENTUM) for name in ("zenith", "sgd-cosine", "sgd-step")),
        *((name, {}) for name in ("sps-smooth", "l4", "d-adaptation-step", "prodigy")),
        *((name, {}) for name in ("prodigy-cosine", "schedule-free", "adamw-cosine")),
    ),
}
