"""PyTorch's and JAX's side of the cross-entropy benchmark, each where it is installed.

Usage: python losses.py THREADS. Prints one JSON object a measurement, with the names that the Rust benchmarks use.
The values and targets are those of the Rust side: the same formulas of the index.
"""
import json
import os
import statistics
import sys
import time

threads = int(sys.argv[1])
os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
os.environ["OMP_NUM_THREADS"] = str(threads)

SHAPES = [(128, 10), (65536, 10), (8192, 1000), (2048, 32000), (1024, 128256)]
FORWARD = "cross entropy, forward"
GRADIENT = "cross entropy, value and gradient"


def numbers(rows, classes):
    import numpy as np
    index = np.arange(rows * classes, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(1000)
    logits = (index.astype(np.float32) / np.float32(250) - np.float32(2)).reshape(rows, classes)
    return logits, np.arange(rows, dtype=np.int64) * 7919 % classes


def report(group, function, rows, classes, call):
    runs = 300 if rows * classes < 100_000 else 15
    call(), call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    print(json.dumps(dict(group=group, function=function, shape=f"{rows}x{classes}",
                          median_seconds=statistics.median(seconds))), flush=True)


def pytorch():
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(threads)
    print(json.dumps(dict(version=f"PyTorch {torch.__version__}")), flush=True)
    for rows, classes in SHAPES:
        logits, targets = map(torch.from_numpy, numbers(rows, classes))
        logits.requires_grad_()

        def forward():
            with torch.no_grad():
                F.cross_entropy(logits, targets)

        def gradient():
            logits.grad = None
            F.cross_entropy(logits, targets).backward()

        report(FORWARD, "PyTorch", rows, classes, forward)
        report(GRADIENT, "PyTorch", rows, classes, gradient)


def jax():
    import jax
    import jax.numpy as jnp
    print(json.dumps(dict(version=f"JAX {jax.__version__}")), flush=True)

    def loss(logits, targets):
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - chosen)

    forward, gradient = jax.jit(loss), jax.jit(jax.value_and_grad(loss))
    for rows, classes in SHAPES:
        logits, targets = map(jnp.asarray, numbers(rows, classes))
        report(FORWARD, "JAX jit", rows, classes, lambda: jax.block_until_ready(forward(logits, targets)))
        report(GRADIENT, "JAX jit", rows, classes, lambda: jax.block_until_ready(gradient(logits, targets)))


for side in (pytorch, jax):
    try:
        side()
    except ImportError as error:
        print(json.dumps(dict(missing=f"{side.__name__}: {error}")), flush=True)
