//! One half of the data set in memory, and the batches that come out of it.

use crate::error::DataError;
use crate::idx::{RAW_SIDE, check_label_values};
use crate::resize::resize_all_28_to_32;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// The ten classes by label.
pub const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// Rows and columns of an image as the model sees it.
pub const SIDE: usize = 32;

/// Pixels of an image as the model sees it.
pub const PIXELS: usize = SIDE * SIDE;

/// The value of each pixel after torchvision's `ToTensor` and `Normalize(0.5, 0.5)`: `(v / 255 - 0.5) / 0.5`, each step
/// rounded to f32 as PyTorch does. From -1 to 1.
pub const NORMALIZED: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut v = 0;
    while v < 256 {
        table[v] = (v as f32 / 255.0 - 0.5) / 0.5;
        v += 1;
    }
    table
};

/// Images of 32 x 32 u8 pixels with their labels. Pixels are normalised on the way out: u8 takes a quarter of the
/// memory, and of the memory traffic.
#[derive(Clone, PartialEq, Eq)]
pub struct Split {
    images: Vec<u8>,
    labels: Vec<u8>,
}

impl std::fmt::Debug for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Split")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Split {
    /// Resizes `images`, row-major 28 x 28 u8 one after the other, and pairs them with their labels 0 to 9.
    ///
    /// # Errors
    /// [`DataError::WrongLength`] unless there are 784 pixels for each label, [`DataError::LabelOutOfRange`].
    pub fn from_raw(images: &[u8], labels: Vec<u8>) -> Result<Self, DataError> {
        let expected = labels.len() * RAW_SIDE * RAW_SIDE;
        if images.len() != expected {
            return Err(DataError::WrongLength {
                argument: "images",
                expected,
                found: images.len(),
            });
        }
        check_label_values(&labels, Path::new("labels"))?;
        Ok(Split {
            images: resize_all_28_to_32(images)?,
            labels,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// All images, resized, 1,024 bytes each, in file order.
    pub fn images_u8(&self) -> &[u8] {
        &self.images
    }

    /// All labels, 0 to 9, in file order.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The pixels of image `index`, row-major 32 x 32; `None` past the end.
    pub fn image_u8(&self, index: usize) -> Option<&[u8; PIXELS]> {
        self.images.as_chunks().0.get(index)
    }

    /// Writes the images at `indices`, normalised, into `output`, 1,024 values each.
    ///
    /// # Errors
    /// [`DataError::WrongLength`] unless `output` has 1,024 values for each index, [`DataError::IndexOutOfRange`];
    /// `output` may then be written in part.
    pub fn normalize_into(&self, indices: &[u32], output: &mut [f32]) -> Result<(), DataError> {
        let (outputs, rest) = output.as_chunks_mut::<PIXELS>();
        if outputs.len() != indices.len() || !rest.is_empty() {
            return Err(DataError::WrongLength {
                argument: "output",
                expected: indices.len() * PIXELS,
                found: outputs.len() * PIXELS + rest.len(),
            });
        }
        for (position, (index, output)) in indices.iter().zip(outputs).enumerate() {
            let image = self
                .image_u8(*index as usize)
                .ok_or_else(|| self.out_of_range(position, *index))?;
            for (value, pixel) in output.iter_mut().zip(image) {
                *value = NORMALIZED[usize::from(*pixel)];
            }
        }
        Ok(())
    }

    /// The images at `indices` as a tensor (N, 1, 32, 32) of `dtype`, normalised, and their labels as u32 (N).
    ///
    /// Normalisation is done in f32, as PyTorch does it, and then converted.
    ///
    /// # Errors
    /// [`DataError::IndexOutOfRange`] and [`DataError::UnsupportedDType`], wrapped; Candle's own from the device.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{DType, Device};
    /// use fashion_mnist::Split;
    ///
    /// let split = Split::from_raw(&[255; 3 * 784], vec![9, 0, 5])?;
    /// let (images, labels) = split.batch(&[2, 0], DType::F32, &Device::Cpu)?;
    /// assert_eq!(images.dims(), [2, 1, 32, 32]);
    /// assert_eq!(images.max_all()?.to_scalar::<f32>()?, 1.0);
    /// assert_eq!(labels.to_vec1::<u32>()?, [5, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(
        &self,
        indices: &[u32],
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        if !dtype.is_float() {
            return Err(DataError::UnsupportedDType { found: dtype }.into());
        }
        let mut pixels = vec![0.0; indices.len() * PIXELS];
        self.normalize_into(indices, &mut pixels)?;
        let labels: Vec<u32> = indices
            .iter()
            .map(|index| u32::from(self.labels[*index as usize]))
            .collect();
        let images = Tensor::from_vec(pixels, (indices.len(), 1, SIDE, SIDE), device)?;
        let labels = Tensor::from_vec(labels, indices.len(), device)?;
        Ok((images.to_dtype(dtype)?, labels))
    }

    fn out_of_range(&self, position: usize, index: u32) -> DataError {
        DataError::IndexOutOfRange {
            position,
            index,
            len: self.len(),
        }
    }
}
