//! One Adam update out of Candle's tensor ops, for any device.

use candle_core::{Device, Result, Tensor, Var};

use super::{Coefficients, Moments, Parameters, Update, smallest_moment};

/// The moments of each parameter where it lies.
pub(super) struct TensorMoments(Vec<(Tensor, Tensor)>);

impl TensorMoments {
    pub(super) fn zeros(parameters: &Parameters) -> Result<Self> {
        let zeros = |var: &Var| Ok((var.zeros_like()?, var.zeros_like()?));
        let moments = parameters.iter().map(|(_, var)| zeros(var));
        Ok(Self(moments.collect::<Result<_>>()?))
    }
}

impl Moments for TensorMoments {
    fn fill(&mut self, saved: &[(Tensor, Tensor)]) -> Result<()> {
        for ((m, v), (saved_m, saved_v)) in self.0.iter_mut().zip(saved) {
            *m = saved_m.to_device(m.device())?;
            *v = saved_v.to_device(v.device())?;
        }
        Ok(())
    }

    fn tensors(&self, _: &Parameters) -> Result<Vec<(Tensor, Tensor)>> {
        self.0
            .iter()
            .map(|(m, v)| Ok((m.to_device(&Device::Cpu)?, v.to_device(&Device::Cpu)?)))
            .collect()
    }

    fn update(&mut self, updates: &[Update<'_>], c: Coefficients) -> Result<()> {
        for ((m, v), update) in self.0.iter_mut().zip(updates) {
            let var = update.var;
            // Detached: otherwise each step's moments would keep the graph of all steps before it.
            let (grad, w) = (update.sum()?.detach(), var.as_detached_tensor());
            *m = kept(&(&*m + ((&grad - &*m)? * c.one_minus_beta1)?)?)?;
            *v = kept(&((&*v * c.beta2)? + ((&grad * c.one_minus_beta2)? * &grad)?)?)?;
            // A division by a plain number would become a multiplication by its reciprocal, which rounds differently.
            let divisor =
                Tensor::new(c.sqrt_bias_correction2, var.device())?.to_dtype(var.dtype())?;
            let denominator = (v.sqrt()?.broadcast_div(&divisor)? + c.eps)?;
            var.set(&(w + ((&*m * -c.step_size)? / denominator)?)?)?;
        }
        Ok(())
    }
}

/// The moments, those nearer to 0 than [`smallest_moment`] replaced by 0.
fn kept(moments: &Tensor) -> Result<Tensor> {
    let vanished = moments.abs()?.lt(smallest_moment(moments.dtype()))?;
    vanished.where_cond(&moments.zeros_like()?, moments)
}
