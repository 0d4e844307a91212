//! One Adam update out of Candle's tensor ops, for any device.

use candle_core::{Result, Tensor, Var};

use super::{Coefficients, Parameters};

pub(super) fn zeros(parameters: &Parameters) -> Result<Vec<(Tensor, Tensor)>> {
    parameters
        .iter()
        .map(|(_, var)| Ok((var.zeros_like()?, var.zeros_like()?)))
        .collect()
}

pub(super) fn update(
    var: &Var,
    grad: &Tensor,
    moments: &mut (Tensor, Tensor),
    c: Coefficients,
) -> Result<()> {
    // Detached: otherwise each step's moments would keep the graph of all steps before it.
    let (grad, w) = (grad.detach(), var.as_detached_tensor());
    let (m, v) = &*moments;
    let m = (m + ((&grad - m)? * c.one_minus_beta1)?)?;
    let v = ((v * c.beta2)? + ((&grad * c.one_minus_beta2)? * &grad)?)?;
    // A division by a plain number would become a multiplication by its reciprocal, which rounds differently.
    let divisor = Tensor::new(c.sqrt_bias_correction2, var.device())?.to_dtype(var.dtype())?;
    let denominator = (v.sqrt()?.broadcast_div(&divisor)? + c.eps)?;
    var.set(&(w + ((&m * -c.step_size)? / denominator)?)?)?;
    *moments = (m, v);
    Ok(())
}
