"""Spaces of configurations."""

import functools
import itertools
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxreg.sweeps.axes import conditional, static
from jaxreg.sweeps.grids import as_space, configurations, grid, zipped
from jaxreg.sweeps.samples import integers, log_uniform, sample, uniform
from jaxreg.sweeps.spaces import Space

AXES = {
    "lam": [0.0, 0.1, math.inf],
    "seed": range(2),
    "big": [2**53 + 1, -(2**62)],
    "unsigned": [2**63],
    "half": jnp.asarray([0.1, 2.0], jnp.bfloat16),
    "single": np.float32([0.1, 0.3]),
    "small": np.int8([-1, 1]),
    "flag": [True, False],
    "complex": [1j, 2.0],
    "optimizer": ["sgd", "adam", "sgd"],
    "f": [jnp.sin, jnp.cos],
    "named": {"one": optax.sgd(1.0), "two": optax.sgd(2.0)},
    "width": static([64, 128]),
    "hidden": static([(64,), (64, 64), None]),
}
SPACES = {
    "grid": grid(lam=[0.1, 0.2, 0.2], optimizer=["sgd", "adam"], seed=range(2)),
    "single": grid(lam=[0.1]),
    "zipped": zipped(width=static([64, 128, 64]), lr=np.float32([0.1, 0.2, 0.3])),
    "product": zipped(dim="model", width=static([64, 128]), f=[jnp.sin, jnp.cos]) * grid(seed=range(3)),
    "conditional": grid(
        seed=range(2),
        optimizer=["sgd", "adam"],
        nesterov=conditional([True, False], momentum=0.9),
        momentum=conditional([0.0, 0.9], optimizer="sgd"),
    ),
    "configurations": configurations([{"lr": 1, "name": "a"}, {"name": "b", "hidden": (2, 2)}, {"lr": 0.5, "n": 2}]),
    "union": grid(lam=[0, 1], width=static([64, 128])) | grid(lam=[0.5, 1.0], f=["a", "b"]),
    "sample": sample(8, lr=log_uniform(1e-3, 1.0), f=["a", "b"], beta=conditional(uniform(0, 1), f="a")),
}
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def again(space):
    return Space.from_json(json.loads(json.dumps(space.to_json())))


def batched(space):
    return [name for dim in space.dims for name, column in dim.columns.items() if not column.is_static]


# Laws ----------------------------------------------------------------------------------------------------------------


@spaces
def test_size_is_the_product(space):
    assert space.size == math.prod(space.shape) == math.prod(space.sizes.values()) == len(space.cells())
    for name, (dim, values) in space.coords().items():
        assert name in space.arguments
        assert values.shape == (space.sizes[dim],)


@spaces
def test_each_row_is_in_one_group(space):
    groups = space.groups()
    rows = np.concatenate([group.rows for group in groups])
    np.testing.assert_array_equal(np.sort(rows), np.arange(space.size))
    assert [group.rows[0] for group in groups] == sorted(group.rows[0] for group in groups)
    assert all((np.diff(group.rows) > 0).all() for group in groups)
    assert len({group.name for group in groups}) == len(groups)


@spaces
def test_rows_cells_and_groups_tell_one_story(space):
    cells = space.cells()
    for group in space.groups():
        numbers = space.numbers(group.numbers, group.rows)
        for i, row in enumerate(group.rows):
            configuration = space.configuration(row)
            assert configuration == group.static | {name: plain(values[i]) for name, values in numbers.items()}
            told = group.labels | {name: plain(values[i]) for name, values in numbers.items()}
            assert cells[row] == tuple(told.get(name) for name in sorted(space.arguments))
            assert all((name in group.absent) == (name not in configuration) for name in space.arguments)
        assert space.cells(group.rows) == [cells[row] for row in group.rows]


def plain(value):
    return float(value) if value.dtype == jnp.bfloat16 else value.item()


@spaces
def test_coordinates_are_those_of_the_cells(space):
    dataset = xr.Dataset(coords=space.coords())
    flat = dataset.stack(row=list(space.sizes), create_index=False)
    for position, name in enumerate(sorted(space.arguments)):
        values = np.broadcast_to(flat[name], space.size)
        for value, cell in zip(values, space.cells(), strict=True):
            if cell[position] is None:
                assert value == "" or np.isnan(value)
            else:
                assert value in (cell[position], str(cell[position]))


@pytest.mark.parametrize("name", AXES)
def test_saved_axes(name):
    space = grid(**{name: AXES[name]})
    assert again(space).cells() == space.cells()
    saved, values = again(space).coords()[name][1], space.coords()[name][1]
    assert saved.dtype == values.dtype
    np.testing.assert_array_equal(saved, values)
    for argument in batched(space):
        one, two = (s.numbers([argument], range(s.size))[argument] for s in (space, again(space)))
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


@spaces
def test_saved_spaces(space):
    assert again(space).cells() == space.cells()
    assert again(space).sizes == space.sizes
    assert [g.name for g in again(space).groups()] == [g.name for g in space.groups()]
    for name, (dim, values) in again(space).coords().items():
        assert dim == space.coords()[name][0]
        np.testing.assert_array_equal(values, space.coords()[name][1])


@spaces
def test_union_with_itself(space):
    union = space | space
    assert union.sizes == {"config": len(set(space.cells()))}
    assert union.cells() == list(dict.fromkeys(space.cells()))
    assert [g.name for g in union.groups()] == [g.name for g in space.groups()]
    assert (union | space).cells() == union.cells()


numbers = st.lists(st.one_of(st.integers(-5, 5), st.sampled_from([0.5, 2.5, math.inf])), min_size=1, max_size=4)
texts = st.lists(st.sampled_from(["a", "b", "c, d=e", ""]), min_size=1, max_size=3)
rows = st.dictionaries(st.sampled_from("xyz"), st.sampled_from([0, 1, 2.5, -math.inf]), min_size=1)


@settings(max_examples=40, deadline=None)
@given(x=numbers, s=texts, some=st.lists(rows, min_size=1, max_size=4), more=st.lists(rows, min_size=1, max_size=4))
def test_algebra(x, s, some, more):
    product = grid(x=x, s=s)
    assert [tuple(product.configuration(i).values()) for i in range(product.size)] == [*itertools.product(x, s)]
    a, b = configurations(some), configurations(more)
    for space, given_rows in ((a, some), (b, more)):
        assert [space.configuration(i) for i in range(space.size)] == given_rows
    union = a | b
    found = [union.configuration(i) for i in range(union.size)]
    assert all(row in found for row in some + more)
    assert all(row in some + more for row in found)
    assert len(union.cells()) == len(set(union.cells()))
    assert again(union).cells() == union.cells()
    groups = (a.rename(config="draw") * grid(s=s)).groups()
    assert sum(len(group.rows) for group in groups) == a.size * len(s)
    assert len({group.name for group in groups}) == len(groups) == len({frozenset(r) for r in some}) * len(set(s))


# Axes ----------------------------------------------------------------------------------------------------------------


def test_numbers_are_batched_and_the_rest_static():
    space = grid(**AXES)
    assert set(space.arguments) - set(batched(space)) == {"optimizer", "f", "named", "width", "hidden"}
    assert space.numbers(["half"], [0])["half"].dtype == jnp.bfloat16
    assert space.numbers(["single"], [0])["single"].dtype == np.float32
    assert all(isinstance(value, np.ndarray) for _, value in space.coords().values())
    assert space.configuration(0)["f"] is jnp.sin
    assert space.configuration(0)["named"] is AXES["named"]["one"]
    assert space.configuration(0)["hidden"] == (64,)


def f(x):
    return x


LAMBDAS = [lambda x: x, lambda x: -x]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["a", "b", "a"], ["a", "b", "a"]),
        ([f, dict], ["f", "dict"]),
        ([*LAMBDAS, LAMBDAS[0]], ["<lambda>", "<lambda> #2", "<lambda>"]),
        ([functools.partial(f, 2)], ["functools.partial(<function f>, 2)"]),
        ([None, 0.5, "0.5"], ["None", 0.5, "0.5 #2"]),
        ({"one": f, 2: f}, ["one", 2]),
        (static([1, True, 1.0, "1"]), [1, "True #2", "1.0 #2", "1 #2"]),
        (static(np.arange(2)), [0, 1]),
        (static(range(2)), [0, 1]),
        (np.array(["a", "b"]), ["a", "b"]),
        ([optax.EmptyState(), f], ["EmptyState()", "f"]),
    ],
)
def test_labels(values, labels):
    space = grid(x=values)
    assert space.cells() == [(label,) for label in labels]
    assert list(map(type, next(zip(*space.cells(), strict=True)))) == [*map(type, labels)]
    assert [group.labels["x"] for group in space.groups()] == [*dict.fromkeys(labels)]


def test_group_names_read_one_way():
    space = grid(b=["1, a=2", "1"], a=["x='y'", "x"])
    assert len({group.name for group in space.groups()}) == 4
    assert grid(x=static([64, "a"])).groups()[0].name == "x=64"
    assert space.groups()[0].name == "a=\"x='y'\", b='1, a=2'"
    assert grid(lam=[0.1]).groups()[0].name == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (static([64, 128]), np.array([64, 128])),
        (static([True, False]), np.array([True, False])),
        (static([1, 0.5]), np.array(["1", "0.5"])),
        (static([2**70]), np.array([str(2**70)])),
        (["a", "b"], np.array(["a", "b"])),
        (jnp.asarray([1, 2], jnp.bfloat16), np.float32([1, 2])),
        (jnp.asarray([1, 2], jnp.int4), np.int32([1, 2])),
    ],
)
def test_coordinates(values, expected):
    dim, coordinate = grid(x=values).coords()["x"]
    assert dim == "x"
    assert coordinate.dtype == expected.dtype
    np.testing.assert_array_equal(coordinate, expected)


def test_coordinates_of_absent_arguments():
    rows = [{"n": 1, "x": np.float32(0.5), "s": "a", "w": 1, "t": True}, {"y": 1}]
    coords = {name: values for name, (_, values) in configurations(rows, static=["w", "t"]).coords().items()}
    assert {name: values.dtype.kind for name, values in coords.items()} == dict(
        n="f", x="f", s="U", w="f", t="f", y="f"
    )
    assert coords["x"].dtype == np.float32
    assert coords["s"].tolist() == ["a", ""]
    assert all(np.isnan(coords[name][1]) and coords[name][0] == rows[0][name] for name in "nxwt")
    assert np.isnan(coords["y"][0])


# Spaces --------------------------------------------------------------------------------------------------------------


def written_out(*grids):
    return {frozenset(s.configuration(i).items()) for s in grids for i in range(s.size)}


def test_conditional_is_the_union_of_grids():
    space = grid(
        lam=[0.1, 1.0],
        optimizer=["sgd", "adam", "lion"],
        momentum=conditional([0.0, 0.9], optimizer="sgd"),
        nesterov=conditional([True, False], momentum=0.9),
        b1=conditional([0.8, 0.9], optimizer=["adam", "lion"]),
        eps=conditional([1e-8], optimizer="adam", b1=0.9),
    )
    assert space.shape == (2, 7)
    assert [dim.name for dim in space.dims] == ["lam", "config"]
    lam = [0.1, 1.0]
    assert written_out(space) == written_out(
        grid(lam=lam, optimizer=["sgd"], momentum=[0.0]),
        grid(lam=lam, optimizer=["sgd"], momentum=[0.9], nesterov=[True, False]),
        grid(lam=lam, optimizer=["adam"], b1=[0.8]),
        grid(lam=lam, optimizer=["adam"], b1=[0.9], eps=[1e-8]),
        grid(lam=lam, optimizer=["lion"], b1=[0.8, 0.9]),
    )
    assert len(set(space.cells())) == space.size
    optimizers = [space.configuration(i)["optimizer"] for i in range(7)]
    assert optimizers == ["sgd"] * 3 + ["adam"] * 2 + ["lion"] * 2  # in the order of the axes


def test_conditional_on_objects_labels_and_later_axes():
    space = grid(x=conditional([1, 2], f=jnp.sin), f=[jnp.sin, jnp.cos])
    assert space.cells() == [(label, x) for label, x in [("sin", 1), ("cos", None), ("sin", 2)]]
    assert grid(f=[jnp.sin, jnp.cos], x=conditional([1, 2], f="sin")).size == 3
    assert grid(w=static([64, 128]), x=conditional(["a", "b"], w=64)).coords()["x"][1].tolist() == ["a", "b", ""]


def test_union():
    one, two = [lambda: 1], [lambda: 2]
    union = grid(f=one, lam=[1, 2]) | grid(f=two, lam=[2.5]) | grid(f=one, lam=[2, 3])
    assert union.cells() == [("<lambda>", 1), ("<lambda>", 2), ("<lambda> #2", 2.5), ("<lambda>", 3)]
    assert union.configuration(2)["f"] is two[0]
    wide = grid(x=jnp.asarray([1.5], jnp.bfloat16)) | grid(x=[2**40]) | grid(y=["a"])
    assert wide.cells() == [(1.5, None), (2**40, None), (None, "a")]
    assert [group.name for group in wide.groups()] == ["no y", "no x, y=a"]


def test_product_of_two_samples():
    space = sample(4, lr=uniform(0, 1)) * sample(2, lam=uniform(0, 1)).rename(config="draw")
    assert space.sizes == {"config": 4, "draw": 2}
    assert space.coords()["lam"][0] == "draw"


@pytest.mark.parametrize("method", ["sobol", "random"])
@pytest.mark.parametrize("num", [1, 5, 64])
def test_a_sample_is_a_prefix_of_a_larger_one(method, num):
    axes = dict(lr=log_uniform(1e-4, 1e-1), n=integers(-2, 3), f=["a", "b", "c"], w=static([1, 2]))
    axes["b"] = conditional(uniform(-1, 2), f=["a", "b"], n=[0, 1, 2])
    cells, more = (sample(k, method=method, seed=3, **axes).cells() for k in (num, 128))
    assert cells == more[:num]
    assert cells != sample(num, method=method, seed=4, **axes).cells()
    b, f, lr, n, w = zip(*more, strict=True)
    assert set(n) == {-2, -1, 0, 1, 2}
    assert set(f) == {"a", "b", "c"}
    assert set(w) == {1, 2}
    assert 1e-4 <= min(lr) < 2e-4 < 5e-2 < max(lr) <= 1e-1
    assert 40 < sum(x < 10**-2.5 for x in lr) < 90  # half of them, in the logarithm
    assert [x is not None for x in b] == [x in "ab" and k >= 0 for x, k in zip(f, n, strict=True)]
    assert all(-1 <= x < 2 for x in b if x is not None)


def test_sobol_points_fill_the_cube():
    space = sample(64, x=uniform(0, 1), n=integers(0, 8))
    assert sorted(np.floor(space.coords()["x"][1] * 64)) == [*range(64)]
    assert np.bincount(space.coords()["n"][1]).tolist() == [8] * 8


def test_conditions_of_conditions_in_a_sample():
    axes = dict(a=["x", "y"], b=conditional([1, 2], a="x"), c=conditional(uniform(0, 1), b=2))
    cells = sample(32, **axes).cells()
    assert {(a, b, c is not None) for a, b, c in cells} == {("y", None, False), ("x", 1, False), ("x", 2, True)}
    assert sample(32, **dict(reversed(axes.items()))).cells() == cells


def test_random_draws_depend_on_the_name_alone():
    one = sample(4, method="random", lr=uniform(0, 1)).coords()["lr"][1]
    two = sample(4, method="random", a=uniform(0, 1), lr=uniform(0, 1)).coords()
    np.testing.assert_array_equal(one, two["lr"][1])
    assert (two["a"][1] != one).all()


def test_large_integers_stay_in_range():
    drawn = sample(256, method="random", n=integers(-(2**62), 2**62 - 1)).coords()["n"][1]
    assert drawn.dtype == np.int64
    assert -(2**62) <= drawn.min() < 0 < drawn.max() < 2**62


def test_as_space():
    space = grid(lam=[0.1])
    assert as_space(space) is space
    assert as_space([{"lam": 0.1}]).cells() == [(0.1,)]


def test_a_hundred_thousand_configurations_are_cheap():
    start = time.perf_counter()
    space = grid(lam=np.linspace(0, 1, 250), f=["a", "b"], w=static([1, 2]), seed=range(100))
    assert len(space.groups()) == 4
    assert len(set(space.cells())) == space.size == 100_000
    rows = configurations([{"lam": i / 7, "f": "ab"[i % 2]} for i in range(100_000)])
    assert [len(group.rows) for group in rows.groups()] == [50_000, 50_000]
    assert again(rows).cells() == rows.cells()
    assert (space | rows.rename(config="row")).size == 200_000
    assert time.perf_counter() - start < 20  # a second or two on an idle core


# Bad input -----------------------------------------------------------------------------------------------------------


BOTH = grid(a=[1]) | grid(b=[1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: grid(), ValueError, "`grid` needs at least one axis"),
        (lambda: grid(lam=[]), ValueError, r"`grid` needs a non-empty .* got shape \(0,\) for 'lam'"),
        (lambda: grid(lam=0.1), ValueError, r"`grid` needs .* got shape \(\) for 'lam'"),
        (lambda: grid(lam=[[0.1]]), ValueError, r"`grid` needs .* got shape \(1, 1\) for 'lam'; `static"),
        (lambda: grid(n=[(64,), (64, 64)]), ValueError, "`grid` needs .* nested lists for 'n'; `static"),
        (lambda: grid(f=jnp.sin), ValueError, r"`grid` needs .* got shape \(\) for 'f'"),
        (lambda: grid(f=optax.sgd(1.0)), ValueError, r"`grid` needs .* got shape \(\) for 'f'"),
        (lambda: grid(f="adam"), ValueError, r"`grid` needs .* got shape \(\) for 'f'"),
        (lambda: grid(lr=uniform(0, 1)), ValueError, r"`grid` needs .* got shape \(\) for 'lr'"),
        (lambda: grid(w=static([])), ValueError, r"`grid` needs .* got shape \(0,\) for 'w'"),
        (lambda: grid(f={}), ValueError, r"`grid` needs .* got shape \(0,\) for 'f'"),
        (lambda: grid(lam=[0.1, math.nan]), ValueError, "`grid` needs numbers, got NaN for 'lam'"),
        (lambda: grid(lam=jnp.asarray([math.nan], jnp.bfloat16)), ValueError, "`grid` needs numbers, got NaN"),
        (lambda: grid(lam=static([math.nan])), ValueError, "`grid` needs values .* got NaN for 'lam'"),
        (lambda: grid(n=[1, 2**70]), TypeError, r"`grid` needs numbers that fit a dtype, got \[1, 1180"),
        (lambda: grid(n=[-1, 2**63]), TypeError, "`grid` needs numbers that fit a dtype"),
        (lambda: grid(k=jax.random.split(jax.random.key(0))), TypeError, "`grid` needs seeds, .* got key<fry> for 'k'"),
        (lambda: grid(k=[jax.random.key(0)]), TypeError, "`grid` needs seeds, .* got key<fry> for 'k'"),
        (lambda: static("adam"), TypeError, "`static` needs a list of values or a dict label -> value, got 'adam'"),
        (lambda: static({(1,): 2}), TypeError, r"`static` needs strings or numbers as labels, got \[\(1,\)\]"),
        (lambda: conditional([1]), ValueError, "`conditional` needs a condition"),
        (lambda: grid(a=conditional([1], b=2)), ValueError, r"conditions on other axes for 'a', got \['b'\]"),
        (lambda: grid(a=conditional([1], a=1)), ValueError, r"conditions on other axes for 'a', got \['a'\]"),
        (lambda: grid(a=conditional([1], b=2), b=[1]), ValueError, "needs a value that 'b' has, got 2"),
        (lambda: grid(a=conditional([1], b="x"), b=[1]), ValueError, "needs a value that 'b' has, got 'x'"),
        (lambda: grid(a=conditional([1], b="x"), b=["y"]), ValueError, "needs a value that 'b' has, got 'x'"),
        (
            lambda: grid(a=conditional([1], b=1), b=conditional([1], a=1)),
            ValueError,
            "without a circle, got (a -> b -> a|b -> a -> b)",
        ),
        (
            lambda: grid(a=["x", "y"], b=conditional([1], a="x"), c=conditional([1], a="y", b=1)),
            ValueError,
            "`conditional` needs conditions that hold together for 'c'",
        ),
        (lambda: zipped(), ValueError, "`zipped` needs at least one axis"),
        (lambda: zipped(a=[1, 2], b=[1]), ValueError, "`zipped` needs axes of one length, got {'a': 2, 'b': 1}"),
        (lambda: zipped(a=[1], b=conditional([1], a=1)), ValueError, "`zipped` needs axes without conditions"),
        (lambda: configurations([]), ValueError, "`configurations` needs at least one row"),
        (lambda: configurations([{}]), ValueError, "`configurations` needs at least one row with an argument"),
        (lambda: configurations([1]), TypeError, "`configurations` needs dicts argument -> value, got 1"),
        (lambda: configurations([{1: 2}]), TypeError, "`configurations` needs dicts argument -> value"),
        (lambda: configurations([{"a": 1}], static="b"), ValueError, r"arguments of the rows, \['a'\]; got \['b'\]"),
        (lambda: configurations([{"a": math.nan}]), ValueError, "`configurations` needs numbers, got NaN for 'a'"),
        (lambda: sample(0, a=[1]), ValueError, "`sample` needs a number of configurations >= 1, got 0"),
        (lambda: sample(True, a=[1]), ValueError, "`sample` needs a number of configurations >= 1, got True"),
        (lambda: sample(4, a=[1], method="grid"), ValueError, "`sample` needs method 'sobol' or 'random', got 'grid'"),
        (lambda: sample(4, a=[1], seed=range(2)), ValueError, "`sample` needs a seed >= 0, .*; an axis: `sample"),
        (lambda: sample(4), ValueError, "`sample` needs at least one axis"),
        (lambda: sample(4, a=[]), ValueError, r"`sample` needs .* got shape \(0,\) for 'a'"),
        (lambda: sample(4, a=conditional([1], b="x"), b=["y"]), ValueError, "needs a value that 'b' has, got 'x'"),
        (lambda: uniform(1, 1), ValueError, "`uniform` needs finite low < high, got 1 and 1"),
        (lambda: uniform(0, math.inf), ValueError, "`uniform` needs finite low < high"),
        (lambda: log_uniform(0, 1), ValueError, "`log_uniform` needs 0 < low, got 0"),
        (lambda: integers(0.5, 2), ValueError, "`integers` needs integers that fit int64, got 0.5 and 2"),
        (lambda: integers(0, 2**64), ValueError, "`integers` needs integers that fit int64"),
        (
            lambda: grid(a=[1]) * grid(a=[2]),
            ValueError,
            r"`Space` needs arguments with distinct names, got \['a'\] twice",
        ),
        (lambda: BOTH * zipped(z=[1]), ValueError, r"got \['config'\] twice; rename one, `.rename\(config=...\)`"),
        (
            lambda: BOTH * BOTH.rename(config="x"),
            ValueError,
            r"`Space` needs arguments with distinct names, got \['a',",
        ),
        (lambda: BOTH.rename(config="c") * grid(config=[1]).rename(config="a"), ValueError, r"others, got \['a'\]"),
        (lambda: Space(()), ValueError, "`Space` needs at least one dim"),
        (lambda: grid(a=[1]).rename(b="c"), ValueError, r"`rename` needs dims of the space, \['a'\]; got \['b'\]"),
        (lambda: grid(a=[1]) | grid(a=["x"]), ValueError, "`|` needs 'a' static in both spaces or numbers in both"),
        (lambda: grid(a=[2**53 + 1]) | grid(a=[0.5]), ValueError, "`|` needs numbers of one dtype for 'a'"),
        (lambda: grid(a=[1]) * 2, TypeError, "unsupported operand"),
        (lambda: grid(a=[1]) | 2, TypeError, "unsupported operand"),
        (lambda: grid(a=[1]).configuration(1), IndexError, "`configuration` needs 0 <= row < 1, got 1"),
        (lambda: as_space({"a": [1]}), TypeError, "`sweep` needs a space such as `grid.*, or a list of configurations"),
        (lambda: as_space([1]), TypeError, "`sweep` needs a space such as `grid"),
    ],
)
def test_bad_spaces(make, error, message):
    with pytest.raises(error, match=message):
        make()
