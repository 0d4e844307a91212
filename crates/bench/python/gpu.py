"""PyTorch's and Liger-Kernel's side of `gpu-bench`: losses and LeNet-5's training on a CUDA device, eager and compiled.

Usage: python gpu.py [--smoke]. Prints one JSON object a line with the names, values, targets and way of timing of the Rust
side; a line with `missing` says what could not be measured and why. With --smoke sizes are tiny, and without a CUDA device
the CPU takes its place, to see that everything runs: such rows say so and are nothing to quote.
"""
import json
import statistics
import sys
import time

smoke = "--smoke" in sys.argv[1:]

SHAPES = [(5, 10), (3, 130)] if smoke else [(128, 10), (65536, 10), (8192, 1000), (2048, 32000), (1024, 128256)]
POINTWISE_SHAPES = [(3, 70)] if smoke else [(256, 1024), (8192, 8192)]
STEPS, EPOCHS, BATCH = (2, 1, 128) if smoke else (469, 5, 128)
SAMPLE_SECONDS, SAMPLES, LIMIT_SECONDS = (0, 1, 1) if smoke else (5e-3, 31, 5)
EPOCH = "LeNet-5, one epoch of 469 steps"


def emit(**row):
    print(json.dumps(row), flush=True)


def reason(error):
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


try:
    import torch
    import torch.nn.functional as F
except ImportError as error:
    emit(missing=f"PyTorch: {reason(error)}")
    sys.exit(0)

if torch.cuda.is_available():
    device = torch.device("cuda")
    emit(version=f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, on {torch.cuda.get_device_name()}")
elif smoke:
    device = torch.device("cpu")
    emit(version=f"PyTorch {torch.__version__}, on the CPU: no CUDA device")
else:
    emit(missing=f"PyTorch {torch.__version__} finds no CUDA device")
    sys.exit(0)

DTYPES = dict(f32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)


def synchronise():
    if device.type == "cuda":
        torch.cuda.synchronize()


def sample(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronise()
    return time.perf_counter() - start


def report(group, function, shape, dtype, size, call):
    try:
        # The first call compiles, the second may tune.
        sample(call, 2)
        calls = 1
        while sample(call, calls) < SAMPLE_SECONDS:
            calls *= 2
        seconds, begin = [], time.perf_counter()
        while len(seconds) < SAMPLES and (not seconds or time.perf_counter() - begin < LIMIT_SECONDS):
            seconds.append(sample(call, calls) / calls)
    except Exception as error:
        emit(missing=reason(error), group=group, function=function, shape=shape, dtype=dtype)
        return
    emit(group=group, function=function, shape=shape, dtype=dtype, device=device.type, bytes=size,
         median_seconds=statistics.median(seconds), samples=len(seconds), calls_per_sample=calls)


def compiled(function):
    """A fresh compilation for each shape, so that none is for sizes that vary."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def values(*shape):
    count = 1
    for size in shape:
        count *= size
    index = torch.arange(count, dtype=torch.int64, device=device) * 2654435761 % 1000
    return (index.to(torch.float32) / 250 - 2).reshape(shape)


def gradient_of(loss, x, *others):
    def call():
        x.grad = None
        loss(x, *others).backward()
    return call


def without_graph(loss, *arguments):
    def call():
        with torch.no_grad():
            loss(*arguments)
    return call


def liger():
    """Liger-Kernel's cross entropy, or why there is none."""
    try:
        from liger_kernel.transformers import LigerCrossEntropyLoss
        from importlib.metadata import version
        return LigerCrossEntropyLoss(), f"Liger-Kernel {version('liger-kernel')}"
    except Exception as error:
        return None, f"Liger-Kernel: {reason(error)}"


def losses():
    liger_loss, about = liger()
    emit(**(dict(version=about) if liger_loss else dict(missing=about)))
    for rows, classes in SHAPES:
        for name, dtype in DTYPES.items():
            x = values(rows, classes).to(dtype).requires_grad_()
            y = torch.arange(rows, device=device) * 7919 % classes
            # As on the Rust side, whose targets have four bytes: the least that any implementation moves.
            one = rows * classes * x.element_size()
            read = one + rows * 4
            for function, make in [("PyTorch eager", lambda f: f), ("PyTorch compiled", compiled)]:
                shape = f"{rows}x{classes}"
                report("cross entropy, forward", function, shape, name, read, without_graph(make(F.cross_entropy), x, y))
                report("cross entropy, value and gradient", function, shape, name, read + one,
                       gradient_of(make(F.cross_entropy), x, y))
            if liger_loss:
                # It writes the gradient over the logits, which the next call takes for logits: as fast, whatever the values.
                leaf = x.detach().clone().requires_grad_()
                report("cross entropy, value and gradient", "Liger-Kernel in place", f"{rows}x{classes}", name, read + one,
                       gradient_of(liger_loss, leaf, y))
    pointwise = [("mean squared error", F.mse_loss),
                 ("binary cross entropy with logits", F.binary_cross_entropy_with_logits)]
    for rows, columns in POINTWISE_SHAPES:
        for name in ("f32", "bf16"):
            x = values(rows, columns).to(DTYPES[name]).requires_grad_()
            target = (x.detach() * 0.25 + 0.5)
            one = rows * columns * x.element_size()
            for loss_name, loss in pointwise:
                for function, make in [("PyTorch eager", lambda f: f), ("PyTorch compiled", compiled)]:
                    shape = f"{rows}x{columns}"
                    report(f"{loss_name}, forward", function, shape, name, 2 * one, without_graph(make(loss), x, target))
                    report(f"{loss_name}, value and gradient", function, shape, name, 3 * one,
                           gradient_of(make(loss), x, target))


class LeNet5(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.fc1, self.fc2 = nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(self.conv3(x).flatten(1))))


def training():
    images = values(STEPS * BATCH, 1, 32, 32)
    labels = torch.arange(STEPS * BATCH, device=device) * 7919 % 10
    for function, make in [("PyTorch eager", lambda f: f), ("PyTorch compiled", compiled)]:
        try:
            torch.manual_seed(0)
            net = LeNet5().to(device)
            optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
            forward = make(lambda x, y: F.cross_entropy(net(x), y))

            def step(i):
                loss = forward(images[i * BATCH:(i + 1) * BATCH], labels[i * BATCH:(i + 1) * BATCH])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

            for i in range(min(20, STEPS)):
                step(i)
            synchronise()
            seconds = []
            for _ in range(EPOCHS):
                start = time.perf_counter()
                for i in range(STEPS):
                    step(i)
                synchronise()
                seconds.append(time.perf_counter() - start)
        except Exception as error:
            emit(missing=reason(error), group=EPOCH, function=function, shape="128x1x32x32", dtype="f32")
            continue
        emit(group=EPOCH, function=function, shape="128x1x32x32", dtype="f32", device=device.type, steps=STEPS,
             median_seconds=statistics.median(seconds), samples=EPOCHS, calls_per_sample=STEPS)


losses()
training()
