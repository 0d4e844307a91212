//! First and second derivatives against finite differences of the plain formulas.

use super::super::Plan;
use super::super::cpu_kernel::Partial;
use super::super::fused::Fused;
use super::*;
use crate::graph::keep_gradient_graph;

/// Inputs a little off the kinks (equal input and target, |d| at beta or delta, a count of 1).
fn smooth_inputs(case: &Case, len: usize) -> (Vec<f64>, Vec<f64>) {
    let x: Vec<f64> = numbers(len, 11).into_iter().map(case.to_input).collect();
    let t: Vec<f64> = numbers(len, 12).into_iter().map(case.to_target).collect();
    let smooth = |x: f64, t: f64| {
        let d = (x - t).abs();
        [0.0, 0.7].iter().all(|kink| (d - kink).abs() > 1e-2)
    };
    // PyTorch's Stirling term has a jump at a count of 1.
    let t: Vec<f64> = t
        .iter()
        .map(|&t| {
            if case.name.contains("poisson") {
                t + 0.5
            } else {
                t
            }
        })
        .collect();
    (x.iter().copied().zip(t).filter(|&(x, t)| smooth(x, t))).unzip()
}

fn differences(f: impl Fn(f64) -> f64, at: f64) -> f64 {
    let h = 1e-4;
    // Fourth order: the error is about 1e-13 times a fifth derivative.
    (8.0 * (f(at + h) - f(at - h)) - (f(at + 2.0 * h) - f(at - 2.0 * h))) / (12.0 * h)
}

#[test]
fn gradients_of_input_and_target_match_finite_differences() {
    for case in catalogue() {
        let (x, t) = smooth_inputs(&case, 40);
        let n = x.len();
        for reduction in REDUCTIONS {
            let up = upstream(reduction, &[n], DType::F64);
            let g: Vec<f64> = match reduction {
                Reduction::Mean => vec![flat(&up)[0] / n as f64; n],
                Reduction::Sum => vec![flat(&up)[0]; n],
                Reduction::None => flat(&up),
            };
            let by_x: Vec<f64> = (0..n)
                .map(|i| g[i] * differences(|x| (case.oracle)(x, t[i]), x[i]))
                .collect();
            let by_t: Vec<f64> = (0..n)
                .map(|i| g[i] * differences(|t| (case.oracle)(x[i], t), t[i]))
                .collect();
            for form in [Form::Fused, Form::Composed] {
                let (x, t) = (var(&x, &[n], DType::F64), var(&t, &[n], DType::F64));
                let (_, gx, gt) =
                    loss_and_gradients(&case, &Setup::new(reduction), &x, &t, &up, form);
                let what = format!("{} {reduction:?} {form:?}", case.name);
                assert_close(&format!("{what}, input"), &flat(&gx), &by_x, 1e-9);
                assert_close(&format!("{what}, target"), &flat(&gt), &by_t, 1e-9);
            }
        }
    }
}

#[test]
fn fused_and_composed_agree_with_weights() {
    for case in catalogue() {
        let (x, t) = smooth_inputs(&case, 40);
        let n = x.len();
        for reduction in REDUCTIONS {
            let up = upstream(reduction, &[n], DType::F64);
            let weight = tensor(&numbers(n, 13), &[n], DType::F64).abs().unwrap();
            let setup = Setup {
                weight: Some(weight),
                ..Setup::new(reduction)
            };
            let run = |form| {
                let (x, t) = (var(&x, &[n], DType::F64), var(&t, &[n], DType::F64));
                loss_and_gradients(&case, &setup, &x, &t, &up, form)
            };
            let (fused, composed) = (run(Form::Fused), run(Form::Composed));
            let what = format!("{} {reduction:?}", case.name);
            assert_close(
                &format!("{what}, loss"),
                &flat(&fused.0),
                &flat(&composed.0),
                1e-12,
            );
            assert_close(
                &format!("{what}, input"),
                &flat(&fused.1),
                &flat(&composed.1),
                1e-12,
            );
            assert_close(
                &format!("{what}, target"),
                &flat(&fused.2),
                &flat(&composed.2),
                1e-12,
            );
        }
    }
}

#[test]
fn gradients_of_narrow_dtypes_are_rounded_once() {
    for case in catalogue() {
        for (dtype, tolerance) in [(DType::F32, 4e-6), (DType::F16, 6e-4), (DType::BF16, 5e-3)] {
            let (x, t) = smooth_inputs(&case, 40);
            let n = x.len();
            let (x, t) = (var(&x, &[n], dtype), var(&t, &[n], dtype));
            let up = upstream(Reduction::None, &[n], DType::F32);
            let setup = Setup::new(Reduction::None);
            let (_, gx, gt) = loss_and_gradients(&case, &setup, &x, &t, &up, Form::Fused);
            assert_eq!((gx.dtype(), gt.dtype()), (dtype, dtype));
            let (wide_x, wide_t) = (
                var(&flat(&x), &[n], DType::F64),
                var(&flat(&t), &[n], DType::F64),
            );
            let wide_up = up.to_dtype(DType::F64).unwrap();
            let (_, want_x, want_t) =
                loss_and_gradients(&case, &setup, &wide_x, &wide_t, &wide_up, Form::Fused);
            let what = format!("{} {dtype:?}", case.name);
            assert_close(&what, &flat(&gx), &flat(&want_x), tolerance);
            assert_close(&what, &flat(&gt), &flat(&want_t), tolerance);
        }
    }
}

#[test]
fn a_target_that_tracks_nothing_gets_no_gradient() {
    let input = var(&[1.0, 2.0], &[2], DType::F32);
    let target = tensor(&[0.0, 0.0], &[2], DType::F32);
    let gradients = mse(&input, &target).unwrap().backward().unwrap();
    assert!(gradients.get(&input).is_some());
    assert!(gradients.get(&target).is_none());
    let target = var(&[0.0, 0.0], &[2], DType::F32);
    let gradients = mse(&input.detach(), &target).unwrap().backward().unwrap();
    assert!(gradients.get(&target).is_some());
    assert!(gradients.get(&input.detach()).is_none());
}

#[test]
fn backward_twice_gives_the_same_bits() {
    let (x, t) = (
        var(&numbers(900, 14), &[900], DType::F32),
        tensor(&numbers(900, 15), &[900], DType::F32),
    );
    let loss = soft_margin(&x, &t).unwrap();
    let once = bits(loss.backward().unwrap().get(&x).unwrap());
    assert_eq!(once, bits(loss.backward().unwrap().get(&x).unwrap()));
}

#[test]
fn second_derivatives_match_differences_of_the_gradient() {
    keep_gradient_graph();
    let custom = Case {
        name: "derivatives left to dual numbers",
        run: Box::new(|setup, x, t, _| {
            PointwiseLoss::new(Custom)
                .reduction(setup.reduction)
                .forward(x, t)
        }),
        oracle: |x, t| Pointwise::value(&Custom, x, t),
        to_input: |v| v,
        to_target: |v| v,
    };
    for case in catalogue().into_iter().chain([custom]) {
        let (x, t) = smooth_inputs(&case, 8);
        let n = x.len();
        let v = (
            tensor(&numbers(n, 16), &[n], DType::F64),
            tensor(&numbers(n, 17), &[n], DType::F64),
        );
        for reduction in [Reduction::Mean, Reduction::None] {
            let up = upstream(reduction, &[n], DType::F64);
            // A number made of both gradients, each element weighed differently.
            let mix = |x: &Var, t: &Var| {
                let (_, gx, gt) =
                    loss_and_gradients(&case, &Setup::new(reduction), x, t, &up, Form::Fused);
                (gx.mul(&v.0).unwrap() + gt.mul(&v.1).unwrap())
                    .unwrap()
                    .sum_all()
                    .unwrap()
            };
            let at = |x: &[f64], t: &[f64]| {
                flat(&mix(&var(x, &[n], DType::F64), &var(t, &[n], DType::F64)))[0]
            };
            let moved = |values: &[f64], i: usize, to: f64| {
                let mut values = values.to_vec();
                values[i] = to;
                values
            };
            let by_x: Vec<f64> = (0..n)
                .map(|i| differences(|to| at(&moved(&x, i, to), &t), x[i]))
                .collect();
            let by_t: Vec<f64> = (0..n)
                .map(|i| differences(|to| at(&x, &moved(&t, i, to)), t[i]))
                .collect();
            let (vx, vt) = (var(&x, &[n], DType::F64), var(&t, &[n], DType::F64));
            let second = mix(&vx, &vt).backward().unwrap();
            let of = |v: &Var| second.get(v).map_or(vec![0.0; n], flat);
            assert_close(
                &format!("{} {reduction:?}, input", case.name),
                &of(&vx),
                &by_x,
                1e-8,
            );
            assert_close(
                &format!("{} {reduction:?}, target", case.name),
                &of(&vt),
                &by_t,
                1e-8,
            );
        }
    }
}

#[test]
fn the_gradient_passes_a_gradient_on_to_its_upstream() {
    let (x, t, v) = (numbers(4, 18), numbers(4, 19), numbers(4, 20));
    let slopes: Vec<f64> = (0..4)
        .map(|i| v[i] * differences(|x| Pointwise::value(&Custom, x, t[i]), x[i]))
        .collect();
    let [x, t, v] = [x, t, v].map(|values| tensor(&values, &[4], DType::F64));
    for reduced in [false, true] {
        let plan = Plan {
            reduced,
            divisor: if reduced { 4.0 } else { 1.0 },
            on_empty: EmptyPolicy::Nan,
        };
        let op = Fused::new(Custom, None, None, plan).gradient(Partial::Input);
        let upstream = if reduced {
            var(&[3.0], &[], DType::F64)
        } else {
            var(&[3.0; 4], &[4], DType::F64)
        };
        let gradient = x.apply_op3(&t, &upstream, op).unwrap();
        let second = gradient
            .mul(&v)
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        let want = if reduced {
            vec![slopes.iter().sum::<f64>() / 4.0]
        } else {
            slopes.clone()
        };
        assert_close(
            "upstream",
            &flat(second.get(&upstream).unwrap()),
            &want,
            1e-9,
        );
    }
}

#[test]
fn a_third_derivative_is_an_error() {
    keep_gradient_graph();
    let (x, t) = (
        var(&[0.5], &[1], DType::F64),
        tensor(&[1.0], &[1], DType::F64),
    );
    let first = soft_margin(&x, &t).unwrap().backward().unwrap();
    let second = first
        .get(&x)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let error = second
        .get(&x)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap_err();
    let want =
        "soft_margin: third derivatives are not supported by the fused op; use its composed form";
    assert_eq!(error.to_string().lines().next(), Some(want));
}

#[test]
fn a_gradient_carries_no_graph_unless_asked() {
    let (x, t) = (
        var(&[0.5], &[1], DType::F64),
        tensor(&[1.0], &[1], DType::F64),
    );
    let first = soft_margin(&x, &t).unwrap().backward().unwrap();
    assert!(!first.get(&x).unwrap().track_op());
}

#[derive(Clone, Copy)]
struct Custom;

impl Pointwise for Custom {
    fn value<F: Float>(&self, x: F, t: F) -> F {
        let d = x * t.sin() - t;
        d.tanh() * d
            + (x.abs() + F::of(0.5)).ln() * (t * t + F::of(1.0)).sqrt()
            + (x - t).softplus() / ((-x).sigmoid() + F::of(1.0))
            + (x * x + F::of(1.0)).powf(0.75) * t.cos()
    }
}

#[test]
fn derivatives_that_are_not_given_are_taken_of_the_value() {
    let oracle = |x: f64, t: f64| Pointwise::value(&Custom, x, t);
    let (x, t) = (numbers(30, 20), numbers(30, 21));
    let (vx, vt) = (var(&x, &[30], DType::F64), var(&t, &[30], DType::F64));
    let loss = PointwiseLoss::new(Custom)
        .reduction(Reduction::Sum)
        .forward(&vx, &vt)
        .unwrap();
    let gradients = loss.backward().unwrap();
    let by_x: Vec<f64> = (0..30)
        .map(|i| differences(|x| oracle(x, t[i]), x[i]))
        .collect();
    let by_t: Vec<f64> = (0..30)
        .map(|i| differences(|t| oracle(x[i], t), t[i]))
        .collect();
    assert_close("input", &flat(gradients.get(&vx).unwrap()), &by_x, 1e-9);
    assert_close("target", &flat(gradients.get(&vt).unwrap()), &by_t, 1e-9);
}
