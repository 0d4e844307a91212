//! Max pooling out of Candle's tensor ops: the readable form, and the oracle of the custom op for values and gradients.

use candle_core::{Result, Tensor};

use crate::strided_view::every_nth;

/// As [`crate::max_pool2d()`], from `index_select`, comparison and `where_cond`; autograd derives the gradient.
///
/// The elements at one place of all windows form a tensor of the result's shape. They are visited in row-major order of
/// the place; an element replaces the maximum so far where it is greater or NaN.
///
/// # Errors
///
/// As [`crate::max_pool2d()`].
pub fn max_pool2d(x: &Tensor, kernel: (usize, usize), stride: (usize, usize)) -> Result<Tensor> {
    let geometry = super::check(x, kernel, stride)?;
    let place = |a: usize, b: usize| {
        every_nth(x, 2, a, stride.0, geometry.output.0)
            .and_then(|rows| every_nth(&rows, 3, b, stride.1, geometry.output.1))
    };
    let mut max = place(0, 0)?;
    for a in 0..kernel.0 {
        for b in 0..kernel.1 {
            if (a, b) == (0, 0) {
                continue;
            }
            let candidate = place(a, b)?;
            let greater = candidate.gt(&max)?;
            let nan = candidate.ne(&candidate)?;
            let replaces = (greater + nan)?;
            max = replaces.where_cond(&candidate, &max)?;
        }
    }
    Ok(max)
}
