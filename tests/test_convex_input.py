"""Bad input of convex problems: a clear error that names the function, what it needs, and where it is missing."""

import jax
import jax.experimental.sparse
import numpy as np
import pytest
import scipy.sparse

import jaxreg as jr
from jaxreg import convex
from jaxreg.convex.problem import prepare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
Y = RNG.normal(size=6)
SQUARED = convex.Squared()


def put(a, where, what):
    a = np.array(a, float)
    a[where] = what
    return a


CONSTANT = put(X, (slice(None), [0, 2]), 0.3)
BAD = {  # what is wrong: the arguments, the error, what it says
    "X has NaN": ((SQUARED, put(X, (4, 1), np.nan), Y), ValueError, r"finite `X`, got nan in column 1 \(row 4\)\."),
    "X has inf": (
        (SQUARED, put(X, ([2, 5], [2, 0]), -np.inf), Y),
        ValueError,
        r"finite `X`, got -inf in column 0 \(row 5\) and 1 more\.",
    ),
    "X has NaN in 3 axes": (
        (SQUARED, put(X[:, None], (4, 0, 1), np.nan), Y),
        ValueError,
        r"finite `X`, got nan in column \(0, 1\) \(row 4\)",
    ),
    "y has NaN": ((SQUARED, X, put(Y, 3, np.nan)), ValueError, "finite `y`, got nan in row 3"),
    "y has inf in a target": (
        (SQUARED, X, put(X[:, :2], (3, 1), np.inf)),
        ValueError,
        r"finite `y`, got \[.* inf\] in row 3",
    ),
    "labels have NaN": ((convex.Logistic(), X, put(Y > 0, 3, np.nan)), ValueError, "finite `y`, got nan in row 3"),
    "rows clash": ((SQUARED, X, Y[:5]), ValueError, r"as many rows in `X` as in `y`, got shapes \(6, 3\) and \(5,\)"),
    "y is a number": ((SQUARED, X, 1.0), ValueError, r"as many rows in `X` as in `y`, got shapes \(6, 3\) and \(\)"),
    "X is a vector": ((SQUARED, X[:, 0], Y), ValueError, r"`X` of shape \(n, features\), got shape \(6,\)"),
    "X has no columns": ((SQUARED, X[:, :0], Y), ValueError, r"`X` of shape \(n, features\), got shape \(6, 0\)"),
    "X is ragged": ((SQUARED, [[1.0], [1.0, 2.0]], Y[:2]), ValueError, "an array as `X`"),
    "y is ragged": ((SQUARED, X[:2], [[1.0], [1.0, 2.0]]), ValueError, "an array as `y`"),
    "y has three axes": ((SQUARED, X, X[:, None]), ValueError, r"`y` of shape \(n,\) or \(n, targets\)"),
    "y has no targets": ((SQUARED, X, X[:, :0]), ValueError, r"`y` of shape \(n,\) or \(n, targets\)"),
    "labels have two axes": ((convex.Logistic(), X, X[:, :2] > 0), ValueError, r"one label for each row, `y` of shape"),
    "X is text": ((SQUARED, X.astype(str), Y), TypeError, r"numbers in `X`, got <U\d+ of shape \(6, 3\)"),
    "X is objects": ((SQUARED, np.full((6, 3), None), Y), TypeError, "numbers in `X`, got object"),
    "X is complex": ((SQUARED, X * 1j, Y), TypeError, "numbers in `X`, got complex128"),
    "y is text": ((SQUARED, X, list("abcabc")), TypeError, "numbers as `y`, got <U1"),
    "labels cannot be sorted": (
        (convex.Logistic(), X, np.array([1, "a", 1, "a", 1, 1], object)),
        TypeError,
        "labels that can be sorted",
    ),
    "X is sparse": ((SQUARED, scipy.sparse.csr_array(X), Y), TypeError, r"dense `X`, got csr_array of shape \(6, 3\)"),
    "X is BCOO": ((SQUARED, jax.experimental.sparse.BCOO.fromdense(X), Y), TypeError, "dense `X`, got BCOO"),
    "one row": ((SQUARED, X[:1], Y[:1]), ValueError, "two rows at least, got 1"),
    "no row": ((SQUARED, X[:0], Y[:0]), ValueError, "two rows at least, got 0"),
    "one class": ((convex.Logistic(), X, np.ones(6)), ValueError, r"two classes in `y` at least, got 1: \[1.0\]"),
    "one class of many": ((convex.Multinomial(), X, ["a"] * 6), ValueError, r"two classes in `y` at least, got 1"),
    "three classes": ((convex.Logistic(), X, [0, 1, 2, 0, 1, 2]), ValueError, "two classes in `y`.*got 3: `Multinom"),
    "negative counts": ((convex.Poisson(), X, put(Y**2, 1, -2)), ValueError, r"`y` >= 0, got -2.0 in row 1"),
    "no counts": ((convex.Poisson(), X, 0 * Y), ValueError, "a positive `y` for every target"),
    "no datafit": (("squared", X, Y), TypeError, r"a datafit, such as `Squared\(\)`, got 'squared'"),
    "a class": ((convex.Squared, X, Y), TypeError, r"a datafit, .*: `Squared\(\)`"),
    "too few weights": (
        (SQUARED, X, Y, np.ones(5)),
        ValueError,
        r"`sample_weight` of shape \(6,\), .* got shape \(5,\)",
    ),
    "a weight": ((SQUARED, X, Y, 1.0), ValueError, r"`sample_weight` of shape \(6,\), .* got shape \(\)"),
    "negative weight": ((SQUARED, X, Y, put(Y**2, 1, -2)), ValueError, "`sample_weight` >= 0, got -2.0 in row 1"),
    "weight is NaN": (
        (SQUARED, X, Y, put(Y**2, 1, np.nan)),
        ValueError,
        "finite `sample_weight` >= 0, got nan in row 1",
    ),
    "no weight": ((SQUARED, X, Y, 0 * Y), ValueError, "a positive `sample_weight`, got zeros alone"),
    "weight is text": ((SQUARED, X, Y, list("abcabc")), TypeError, "numbers as `sample_weight`, got <U1"),
    "one row has weight": ((SQUARED, X, Y, np.arange(6) == 3), ValueError, "two rows with weight at least, got 1"),
    "one class has weight": (
        (convex.Logistic(), X, [0, 0, 0, 1, 1, 1], np.arange(6) < 3),
        ValueError,
        "two classes in `y` at least, got 1",
    ),
    "constant columns": ((SQUARED, CONSTANT, Y, None, True, "std"), ValueError, "constant are 0, 2"),
    "constant where there is weight": (
        (SQUARED, put(X, (slice(0, 5), 1), 0.1), Y, np.arange(6) < 5, True, True),
        ValueError,
        "columns that vary, to standardize them: constant are 1",
    ),
    "many constant columns": (
        (SQUARED, np.ones((6, 9)), Y, None, True, "norm"),
        ValueError,
        "constant are 0, 1, 2, 3, 4 and 4 more",
    ),
    "standardize by a name": ((SQUARED, X, Y, None, True, "max"), ValueError, "`standardize` in None, .*got 'max'"),
    "standardize by a number": ((SQUARED, X, Y, None, True, 1), ValueError, "`standardize` in None, .*got 1"),
    "intercept is a number": ((SQUARED, X, Y, None, 0.5), TypeError, "True or False as `fit_intercept`, got 0.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused(case):
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message) as raised:
        prepare("solve", *arguments)
    assert str(raised.value).startswith("`solve` needs ")


def test_a_constant_column_is_no_matter_as_it_is():
    problem = prepare("solve", SQUARED, CONSTANT, Y)
    assert (problem.X[:, 0] == 0).all()
    assert np.isfinite(problem.X).all()


def test_traced_data_are_refused():
    with pytest.raises(TypeError, match=r"arrays with values, got traced ones; .* use `fit`"):
        jax.jit(lambda X: prepare("solve", SQUARED, X, Y).weight)(X)


def test_given_arrays_are_left_alone():
    given, w = X.copy(), np.ones(6)
    prepare("solve", SQUARED, given, Y, w, True, "std").X[:] = 0
    prepare("solve", SQUARED, given, Y, w, False, None).X[:] = 0
    assert (given == X).all()
    assert (w == 1).all()


def test_certify_needs_a_penalty_and_shapes_that_fit():
    with pytest.raises(TypeError, match=r"`certify` needs a penalty with a prox, got 0\.1"):
        convex.certify(SQUARED, 0.1, X, Y, np.zeros(3))
    with pytest.raises(ValueError, match=r"`certify` needs `coef` of shape \(3,\) for these data, got \(3, 1\)"):
        convex.certify(SQUARED, jr.L1(0.1), X, Y, np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"`certify` needs `intercept` of shape \(\) for these data, got \(1,\)"):
        convex.certify(SQUARED, jr.L1(0.1), X, Y, np.zeros(3), np.zeros(1))


CALLS = {
    "solve": lambda **data: convex.solve(SQUARED, jr.L1(0.1), **data),
    "path": lambda **data: convex.path(SQUARED, jr.L1(0.1), **data),
    "cross_validate": lambda **data: convex.cross_validate(SQUARED, jr.L1(0.1), **data),
    "ridge": convex.ridge,
    "certify": lambda **data: convex.certify(SQUARED, jr.L1(0.1), coef=np.zeros(3), **data),
}


@pytest.mark.parametrize("api", CALLS)
def test_every_call_checks_its_data_and_says_its_name(api):
    for data in (
        {"X": put(X, (4, 1), np.nan), "y": Y},
        {"X": X, "y": put(Y, 3, np.inf)},
        {"X": X, "y": Y[:5]},
        {"X": X[:1], "y": Y[:1]},
        {"X": X, "y": Y, "sample_weight": -Y},
        {"X": CONSTANT, "y": Y, "standardize": "std"},
    ):
        with pytest.raises(ValueError, match=f"^`{api}` needs "):
            CALLS[api](**data)
    with pytest.raises(TypeError, match=f"^`{api}` needs dense `X`"):
        CALLS[api](X=scipy.sparse.csc_array(X), y=Y)


@pytest.mark.parametrize("call", [convex.solve, convex.path, convex.cross_validate], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"penalty": 0.1}, TypeError, "a penalty, such as `L1(0.1)`, got 0.1"),
        ({"penalty": jr.L1}, TypeError, "`L1(lam)`"),
        (
            {"penalty": jr.Orthogonality(1.0)},
            TypeError,
            "a penalty with an exact `prox`, which `Orthogonality` has not",
        ),
        ({"penalty": jr.L2Ball(1.0)}, TypeError, "a penalty, such as"),
        ({"tol": 0}, ValueError, "`tol` > 0, got 0"),
        ({"tol": np.nan}, ValueError, "`tol` > 0, got nan"),
        ({"tol": None}, ValueError, "`tol` > 0, got None"),
        ({"max_iter": 0}, ValueError, "an int >= 1 as `max_iter`, got 0"),
        ({"max_iter": 1e3}, ValueError, "an int >= 1 as `max_iter`, got 1000.0"),
    ],
    ids=str,
)
def test_bad_options_are_refused(call, options, error, message):
    with pytest.raises(error) as raised:
        call(**{"datafit": SQUARED, "penalty": jr.L1(0.1), "X": X, "y": Y} | options)
    assert str(raised.value).startswith(f"`{call.__name__}` needs ")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lams": [1.0, 0.0]}, ValueError, "finite `lams` > 0, got 0.0"),
        ({"lams": [1.0, -1.0]}, ValueError, "finite `lams` > 0, got -1.0"),
        ({"lams": [np.nan]}, ValueError, "finite `lams` > 0, got nan"),
        ({"lams": []}, ValueError, "`lams` as a list of numbers"),
        ({"lams": 0.1}, ValueError, "`lams` as a list of numbers"),
        ({"num": 0}, ValueError, "an int >= 1 as `num`"),
        ({"num": 2.5}, ValueError, "an int >= 1 as `num`"),
        ({"eps": 0}, ValueError, "`eps` in (0, 1), got 0"),
        ({"eps": 1.5}, ValueError, "`eps` in (0, 1), got 1.5"),
        ({"y": np.ones(6)}, ValueError, "`lams` here, where all coefficients are 0 at every strength"),
        ({"penalty": jr.L1([0.0, 1.0, 1.0])}, ValueError, "`lams` here, where no strength sets all coefficients to 0"),
        ({"penalty": jr.L1(1.0) + jr.GroupL2(1.0), "lams": [1.0]}, TypeError, "`lam` to vary, got `Sum`"),
    ],
    ids=str,
)
def test_paths_need_strengths(options, error, message):
    with pytest.raises(error) as raised:
        convex.path(**{"datafit": SQUARED, "penalty": jr.L1(0.1), "X": X, "y": Y} | options)
    assert str(raised.value).startswith("`path` needs ")
    assert message in str(raised.value)


def test_a_start_is_finite_and_has_the_shape_of_the_coefficients():
    with pytest.raises(ValueError, match=r"`solve` needs `start` of shape \(3,\), got \(2,\)"):
        convex.solve(SQUARED, jr.L1(0.1), X, Y, start=np.zeros(2))
    with pytest.raises(ValueError, match="`solve` needs finite `start`, got nan"):
        convex.solve(SQUARED, jr.L1(0.1), X, Y, start=[0.0, np.nan, 1.0])


def test_strengths_that_do_not_fit_the_coefficients():
    for call in (convex.solve, convex.path):
        with pytest.raises(
            ValueError, match=r"broadcasts to the entries of its leaf, of shape \(3,\); got shape \(2,\)"
        ):
            call(SQUARED, jr.L1(np.ones(2)), X, Y)
