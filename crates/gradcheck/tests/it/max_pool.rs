//! Candle's own `max_pool2d` fails the check: a unique 2x2 maximum gets a quarter of its gradient. A right one passes.

use crate::values;
use candle_core::{D, DType, Result, Tensor};
use candle_gradcheck::{Failure, GradCheck, Mode};

/// 2x2 max pooling with stride 2 out of reductions.
fn right_max_pool(x: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let windows = x.reshape(vec![n, c, h / 2, 2, w / 2, 2])?.transpose(3, 4)?;
    windows
        .contiguous()?
        .reshape((n, c, h / 2, w / 2, 4))?
        .max(D::Minus1)
}

#[test]
fn candle_max_pool2d_fails_where_a_right_one_passes() -> Result<()> {
    let x = values(&[2, 3, 4, 6], DType::F64)?;
    for mode in [Mode::Dense, Mode::Projection] {
        GradCheck::new()
            .mode(mode)
            .check(|i| right_max_pool(&i[0]), &[x.clone()])?
            .into_result()?;
        let report = GradCheck::new()
            .mode(mode)
            .check(|i| i[0].max_pool2d(2), &[x.clone()])?;
        let [
            Failure::Mismatch {
                analytic, numeric, ..
            },
            ..,
        ] = report.failures.as_slice()
        else {
            panic!("{mode:?}: {report}");
        };
        assert!(
            (analytic / numeric - 0.25).abs() < 1e-6,
            "{mode:?}: {report}"
        );
    }
    Ok(())
}
