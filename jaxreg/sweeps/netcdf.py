"""Chunk files: NetCDF-4 images in memory, checked by a checksum.

HDF5 takes milliseconds to lay out a file of a dozen variables. The chunks of one group differ in their numbers alone,
so the library lays out the first of them, and the rest are copies with other bytes where the numbers are.
"""

import math
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

_MAGIC = b"jxrg"  # upper half of the checksum's field, by which it is found
_KEEP = 64  # layouts kept; a sweep has two for each group, that of full chunks and that of the tail
_KEEP_BYTES = 1 << 22


class Damaged(ValueError):
    """The bytes are no whole chunk file."""


class Layout(NamedTuple):
    """Where a file has its numbers, and every byte that is no number."""

    size: int
    numbers: dict[str, tuple[int, np.dtype, tuple[int, ...], bool]]  # offset, dtype, shape, whether they are bools
    labels: dict[str, list[str]]
    checksum: int
    gaps: list[tuple[int, int, bytes]]

    def fits(self, part: Callable[[int, int], bytes]) -> bool:
        """Whether a file of this size has this layout, given a reader of its bytes."""
        return all(part(start, stop) == content for start, stop, content in self.gaps)


_templates: dict[tuple, tuple[Layout, bytes]] = {}  # by what is written: the layout, and the first file
_layouts: dict[int, list[Layout]] = {}  # by size: those met when reading


def encode(variables: dict[str, np.ndarray | list[str]], attrs: dict[str, str]) -> bytearray:
    """The bytes of a NetCDF-4 file; first dim 'row', then `<name>_dim_0`, ...; a list of strings holds labels."""
    key = (tuple((name, _kind(values)) for name, values in variables.items()), tuple(attrs.items()))
    layout, image = _templates.get(key, (None, None))
    if layout is None:
        image = _build(variables, attrs)
        layout = _layout(image, image.index(bytes(4) + _MAGIC))
        if len(image) <= _KEEP_BYTES:
            if len(_templates) >= _KEEP:
                _templates.clear()
            _templates[key] = layout, image
    image = bytearray(image)
    for name, (offset, *_) in layout.numbers.items():
        data = np.ascontiguousarray(variables[name]).reshape(-1).view(np.uint8)
        image[offset : offset + data.size] = data.data
    image[layout.checksum : layout.checksum + 8] = _checksum(image, layout.checksum)
    return image


def read(path: Path, names: Iterable[str] | None = None, *, verify: bool = True) -> dict[str, np.ndarray | list[str]]:
    """Variables of a chunk file; `verify` reads all of it and compares the checksum.

    Raises:
        Damaged: if the file is cut off, or its bytes have changed.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        known = _layouts.get(size, ())
        image = file.read() if verify or not known else None
        part = _parts_of_file(file) if image is None else _parts(image)
        layout = next((layout for layout in known if layout.fits(part)), None)
        if layout is None:
            file.seek(0)
            image = file.read()
            part, layout = _parts(image), _layout(image, _find_checksum(image))
            if sum(map(len, _layouts.values())) >= _KEEP:
                _layouts.clear()
            _layouts[size] = [*known, layout]
        if verify and image[layout.checksum : layout.checksum + 8] != _checksum(image, layout.checksum):
            raise Damaged("it has other bytes than were written")
        wanted = [*layout.numbers, *layout.labels] if names is None else names
        return {name: _variable(layout, name, part) for name in wanted}


def _parts(image: bytes) -> Callable[[int, int], bytes]:
    return lambda start, stop: image[start:stop]


def _parts_of_file(file) -> Callable[[int, int], bytes]:
    def part(start, stop):
        file.seek(start)
        return file.read(stop - start)

    return part


def _variable(layout: Layout, name: str, part):
    if name in layout.labels:
        return list(layout.labels[name])
    offset, dtype, shape, is_bool = layout.numbers[name]
    count = math.prod(shape)
    data = part(offset, offset + count * dtype.itemsize) if count else b""
    if len(data) != count * dtype.itemsize:
        raise Damaged(f"it ends within {name!r}")
    values = np.frombuffer(data, dtype).reshape(shape)
    return values.astype(bool) if is_bool else values.copy()


def _kind(values) -> tuple:
    return tuple(values) if isinstance(values, list) else (values.dtype.str, values.shape)


def _checksum(image: bytes | bytearray, at: int) -> bytes:
    view = memoryview(image)
    crc = zlib.crc32(view[at + 8 :], zlib.crc32(view[:at]))
    return crc.to_bytes(4, "little") + _MAGIC


def _build(variables, attrs) -> bytes:
    import h5py

    with h5py.File("chunk", "w", driver="core", backing_store=False) as file:
        file.attrs.update(attrs)
        file.attrs["checksum"] = np.frombuffer(bytes(4) + _MAGIC, "<u8")[0]
        for name, values in variables.items():
            is_label = isinstance(values, list)
            data = np.array(values, object) if is_label else values.astype("i1") if values.dtype == bool else values
            variable = file.create_dataset(name, data=data, dtype=h5py.string_dtype() if is_label else None)
            if not is_label and values.dtype == bool:
                variable.attrs["dtype"] = "bool"  # NetCDF has none; xarray knows this convention
            for i, size in enumerate(data.shape):
                dim = f"{name}_dim_{i - 1}" if i else "row"
                if dim not in file:
                    scale = file.create_dataset(dim, (size,), "f4")
                    scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:10d}")
                variable.dims[i].attach_scale(file[dim])
        file.flush()
        return file.id.get_file_image()


def _layout(image: bytes, checksum: int) -> Layout:
    import h5py

    numbers, labels = {}, {}
    with h5py.File(h5py.h5f.open_file_image(image)) as file:
        for name, variable in file.items():
            if variable.is_scale:
                continue
            if variable.dtype.kind == "O":
                labels[name] = variable.asstr()[()].tolist()
            else:
                offset = variable.id.get_offset() or 0  # nothing is stored of an empty array
                numbers[name] = offset, variable.dtype, variable.shape, variable.attrs.get("dtype") == "bool"
    spans = [(offset, offset + math.prod(shape) * dtype.itemsize) for offset, dtype, shape, _ in numbers.values()]
    spans += [(checksum, checksum + 8), (len(image), len(image))]
    gaps, start = [], 0
    for first, stop in sorted(spans):
        if start < first:
            gaps.append((start, first, image[start:first]))
        start = max(start, stop)
    return Layout(len(image), numbers, labels, checksum, gaps)


def _find_checksum(image: bytes) -> int:
    """Where the checksum is, in a whole file. HDF5, which damaged metadata may crash, is given no other."""
    at = image.find(_MAGIC)
    while at >= 0:
        if at >= 4 and image[at - 4 : at + 4] == _checksum(image, at - 4):
            return at - 4
        at = image.find(_MAGIC, at + 1)
    raise Damaged("it is cut off, or has other bytes than were written")
