"""Noise as regularization: pure functions `f(key, x, rate, ...)`, so that a rate is one more axis of a sweep."""

from jaxreg.noise.dropout import alpha_dropout as alpha_dropout
from jaxreg.noise.dropout import drop_connect as drop_connect
from jaxreg.noise.dropout import drop_path as drop_path
from jaxreg.noise.dropout import dropout as dropout
from jaxreg.noise.gaussian import gaussian_dropout as gaussian_dropout
from jaxreg.noise.gaussian import gaussian_noise as gaussian_noise
from jaxreg.noise.mixing import cutmix as cutmix
from jaxreg.noise.mixing import mixup as mixup
