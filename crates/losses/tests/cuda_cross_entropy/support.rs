//! A problem that both devices solve: the CPU in f64, whose kernel an oracle checks, and CUDA in the dtype under test.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::CrossEntropy;

pub(crate) fn cuda() -> Result<Device> {
    Device::new_cuda(0)
}

pub(crate) const DTYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrangement {
    Contiguous,
    /// A window of a larger tensor in every dimension, at an odd offset.
    Window,
    /// The class axis last in memory.
    ClassesLast,
    /// The batch axis last in memory.
    BatchLast,
    /// All dimensions in the opposite order in memory.
    Reversed,
}

pub(crate) const ARRANGEMENTS: [Arrangement; 5] = [
    Arrangement::Contiguous,
    Arrangement::Window,
    Arrangement::ClassesLast,
    Arrangement::BatchLast,
    Arrangement::Reversed,
];

/// The same values in another memory layout. What lies around a window is large: it would show.
pub(crate) fn arrange(x: &Tensor, arrangement: Arrangement) -> Result<Tensor> {
    let Some(last) = x.rank().checked_sub(1) else {
        return Ok(x.clone());
    };
    match arrangement {
        Arrangement::Contiguous => x.contiguous(),
        Arrangement::Window => {
            let mut window = x.contiguous()?;
            for axis in 0..x.rank() {
                let mut edge = x.dims().to_vec();
                edge[..axis].copy_from_slice(&window.dims()[..axis]);
                edge[axis] = 1;
                let edge = Tensor::full(77f32, edge, &Device::Cpu)?.to_dtype(x.dtype())?;
                window = Tensor::cat(&[&edge, &window, &edge, &edge], axis)?;
            }
            for axis in 0..x.rank() {
                window = window.narrow(axis, 1, x.dims()[axis])?;
            }
            Ok(window)
        }
        Arrangement::ClassesLast if last > 1 => {
            x.transpose(1, last)?.contiguous()?.transpose(1, last)
        }
        Arrangement::BatchLast if last > 0 => {
            x.transpose(0, last)?.contiguous()?.transpose(0, last)
        }
        Arrangement::Reversed if last > 0 => {
            let order: Vec<usize> = (0..=last).rev().collect();
            x.permute(order.as_slice())?
                .contiguous()?
                .permute(order.as_slice())
        }
        Arrangement::ClassesLast | Arrangement::BatchLast | Arrangement::Reversed => Ok(x.clone()),
    }
}

/// `x` on the device, in the same layout.
pub(crate) fn moved(x: &Tensor, device: &Device) -> Result<Tensor> {
    let moved = x.to_device(device)?;
    assert_eq!(
        moved.stride(),
        x.stride(),
        "a copy would test another layout"
    );
    Ok(moved)
}

/// Numbers in a quarter's steps within [-8, 8], which every float type holds.
pub(crate) fn numbers(seed: u64, dims: &[usize]) -> Result<Tensor> {
    let mut random = Random::new(seed);
    let x: Vec<f64> = (0..dims.iter().product())
        .map(|_| (random.uniform() * 64.0).round() / 4.0 - 8.0)
        .collect();
    Tensor::from_vec(x, dims, &Device::Cpu)
}

/// xorshift: the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The dims of rows, of logits' dims.
pub(crate) fn row_dims(dims: &[usize]) -> Vec<usize> {
    let mut rows = dims.to_vec();
    rows.remove(dims.len().min(2) - 1);
    rows
}

/// Classes for each row, some of them `ignore`.
pub(crate) fn indices(seed: u64, dims: &[usize], ignore: Option<i64>) -> Result<Tensor> {
    let classes = dims[dims.len().min(2) - 1];
    let rows = row_dims(dims);
    let mut random = Random::new(seed);
    let y: Vec<i64> = (0..rows.iter().product())
        .map(|_| match ignore {
            Some(ignore) if random.uniform() < 0.25 => ignore,
            _ => (random.uniform() * classes as f64) as i64,
        })
        .collect();
    Tensor::from_vec(y, rows, &Device::Cpu)
}

/// One problem: logits and targets on the CPU, logits and probabilities in f64.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) options: CrossEntropy,
    pub(crate) weight: Option<Tensor>,
    pub(crate) logits: Tensor,
    pub(crate) target: Tensor,
    pub(crate) is_probabilities: bool,
}

impl Problem {
    pub(crate) fn of_indices(options: CrossEntropy, logits: Tensor, target: Tensor) -> Self {
        Self {
            options,
            weight: None,
            logits,
            target,
            is_probabilities: false,
        }
    }

    fn options_on(&self, device: &Device) -> Result<CrossEntropy> {
        match &self.weight {
            Some(weight) => Ok(self.options.clone().weight(weight.to_device(device)?)),
            None => Ok(self.options.clone()),
        }
    }

    /// Compares every form on CUDA, in `dtype` and with memory laid out as asked, with the CPU in f64.
    pub(crate) fn agree(&self, dtype: DType, arrangement: Arrangement, seed: u64) -> Result<()> {
        let device = cuda()?;
        let expected = self.options_on(&Device::Cpu)?;
        let options = self.options_on(&device)?;
        let what = |form: &str| {
            format!(
                "{form}, {dtype:?}, {arrangement:?}, {:?}, {:?}",
                self.logits.dims(),
                self.options
            )
        };
        let logits = arrange(&self.logits.to_dtype(dtype)?, arrangement)?;
        let target = if self.is_probabilities {
            arrange(&self.target.to_dtype(dtype)?, arrangement)?
        } else {
            arrange(&self.target, arrangement)?
        };
        let (logits, target) = (moved(&logits, &device)?, moved(&target, &device)?);

        // Forward, and backward with a number for each loss.
        let graph =
            |options: &CrossEntropy, x: &Tensor, t: &Tensor| -> Result<[Option<Tensor>; 3]> {
                let x = Var::from_tensor(x)?;
                let t_var = match self.is_probabilities {
                    true => Some(Var::from_tensor(t)?),
                    false => None,
                };
                let loss = match &t_var {
                    Some(t) => options.forward_probabilities(&x, t)?,
                    None => options.forward(&x, t)?,
                };
                let upstream = upstream(seed, loss.dims())?
                    .to_dtype(loss.dtype())?
                    .to_device(loss.device())?;
                let gradients = (&loss * upstream)?.flatten_all()?.sum_all()?.backward()?;
                let of = |x: &Tensor| gradients.get(x).cloned();
                Ok([Some(loss), of(&x), t_var.and_then(|t| of(&t))])
            };
        let wanted = graph(&expected, &self.logits, &self.target)?;
        let found = graph(&options, &logits, &target)?;
        let (of_loss, of_gradient) = tolerances(dtype);
        for (i, (wanted, found)) in wanted.iter().zip(&found).enumerate() {
            let (name, tolerance) = [
                ("loss", of_loss),
                ("gradient", of_gradient),
                ("gradient of probabilities", of_gradient),
            ][i];
            match (wanted, found) {
                (Some(wanted), Some(found)) => {
                    compare(&what(name), wanted, found, tolerance)?;
                }
                (None, None) => {}
                (wanted, found) => panic!("{}: {wanted:?} and {found:?}", what(name)),
            }
        }

        // Loss and gradient at once.
        let (loss, gradient) = match self.is_probabilities {
            true => expected.value_and_grad_probabilities(&self.logits, &self.target)?,
            false => expected.value_and_grad(&self.logits, &self.target)?,
        };
        let check = |form: &str, found: &(Tensor, Tensor)| -> Result<()> {
            compare(&what(&format!("{form}, loss")), &loss, &found.0, of_loss)?;
            assert_eq!(found.1.dtype(), dtype);
            compare(&what(form), &gradient, &found.1, of_gradient)
        };
        if self.is_probabilities {
            let found = options.value_and_grad_probabilities(&logits, &target)?;
            return check("value_and_grad", &found);
        }
        check("value_and_grad", &options.value_and_grad(&logits, &target)?)?;
        let in_place = options.value_and_grad_in_place(logits, &target)?;
        check("value_and_grad_in_place", &in_place)
    }
}

/// An upstream gradient for each loss.
fn upstream(seed: u64, dims: &[usize]) -> Result<Tensor> {
    let mut random = Random::new(seed ^ 0x5eed);
    let x: Vec<f64> = (0..dims.iter().product())
        .map(|_| random.uniform() * 3.0 - 1.0)
        .collect();
    Tensor::from_vec(x, dims, &Device::Cpu)
}

/// Of loss and gradient, absolute and relative: half precision rounds the gradient to the type.
pub(crate) fn tolerances(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F64 => (1e-11, 1e-11),
        DType::F32 => (2e-5, 2e-5),
        DType::F16 => (2e-5, 1e-3),
        _ => (2e-5, 8e-3),
    }
}

/// Whether two numbers agree to an absolute plus a relative tolerance; NaN agrees with NaN, infinity with itself.
pub(crate) fn close(found: f64, wanted: f64, tolerance: f64) -> bool {
    found == wanted
        || (found.is_nan() && wanted.is_nan())
        || (found - wanted).abs() <= tolerance * (1.0 + wanted.abs())
}

/// All numbers in f64, in row-major order.
pub(crate) fn values(x: &Tensor) -> Result<Vec<f64>> {
    x.to_device(&Device::Cpu)?
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1()
}

#[track_caller]
pub(crate) fn compare(what: &str, wanted: &Tensor, found: &Tensor, tolerance: f64) -> Result<()> {
    assert_eq!(wanted.dims(), found.dims(), "{what}");
    for (i, (wanted, found)) in values(wanted)?.into_iter().zip(values(found)?).enumerate() {
        assert!(
            close(found, wanted, tolerance),
            "{what}: element {i} is {found:e} and should be {wanted:e}"
        );
    }
    Ok(())
}
