//! Batches on their way to the model: normalised from u8 into a buffer that is used again.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};
use candle_simd::prefetch::prefetch;
use fashion_mnist::Split;
use rayon::prelude::*;

/// Values of one image.
const PIXELS: usize = 32 * 32;

/// Images a thread normalises at a time.
const CHUNK: usize = 32;

/// Makes batches on one device. On the CPU the images of a batch overwrite those of the batch before, whose graph is gone by
/// then; elsewhere each batch is uploaded.
pub(super) struct BatchBuffer {
    device: Device,
    images: Option<Tensor>,
}

impl BatchBuffer {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
            images: None,
        }
    }

    /// Images (N, 1, 32, 32) in f32 and labels (N) in u32. The images are valid until the next call.
    ///
    /// Between that call and the use of a gradient of this batch nothing may happen: the caller runs one step at a time.
    pub(super) fn fill(&mut self, split: &Split, indices: &[u32]) -> Result<(Tensor, Tensor)> {
        if !self.device.is_cpu() {
            return split.batch(indices, DType::F32, &self.device);
        }
        let images = match self.images.take() {
            Some(images) if images.dim(0)? == indices.len() => images,
            _ => Tensor::zeros((indices.len(), 1, 32, 32), DType::F32, &self.device)?,
        };
        images.inplace_op1(&Normalize { split, indices })?;
        self.images = Some(images.clone());
        let labels = split.labels();
        let labels: Vec<u32> = indices
            .iter()
            .map(|&index| u32::from(labels[index as usize]))
            .collect();
        let labels = Tensor::from_vec(labels, indices.len(), &self.device)?;
        Ok((images, labels))
    }
}

/// Overwrites a tensor with the normalised images at `indices`.
struct Normalize<'a> {
    split: &'a Split,
    indices: &'a [u32],
}

impl InplaceOp1 for Normalize<'_> {
    fn name(&self) -> &'static str {
        "normalize-batch"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("normalize-batch: expected a contiguous f32 tensor");
        };
        values[start..end]
            .par_chunks_mut(CHUNK * PIXELS)
            .zip(self.indices.par_chunks(CHUNK))
            .try_for_each(|(values, indices)| {
                // Images of a batch lie anywhere in memory, so each would be waited for in turn.
                let images = indices.iter().map(|&index| index as usize);
                for image in images.filter_map(|index| self.split.image_u8(index)) {
                    prefetch(image);
                }
                self.split.normalize_into(indices, values)
            })?;
        Ok(())
    }
}
