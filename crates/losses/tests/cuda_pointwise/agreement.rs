//! Values and gradients of every loss, dtype, reduction and layout.

use candle_core::{DType, Result, Tensor};
use candle_gradcheck::GradCheck;
use candle_losses::{BinaryCrossEntropyWithLogits, Reduction};

use crate::support::*;

/// The same values with swapped strides and an offset, surrounded by NaN.
pub(crate) fn awkward(t: &Tensor) -> Result<Tensor> {
    let last = t.rank() - 1;
    let turned = t.transpose(0, last)?.contiguous()?;
    let frame = (turned.narrow(0, 0, 1)?.zeros_like()? + f64::NAN)?;
    let framed = Tensor::cat(&[&frame, &turned, &frame], 0)?;
    framed.narrow(0, 1, t.dim(last)?)?.transpose(0, last)
}

/// Contiguous, but not from an address of 16 bytes.
fn shifted(t: &Tensor) -> Result<Tensor> {
    let one = t.flatten_all()?.narrow(0, 0, 1)?;
    Tensor::cat(&[&one, &t.flatten_all()?], 0)?
        .narrow(0, 1, t.elem_count())?
        .reshape(t.shape())
}

#[test]
fn every_loss_agrees_with_the_cpu_in_every_dtype_reduction_and_layout() -> Result<()> {
    let device = cuda();
    let shape = [3usize, 1, 17, 5];
    let len = shape.iter().product();
    for case in catalogue() {
        let x: Vec<f64> = numbers(len, 11).into_iter().map(case.to_input).collect();
        let t: Vec<f64> = numbers(len, 12).into_iter().map(case.to_target).collect();
        for dtype in DTYPES {
            let (x, t) = (
                tensor(x.clone(), &shape, dtype),
                tensor(t.clone(), &shape, dtype),
            );
            let narrow = tensor(numbers(17, 13), &[17, 1], dtype).abs()?;
            let full = tensor(numbers(len, 14), &shape, dtype).abs()?;
            for reduction in REDUCTIONS {
                for weight in [None, Some(narrow.clone()), Some(full.clone())] {
                    let setup = Setup {
                        weight,
                        reduction,
                        ..Setup::default()
                    };
                    let want = run(&case, &setup, &x, &t, |t| Ok(t.clone()))?;
                    let (there_x, there_t) = (x.to_device(&device)?, t.to_device(&device)?);
                    let views: [fn(&Tensor) -> Result<Tensor>; 3] =
                        [|t| Ok(t.clone()), awkward, shifted];
                    for (index, view) in views.into_iter().enumerate() {
                        let got = run(&case, &setup, &there_x, &there_t, view)?;
                        for (part, (got, want)) in got.iter().zip(&want).enumerate() {
                            let what = format!(
                                "{} {dtype:?} {reduction:?} weight {:?} view {index} part {part}",
                                case.name,
                                setup.weight.as_ref().map(Tensor::dims)
                            );
                            assert_close(&what, got, want, rounding(want.dtype()));
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn sums_of_many_parts_and_tails_agree_with_the_cpu() -> Result<()> {
    let device = cuda();
    let cases = catalogue();
    for len in [1, 2, 7, 8, 255, 1023, 1025, 4099, 70_001] {
        for case in [&cases[0], &cases[5]] {
            let x: Vec<f64> = numbers(len, 21).into_iter().map(case.to_input).collect();
            let t: Vec<f64> = numbers(len, 22).into_iter().map(case.to_target).collect();
            for dtype in DTYPES {
                let (x, t) = (
                    tensor(x.clone(), &[len], dtype),
                    tensor(t.clone(), &[len], dtype),
                );
                let want = run(case, &Setup::default(), &x, &t, |t| Ok(t.clone()))?;
                let (x, t) = (x.to_device(&device)?, t.to_device(&device)?);
                let got = run(case, &Setup::default(), &x, &t, |t| Ok(t.clone()))?;
                for (got, want) in got.iter().zip(&want) {
                    let what = format!("{} of {len} {dtype:?}", case.name);
                    assert_close(&what, got, want, rounding(want.dtype()));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_weight_of_positives_agrees_with_the_cpu() -> Result<()> {
    let device = cuda();
    for dtype in DTYPES {
        let x = tensor(numbers(34, 31), &[2, 17], dtype);
        let t = tensor(
            numbers(34, 32)
                .into_iter()
                .map(|v| 1.0 / (1.0 + v.exp()))
                .collect(),
            &[2, 17],
            dtype,
        );
        let p = tensor(numbers(17, 33), &[17], dtype).abs()?;
        let loss = |x: &Tensor, t: &Tensor| {
            BinaryCrossEntropyWithLogits::new()
                .pos_weight(p.to_device(x.device())?)
                .reduction(Reduction::None)
                .forward(x, t)
        };
        let got = loss(&x.to_device(&device)?, &t.to_device(&device)?)?;
        let want = loss(&x, &t)?;
        assert_close(&format!("{dtype:?}"), &got, &want, rounding(want.dtype()));
    }
    Ok(())
}

#[test]
fn gradients_pass_gradcheck_on_cuda() -> Result<()> {
    let device = cuda();
    for case in catalogue() {
        // Off the kinks: differences of multiples of 0.37 and of 0.23 with an offset.
        let x: Vec<f64> = (0..9)
            .map(|i| (case.to_input)(0.37 * f64::from(i) - 1.5))
            .collect();
        let t: Vec<f64> = (0..9)
            .map(|i| {
                (case.to_target)(0.23 * f64::from(i) - 0.91)
                    + if case.name.contains("poisson") {
                        0.5
                    } else {
                        0.0
                    }
            })
            .collect();
        let x = tensor(x, &[3, 3], DType::F64).to_device(&device)?;
        let t = tensor(t, &[3, 3], DType::F64).to_device(&device)?;
        for reduction in REDUCTIONS {
            let setup = Setup {
                reduction,
                ..Setup::default()
            };
            let report = GradCheck::new().check(
                |v: &[Tensor]| (case.run)(&setup, &v[0], &t)?.flatten_all(),
                std::slice::from_ref(&x),
            )?;
            report
                .into_result()
                .map_err(|error| candle_core::Error::msg(format!("{}: {error}", case.name)))?;
        }
    }
    Ok(())
}
