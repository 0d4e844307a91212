//! Loss and gradients of a batch, taken in parts that run side by side.
//!
//! A step is some twenty short parallel sections if every op splits its batch among the threads, and each waits for the slowest
//! thread. A part instead goes through forward and backward on the thread that took it, and its ops share their work only with
//! threads that have none. How a batch is cut depends on its size alone and the optimizer adds the gradients in the order of the
//! parts, so the number of threads does not show in the bits.

use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor};
use lenet5::LeNet5;

use crate::config::LossKind;
use crate::threads;

/// Samples of a part, at least: fewer would not pay for turning the weights into the form that the kernels read.
const SAMPLES: usize = 64;

/// Parts of a batch, at most: each has gradients of its own for every parameter.
const MOST: usize = 8;

/// Samples in each part of a batch of `samples`, but for the last, which may be smaller. An accelerator takes a batch whole.
pub(super) fn part_size(samples: usize, device: &Device) -> usize {
    if device.is_cpu() {
        samples.div_ceil(MOST).max(SAMPLES)
    } else {
        samples.max(1)
    }
}

/// `f` of every item, in their order: side by side on the CPU. Elsewhere all on this thread, since Candle gives each thread a
/// stream of its own on a GPU, and nothing orders that of the gradients before the optimizer's.
pub(super) fn side_by_side<T: Send, R: Send>(
    device: &Device,
    items: Vec<T>,
    f: impl Fn(T) -> Result<R> + Sync + Send,
) -> Result<Vec<R>> {
    if device.is_cpu() {
        threads::side_by_side(items, f).into_iter().collect()
    } else {
        items.into_iter().map(f).collect()
    }
}

/// What a part of a batch gave.
pub(super) struct Part {
    /// The mean over the part's samples.
    pub(super) loss: Tensor,
    pub(super) samples: usize,
    /// Of the part's share in the mean over the batch.
    pub(super) grads: GradStore,
    /// Time of this thread for making the batch, forward and backward.
    pub(super) times: [Duration; 3],
}

impl Part {
    /// Makes a part of a batch of `batch_size` samples, and goes through forward and backward.
    pub(super) fn run(
        model: &LeNet5,
        loss: LossKind,
        batch_size: usize,
        make: impl FnOnce() -> Result<(Tensor, Tensor)>,
    ) -> Result<Self> {
        let start = Instant::now();
        let (images, labels) = make()?;
        let made = start.elapsed();
        let samples = labels.elem_count();
        let loss = loss.mean(&model.forward(&images)?, &labels)?;
        let forward = start.elapsed();
        let grads = if samples == batch_size {
            loss.backward()?
        } else {
            let share = samples as f64 / batch_size as f64;
            loss.affine(share, 0.0)?.backward()?
        };
        Ok(Self {
            // Without its graph, whose tensors are then freed here and not where every thread waits for it.
            loss: loss.detach(),
            samples,
            grads,
            times: [made, forward - made, start.elapsed() - forward],
        })
    }
}

/// The mean loss of a batch and the gradients that add up to its own, as a step of training takes them: in parts of 64 samples
/// or more that run side by side on the CPU, whole on other devices. They are for
/// [`Adam::step_of_parts`](crate::optimizer::Adam::step_of_parts).
///
/// `images` is (N, 1, 32, 32) in the parameters' dtype and `labels` (N) in u32; the loss is a scalar that no gradient flows through.
///
/// # Errors
/// When the batch is empty, or as model and loss report.
pub fn gradients(
    model: &LeNet5,
    loss: LossKind,
    images: &Tensor,
    labels: &Tensor,
) -> Result<(Tensor, Vec<GradStore>)> {
    let samples = labels.dim(0)?;
    let size = part_size(samples, model.device());
    let starts = (0..samples).step_by(size).collect();
    let parts = side_by_side(model.device(), starts, |start| {
        let len = size.min(samples - start);
        Part::run(model, loss, samples, || {
            Ok((images.narrow(0, start, len)?, labels.narrow(0, start, len)?))
        })
    })?;
    let share = |part: &Part| part.loss.affine(part.samples as f64 / samples as f64, 0.0);
    let Some((first, rest)) = parts.split_first() else {
        candle_core::bail!("gradients: expected a batch of at least one sample, got none");
    };
    let mut mean = share(first)?;
    for part in rest {
        mean = (mean + share(part)?)?;
    }
    Ok((mean, parts.into_iter().map(|part| part.grads).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    #[test]
    fn the_parts_of_a_batch_give_the_gradients_of_the_whole() -> Result<()> {
        let cpu = Device::Cpu;
        let (samples, size) = (150, part_size(150, &cpu));
        assert_eq!(size, 64);
        let model = LeNet5::new(4, DType::F64, &cpu)?;
        let images = Tensor::randn(0f64, 1f64, (samples, 1, 32, 32), &cpu)?;
        let labels = Tensor::from_vec((0..150u32).map(|i| i * 7 % 10).collect(), samples, &cpu)?;
        for loss in LossKind::ALL {
            let part = |start: usize, len: usize| {
                Part::run(&model, loss, samples, || {
                    Ok((images.narrow(0, start, len)?, labels.narrow(0, start, len)?))
                })
            };
            let whole = part(0, samples)?;
            let parts = [part(0, 64)?, part(64, 64)?, part(128, 22)?];
            let (mean, grads) = gradients(&model, loss, &images, &labels)?;
            assert_eq!(grads.len(), parts.len());
            let (mean, expected) = (mean.to_scalar::<f64>()?, whole.loss.to_scalar::<f64>()?);
            assert!((mean - expected).abs() < 1e-12);
            for (name, var) in model.parameters() {
                let of = |grads: &GradStore| match grads.get(var) {
                    Some(grad) => grad.flatten_all()?.to_vec1::<f64>(),
                    None => panic!("{name} has no gradient"),
                };
                let mut sum = vec![0.0; var.elem_count()];
                for (part, same) in parts.iter().zip(&grads) {
                    let grad = of(&part.grads)?;
                    assert_eq!(grad, of(same)?, "{name} with {loss:?}");
                    sum.iter_mut().zip(&grad).for_each(|(sum, g)| *sum += g);
                }
                let differences = sum
                    .iter()
                    .zip(of(&whole.grads)?)
                    .map(|(a, b)| (a - b).abs());
                let worst = differences.fold(0.0, f64::max);
                assert!(worst < 1e-12, "{name} with {loss:?}: {worst}");
            }
        }
        Ok(())
    }

    #[test]
    fn parts_are_few_and_not_small() {
        let sizes = [1, 64, 128, 513, 60_000].map(|samples| part_size(samples, &Device::Cpu));
        assert_eq!(sizes, [64, 64, 64, 65, 7500]);
    }
}
