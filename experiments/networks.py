"""A network that more than one experiment trains."""

import jax


def relu_network(params, x):
    """The outputs of dense layers `{"kernel", "bias"}`, with ReLU between them."""
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params[-1]["kernel"] + params[-1]["bias"]
