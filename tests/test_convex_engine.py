"""The engine: the same answers whatever way they are found, each with a certificate that an outsider would give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.convex import engine, homotopy, lasso
from jaxreg.convex.newton import searched
from jaxreg.convex.problem import prepare
from jaxreg.convex.strengths import at_lams

RNG = np.random.default_rng(0)
X, y = RNG.normal(size=(40, 12)), RNG.normal(size=40)
y = y + X[:, :3] @ [2.0, -1.0, 0.5]
WIDE = RNG.normal(size=(30, 600))
WIDE_Y = WIDE[:, :4] @ [3.0, -2.0, 1.0, 1.0] + 0.1 * RNG.normal(size=30)
LAMS = np.geomspace(1, 1e-3, 12)


def gap(X, y, w, lam, l1_ratio=1.0):
    """The relative duality gap of an elastic net with a free intercept, in plain NumPy."""
    Xc, yc, n = X - X.mean(0), y - y.mean(), len(y)
    r = yc - Xc @ w
    l1, l2 = lam * l1_ratio, lam * (1 - l1_ratio)
    v = Xc.T @ r / n - l2 * w
    c = min(1, l1 / np.abs(v).max())
    primal = r @ r / (2 * n) + l1 * np.abs(w).sum() + l2 * w @ w / 2
    dual = c * (r @ yc) / n - c * c * (r @ r / (2 * n) + l2 * w @ w / 2)
    return (primal - dual) / (yc @ yc / (2 * n))


@pytest.mark.parametrize("data", [(X, y), (WIDE, WIDE_Y)], ids=["tall", "wide"])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_paths_have_the_gap_that_numpy_finds(data, l1_ratio):
    path = jr.convex.path(jr.convex.Squared(), jr.ElasticNet(1.0, l1_ratio), *data, lams=LAMS, tol=1e-13)
    assert path["converged"].all()
    for lam, w in zip(LAMS, path["coef"].values, strict=True):
        assert gap(*data, w, lam, l1_ratio) < 1e-6


def test_few_columns_at_a_time_are_as_good_as_all(monkeypatch):
    some = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), WIDE, WIDE_Y, num=30)
    monkeypatch.setattr(lasso, "WIDEST", 600)
    every = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), WIDE, WIDE_Y, num=30)
    np.testing.assert_allclose(some["coef"], every["coef"], atol=1e-9)
    assert some["certificate"].max() < 1e-10


def test_a_wider_tableau_is_the_one_of_all_columns():
    G, c = jnp.asarray(X.T @ X / 40), jnp.asarray(X.T @ y / 40)
    top, ones = float(jnp.abs(c).max()), jnp.ones(12)
    whole = homotopy.homotopy(G, homotopy.plain(G, c), ones, jnp.zeros(12), top, 0.2 * top, most=64)
    late = np.flatnonzero(np.asarray(whole.signs) == 0)[:2]
    order = np.append(np.delete(np.arange(12), late), late)
    G, c, few = G[order][:, order], c[order], 10
    part = homotopy.homotopy(
        G[:few, :few], homotopy.plain(G[:few, :few], c[:few]), ones[:few], jnp.zeros(few), top, 0.2 * top, most=64
    )
    wider = homotopy.extended(G, c, part.tableau, jnp.append(part.signs, jnp.zeros(2)), np.array([10, 11, 12, 12]))
    np.testing.assert_allclose(wider, whole.tableau[np.append(order, [12, 13])][:, order], atol=1e-12)


def test_twins_and_dependent_columns_do_not_break_a_path():
    twins = np.concatenate([X, X[:, :4], X[:, :1] + X[:, 1:2], np.zeros((40, 1))], 1)
    path = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), twins, y, num=40, eps=1e-4)
    assert path["converged"].all()
    alone = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), X, y, lams=path["lam"].values)
    assert (path["objective"] <= alone["objective"] + 1e-9).all()  # more columns, no worse


def test_strengths_per_weight_and_target_follow_knots_too():
    Y, lam = np.stack([y, X[:, 4] - y], 1), RNG.uniform(0.5, 2, (12, 2))
    both = jr.convex.path(jr.convex.Squared(), jr.L1(lam), X, Y, lams=LAMS)
    assert both["certificate"].max() < 1e-10
    for t in range(2):
        one = jr.convex.path(jr.convex.Squared(), jr.L1(lam[:, t]), X, Y[:, t], lams=LAMS)
        np.testing.assert_allclose(both["coef"][:, :, t], one["coef"], atol=1e-10)


def test_infinite_strengths_leave_a_column_out():
    lam = np.array([np.inf, 0.0, *[0.1] * 10])
    path = jr.convex.path(jr.convex.Squared(), jr.SquaredL2(lam), X, y, lams=[1.0, 0.1], tol=1e-9)
    alone = jr.convex.path(jr.convex.Squared(), jr.SquaredL2(lam[1:]), X[:, 1:], y, lams=[1.0, 0.1], tol=1e-9)
    assert path["converged"].all()
    assert not path["coef"][:, 0].any()
    np.testing.assert_allclose(path["coef"][:, 1:], alone["coef"], atol=1e-7)
    np.testing.assert_allclose(path["df"], alone["df"])


@pytest.mark.parametrize(
    ("datafit", "target"),
    [
        (jr.convex.Logistic(), y > 0),
        pytest.param(jr.convex.Huber(0.5), y, marks=pytest.mark.slow),
        pytest.param(jr.convex.Poisson(), np.round(np.exp(y / 2)), marks=pytest.mark.slow),
        pytest.param(jr.convex.Multinomial(), np.digitize(y, [-1, 1]), marks=pytest.mark.slow),
    ],
    ids=lambda x: type(x).__name__ if hasattr(x, "cost") else "",
)
def test_paths_and_single_problems_agree(datafit, target):
    path = jr.convex.path(datafit, jr.L1(1.0), X[:, :5], target, num=11, eps=1e-2, tol=1e-8)
    assert path["converged"].all()
    lam = float(path["lam"][10])
    one = jr.convex.solve(datafit, jr.L1(lam), X[:, :5], target, tol=1e-8)
    assert one.converged
    assert one.objective == pytest.approx(float(path["objective"][10]), abs=1e-8)
    known = jr.convex.certify(
        datafit, jr.L1(lam), X[:, :5], target, path["coef"][10].values, path["intercept"][10].values
    )
    assert known.value < 2e-8
    assert 0 < path["deviance"][10] < 1


def test_float32_goes_on_in_float64_where_it_must():
    solution = jr.convex.solve(jr.convex.Squared(), jr.ElasticNet(0.01, 0.9), X.astype(np.float32), y, tol=1e-10)
    assert solution.converged
    assert not solution.stalled
    short = jr.convex.solve(jr.convex.Squared(), jr.ElasticNet(0.01, 0.9), X, y, max_iter=1, tol=1e-12)
    assert not short.converged
    assert not short.stalled


@pytest.mark.parametrize(
    ("pen", "standardize"),
    [
        (jr.ElasticNet(1.0, 0.5), "std"),
        pytest.param(jr.L1(1.0), None, marks=pytest.mark.slow),
        pytest.param(jr.SquaredL2(1.0), "std", marks=pytest.mark.slow),
    ],
)
def test_folds_are_problems_of_their_rows(pen, standardize):
    train = np.ones((3, 40), bool)
    train[1, :10] = train[2, 25:] = False
    weight = RNG.uniform(0.5, 2, 40)
    problem = prepare("test", jr.convex.Squared(), X, y, weight)
    pens = at_lams("test", pen, LAMS[None, 2:9])
    found = engine.paths(jr.convex.Squared(), pens, problem, train=train, standardize=standardize, tol=1e-12)
    assert found.coef.shape == (3, 1, 7, 12)
    for fold in (1, 2):
        rows = train[fold]
        options = {"sample_weight": weight[rows], "standardize": standardize, "tol": 1e-12}
        alone = jr.convex.path(jr.convex.Squared(), pen, X[rows], y[rows], LAMS[2:9], **options)
        np.testing.assert_allclose(found.coef[fold, 0], alone["coef"], atol=1e-7)
        np.testing.assert_allclose(found.intercept[fold, 0], alone["intercept"], atol=1e-7)


@pytest.mark.parametrize(
    "penalty",
    [
        jr.L0(0.02),
        pytest.param(jr.MCP(0.1, 3.0), marks=pytest.mark.slow),
        pytest.param(jr.SquaredL2(0.01) + jr.MCP(0.1, 2.0), marks=pytest.mark.slow),
    ],
)
def test_concave_penalties_are_not_taken_for_convex_ones(penalty):
    solution = jr.convex.solve(jr.convex.Squared(), penalty, X, y)
    assert solution.kind != "gap"
    assert solution.converged
    assert np.count_nonzero(solution.coef) >= 2


def test_degrees_of_freedom():
    ridge = jr.convex.path(jr.convex.Squared(), jr.SquaredL2(1.0), X, y, lams=LAMS)
    d2 = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(ridge["df"], [(d2 / (d2 + 40 * lam)).sum() for lam in LAMS], rtol=1e-9)
    net = jr.convex.path(jr.convex.Squared(), jr.ElasticNet(1.0, 0.5), X, y, lams=LAMS, tol=1e-12)
    for k in (3, 9):  # the divergence of ŷ, by differences

        def fitted(y, lam=LAMS[k]):
            return jr.convex.solve(jr.convex.Squared(), jr.ElasticNet(lam, 0.5), X, y, tol=1e-14)

        steps = [(fitted(y + 1e-5 * e).predict(X) - fitted(y - 1e-5 * e).predict(X)) @ e / 2e-5 for e in np.eye(40)]
        assert sum(steps) - 1 == pytest.approx(float(net["df"][k]), abs=1e-4)


def test_groups_of_features_and_of_targets():
    groups = X.reshape(40, 4, 3)
    solution = jr.convex.solve(jr.convex.Squared(), jr.GroupL2(np.array([0.1, 0.2, 0.3, 0.4]), axis=1), groups, y)
    assert solution.coef.shape == (4, 3)
    assert solution.converged
    Y = np.stack([y, X[:, 3]], 1)
    tasks = jr.convex.path(jr.convex.Squared(), jr.GroupL2(1.0, axis=1), X, Y, num=8)
    assert tasks["converged"].all()
    assert ((tasks["coef"] != 0).all("target") | (tasks["coef"] == 0).all("target")).all()
    with jax.enable_x64(False):
        again = jr.convex.path(jr.convex.Squared(), jr.GroupL2(1.0, axis=1), X, Y, num=8)
    np.testing.assert_array_equal(again["coef"], tasks["coef"])


@pytest.mark.slow
def test_classes_that_nearly_separate_do_not_take_all_steps():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 8))
    y = np.digitize(X[:, :5] @ (2 * rng.normal(size=5)) + 0.5 * rng.normal(size=40), [-3, 3]).clip(1)
    y[0] = 0  # alone in its class
    path = jr.convex.path(jr.convex.Multinomial(), jr.GroupL2(1.0, axis=1), X, y, num=20, eps=1e-5)
    assert path["converged"].all()


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_a_search_halves_a_step_until_it_goes_down(fit_intercept):
    x = RNG.normal(size=(40, 1))
    y = np.float64(x[:, 0] + 1 + RNG.normal(size=40) > 0)  # the intercept is not small
    logistic, penalty = jr.convex.Logistic(), jr.L1(np.full((1, 2), 0.01))
    problem = prepare("test", logistic, x, y, fit_intercept=fit_intercept)
    model = engine.prepared(logistic, penalty, problem, engine.everything(problem), None)
    start, target = np.zeros((1, 2, 1, 1)), np.array([30.0, 1e-3]).reshape(1, 2, 1, 1)
    judged = model.judge(penalty, start)
    w, known, moved = searched(model, penalty, start, judged, target, np.ones((1, 2), bool))
    lengths = 0.5 ** np.arange(12.0)
    costs = [model.judge(penalty, np.broadcast_to(30 * length, start.shape)).objective[0, 0] for length in lengths]
    first = np.argmax(np.array(costs) < judged.objective[0, 0])
    assert 0 < first < 11
    assert moved.all()
    np.testing.assert_allclose(w[0, :, 0, 0], [30 * lengths[first], 1e-3])
    np.testing.assert_array_equal(known.objective, model.judge(penalty, w).objective)
