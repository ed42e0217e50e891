"""Columns: the values of one argument along a dim of a space."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxreg.sweeps.labels import distinct


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """The values of one argument along a dim.

    Attributes:
        values: (n,) numbers, which are batched; or an object array of static values.
        labels: None for numbers; else (n,) what the static values are called, an object array.
        present: (n,) False where the argument is not passed, and the default of `train` applies.
    """

    values: np.ndarray
    labels: np.ndarray | None = None
    present: np.ndarray | None = None

    def __post_init__(self):
        if self.present is None:
            object.__setattr__(self, "present", np.ones(len(self.values), bool))

    @property
    def is_static(self) -> bool:
        """Whether each value is compiled in, rather than batched."""
        return self.labels is not None

    def take(self, index) -> "Column":
        """The values at `index`."""
        return Column(self.values[index], self.labels[index] if self.is_static else None, self.present[index])

    def where(self, present: np.ndarray) -> "Column":
        """The values where `present`, elsewhere absent."""
        present = self.present & present
        values, labels = self.values.copy(), self.labels
        values[~present] = None if self.is_static else 0
        if self.is_static:
            labels = labels.copy()
            labels[~present] = ""
        return Column(values, labels, present)

    def python(self) -> np.ndarray:
        """Python numbers or labels, None where absent: an object array."""
        out = self.labels.copy() if self.is_static else objects(plain(self.values).tolist())
        out[~self.present] = None
        return out

    def coordinate(self) -> np.ndarray:
        """The values or labels, in a dtype that NumPy knows: NaN, or '' among strings, where absent."""
        values = plain(self.values)
        if self.is_static:
            kinds = {type(label) for label in self.labels[self.present]}
            blank = 0 if kinds == {int} else False if kinds == {bool} else 0.0
            values = np.array([blank if label == "" else label for label in self.labels])
            if len(kinds) != 1 or values.dtype.kind not in "biuf":
                return np.array([str(label) for label in self.labels])
        if self.present.all():
            return values
        wide = np.result_type(values.dtype, np.float64 if values.dtype.kind in "biu" else np.float16)
        return np.where(self.present, values.astype(wide), np.array(np.nan, wide))

    def to_json(self) -> dict:
        """A plain dict for `json.dumps`; static values are kept by their labels."""
        if self.is_static:
            saved = {"labels": self.labels.tolist()}
        else:
            values = plain(self.values).tolist()
            saved = {"dtype": self.values.dtype.name}
            saved["values"] = [str(v) for v in values] if self.values.dtype.kind == "c" else values
        return saved if self.present.all() else saved | {"present": self.present.tolist()}

    @staticmethod
    def from_json(saved: dict) -> "Column":
        """The column that `to_json` saved, with labels for its static values."""
        present = np.array(saved["present"]) if "present" in saved else None
        if "labels" in saved:
            labels = objects(saved["labels"])
            return Column(labels.copy(), labels, present)
        dtype = jnp.dtype(saved["dtype"])
        values = [complex(v) for v in saved["values"]] if dtype.kind == "c" else saved["values"]
        return Column(np.array(values, dtype), None, present)


def stacked(name: str, one: Column | None, two: Column | None, *sizes: int) -> Column:
    """One column under the other; None is an argument that is absent everywhere."""
    given = one or two
    one, two = (
        c or given.take(np.zeros(n, int)).where(np.zeros(n, bool)) for c, n in zip((one, two), sizes, strict=True)
    )
    present = np.concatenate([one.present, two.present])
    if one.is_static != two.is_static:
        raise ValueError(f"`|` needs {name!r} static in both spaces or numbers in both; got one of each.")
    if not one.is_static:
        return Column(_stacked_numbers(name, one.values, two.values), None, present)
    known, labels = {}, []
    for value, label, here in zip([*one.values, *two.values], [*one.labels, *two.labels], present, strict=True):
        labels.append(distinct(label, value, known) if here else "")
    return Column(np.concatenate([one.values, two.values]), objects(labels), present)


def _stacked_numbers(name: str, *parts: np.ndarray) -> np.ndarray:
    try:
        dtype = np.result_type(*(part.dtype for part in parts))
    except TypeError:  # bfloat16 and integers, say
        dtype = np.dtype(np.float64)
    for part in parts:
        if not np.array_equal(part.astype(dtype).astype(part.dtype), part):
            raise ValueError(f"`|` needs numbers of one dtype for {name!r}, got {[str(p.dtype) for p in parts]}.")
    return np.concatenate([part.astype(dtype) for part in parts])


def objects(values) -> np.ndarray:
    """A 1-D object array, whatever the values are."""
    out = np.empty(len(values), object)
    for i, value in enumerate(values):  # at once, NumPy would look into tuples
        out[i] = value
    return out


def plain(values: np.ndarray) -> np.ndarray:
    """The values in a dtype of NumPy's own: bfloat16 and its like as float32, int4 as int32."""
    if values.dtype.kind in "OUbiufc":
        return values
    return values.astype(np.int32 if jnp.issubdtype(values.dtype, jnp.integer) else np.float32)
