"""The contenders of `sweeps` that are written in PyTorch; needs torch and NumPy alone.

`python sweeps_torch.py PROBLEM.npz THREADS` answers every line of JSON on its input by one on its output, so that its
contenders take turns with those of another process: {"contender": ..., "lr": [...], "lam": [...], "seed": [...]} by the
seconds that training these models took, {"contender": "agree", ...} by their losses from the weights and batches of the
file, {"contender": "products", ...} by the seconds of the products alone.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

B1, B2, EPS = 0.9, 0.999, 1e-8  # of AdamW, as `torch.optim.AdamW` and `optax.adamw` have them


def network():
    """64-64-10."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def beginning(seed, problem):
    """A model from its seed and the batches it will see, (steps, batch) indices."""
    torch.manual_seed(seed)
    model = network()
    for layer in (model[0], model[2]):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model, torch.randint(len(problem["x"]), (problem["steps"], problem["batch"]))


def given(i, problem):
    """Model i of the file and its batches."""
    model = network()
    weights = problem["w1"][i].T, problem["b1"][i], problem["w2"][i].T, problem["b2"][i]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), weights, strict=True):
            parameter.copy_(value)
    return model, problem["indices"][i]


def eager(models, indices, lr, lam, problem, fused=False):
    """One model after the other, in the usual loop."""
    x, y, losses = problem["x"], problem["y"], []
    for model, batches, rate, strength in zip(models, indices, lr, lam, strict=True):
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=strength, fused=fused)
        for batch in batches:
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).reshape(len(models), -1)


def stacked(models, indices, lr, lam, problem):
    """All models at once: `vmap` of the gradient over stacked parameters, AdamW in place with a rate per model."""
    x, y, skeleton = problem["x"], problem["y"], network().to("meta")
    params, _ = stack_module_state(models)
    params = {name: p.detach() for name, p in params.items()}
    first, second = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in range(2))
    shape = {name: (-1,) + (1,) * (p.ndim - 1) for name, p in params.items()}
    lr, lam = torch.tensor(lr), torch.tensor(lam)
    shrink = {name: (1 - lr * lam).reshape(shape[name]) for name in params}
    rate = {name: lr.reshape(shape[name]) for name in params}

    def loss(params, x, y):
        return nn.functional.cross_entropy(functional_call(skeleton, params, (x,)), y)

    gradient, losses = vmap(grad_and_value(loss)), []
    with torch.no_grad():
        for step, batch in enumerate(torch.stack(indices, 1), 1):
            grads, values = gradient(params, x[batch], y[batch])
            losses.append(values)
            for name, p in params.items():
                first[name].lerp_(grads[name], 1 - B1)
                second[name].mul_(B2).addcmul_(grads[name], grads[name], value=1 - B2)
                scale = second[name].div(1 - B2**step).sqrt_().add_(EPS)
                p.mul_(shrink[name]).addcdiv_(first[name] * rate[name], scale, value=-1 / (1 - B1**step))
    return torch.stack(losses, 1)


def alone(*arguments):
    """`eager`, fused, by one thread: layers as small as these may not be worth a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    losses = eager(*arguments, fused=True)
    torch.set_num_threads(threads)
    return losses


CONTENDERS = {
    "eager": eager,
    "eager, fused": lambda *arguments: eager(*arguments, fused=True),
    "eager, fused, one thread": alone,
    "stacked": stacked,
}


def products(count, steps):
    """Seconds of the products of `steps` steps of `count` models, by `torch.bmm`."""
    x, w1, w2 = torch.rand(count, 64, 64), torch.rand(count, 64, 64), torch.rand(count, 64, 10)
    begin = time.perf_counter()
    for _ in range(steps):
        h = torch.bmm(x, w1)
        z = torch.bmm(h, w2)
        torch.bmm(h.mT, z)
        torch.bmm(x.mT, torch.bmm(z, w2.mT))
    return time.perf_counter() - begin


def answer(problem, contender, lr, lam, seed):
    """Seconds, or losses."""
    if contender == "agree":
        found = {}
        for name, train in CONTENDERS.items():
            models, indices = zip(*(given(i, problem) for i in seed), strict=True)
            found[name] = train(models, indices, lr, lam, problem).tolist()
        return found
    if contender == "products":
        return products(len(seed), problem["steps"])
    begin = time.perf_counter()
    models, indices = zip(*(beginning(s, problem) for s in seed), strict=True)
    CONTENDERS[contender](models, indices, lr, lam, problem)
    return time.perf_counter() - begin


def main():
    """Read requests, write answers."""
    torch.set_num_threads(int(sys.argv[2]))
    with np.load(sys.argv[1]) as file:
        problem = {name: torch.from_numpy(file[name]) for name in file.files}
    problem["y"], problem["indices"] = problem["y"].long(), problem["indices"].long()
    problem["steps"], problem["batch"] = problem["indices"].shape[1:]
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(problem, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
