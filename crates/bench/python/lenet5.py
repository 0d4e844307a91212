"""PyTorch's side of the LeNet-5 benchmark: one step of batch 128, and the epoch of 469 such steps.

Usage: python lenet5.py THREADS. Prints one JSON object a measurement, with the names that the Rust benchmark uses.
Each step takes another batch of fixed numbers that lie in memory, in the sizes of Fashion-MNIST resized to 32 x 32;
eager and channels_last are measured, both with the fused Adam.
"""
import json
import statistics
import sys
import time

threads = int(sys.argv[1])
STEPS, BATCH = 469, 128

try:
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as error:
    print(json.dumps(dict(missing=f"pytorch: {error}")))
    sys.exit(0)

torch.set_num_threads(threads)
print(json.dumps(dict(version=f"PyTorch {torch.__version__}")), flush=True)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5), nn.Conv2d(16, 120, 5)
        self.fc1, self.fc2 = nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(self.conv3(x).flatten(1))))


def measure(variant, net, images, labels):
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    criterion = nn.CrossEntropyLoss()

    def step(i):
        j = i * BATCH
        loss = criterion(net(images[j:j + BATCH]), labels[j:j + BATCH])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for i in range(20):
        step(i)
    epochs, steps = [], []
    for _ in range(5):
        begin = time.perf_counter()
        for i in range(STEPS):
            start = time.perf_counter()
            step(i)
            steps.append(time.perf_counter() - start)
        epochs.append(time.perf_counter() - begin)
    for group, seconds in [("LeNet-5, one training step", steps), ("LeNet-5, one epoch of 469 steps", epochs)]:
        print(json.dumps(dict(group=group, function=variant, shape="128x1x32x32",
                              median_seconds=statistics.median(seconds))), flush=True)


torch.manual_seed(0)
images = torch.randn(STEPS * BATCH, 1, 32, 32)
labels = torch.randint(0, 10, (STEPS * BATCH,))
measure("PyTorch eager", LeNet5(), images, labels)
last = torch.channels_last
measure("PyTorch channels_last", LeNet5().to(memory_format=last), images.contiguous(memory_format=last), labels)
