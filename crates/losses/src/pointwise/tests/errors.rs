//! Each error names the loss and the argument, what was expected, what came, and what to do.

use super::*;

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

fn zeros(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::zeros(shape, dtype, &Device::Cpu).unwrap()
}

#[test]
fn every_loss_refuses_what_does_not_fit() {
    let f32s = |shape: &[usize]| zeros(shape, DType::F32);
    for case in catalogue() {
        let loss = case.name.split(' ').next().unwrap();
        for form in [Form::Fused, Form::Composed] {
            let run = |weight: Option<Tensor>, x: &Tensor, t: &Tensor| {
                let setup = Setup {
                    weight,
                    ..Setup::default()
                };
                message((case.run)(&setup, x, t, form))
            };
            assert_eq!(
                run(None, &f32s(&[2, 3]), &f32s(&[3])),
                format!(
                    "{loss}: target must have the input's shape [2, 3], got [3]; \
                     nothing is broadcast in silence: use `broadcast_as` where that is meant"
                )
            );
            assert_eq!(
                run(None, &f32s(&[2]), &zeros(&[2], DType::F64)),
                format!(
                    "{loss}: target must have the input's dtype f32, got f64; convert it with `to_dtype`"
                )
            );
            let ints = zeros(&[2], DType::U32);
            assert_eq!(
                run(None, &ints, &ints),
                format!(
                    "{loss}: input must be f32, f64, f16 or bf16, got u32; convert it with `to_dtype`"
                )
            );
            assert_eq!(
                run(Some(f32s(&[2])), &f32s(&[2, 3]), &f32s(&[2, 3])),
                format!(
                    "{loss}: weight must broadcast to the input's shape [2, 3], got [2]; \
                     axes are matched from the last one, each of equal size or 1"
                )
            );
            assert_eq!(
                run(
                    Some(zeros(&[3], DType::BF16)),
                    &f32s(&[2, 3]),
                    &f32s(&[2, 3])
                ),
                format!(
                    "{loss}: weight must have the input's dtype f32, got bf16; convert it with `to_dtype`"
                )
            );
        }
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let x = zeros(&[2], DType::F32);
    let cases = [
        (
            Huber::new().delta(0.0).forward(&x, &x),
            "huber: delta must be finite and above 0, got 0; use mse for the limit of a large delta",
        ),
        (
            Huber::new().delta(f64::INFINITY).composed(&x, &x),
            "huber: delta must be finite and above 0, got inf; use mse for the limit of a large delta",
        ),
        (
            SmoothL1::new().beta(-1.0).forward(&x, &x),
            "smooth_l1: beta must be finite and not below 0, got -1; beta 0 is L1",
        ),
        (
            SmoothL1::new().beta(f64::NAN).forward(&x, &x),
            "smooth_l1: beta must be finite and not below 0, got NaN; beta 0 is L1",
        ),
        (
            PoissonNll::new().eps(-1e-8).forward(&x, &x),
            "poisson_nll: eps must be finite and not below 0, got -0.00000001; PyTorch's default is 1e-8",
        ),
        (
            Focal::new().gamma(-0.5).forward(&x, &x),
            "focal: gamma must be finite and not below 0, got -0.5; 0 is binary cross entropy, 2 is usual",
        ),
        (
            Focal::new().alpha(1.5).forward(&x, &x),
            "focal: alpha must lie in [0, 1], got 1.5; use `no_alpha` to weigh positives and negatives alike",
        ),
    ];
    for (result, want) in cases {
        assert_eq!(message(result), want);
    }
}

#[test]
fn a_pos_weight_that_does_not_fit_is_named() {
    let x = zeros(&[2, 3], DType::F32);
    let bce = |pos_weight| BinaryCrossEntropyWithLogits::new().pos_weight(pos_weight);
    let want = "binary_cross_entropy_with_logits: pos_weight must broadcast to the input's shape [2, 3], got [2]; \
                axes are matched from the last one, each of equal size or 1";
    assert_eq!(message(bce(zeros(&[2], DType::F32)).forward(&x, &x)), want);
    assert_eq!(message(bce(zeros(&[2], DType::F32)).composed(&x, &x)), want);
    assert_eq!(
        message(bce(zeros(&[3], DType::F64)).forward(&x, &x)),
        "binary_cross_entropy_with_logits: pos_weight must have the input's dtype f32, got f64; \
         convert it with `to_dtype`"
    );
}

#[test]
fn the_batch_mean_of_a_scalar_is_refused() {
    let x = zeros(&[], DType::F32);
    assert_eq!(
        message(KlDiv::new().batch_mean(true).forward(&x, &x)),
        "kl_div: input must have a batch axis for the batch mean, got a tensor of rank 0; \
         use another reduction or `unsqueeze(0)`"
    );
}
