"""Regenerates golden values of the losses with PyTorch, in float64 on the CPU.

    python tests/golden/generate.py OUTPUT.json [--seed 0]

The output has the format of losses.json (see crates/verify-grads/src/golden/file.rs) and other cases: the same kinds at
other shapes, and the awkward ones: all targets ignored, zero weight, one class, N-d, huge and shifted logits, -inf, NaN.
`verify-grads --golden OUTPUT.json` compares. Needs torch and nothing else.
"""

import argparse
import itertools
import json
import math

import torch
import torch.nn.functional as F


def number(x):
    """JSON has neither NaN nor infinities: null and two strings stand for them."""
    if math.isnan(x):
        return None
    return x if math.isfinite(x) else ("inf" if x > 0 else "-inf")


def flat(tensor):
    if tensor.dtype in (torch.int64, torch.uint8):
        return tensor.reshape(-1).tolist()
    return [number(x) for x in tensor.detach().reshape(-1).tolist()]


def record(name, op, kind, loss_of, x, target, reduction, target_gradient=False, **fields):
    x = x.detach().clone().requires_grad_(True)
    if target_gradient:
        target = target.detach().clone().requires_grad_(True)
    loss = loss_of(x, target)
    count = max(loss.numel(), 1)
    # A non-unit upstream gradient, another one for every element of the loss.
    upstream = (0.5 + torch.arange(count, dtype=torch.float64) / count).reshape(loss.shape) if loss.numel() else loss
    loss.backward(upstream.detach())
    case = {
        "name": name, "op": op, "input": flat(x), "input_shape": list(x.shape), "target": flat(target),
        "target_shape": list(target.shape), "target_kind": kind, "reduction": reduction, "grad_output": flat(upstream),
        "loss": flat(loss), "loss_shape": list(loss.shape), "grad_input": flat(x.grad),
    }
    if target_gradient:
        case["grad_target"] = flat(target.grad)
    return case | fields


def cross_entropy(name, x, target, reduction, weight=None, ignore_index=None, smoothing=0.0):
    kind = "probabilities" if target.is_floating_point() else "indices"
    # PyTorch always ignores an index; one that no target has ignores nothing.
    ignored = -(2**31) if ignore_index is None else ignore_index

    def loss_of(x, t):
        return F.cross_entropy(x, t, weight=weight, reduction=reduction, ignore_index=ignored, label_smoothing=smoothing)

    return record(
        name, "cross_entropy", kind, loss_of, x, target, reduction, target_gradient=kind == "probabilities",
        weight=None if weight is None else flat(weight), ignore_index=ignore_index, label_smoothing=smoothing,
    )


def target_shape(shape):
    return () if len(shape) == 1 else (shape[0], *shape[2:])


def cross_entropy_cases():
    shapes = [(1,), (6,), (1, 1), (1, 9), (7, 2), (17, 33), (3, 257), (2, 4, 3), (2, 3, 4, 5), (1, 5, 1, 2, 3)]
    for shape, reduction, smoothing, weighted in itertools.product(
        shapes, ["mean", "sum", "none"], [0.0, 0.1, 1.0], [False, True]
    ):
        classes = shape[0] if len(shape) == 1 else shape[1]
        x = 3 * torch.randn(shape, dtype=torch.float64)
        target = torch.randint(classes, target_shape(shape))
        weight = torch.rand(classes, dtype=torch.float64) + 0.1 if weighted else None
        label = f"{'x'.join(map(str, shape))}_{reduction}_ls{smoothing}_{'w' if weighted else 'nw'}"
        yield cross_entropy(f"ce_{label}", x, target, reduction, weight, None, smoothing)
        if target.numel() > 1:
            ignored = target.clone().reshape(-1)
            ignored[::3] = -100
            yield cross_entropy(f"ce_{label}_neg", x, ignored.reshape(target.shape), reduction, weight, -100, smoothing)
            yield cross_entropy(f"ce_{label}_pos", x, target, reduction, weight, int(target.reshape(-1)[0]), smoothing)
        probabilities = torch.rand(shape, dtype=torch.float64)
        yield cross_entropy(f"ceprob_{label}", x, probabilities, reduction, weight, None, smoothing)


def cross_entropy_edges():
    # Two cases are left out, because our contract is deliberately not PyTorch's: the gradient is 0 and not NaN under a
    # mean of total weight 0, and in an ignored row that holds NaN. The tests of the losses have both.
    x = 2 * torch.randn(4, 6, dtype=torch.float64)
    target = torch.tensor([5, 0, 3, 3])
    for reduction in ["mean", "sum", "none"]:
        yield cross_entropy(f"all_ignored_{reduction}", x, torch.full((4,), -100), reduction, None, -100)
        yield cross_entropy(f"all_ignored_smoothed_{reduction}", x, torch.full((4,), 2), reduction, None, 2, 0.1)
        zero = torch.zeros(6, dtype=torch.float64)
        if reduction != "mean":
            yield cross_entropy(f"zero_weight_{reduction}", x, target, reduction, zero)
        some = torch.tensor([0.0, 1.0, 2.0, 0.5, 0.0, 0.0], dtype=torch.float64)
        yield cross_entropy(f"some_zero_weights_{reduction}", x, target, reduction, some)
        yield cross_entropy(f"shifted_1e8_{reduction}", x.round() + 1e8, target, reduction)
        yield cross_entropy(f"shifted_minus_1e8_{reduction}", x.round() - 1e8, target, reduction)
        yield cross_entropy(f"huge_{reduction}", x * 1e4, target, reduction)
        yield cross_entropy(f"near_the_limit_{reduction}", x * 1e300, target, reduction)
        yield cross_entropy(f"tiny_{reduction}", x * 1e-300, target, reduction)
        yield cross_entropy(f"equal_{reduction}", torch.zeros_like(x), target, reduction)
        for name, column, value in [("other", 1, -math.inf), ("leading", slice(0, 3), -math.inf), ("nan", 2, math.nan)]:
            edge = x.clone()
            edge[2, column] = value
            yield cross_entropy(f"edge_{name}_{reduction}", edge, target, reduction)
        edge = x.clone()
        edge[1, 4] = math.inf
        yield cross_entropy(f"edge_plus_inf_{reduction}", edge, target, reduction)
        edge = x.clone()
        edge[0] = -math.inf
        yield cross_entropy(f"edge_all_minus_inf_{reduction}", edge, target, reduction)
        edge = x.clone()
        edge[3, 3] = -math.inf
        yield cross_entropy(f"edge_target_minus_inf_{reduction}", edge, target, reduction)


def nll_cases():
    for shape, reduction, weighted in itertools.product([(5,), (6, 4), (2, 3, 5)], ["mean", "sum", "none"], [False, True]):
        classes = shape[0] if len(shape) == 1 else shape[1]
        x = torch.randn(shape, dtype=torch.float64)
        target = torch.randint(classes, target_shape(shape))
        weight = torch.rand(classes, dtype=torch.float64) + 0.1 if weighted else None
        yield record(
            f"nll_{'x'.join(map(str, shape))}_{reduction}_{'w' if weighted else 'nw'}", "nll", "indices",
            lambda x, t: F.nll_loss(x, t, weight=weight, reduction=reduction), x, target, reduction,
            weight=None if weight is None else flat(weight), ignore_index=None,
        )


def pointwise_cases():
    for shape, reduction in itertools.product([(), (1,), (17,), (4, 6), (2, 3, 4)], ["mean", "sum", "none"]):
        x, values = torch.randn(shape, dtype=torch.float64) * 2, torch.randn(shape, dtype=torch.float64)
        unit, signs = torch.rand(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64).sign()
        label = f"{'x'.join(map(str, shape)) or 'scalar'}_{reduction}"

        def case(name, op, loss_of, target, params, x=x, gradient=True):
            return record(
                f"{name}_{label}", op, "values", loss_of, x, target, reduction, target_gradient=gradient, params=params
            )

        def with_reduction(function, **options):
            return lambda x, t: function(x, t, reduction=reduction, **options)

        yield case("mse", "mse", with_reduction(F.mse_loss), values, {})
        yield case("mse_equal", "mse", with_reduction(F.mse_loss), x.clone(), {})
        yield case("l1", "l1", with_reduction(F.l1_loss), values, {})
        yield case("l1_equal", "l1", with_reduction(F.l1_loss), x.clone(), {})
        for width in [0.3, 1.0, 5.0]:
            yield case(f"huber_{width}", "huber", with_reduction(F.huber_loss, delta=width), values, {"delta": width})
            yield case(f"smooth_{width}", "smooth_l1", with_reduction(F.smooth_l1_loss, beta=width), values, {"beta": width})
        yield case("smooth_0", "smooth_l1", with_reduction(F.smooth_l1_loss, beta=0.0), values, {"beta": 0.0})
        yield case("soft_margin", "soft_margin", with_reduction(F.soft_margin_loss), signs, {}, gradient=False)
        bce, name = F.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits"
        yield case("bce", name, with_reduction(bce), unit, {})
        yield case("bce_big", name, with_reduction(bce), unit, {}, x=x * 300)
        weight, positive = torch.rand(shape, dtype=torch.float64), torch.rand(shape[-1:], dtype=torch.float64) + 0.5
        params = {"weight": flat(weight), "pos_weight": flat(positive)}
        yield case("bce_weights", name, with_reduction(bce, weight=weight, pos_weight=positive), unit, params)
        yield case("kl", "kl_div", with_reduction(F.kl_div), unit, {})
        yield case("kl_zero", "kl_div", with_reduction(F.kl_div), (unit > 0.5).double() * unit, {}, gradient=False)
        yield case("kl_log", "kl_div", with_reduction(F.kl_div, log_target=True), values, {"log_target": True})
        if reduction == "mean" and shape:
            yield record(
                f"kl_batchmean_{label}", "kl_div", "values", lambda x, t: F.kl_div(x, t, reduction="batchmean"), x, unit,
                "batchmean", target_gradient=True, params={},
            )
        for log_input, full in itertools.product([True, False], [True, False]):
            rate = x if log_input else unit + 0.1
            counts = torch.randint(6, shape).double()
            yield case(
                f"poisson_{log_input}_{full}", "poisson_nll",
                with_reduction(F.poisson_nll_loss, log_input=log_input, full=full), counts,
                {"log_input": log_input, "full": full}, x=rate, gradient=False,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    cases = [
        case for group in (cross_entropy_cases, cross_entropy_edges, nll_cases, pointwise_cases) for case in group()
    ]
    source = f"PyTorch {torch.__version__}, float64, CPU, generate.py --seed {arguments.seed}"
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump({"format": "golden-losses-1", "source": source, "cases": cases}, file, allow_nan=False)
    print(f"{len(cases)} cases")


if __name__ == "__main__":
    main()
