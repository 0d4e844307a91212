//! Values against the plain formulas.

use super::*;

fn expected(case: &Case, reduction: Reduction, x: &[f64], t: &[f64]) -> Vec<f64> {
    let each: Vec<f64> = x
        .iter()
        .zip(t)
        .map(|(&x, &t)| (case.oracle)(x, t))
        .collect();
    let sum: f64 = each.iter().sum();
    match reduction {
        Reduction::Mean => vec![sum / each.len() as f64],
        Reduction::Sum => vec![sum],
        Reduction::None => each,
    }
}

fn inputs(case: &Case, len: usize, dtype: DType) -> (Tensor, Tensor) {
    let x: Vec<f64> = numbers(len, 1).into_iter().map(case.to_input).collect();
    let t: Vec<f64> = numbers(len, 2).into_iter().map(case.to_target).collect();
    (tensor(&x, &[len], dtype), tensor(&t, &[len], dtype))
}

#[test]
fn every_loss_is_its_formula_under_every_reduction() {
    for case in catalogue() {
        for reduction in REDUCTIONS {
            for len in [1, 17, 512, 1300] {
                let (x, t) = inputs(&case, len, DType::F64);
                let want = expected(&case, reduction, &flat(&x), &flat(&t));
                for form in [Form::Fused, Form::Composed] {
                    let loss = (case.run)(&Setup::new(reduction), &x, &t, form).unwrap();
                    let what = format!("{} {reduction:?} {form:?}", case.name);
                    assert_close(&what, &flat(&loss), &want, 1e-13);
                }
            }
        }
    }
}

#[test]
fn narrow_dtypes_are_computed_in_f32_and_returned_in_f32() {
    for case in catalogue() {
        for reduction in REDUCTIONS {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let (x, t) = inputs(&case, 700, dtype);
                // The formula sees the rounded inputs, so only the arithmetic is judged.
                let want = expected(&case, reduction, &flat(&x), &flat(&t));
                let loss = (case.run)(&Setup::new(reduction), &x, &t, Form::Fused).unwrap();
                assert_eq!(loss.dtype(), DType::F32);
                let what = format!("{} {reduction:?} {dtype:?}", case.name);
                assert_close(&what, &flat(&loss), &want, 4e-6);
            }
        }
    }
}

#[test]
fn a_sum_of_a_million_f32_keeps_its_digits() {
    // One running f32 sum is off by 1e-4 here.
    let len = 1_000_003;
    let (x, t) = (
        tensor(&numbers(len, 3), &[len], DType::F32),
        tensor(&numbers(len, 4), &[len], DType::F32),
    );
    let want: f64 = (flat(&x).iter().zip(&flat(&t)))
        .map(|(x, t)| (x - t).powi(2))
        .sum();
    let got = Mse::new()
        .reduction(Reduction::Sum)
        .forward(&x, &t)
        .unwrap();
    assert_close("sum", &flat(&got), &[want], 1e-7);
}

#[test]
fn a_weight_multiplies_each_element_and_broadcasts() {
    for case in catalogue() {
        let (x, t) = inputs(&case, 12, DType::F64);
        let (x, t) = (x.reshape((3, 4)).unwrap(), t.reshape((3, 4)).unwrap());
        let w = [0.5, 2.0, 0.0, 1.25];
        for reduction in REDUCTIONS {
            let setup = Setup {
                weight: Some(tensor(&w, &[4], DType::F64)),
                ..Setup::new(reduction)
            };
            let each = expected(&case, Reduction::None, &flat(&x), &flat(&t));
            let each: Vec<f64> = each.iter().enumerate().map(|(i, l)| l * w[i % 4]).collect();
            // PyTorch's mse and l1 divide by the weights, its other losses by the number of elements.
            let count = match case.name {
                "mse" | "l1" => 3.0 * w.iter().sum::<f64>(),
                _ => 12.0,
            };
            let want = match reduction {
                Reduction::Mean => vec![each.iter().sum::<f64>() / count],
                Reduction::Sum => vec![each.iter().sum()],
                Reduction::None => each,
            };
            for form in [Form::Fused, Form::Composed] {
                let loss = (case.run)(&setup, &x, &t, form).unwrap();
                assert_close(
                    &format!("{} {reduction:?} {form:?}", case.name),
                    &flat(&loss),
                    &want,
                    1e-13,
                );
            }
        }
    }
}

#[test]
fn pos_weight_multiplies_the_positive_term() {
    let (x, z) = (numbers(6, 5), [0.0, 1.0, 0.3, 0.7, 1.0, 0.0]);
    let p = [0.5, 3.0];
    let want: Vec<f64> = (0..6)
        .map(|i| -p[i % 2] * z[i] * probability(x[i]).ln() - (1.0 - z[i]) * probability(-x[i]).ln())
        .collect();
    let loss = BinaryCrossEntropyWithLogits::new()
        .pos_weight(tensor(&p, &[2], DType::F64))
        .reduction(Reduction::None);
    let (x, z) = (
        tensor(&x, &[3, 2], DType::F64),
        tensor(&z, &[3, 2], DType::F64),
    );
    assert_close("fused", &flat(&loss.forward(&x, &z).unwrap()), &want, 1e-14);
    assert_close(
        "composed",
        &flat(&loss.composed(&x, &z).unwrap()),
        &want,
        1e-14,
    );
}

#[test]
fn batch_mean_divides_by_the_first_axis() {
    let (x, t) = (
        tensor(&[-1.0, -2.0, -0.5, -1.5, -1.0, -0.1], &[2, 3], DType::F64),
        [0.2, 0.3, 0.5, 0.1, 0.1, 0.8],
    );
    let t = tensor(&t, &[2, 3], DType::F64);
    let sum = flat(
        &KlDiv::new()
            .reduction(Reduction::Sum)
            .forward(&x, &t)
            .unwrap(),
    )[0];
    let loss = KlDiv::new().batch_mean(true);
    assert_close(
        "fused",
        &flat(&loss.forward(&x, &t).unwrap()),
        &[sum / 2.0],
        1e-15,
    );
    assert_close(
        "composed",
        &flat(&loss.composed(&x, &t).unwrap()),
        &[sum / 2.0],
        1e-15,
    );
}

#[test]
fn huber_is_delta_times_smooth_l1() {
    let (x, t) = (
        tensor(&numbers(50, 6), &[50], DType::F64),
        tensor(&numbers(50, 7), &[50], DType::F64),
    );
    let huber = flat(&Huber::new().delta(0.3).forward(&x, &t).unwrap());
    let smooth = flat(&SmoothL1::new().beta(0.3).forward(&x, &t).unwrap());
    assert_close("huber", &huber, &[0.3 * smooth[0]], 1e-15);
}

#[test]
fn plain_functions_have_the_default_options() {
    let (x, t) = (
        tensor(&[-0.5, -1.5], &[2], DType::F64),
        tensor(&[0.25, 1.0], &[2], DType::F64),
    );
    let pairs = [
        (mse(&x, &t), Mse::new().forward(&x, &t)),
        (l1(&x, &t), L1::new().forward(&x, &t)),
        (smooth_l1(&x, &t), SmoothL1::new().beta(1.0).forward(&x, &t)),
        (huber(&x, &t), Huber::new().delta(1.0).forward(&x, &t)),
        (
            binary_cross_entropy_with_logits(&x, &t),
            BinaryCrossEntropyWithLogits::new().forward(&x, &t),
        ),
        (soft_margin(&x, &t), SoftMargin::new().forward(&x, &t)),
        (kl_div(&x, &t), KlDiv::new().forward(&x, &t)),
        (
            poisson_nll(&x, &t),
            PoissonNll::new().log_input(true).forward(&x, &t),
        ),
        (
            focal(&x, &t),
            Focal::new().alpha(0.25).gamma(2.0).forward(&x, &t),
        ),
    ];
    for (plain, built) in pairs {
        assert_eq!(bits(&plain.unwrap()), bits(&built.unwrap()));
    }
}
