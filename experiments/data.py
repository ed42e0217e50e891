"""The data of the experiments, real and checked: digits from scikit-learn, the rest from the folder `JAXREG_DATA`."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np

SHA256 = {
    "mnist/train-images-idx3-ubyte.gz": "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
    "mnist/train-labels-idx1-ubyte.gz": "fe03b8bd7915f70bf5aa08be480aa413fbd85afcaa58b35d230d335f284fd88e",
    "mnist/t10k-images-idx3-ubyte.gz": "5634745efa576a17e7d4cf5cd9d09123c75e6538e5114267c2d156edaf519341",
    "mnist/t10k-labels-idx1-ubyte.gz": "ae18e77e031ccde52407f794d123116439864147d33ac992975f85dd4dc42af6",
    "mnist1d.npz": "5e36d42c2c8083ad9d023e9a6b92a282ab04b8d05c446fbb806a629ae97bf5a9",
    "prostate.csv": "a90276080fe3ea1c90512462e69c2765fead4313a767e8845bc4098f3aee567b",
    "glmnet_quickstart.npz": "7cd2b136adfc9d64930a48b42b8e8034d75e3adac787ce82c6a3569a51a6735e",
    "leukemia.npz": "fb49f44417b16841121783e1ff154b0d985eefec76d3075eac22d295fb23d135",
    "colon.npz": "b0148bf62bb20cfcbd0b972b5ccfca33bd2750475c8fd2d4eda5f3bc446f0f73",
}


class DataError(RuntimeError):
    """The data cannot be had; the message says how to get it."""


def path(name: str) -> Path:
    """The checked file `name` in the folder `JAXREG_DATA`.

    Raises:
        DataError: if `JAXREG_DATA` is not set, or the file is missing or altered.
    """
    folder = os.environ.get("JAXREG_DATA")
    if not folder:
        raise DataError(f"{name} needs the environment variable JAXREG_DATA, the folder that holds it; it is not set.")
    file = Path(folder) / name
    if not file.is_file():
        raise DataError(f"{name} is missing in JAXREG_DATA={folder}.")
    if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256[name]:
        raise DataError(f"{name} in JAXREG_DATA={folder} is altered: its SHA-256 is not {SHA256[name]}.")
    return file


def load(dataset: str) -> dict[str, np.ndarray]:
    """Inputs `x_*`, float32, and labels `y_*`, int32, for train, val and test.

    Args:
        dataset: "digits" (1077/360/360 × 64), "mnist" (50000/10000/10000 × 784) or "mnist1d" (3200/800/1000 × 40).

    Raises:
        DataError: if the data cannot be had; the message says how to get it.
    """
    x, y, x_test, y_test = {"digits": _digits, "mnist": mnist, "mnist1d": _mnist1d}[dataset]()
    from sklearn.model_selection import train_test_split

    if x_test is None:
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    share = {"digits": 0.25, "mnist": 1 / 6, "mnist1d": 0.2}[dataset]
    x, x_val, y, y_val = train_test_split(x, y, test_size=share, random_state=0, stratify=y)
    arrays = dict(x_train=x, y_train=y, x_val=x_val, y_val=y_val, x_test=x_test, y_test=y_test)
    return {name: np.asarray(a, np.float32 if name[0] == "x" else np.int32) for name, a in arrays.items()}


def _digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x / 16, y, None, None


def mnist():
    """MNIST in the order of its files: inputs in [0, 1] and labels, 60000 to train on and 10000 to test."""
    if os.environ.get("JAXREG_DATA"):

        def read(name, offset):
            return np.frombuffer(gzip.decompress(path(f"mnist/{name}-ubyte.gz").read_bytes()), np.uint8, offset=offset)

        x, x_test = (read(f"{part}-images-idx3", 16).reshape(-1, 784) / 255 for part in ("train", "t10k"))
        return x, read("train-labels-idx1", 8), x_test, read("t10k-labels-idx1", 8)
    from sklearn.datasets import fetch_openml

    try:
        x, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
    except Exception as error:
        raise DataError(
            "mnist needs JAXREG_DATA, a folder with mnist/*-ubyte.gz (the four IDX files), or a network for "
            f"scikit-learn's OpenML loader, which failed: {error}"
        ) from error
    x, y = x / 255, y.astype(int)
    return x[:60000], y[:60000], x[60000:], y[60000:]


def _mnist1d():
    if not os.environ.get("JAXREG_DATA"):
        raise DataError(
            "mnist1d needs JAXREG_DATA, a folder with mnist1d.npz, the frozen copy of MNIST-1D (Greydanus 2020) with "
            f"arrays x (4000 × 40), y, x_test (1000 × 40), y_test and SHA-256 {SHA256['mnist1d.npz']}."
        )
    with np.load(path("mnist1d.npz")) as file:
        return tuple(file[name] for name in ("x", "y", "x_test", "y_test"))
