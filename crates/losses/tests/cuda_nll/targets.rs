//! Targets that are no class: NaN and gradient 0 without waiting for the device, an error where it was asked for.

use candle_core::{DType, Result, Tensor};
use candle_losses::{Nll, Reduction};

use crate::support::*;

#[test]
fn a_target_out_of_range_makes_its_row_nan_and_its_gradient_zero() -> Result<()> {
    let device = cuda()?;
    let x = numbers(1, &[3, 4], DType::F32)?.to_device(&device)?;
    let valid = x.i_rows(&[0, 2])?;
    let valid_targets = Tensor::new(&[1i64, 3], &device)?;
    for far in [4, -1, i64::MAX, i64::MIN, 1 << 40] {
        let t = Tensor::new(&[1i64, far, 3], &device)?;
        for reduction in REDUCTIONS {
            let loss = Nll::new().reduction(reduction);
            let what = format!("{far} {reduction:?}");
            let [losses, gradient] = run(&loss, &x, &t, |t| Ok(t.clone()))?;
            let is_nan: Vec<_> = values(&losses)?.iter().map(|loss| loss.is_nan()).collect();
            match reduction {
                Reduction::None => assert_eq!(is_nan, [false, true, false], "{what}"),
                _ => assert_eq!(is_nan, [true], "{what}"),
            }
            if reduction != Reduction::None {
                // The other rows are divided by their own number.
                let [_, wanted] = run(&loss, &valid, &valid_targets, |t| Ok(t.clone()))?;
                assert_close(&what, &gradient.i_rows(&[0, 2])?, &wanted)?;
            }
            assert_eq!(values(&gradient)?[4..8], [0.0; 4], "{what}");
        }
    }
    Ok(())
}

/// Rows of a matrix by their number.
trait Rows {
    fn i_rows(&self, rows: &[usize]) -> Result<Tensor>;
}

impl Rows for Tensor {
    fn i_rows(&self, rows: &[usize]) -> Result<Tensor> {
        let rows: Vec<_> = rows
            .iter()
            .map(|&row| self.narrow(0, row, 1))
            .collect::<Result<_>>()?;
        Tensor::cat(&rows, 0)
    }
}

#[test]
fn every_index_type_is_checked_against_its_own_range() -> Result<()> {
    let device = cuda()?;
    let x = numbers(2, &[3, 4], DType::F32)?.to_device(&device)?;
    let targets = [
        (Tensor::new(&[0u8, 255, 3], &device)?, "got 255"),
        (
            Tensor::new(&[0u32, u32::MAX, 3], &device)?,
            "got 4294967295",
        ),
        (Tensor::new(&[0i16, i16::MIN, 3], &device)?, "got -32768"),
        (Tensor::new(&[0i32, -7, 3], &device)?, "got -7"),
        (Tensor::new(&[0i64, 4, 3], &device)?, "got 4 "),
    ];
    for (t, got) in targets {
        for reduction in REDUCTIONS {
            let loss = Nll::new().reduction(reduction).validate_targets(true);
            let message = loss.forward(&x, &t).expect_err("accepted").to_string();
            for part in ["nll: target of row 1", got, "4 classes", "ignore_index"] {
                assert!(message.contains(part), "{message:?} lacks {part:?}");
            }
            let ignored = loss.ignore_index(match t.dtype() {
                DType::U8 => 255,
                DType::U32 => u32::MAX.into(),
                DType::I16 => i16::MIN.into(),
                DType::I32 => -7,
                _ => 4,
            });
            let losses = values(&ignored.forward(&x, &t)?)?;
            assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        }
    }
    Ok(())
}

#[test]
fn the_first_wrong_row_is_named_far_into_a_large_strided_batch() -> Result<()> {
    let device = cuda()?;
    let (n, d) = (100, 100);
    let mut targets = vec![1u32; n * d];
    targets[7_007] = 9;
    targets[9_000] = 8;
    let targets = Tensor::from_vec(targets, (n, d), &device)?;
    let strided = targets.t()?.contiguous()?.t()?;
    let x = Tensor::zeros((n, 3, d), DType::F32, &device)?;
    for targets in [targets, strided] {
        let loss = Nll::new().validate_targets(true);
        let message = loss
            .forward(&x, &targets)
            .expect_err("accepted")
            .to_string();
        for part in ["row 7007", "got 9"] {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
    Ok(())
}
