"""Convex problems, solved and certified: datafits, `solve`, `path`, `cross_validate`, `fit` and hypergradients."""
