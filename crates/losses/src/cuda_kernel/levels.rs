//! Indices of several strided tensors, taken apart together.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, Result};

use super::Argument;

/// Dimensions that `N` tensors share, each with the strides of all of them, from the outermost; adjacent ones are merged
/// where every tensor allows it. An index counts through them in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Levels<const N: usize> {
    /// (size, strides); sizes are not 1.
    levels: Vec<(usize, [usize; N])>,
}

impl<const N: usize> Levels<N> {
    pub(crate) fn new(dims: impl IntoIterator<Item = (usize, [usize; N])>) -> Self {
        let mut levels: Vec<(usize, [usize; N])> = Vec::new();
        for (size, strides) in dims.into_iter().filter(|&(size, _)| size != 1) {
            match levels.last_mut() {
                Some(last) if (0..N).all(|i| last.1[i] == strides[i] * size) => {
                    *last = (last.0 * size, strides);
                }
                _ => levels.push((size, strides)),
            }
        }
        Self { levels }
    }

    /// The strides from each index to the next where they are the same everywhere.
    pub(crate) fn flat(&self) -> Option<[usize; N]> {
        match *self.levels {
            [] => Some([0; N]),
            [(_, strides)] => Some(strides),
            _ => None,
        }
    }

    /// The size of the innermost level, and the strides of the two innermost.
    fn inner(&self) -> (usize, [usize; N], [usize; N]) {
        match *self.levels {
            [] => (1, [0; N], [0; N]),
            [(_, strides)] => (1, strides, [0; N]),
            [.., (_, outer), (size, strides)] => (size, outer, strides),
        }
    }

    /// What lies outside the two innermost levels, on the device, for the kernel's `levels`: for each level from the
    /// outermost its size and then its strides; none if there are at most two.
    pub(crate) fn upload(&self, device: &CudaDevice) -> Result<Option<CudaSlice<u64>>> {
        if self.levels.len() <= 2 {
            return Ok(None);
        }
        // The outermost of the two innermost levels needs its size too, since the index does not end there.
        let list: Vec<u64> = self.levels[..self.levels.len() - 1]
            .iter()
            .flat_map(|(size, strides)| std::iter::once(size).chain(strides))
            .map(|&x| x as u64)
            .collect();
        device.clone_htod(&list).map(Some)
    }

    /// The arguments `inner, outer stride and inner stride of each tensor, levels, level_count` of `levels.cuh`.
    pub(crate) fn arguments<'a>(&self, uploaded: Option<&'a CudaSlice<u64>>) -> Vec<Argument<'a>> {
        let (inner, outer_strides, inner_strides) = self.inner();
        let mut arguments = vec![Argument::U64(inner as u64)];
        for i in 0..N {
            arguments.push(Argument::U64(outer_strides[i] as u64));
            arguments.push(Argument::U64(inner_strides[i] as u64));
        }
        arguments.push(Argument::optional(uploaded));
        let count = uploaded.map_or(0, |_| self.levels.len() - 1);
        arguments.push(Argument::U32(count as u32));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_merge_only_where_every_tensor_allows_it() {
        // (4, 3, 5) of one contiguous tensor and one whose two outer dimensions are far apart.
        let levels = Levels::new([(4, [15, 100]), (3, [5, 5]), (1, [7, 9]), (5, [1, 1])]);
        assert_eq!(levels.levels, [(4, [15, 100]), (15, [1, 1])]);
        assert_eq!(levels.inner(), (15, [15, 100], [1, 1]));
        assert_eq!(levels.flat(), None);
        let flat = Levels::new([(4, [15]), (3, [5]), (5, [1])]);
        assert_eq!(flat.flat(), Some([1]));
        assert_eq!(flat.inner(), (1, [1], [0]));
        assert_eq!(Levels::new([(1, [3])]).flat(), Some([0]));
    }
}
