"""Other libraries' strengths, to ours and back.

`from_*` takes a library's numbers to a penalty, `to_*` takes a penalty to that library's numbers. The numbers may be
arrays, traced or batched; literal ones are checked. "Pairs with" names the loss to which the penalty is added here;
n is the number of examples.

Semantics that differ, where no number can be converted:

- Keras' `activity_regularizer` takes the strengths of its weight regularizers and divides by the batch size, as
  `activity_penalty` does.
- Keras' optimizers, SGD too, decay decoupled, as `decay` does; torch's SGD and Adam couple.
- Keras' `MaxNorm` divides by ε + ‖x‖ and so shrinks, at every step, weights inside the ball too; `L2Ball` and torch's
  `renorm` return those as they are. torch's `renorm(x, 2, dim, r)` names the axis that is kept, the others are ours.
- Keras' `MinMaxNorm` is `NormRange` and its `UnitNorm` is `Sphere` up to the same ε; a zero vector stays where it is.
- torch's BatchNorm keeps a running average of the unbiased variance, Σ(x − x̄)²/(n − 1), and normalizes by the biased
  one; Flax and Keras use the biased one for both. On the same data torch evaluates with the larger variance.
"""

from __future__ import annotations  # so that `help` shows the names of the ranges

import functools
import math
import typing
from collections.abc import Callable
from typing import Annotated

from jax.typing import ArrayLike

from jaxreg.penalties import L1, ElasticNet, SquaredL2
from jaxreg.pytree import as_number

Strength = Annotated[ArrayLike, ">= 0", lambda x: x >= 0]
Positive = Annotated[ArrayLike, "> 0", lambda x: x > 0]
Share = Annotated[ArrayLike, "in [0, 1]", lambda x: 0 <= x <= 1]
Mixture = L1 | SquaredL2 | ElasticNet


def converter(fn: Callable) -> Callable:
    """Hold `fn` to its annotations: the kind of a penalty (TypeError), the range of a literal number (ValueError)."""
    kinds = typing.get_type_hints(fn, include_extras=True)
    del kinds["return"]

    def checked_one(name, x):
        if typing.get_origin(kinds.get(name)) is Annotated:
            text, holds = kinds[name].__metadata__
            x = as_number(fn.__name__, name, x)
            if isinstance(x, (int, float)) and not holds(x):
                raise ValueError(f"`{fn.__name__}` needs `{name}` {text}, got {x}.")
        elif name in kinds and not isinstance(x, kinds[name]):
            names = " or ".join(kind.__name__ for kind in typing.get_args(kinds[name]) or [kinds[name]])
            raise TypeError(f"`{fn.__name__}` needs {names} as `{name}`, got {x!r}.")
        return x

    @functools.wraps(fn)
    def checked(*args, **kwargs):
        args = [*map(checked_one, kinds, args), *args[len(kinds) :]]
        return fn(*args, **{name: checked_one(name, x) for name, x in kwargs.items()})

    return checked


def _l1_ratio(penalty: Mixture):
    return penalty.l1_ratio if isinstance(penalty, ElasticNet) else float(isinstance(penalty, L1))


@converter
def from_keras_l1(l1: Strength) -> L1:
    """`keras.regularizers.L1`, l1·Σ|w|: the same number."""
    return L1(l1)


@converter
def to_keras_l1(penalty: L1) -> ArrayLike:
    """`l1` of `keras.regularizers.L1`: λ."""
    return penalty.lam


@converter
def from_keras_l2(l2: Strength) -> SquaredL2:
    """`keras.regularizers.L2`, l2·Σw², without ½: λ = 2·l2.

    >>> from_keras_l2(0.01).lam, to_keras_l2(SquaredL2(0.02))
    (0.02, 0.01)
    """
    return SquaredL2(2 * l2)


@converter
def to_keras_l2(penalty: SquaredL2) -> ArrayLike:
    """`l2` of `keras.regularizers.L2`: λ/2."""
    return penalty.lam / 2


@converter
def from_keras_l1_l2(l1: Strength = 0.0, l2: Strength = 0.0) -> ElasticNet:
    """`keras.regularizers.L1L2`, l1·Σ|w| + l2·Σw²: λ = l1 + 2·l2, ρ = l1/λ.

    At l1 = l2 = 0 it is ρ = 0: derivatives in `l1` and `l2` are ridge's there.

    >>> from_keras_l1_l2(1.0, 1.5).lam, from_keras_l1_l2(1.0, 1.5).l1_ratio
    (4.0, 0.25)
    """
    lam = l1 + 2 * l2
    return ElasticNet(lam, l1 / (lam + (lam == 0)))


@converter
def to_keras_l1_l2(penalty: Mixture) -> tuple[ArrayLike, ArrayLike]:
    """(`l1`, `l2`) of `keras.regularizers.L1L2`: (λρ, λ(1−ρ)/2).

    >>> to_keras_l1_l2(ElasticNet(4.0, 0.25)), to_keras_l1_l2(SquaredL2(1.0))
    ((1.0, 1.5), (0.0, 0.5))
    """
    ratio = _l1_ratio(penalty)
    return penalty.lam * ratio, penalty.lam * (1 - ratio) / 2


# ------------------------------------------------------------------ torch and AdamW: factors in the update


@converter
def from_torch_weight_decay(weight_decay: Strength) -> SquaredL2:
    """torch's `weight_decay`, the same number; what differs is the verb.

    Coupled (`SGD`, `Adam`), g ← g + λw: `chain(add_penalty_gradient(penalty), optimizer)`. Decoupled (`AdamW`, and so
    `optax.adamw` and Keras' optimizers), w ← w − lr·λw: `chain(optimizer, decay(penalty, lr))`.

    >>> from_torch_weight_decay(0.01).lam, to_torch_weight_decay(SquaredL2(0.01))
    (0.01, 0.01)
    """
    return SquaredL2(weight_decay)


@converter
def to_torch_weight_decay(penalty: SquaredL2) -> ArrayLike:
    """`weight_decay` of torch's optimizers: λ."""
    return penalty.lam


@converter
def from_loshchilov_hutter(lam: Strength, learning_rate: Positive) -> SquaredL2:
    """AdamW as its authors wrote it, w ← w − η_t(α·step + λw), for `decay(penalty, lambda t: α·η_t)`: λ/α.

    α is `learning_rate`, the peak, and η_t the schedule's multiplier: their decay is not times α, torch's and optax's
    is. `decay(SquaredL2(lam), η)` is the same without conversion. Their normalized λ_norm has λ = λ_norm·√(b/(BT)) with
    batches of b out of B examples for T epochs.

    >>> from_loshchilov_hutter(1e-5, 1e-3).lam, to_loshchilov_hutter(SquaredL2(0.5), 0.5)
    (0.01, 0.25)

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, algorithm 2 and appendix B.1.
    """
    return SquaredL2(lam / learning_rate)


@converter
def to_loshchilov_hutter(penalty: SquaredL2, learning_rate: Positive) -> ArrayLike:
    """The paper's λ from that of `decay(penalty, lambda t: α·η_t)` with α the `learning_rate`: λα."""
    return penalty.lam * learning_rate


# ------------------------------------------------------------------ scikit-learn, glmnet, textbook: sums or means


@converter
def from_sklearn_ridge(alpha: Strength, num_examples: Positive) -> SquaredL2:
    """`Ridge`, ‖y − Xw‖² + α‖w‖²: λ = α/n. Pairs with ‖y − Xw‖²/(2n).

    >>> from_sklearn_ridge(1.0, 50).lam, to_sklearn_ridge(SquaredL2(0.02), 50)
    (0.02, 1.0)
    """
    return SquaredL2(alpha / num_examples)


@converter
def to_sklearn_ridge(penalty: SquaredL2, num_examples: Positive) -> ArrayLike:
    """`alpha` of `Ridge`: λn."""
    return penalty.lam * num_examples


@converter
def from_sklearn_lasso(alpha: Strength) -> L1:
    """`Lasso`, ‖y − Xw‖²/(2n) + α‖w‖₁: the same number. Pairs with ‖y − Xw‖²/(2n)."""
    return L1(alpha)


@converter
def to_sklearn_lasso(penalty: L1) -> ArrayLike:
    """`alpha` of `Lasso`: λ."""
    return penalty.lam


@converter
def from_sklearn_elastic_net(alpha: Strength, l1_ratio: Share = 0.5) -> ElasticNet:
    """`ElasticNet`, ‖y − Xw‖²/(2n) + α(ρ‖w‖₁ + (1−ρ)/2 ‖w‖²): the same numbers. Pairs with ‖y − Xw‖²/(2n)."""
    return ElasticNet(alpha, l1_ratio)


@converter
def to_sklearn_elastic_net(penalty: Mixture) -> tuple[ArrayLike, ArrayLike]:
    """(`alpha`, `l1_ratio`) of `ElasticNet`: (λ, ρ)."""
    return penalty.lam, _l1_ratio(penalty)


@converter
def from_sklearn_logistic(C: Positive, num_examples: Positive, l1_ratio: Share = 0.0) -> ElasticNet:
    """`LogisticRegression`, C·Σ loss + ρ‖w‖₁ + (1−ρ)/2 ‖w‖²: λ = 1/(Cn). Pairs with the mean log-loss.

    The intercept is free, but for the solver `liblinear`, which penalizes it.

    >>> from_sklearn_logistic(2.0, 50).lam, to_sklearn_logistic(SquaredL2(0.01), 50)
    (0.01, (2.0, 0.0))
    """
    return ElasticNet(1 / (C * num_examples), l1_ratio)


@converter
def to_sklearn_logistic(penalty: Mixture, num_examples: Positive) -> tuple[ArrayLike, ArrayLike]:
    """(`C`, `l1_ratio`) of `LogisticRegression`: (1/(λn), ρ), C = inf at λ = 0."""
    total = penalty.lam * num_examples
    zero = isinstance(total, (int, float)) and total == 0
    return math.inf if zero else 1 / total, _l1_ratio(penalty)


@converter
def from_glmnet(lam: Strength, alpha: Share = 1.0, y_sd: Positive = 1.0) -> ElasticNet:
    """glmnet's (`lambda`, `alpha`): the same numbers, up to the scale of y. Pairs with ‖y − Xw − b‖²/(2n).

    The columns of X are standardized, divided by their standard deviations of divisor n, unless `standardize=FALSE`.
    The gaussian family divides y too, always, by its own such deviation `y_sd` (without intercept, its root mean
    square): on y as given the penalty is λ(α‖w‖₁ + (1−α)/2 ‖w‖²/y_sd). Other families pair with the mean loss.

    >>> from_glmnet(4.0, 0.25).lam, from_glmnet(4.0, 0.25, y_sd=3.0).l1_ratio
    (4.0, 0.5)

    References:
        Friedman, Hastie and Tibshirani, Regularization paths via coordinate descent, 2010, eq. 1-3; glmnet 4.1-8.
    """
    total = alpha + (1 - alpha) / y_sd
    return ElasticNet(lam * total, alpha / total)


@converter
def to_glmnet(penalty: Mixture, y_sd: Positive = 1.0) -> tuple[ArrayLike, ArrayLike]:
    """(`lambda`, `alpha`) of glmnet for y with standard deviation `y_sd`."""
    ratio = _l1_ratio(penalty)
    total = ratio + (1 - ratio) * y_sd
    return penalty.lam * total, ratio / total


@converter
def from_textbook(lam: Strength, num_examples: Positive) -> SquaredL2:
    """The textbook's J + λ/(2m) Σ‖W‖²_F: λ/m. Pairs with a mean J.

    `penalized(loss_fn, SquaredL2(lam), num_examples=m)` is the same without conversion.

    >>> from_textbook(0.5, 10).lam, to_textbook(SquaredL2(0.05), 10)
    (0.05, 0.5)
    """
    return SquaredL2(lam / num_examples)


@converter
def to_textbook(penalty: SquaredL2, num_examples: Positive) -> ArrayLike:
    """The textbook's λ: λm."""
    return penalty.lam * num_examples
