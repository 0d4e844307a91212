//! Where the rows of a tensor lie in memory, for any strides, and raw access to them.

use std::marker::PhantomData;

use candle_core::Layout;

/// The offsets of rows: a row index is taken apart along dimensions, adjacent ones merged where memory allows.
#[derive(Clone, Debug)]
pub(in crate::cross_entropy) struct Rows {
    start: usize,
    /// (size, stride) from the outermost.
    dims: Vec<(usize, usize)>,
}

impl Rows {
    pub(in crate::cross_entropy) fn new(
        start: usize,
        dims: impl Iterator<Item = (usize, usize)>,
    ) -> Self {
        let mut merged: Vec<(usize, usize)> = Vec::new();
        for (size, stride) in dims.filter(|&(size, _)| size != 1) {
            match merged.last_mut() {
                Some(last) if last.1 == size * stride => *last = (last.0 * size, stride),
                _ => merged.push((size, stride)),
            }
        }
        Self {
            start,
            dims: merged,
        }
    }

    /// Of a tensor with one element a row.
    pub(in crate::cross_entropy) fn of_row_tensor(layout: &Layout) -> Self {
        Self::new(
            layout.start_offset(),
            layout
                .dims()
                .iter()
                .copied()
                .zip(layout.stride().iter().copied()),
        )
    }

    /// The distance from each row to the next where it is one for all.
    #[inline(always)]
    pub(super) fn stride(&self) -> Option<usize> {
        match *self.dims {
            [] => Some(0),
            [(_, stride)] => Some(stride),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn offset(&self, row: usize) -> usize {
        if let Some(stride) = self.stride() {
            return self.start + row * stride;
        }
        let mut rest = row;
        let mut offset = self.start;
        for &(size, stride) in self.dims.iter().rev() {
            offset += rest % size * stride;
            rest /= size;
        }
        offset
    }

    /// The rows' greatest offset; none where there are no rows.
    fn last(&self) -> Option<usize> {
        self.dims
            .iter()
            .try_fold(self.start, |sum, &(size, stride)| {
                Some(sum + size.checked_sub(1)? * stride)
            })
    }
}

/// The rows of a tensor of logits or probabilities: element c of row r lies at `rows.offset(r) + c * class_stride`.
#[derive(Clone, Debug)]
pub(in crate::cross_entropy) struct Matrix {
    pub(super) rows: Rows,
    pub(super) class_stride: usize,
    pub(super) classes: usize,
    /// The length of the memory that the offsets reach into.
    len: usize,
}

impl Matrix {
    /// Of a tensor (C), (N, C) or (N, C, d1, ...).
    pub(in crate::cross_entropy) fn of_layout(layout: &Layout, len: usize) -> Self {
        let dims = layout
            .dims()
            .iter()
            .copied()
            .zip(layout.stride().iter().copied());
        let class_axis = layout.dims().len().min(2) - 1;
        let rows = Rows::new(
            layout.start_offset(),
            dims.enumerate()
                .filter(|&(axis, _)| axis != class_axis)
                .map(|(_, dim)| dim),
        );
        let (classes, class_stride) = (layout.dims()[class_axis], layout.stride()[class_axis]);
        if let Some(last) = rows.last() {
            let reach = last + (classes - 1) * class_stride;
            assert!(reach < len, "the layout reaches element {reach} of {len}");
        }
        Self {
            rows,
            class_stride,
            classes,
            len,
        }
    }

    /// Whether rows follow each other without a gap, their classes adjacent.
    #[inline(always)]
    pub(super) fn is_packed(&self) -> bool {
        self.class_stride == 1 && self.rows.stride() == Some(self.classes)
    }
}

/// Elements to read, laid out as a [`Matrix`].
#[derive(Clone, Copy, Debug)]
pub(in crate::cross_entropy) struct Source<'a, E> {
    data: *const E,
    pub(super) matrix: &'a Matrix,
    lifetime: PhantomData<&'a [E]>,
}

// SAFETY: a source is only read through; its memory is borrowed for 'a, or it is the memory of a sink whose rows are
// taken by one thread each.
unsafe impl<E: Sync> Send for Source<'_, E> {}
// SAFETY: as above.
unsafe impl<E: Sync> Sync for Source<'_, E> {}

impl<'a, E> Source<'a, E> {
    pub(in crate::cross_entropy) fn new(data: &'a [E], matrix: &'a Matrix) -> Self {
        assert_eq!(data.len(), matrix.len);
        Self {
            data: data.as_ptr(),
            matrix,
            lifetime: PhantomData,
        }
    }

    /// The first element of a row; the others follow at the class stride.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> *const E {
        // SAFETY: the matrix was checked against the length of the memory, so every row lies in it.
        unsafe { self.data.add(self.matrix.rows.offset(row)) }
    }
}

/// Elements to write, laid out as a [`Matrix`]. Threads write rows of their own only.
#[derive(Clone, Copy, Debug)]
pub(in crate::cross_entropy) struct Sink<'a, E> {
    data: *mut E,
    pub(super) matrix: &'a Matrix,
    lifetime: PhantomData<&'a mut [E]>,
}

// SAFETY: the kernel gives each row to one thread, and rows do not share elements (checked for tensors overwritten in
// place, true of fresh ones).
unsafe impl<E: Send> Send for Sink<'_, E> {}
// SAFETY: as above.
unsafe impl<E: Send> Sync for Sink<'_, E> {}

impl<'a, E> Sink<'a, E> {
    /// Of `matrix.len` elements that need not be initialised.
    pub(in crate::cross_entropy) fn new(
        data: &'a mut [std::mem::MaybeUninit<E>],
        matrix: &'a Matrix,
    ) -> Self {
        assert!(data.len() >= matrix.len);
        Self {
            data: data.as_mut_ptr().cast(),
            matrix,
            lifetime: PhantomData,
        }
    }

    /// A sink and a source of the same memory, for a kernel that reads a row before it writes it.
    pub(in crate::cross_entropy) fn in_place(
        data: &'a mut [E],
        matrix: &'a Matrix,
    ) -> (Self, Source<'a, E>) {
        assert_eq!(data.len(), matrix.len);
        let data = data.as_mut_ptr();
        (
            Self {
                data,
                matrix,
                lifetime: PhantomData,
            },
            Source {
                data: data.cast_const(),
                matrix,
                lifetime: PhantomData,
            },
        )
    }

    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> *mut E {
        // SAFETY: as in `Source::row`.
        unsafe { self.data.add(self.matrix.rows.offset(row)) }
    }
}
