//! Empty inputs, infinities, huge numbers and ties.

use super::*;

const INF: f64 = f64::INFINITY;

#[test]
fn the_mean_over_nothing_follows_the_policy() {
    for case in catalogue() {
        for shape in [&[0][..], &[3, 0], &[0, 4]] {
            for form in [Form::Fused, Form::Composed] {
                let run = |reduction, on_empty| {
                    let setup = Setup {
                        on_empty,
                        ..Setup::new(reduction)
                    };
                    let (x, t) = (var(&[], shape, DType::F32), var(&[], shape, DType::F32));
                    let loss = (case.run)(&setup, &x, &t, form).unwrap();
                    let gradients = loss.backward().unwrap();
                    for v in [&x, &t] {
                        let gradient = gradients.get(v).map(|g| g.dims().to_vec());
                        assert_eq!(
                            gradient.as_deref(),
                            Some(shape),
                            "{} {reduction:?} {form:?}",
                            case.name
                        );
                    }
                    loss
                };
                let what = format!("{} {shape:?} {form:?}", case.name);
                let nan = run(Reduction::Mean, EmptyPolicy::Nan);
                assert_close(&what, &flat(&nan), &[f64::NAN], 0.0);
                assert_close(
                    &what,
                    &flat(&run(Reduction::Mean, EmptyPolicy::Zero)),
                    &[0.0],
                    0.0,
                );
                assert_close(
                    &what,
                    &flat(&run(Reduction::Sum, EmptyPolicy::Nan)),
                    &[0.0],
                    0.0,
                );
                assert_eq!(
                    run(Reduction::None, EmptyPolicy::Nan).dims(),
                    shape,
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn total_weight_zero_is_a_mean_over_nothing_with_gradient_zero() {
    for form in [Form::Fused, Form::Composed] {
        for (on_empty, want) in [(EmptyPolicy::Nan, f64::NAN), (EmptyPolicy::Zero, 0.0)] {
            let (x, t) = (
                var(&[1.0, -2.0], &[2], DType::F32),
                var(&[0.0, 5.0], &[2], DType::F32),
            );
            let weight = tensor(&[0.0], &[1], DType::F32);
            let mse = Mse::new().weight(weight).on_empty(on_empty);
            let loss = match form {
                Form::Fused => mse.forward(&x, &t),
                Form::Composed => mse.composed(&x, &t),
            };
            let loss = loss.unwrap();
            assert_close("loss", &flat(&loss), &[want], 0.0);
            let gradients = loss.backward().unwrap();
            assert_eq!(flat(gradients.get(&x).unwrap()), [0.0, 0.0], "{form:?}");
            assert_eq!(flat(gradients.get(&t).unwrap()), [0.0, 0.0], "{form:?}");
        }
    }
}

/// Value and input gradient of each element, fused and composed, in f64 and f32.
fn check_extremes(
    run: impl Fn(&Tensor, &Tensor, Form) -> Result<Tensor>,
    x: &[f64],
    t: &[f64],
    want: &[f64],
    want_gradient: &[f64],
) {
    for form in [Form::Fused, Form::Composed] {
        for dtype in [DType::F64, DType::F32] {
            let (vx, vt) = (var(x, &[x.len()], dtype), tensor(t, &[t.len()], dtype));
            let loss = run(&vx, &vt, form).unwrap();
            let what = format!("{form:?} {dtype:?}");
            assert_close(&format!("{what}: loss"), &flat(&loss), want, 1e-6);
            let gradients = loss.sum_all().unwrap().backward().unwrap();
            let gradient = flat(gradients.get(&vx).unwrap());
            assert_close(&format!("{what}: gradient"), &gradient, want_gradient, 1e-6);
        }
    }
}

fn apply<T>(
    forms: (impl Fn(&T) -> Result<Tensor>, impl Fn(&T) -> Result<Tensor>),
    loss: &T,
    form: Form,
) -> Result<Tensor> {
    match form {
        Form::Fused => forms.0(loss),
        Form::Composed => forms.1(loss),
    }
}

#[test]
fn binary_cross_entropy_is_right_at_infinity_and_at_a_thousand() {
    let loss = BinaryCrossEntropyWithLogits::new().reduction(Reduction::None);
    let run = |x: &Tensor, t: &Tensor, form| {
        apply(
            (
                |l: &BinaryCrossEntropyWithLogits| l.forward(x, t),
                |l: &BinaryCrossEntropyWithLogits| l.composed(x, t),
            ),
            &loss,
            form,
        )
    };
    check_extremes(
        run,
        &[INF, INF, -INF, -INF, INF, 1e3, 1e3, -1e3, -1e3, 0.0, 17.0],
        &[1.0, 0.0, 0.0, 1.0, 0.5, 1.0, 0.0, 1.0, 0.5, 0.5, 0.0],
        &[
            0.0,
            INF,
            0.0,
            INF,
            INF,
            0.0,
            1e3,
            1e3,
            500.0,
            std::f64::consts::LN_2,
            17.000000041,
        ],
        &[
            0.0, 1.0, 0.0, -1.0, 0.5, 0.0, 1.0, -1.0, -0.5, 0.0, 0.99999996,
        ],
    );
}

#[test]
fn binary_cross_entropy_keeps_the_digits_of_tiny_losses() {
    let (x, t) = (
        var(&[30.0, -30.0], &[2], DType::F32),
        tensor(&[1.0, 0.0], &[2], DType::F32),
    );
    let loss = BinaryCrossEntropyWithLogits::new()
        .reduction(Reduction::None)
        .forward(&x, &t)
        .unwrap();
    let tiny = (-30f64).exp();
    let relative =
        |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-6, "{got} is not {want}");
    flat(&loss).iter().for_each(|&got| relative(got, tiny));
    let gradients = loss.sum_all().unwrap().backward().unwrap();
    let gradient = flat(gradients.get(&x).unwrap());
    relative(gradient[0], -tiny);
    relative(gradient[1], tiny);
}

#[test]
fn soft_margin_does_not_overflow() {
    let loss = SoftMargin::new().reduction(Reduction::None);
    let run = |x: &Tensor, t: &Tensor, form| {
        apply(
            (
                |l: &SoftMargin| l.forward(x, t),
                |l: &SoftMargin| l.composed(x, t),
            ),
            &loss,
            form,
        )
    };
    check_extremes(
        run,
        &[INF, INF, -INF, 1e3, -1e3, 0.0],
        &[1.0, -1.0, 1.0, 1.0, 1.0, -1.0],
        &[0.0, INF, INF, 0.0, 1e3, std::f64::consts::LN_2],
        &[0.0, 1.0, -1.0, 0.0, -1.0, 0.5],
    );
}

#[test]
fn impossible_outcomes_cost_nothing_in_kl_div() {
    let loss = KlDiv::new().reduction(Reduction::None);
    let run = |x: &Tensor, t: &Tensor, form| {
        apply(
            (|l: &KlDiv| l.forward(x, t), |l: &KlDiv| l.composed(x, t)),
            &loss,
            form,
        )
    };
    check_extremes(
        run,
        &[-1.0, -INF, -INF],
        &[0.0, 0.0, 0.5],
        &[0.0, 0.0, INF],
        &[0.0, 0.0, -0.5],
    );
    let loss = KlDiv::new().log_target(true).reduction(Reduction::None);
    let run = |x: &Tensor, t: &Tensor, form| {
        apply(
            (|l: &KlDiv| l.forward(x, t), |l: &KlDiv| l.composed(x, t)),
            &loss,
            form,
        )
    };
    check_extremes(
        run,
        &[-1.0, -INF, -INF],
        &[-INF, -INF, 0.0],
        &[0.0, 0.0, INF],
        &[0.0, 0.0, -1.0],
    );
}

#[test]
fn focal_is_finite_where_an_example_is_certain() {
    for gamma in [0.0, 0.5, 1.0, 2.0, 3.5] {
        let loss = Focal::new()
            .no_alpha()
            .gamma(gamma)
            .reduction(Reduction::None);
        for dtype in [DType::F64, DType::F32] {
            let x = [INF, -INF, 1e3, -1e3, INF, 1e3, 200.0];
            let t = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
            let (vx, vt) = (var(&x, &[7], dtype), tensor(&t, &[7], dtype));
            let value = loss.forward(&vx, &vt).unwrap();
            assert_close(
                "loss",
                &flat(&value),
                &[0.0, 0.0, 0.0, 0.0, INF, 1e3, 0.0],
                1e-6,
            );
            let gradients = value.sum_all().unwrap().backward().unwrap();
            assert_close(
                "gradient",
                &flat(gradients.get(&vx).unwrap()),
                &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0],
                1e-6,
            );
        }
    }
}

#[test]
fn a_tie_has_gradient_zero() {
    let (x, t) = (
        var(&[2.0, -0.0], &[2], DType::F32),
        var(&[2.0, 0.0], &[2], DType::F32),
    );
    for loss in [
        l1(&x, &t),
        SmoothL1::new().beta(0.0).forward(&x, &t),
        L1::new().composed(&x, &t),
    ] {
        let gradients = loss.unwrap().backward().unwrap();
        assert_eq!(flat(gradients.get(&x).unwrap()), [0.0, 0.0]);
        assert_eq!(flat(gradients.get(&t).unwrap()), [0.0, 0.0]);
    }
}

#[test]
fn nan_stays_in_its_own_element() {
    for case in catalogue() {
        let mut x: Vec<f64> = numbers(9, 50).into_iter().map(case.to_input).collect();
        let t: Vec<f64> = numbers(9, 51).into_iter().map(case.to_target).collect();
        x[4] = f64::NAN;
        let (x, t) = (tensor(&x, &[9], DType::F32), tensor(&t, &[9], DType::F32));
        let loss = flat(&(case.run)(&Setup::new(Reduction::None), &x, &t, Form::Fused).unwrap());
        for (i, value) in loss.iter().enumerate() {
            assert_eq!(value.is_nan(), i == 4, "{} element {i}: {value}", case.name);
        }
    }
}

#[test]
fn regression_losses_are_right_at_huge_distances() {
    let far = [1e30, -1e30];
    let (x, t) = (
        tensor(&far, &[2], DType::F32),
        tensor(&[0.0, 0.0], &[2], DType::F32),
    );
    for loss in [l1(&x, &t), smooth_l1(&x, &t), huber(&x, &t)] {
        assert_close("loss", &flat(&loss.unwrap()), &[1e30], 1e-6);
    }
}

#[test]
fn a_scalar_is_a_tensor_too() {
    for case in catalogue() {
        let (x, t) = ((case.to_input)(0.3), (case.to_target)(-1.2));
        let want = (case.oracle)(x, t);
        let (x, t) = (tensor(&[x], &[], DType::F64), tensor(&[t], &[], DType::F64));
        for reduction in REDUCTIONS {
            let loss = (case.run)(&Setup::new(reduction), &x, &t, Form::Fused).unwrap();
            assert_eq!(loss.dims(), [0; 0]);
            assert_close(case.name, &flat(&loss), &[want], 1e-14);
        }
    }
}
