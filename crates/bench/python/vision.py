"""PyTorch's side of the convolution benchmark: forward, and forward with backward, in f32.

Usage: python vision.py THREADS. Prints one JSON object a measurement, with the names that the Rust benchmark uses.
"""
import json
import statistics
import sys
import time

threads = int(sys.argv[1])

try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps(dict(missing=f"pytorch: {error}")))
    sys.exit(0)

torch.set_num_threads(threads)
print(json.dumps(dict(version=f"PyTorch {torch.__version__}")), flush=True)

# batch, channels in, channels out, size, kernel, padding
SHAPES = [(32, 3, 16, 32, 3, 1), (32, 16, 32, 32, 3, 1), (32, 64, 64, 32, 3, 1), (32, 3, 16, 32, 5, 2),
          (32, 16, 32, 32, 5, 2)]


def median_seconds(call):
    call(), call()
    seconds = []
    for _ in range(15):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def report(group, function, shape, call):
    print(json.dumps(dict(group=group, function=function, shape=shape, median_seconds=median_seconds(call))), flush=True)


for n, i, o, size, k, padding in SHAPES:
    x = torch.randn(n, i, size, size, requires_grad=True)
    weight = torch.randn(o, i, k, k, requires_grad=True)
    bias = torch.randn(o, requires_grad=True)
    shape = f"{n}x{i}x{size}x{size} to {o}, {k}x{k}"

    def forward():
        with torch.no_grad():
            F.conv2d(x, weight, bias, padding=padding)

    def gradient():
        x.grad = weight.grad = bias.grad = None
        y = F.conv2d(x, weight, bias, padding=padding)
        y.backward(torch.ones_like(y))

    report("conv2d, forward", "PyTorch", shape, forward)
    report("conv2d, forward and backward", "PyTorch", shape, gradient)
