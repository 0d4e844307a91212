//! Images laid out with zeros around them, in one pass over the padded memory.

use candle_simd::{Float, Isa, Kernel, Simd, Vector};

/// Planes of an image, and where their rows go in padded planes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Padded {
    /// Rows and columns of a plane of the image.
    pub(crate) image: (usize, usize),
    /// Elements of a padded plane.
    pub(crate) plane: usize,
    /// Where in it the first row starts.
    pub(crate) first: usize,
    /// Elements from the start of a row to that of the next.
    pub(crate) row: usize,
}

/// Writes all of `to`, which are whole padded planes: the rows of `from`, and zeros between them.
///
/// # Panics
/// When the planes do not hold the rows, or there is not an image plane for each.
pub(crate) fn pad<F: Float>(isa: Isa, layout: Padded, from: &[F], to: &mut [F]) {
    let Padded {
        image: (height, width),
        plane,
        first,
        row,
    } = layout;
    if height * width == 0 {
        return to.fill(F::ZERO);
    }
    assert!(row >= width && first + (height - 1) * row + width <= plane);
    assert_eq!(from.len() * plane, to.len() * height * width);
    isa.dispatch(Pad { layout, from, to });
}

struct Pad<'a, F> {
    layout: Padded,
    from: &'a [F],
    to: &'a mut [F],
}

impl<F: Float> Kernel for Pad<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Padded {
            image: (height, width),
            plane,
            first,
            row,
        } = self.layout;
        let lanes = F::V::<S>::LANES;
        let zero = F::V::<S>::splat(s, F::ZERO);
        for (n, to) in self.to.chunks_exact_mut(plane).enumerate() {
            let image = &self.from[n * height * width..][..height * width];
            to[..first].fill(F::ZERO);
            for (y, from) in image.chunks_exact(width).enumerate() {
                let start = first + y * row;
                let end = if y + 1 < height { start + row } else { plane };
                let (pixels, gap) = to[start..end].split_at_mut(width);
                for (from, to) in from.chunks(lanes).zip(pixels.chunks_mut(lanes)) {
                    if to.len() == lanes {
                        F::V::<S>::load(s, from).store(to);
                    } else {
                        F::V::<S>::load_partial(s, from, F::ZERO).store_partial(to);
                    }
                }
                for gap in gap.chunks_mut(lanes) {
                    zero.store_partial(gap);
                }
            }
        }
    }
}
