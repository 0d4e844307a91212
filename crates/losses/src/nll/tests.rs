//! Negative log-likelihood against loops in f64, and the edges of its contract.

use crate::graph::keep_gradient_graph;
use crate::pointwise::tests::{assert_close, bits, flat, numbers, tensor, var};
use crate::{EmptyPolicy, Nll, Reduction, nll};
use candle_core::{DType, Device, Result, Tensor, Var};

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

fn indices(values: &[i64], shape: &[usize], dtype: DType) -> Tensor {
    (Tensor::from_slice(values, shape, &Device::Cpu).unwrap())
        .to_dtype(dtype)
        .unwrap()
}

/// Shape of the log-probabilities, of the targets, and both as (N, C, S).
type Shapes<'a> = (&'a [usize], &'a [usize], (usize, usize, usize));

/// Loss of each row, and the sum of the weights of those that count, for (N, C, S).
fn oracle(
    x: &[f64],
    y: &[i64],
    (n, c, s): (usize, usize, usize),
    w: &[f64],
    ignore: i64,
) -> (Vec<f64>, f64) {
    let mut losses = vec![0.0; n * s];
    let mut total = 0.0;
    for i in 0..n {
        for j in 0..s {
            let target = y[i * s + j];
            if target != ignore {
                let class = target as usize;
                losses[i * s + j] = -w[class] * x[(i * c + class) * s + j];
                total += w[class];
            }
        }
    }
    (losses, total)
}

#[test]
fn values_are_those_of_the_loop_for_every_shape_and_index_type() {
    let w = [0.5, 2.0, 0.25, 1.5];
    let y: Vec<i64> = (0..30).map(|i| (i * 7 + i / 3) % 4).collect();
    let x = numbers(120, 1);
    let shapes: [Shapes<'_>; 4] = [
        (&[4], &[], (1, 4, 1)),
        (&[5, 4], &[5], (5, 4, 1)),
        (&[5, 4, 3], &[5, 3], (5, 4, 3)),
        (&[5, 4, 3, 2], &[5, 3, 2], (5, 4, 6)),
    ];
    for (shape, rows, sizes) in shapes {
        let (nx, ny) = (shape.iter().product(), rows.iter().product());
        for dtype in [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64] {
            let (losses, total) = oracle(&x[..nx], &y[..ny], sizes, &w, 3);
            let (vx, vy) = (
                tensor(&x[..nx], shape, DType::F64),
                indices(&y[..ny], rows, dtype),
            );
            for reduction in REDUCTIONS {
                let loss = Nll::new()
                    .weight(tensor(&w, &[4], DType::F64))
                    .ignore_index(3)
                    .reduction(reduction);
                let sum: f64 = losses.iter().sum();
                let want = match reduction {
                    Reduction::Mean => vec![sum / total],
                    Reduction::Sum => vec![sum],
                    Reduction::None => losses.clone(),
                };
                let what = format!("{shape:?} {dtype:?} {reduction:?}");
                assert_close(&what, &flat(&loss.forward(&vx, &vy).unwrap()), &want, 1e-14);
                assert_close(
                    &what,
                    &flat(&loss.composed(&vx, &vy).unwrap()),
                    &want,
                    1e-14,
                );
            }
        }
    }
}

#[test]
fn the_gradient_is_the_composed_one_and_takes_the_upstream() {
    let y = indices(&[0, 2, -100, 1, 1, 2], &[3, 2], DType::I64);
    let up = tensor(&numbers(6, 2), &[3, 2], DType::F64);
    for reduction in REDUCTIONS {
        let loss = Nll::new()
            .weight(tensor(&[0.5, 2.0, 0.25], &[3], DType::F64))
            .ignore_index(-100)
            .reduction(reduction);
        let gradient = |run: &dyn Fn(&Tensor) -> Result<Tensor>| {
            let x = var(&numbers(18, 3), &[3, 3, 2], DType::F64);
            let total = run(&x)
                .unwrap()
                .broadcast_mul(&up)
                .unwrap()
                .sum_all()
                .unwrap();
            flat(total.backward().unwrap().get(&x).unwrap())
        };
        let fused = gradient(&|x| loss.forward(x, &y));
        assert!(fused.iter().any(|g| *g != 0.0));
        assert_close(
            "gradient",
            &fused,
            &gradient(&|x| loss.composed(x, &y)),
            1e-14,
        );
    }
}

#[test]
fn an_ignored_row_is_zero_whatever_it_holds() {
    let nan = f64::NAN;
    let x = [nan, nan, f64::NEG_INFINITY, nan, -0.5, -1.5];
    let y = indices(&[-1, -1, 0], &[3], DType::I64);
    for composed in [false, true] {
        let x = var(&x, &[3, 2], DType::F32);
        let loss = Nll::new().ignore_index(-1).reduction(Reduction::None);
        let loss = if composed {
            loss.composed(&x, &y)
        } else {
            loss.forward(&x, &y)
        }
        .unwrap();
        assert_eq!(flat(&loss), [0.0, 0.0, 0.5]);
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        assert_eq!(
            flat(gradients.get(&x).unwrap()),
            [0.0, 0.0, 0.0, 0.0, -1.0, 0.0]
        );
    }
}

#[test]
fn the_mean_over_nothing_follows_the_policy_with_gradient_zero() {
    let zero_weight = tensor(&[0.0, 1.0], &[2], DType::F32);
    let none: Vec<i64> = vec![];
    let calls = [
        (
            Nll::new().ignore_index(0),
            vec![1.0; 6],
            vec![3, 2],
            indices(&[0, 0, 0], &[3], DType::U32),
        ),
        (
            Nll::new().weight(zero_weight),
            vec![1.0; 6],
            vec![3, 2],
            indices(&[0, 0, 0], &[3], DType::U32),
        ),
        (
            Nll::new(),
            vec![],
            vec![0, 2],
            indices(&none, &[0], DType::U32),
        ),
        (
            Nll::new(),
            vec![],
            vec![2, 3, 0],
            indices(&none, &[2, 0], DType::U32),
        ),
    ];
    for (loss, x, shape, y) in calls {
        for (policy, want) in [(EmptyPolicy::Nan, f64::NAN), (EmptyPolicy::Zero, 0.0)] {
            for composed in [false, true] {
                let loss = loss.clone().on_empty(policy);
                let x = var(&x, &shape, DType::F32);
                let value = if composed {
                    loss.composed(&x, &y)
                } else {
                    loss.forward(&x, &y)
                }
                .unwrap();
                let what = format!("{shape:?} composed {composed}");
                assert_close(&what, &flat(&value), &[want], 0.0);
                let gradients = value.backward().unwrap();
                let gradient = gradients.get(&x).unwrap();
                assert_eq!(gradient.dims(), shape, "{what}");
                assert!(flat(gradient).iter().all(|g| *g == 0.0), "{what}");
            }
        }
    }
}

#[test]
fn no_layout_changes_a_bit() {
    let x = tensor(&numbers(60, 4), &[5, 3, 4], DType::F32);
    let y = indices(
        &(0..20).map(|i| i % 3).collect::<Vec<_>>(),
        &[5, 4],
        DType::U32,
    );
    let plain = bits(&nll(&x, &y).unwrap());
    let moved = x
        .permute((2, 0, 1))
        .unwrap()
        .contiguous()
        .unwrap()
        .permute((1, 2, 0))
        .unwrap();
    let wide = Tensor::cat(&[&x, &x, &x], 2)
        .unwrap()
        .narrow(2, 4, 4)
        .unwrap();
    let y_moved = y.t().unwrap().contiguous().unwrap().t().unwrap();
    assert_eq!(bits(&nll(&moved, &y_moved).unwrap()), plain);
    assert_eq!(bits(&nll(&wide, &y).unwrap()), plain);
}

#[test]
fn half_types_give_an_f32_loss_and_a_gradient_of_their_own() {
    for dtype in [DType::F16, DType::BF16] {
        let x = var(&numbers(6, 5), &[2, 3], dtype);
        let y = indices(&[2, 1], &[2], DType::U8);
        let loss = nll(&x, &y).unwrap();
        assert_eq!(loss.dtype(), DType::F32);
        let v = flat(&x);
        assert_close("loss", &flat(&loss), &[-(v[2] + v[4]) / 2.0], 1e-7);
        let gradients = loss.backward().unwrap();
        let gradient = gradients.get(&x).unwrap();
        assert_eq!(gradient.dtype(), dtype);
        assert_eq!(flat(gradient), [0.0, 0.0, -0.5, 0.0, -0.5, 0.0]);
    }
}

#[test]
fn the_gradient_passes_a_gradient_on_to_its_upstream() {
    keep_gradient_graph();
    let x = var(&[0.5, -1.0, 2.0, 3.0], &[2, 2], DType::F64);
    let y = indices(&[1, 0], &[2], DType::U32);
    let loss = Nll::new()
        .reduction(Reduction::None)
        .forward(&x, &y)
        .unwrap();
    let first = loss.backward().unwrap();
    let gradient = first.get(&x).unwrap();
    assert_eq!(flat(gradient), [0.0, -1.0, -1.0, 0.0]);
    // As an op of its upstream, the gradient is linear: it returns what it is asked about, negated.
    let upstream: Var = var(&[4.0, 5.0], &[2], DType::F64);
    let plan = super::plan::Plan::new(&Nll::new().reduction(Reduction::None), &x, &y).unwrap();
    let put = super::fused::Put(super::fused::Call::new(plan, &y).unwrap());
    let v = tensor(&[10.0, 20.0, 30.0, 40.0], &[2, 2], DType::F64);
    let asked = upstream
        .apply_op1(put)
        .unwrap()
        .mul(&v)
        .unwrap()
        .sum_all()
        .unwrap();
    assert_eq!(
        flat(asked.backward().unwrap().get(&upstream).unwrap()),
        [-20.0, -30.0]
    );
}

fn message(result: Result<Tensor>) -> String {
    // With RUST_BACKTRACE set, candle appends a trace after the first line.
    result
        .unwrap_err()
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn errors_name_the_argument() {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    let (x, y) = (
        zeros(&[2, 3], DType::F32),
        indices(&[0, 1], &[2], DType::I64),
    );
    let cases = [
        (
            nll(&zeros(&[], DType::F32), &y),
            "nll: log_probabilities must have a class axis: (C), (N, C) or (N, C, d1, ...), got rank 0; \
             add an axis of classes",
        ),
        (
            nll(&zeros(&[2, 3], DType::U32), &y),
            "nll: log_probabilities must be f32, f64, f16 or bf16, got u32; convert it with `to_dtype`",
        ),
        (
            nll(&x, &zeros(&[3], DType::U32)),
            "nll: targets must have shape [2] for log_probabilities of shape [2, 3], got [3]; \
             the class axis is axis 1, or axis 0 of a single row",
        ),
        (
            nll(&x, &zeros(&[2], DType::F32)),
            "nll: targets must be class indices of dtype u8, u32, i16, i32 or i64, got f32; \
             convert it with `to_dtype`",
        ),
        (
            nll(&x, &indices(&[0, 3], &[2], DType::U8)),
            "nll: target of row 1 must be a class, 0 to 2, got 3 with 3 classes; \
             correct it or name it as ignore_index",
        ),
        (
            Nll::new()
                .ignore_index(-100)
                .forward(&x, &indices(&[-1, 0], &[2], DType::I64)),
            "nll: target of row 0 must be a class, 0 to 2, got -1 with 3 classes; \
             correct it or name it as ignore_index",
        ),
        (
            nll(&zeros(&[2, 0], DType::F32), &y),
            "nll: log_probabilities must have at least one class, got shape [2, 0]; check the class axis",
        ),
        (
            Nll::new().weight(zeros(&[2], DType::F32)).forward(&x, &y),
            "nll: weight must have shape [3], one weight for each class, got [2]; check the number of classes",
        ),
        (
            Nll::new().weight(zeros(&[3], DType::F64)).composed(&x, &y),
            "nll: weight must have the dtype of log_probabilities, f32, got f64; convert it with `to_dtype`",
        ),
    ];
    for (result, want) in cases {
        assert_eq!(message(result), want);
    }
}
