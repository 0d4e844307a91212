//! Where rows lie in memory, and how many threads take one.

use candle_core::Layout;

use crate::cuda_kernel::{Levels, Threads};

/// Up to this many classes a row is taken by lanes of a warp.
const LANES_UP_TO: usize = 1024;

/// The threads of a block whose rows are taken by lanes; the `.cu` says so too.
const LANES_THREADS: u32 = 128;

/// The threads of a general block; the `.cu` says so too.
const GENERAL_THREADS: u32 = 256;

/// Threads that keep a large GPU busy.
const BUSY: usize = 1 << 17;

/// The strides of a tensor along the dimensions of rows, and from one class to the next; 0 where it has no class axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strides {
    pub(super) rows: Vec<usize>,
    pub(super) class: usize,
}

impl Strides {
    /// Of a tensor (C), (N, C) or (N, C, d1, ...).
    pub(super) fn of_classes(layout: &Layout) -> Self {
        let class_axis = layout.dims().len().min(2) - 1;
        let mut rows = layout.stride().to_vec();
        let class = rows.remove(class_axis);
        Self { rows, class }
    }

    /// Of a tensor (), (N) or (N, d1, ...).
    pub(super) fn of_rows(layout: &Layout) -> Self {
        Self {
            rows: layout.stride().to_vec(),
            class: 0,
        }
    }

    /// Of numbers at one distance, a row each; 0 is one number for all.
    pub(super) fn spaced(row_dims: &[usize], stride: usize) -> Self {
        let mut rows = vec![0; row_dims.len()];
        let mut step = stride;
        for (row, dim) in rows.iter_mut().zip(row_dims).rev() {
            *row = step;
            step *= dim;
        }
        Self { rows, class: 0 }
    }
}

/// The layouts of logits, targets, gradient and upstream gradient of a pass.
#[derive(Clone, Debug)]
pub(super) struct Layouts {
    pub(super) levels: Levels<4>,
    /// From one class of logits, targets and gradient to the next.
    pub(super) classes: [usize; 3],
}

impl Layouts {
    pub(super) fn new(row_dims: &[usize], tensors: [&Strides; 4]) -> Self {
        let levels = Levels::new(
            row_dims
                .iter()
                .enumerate()
                .map(|(axis, &dim)| (dim, tensors.map(|strides| strides.rows[axis]))),
        );
        Self {
            levels,
            classes: [tensors[0].class, tensors[1].class, tensors[2].class],
        }
    }

    /// The row strides of all four where rows lie at one distance and the classes of logits and gradient are adjacent.
    pub(super) fn plain(&self, classes: usize, has_gradient: bool) -> Option<[usize; 4]> {
        let adjacent = |stride: usize| stride == 1 || classes == 1;
        (adjacent(self.classes[0]) && (!has_gradient || adjacent(self.classes[2])))
            .then(|| self.levels.flat())
            .flatten()
    }
}

/// Which kernel takes the rows, and with how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Lanes { width: u32 },
    Block,
    General { size: u32, rows_adjacent: bool },
}

impl Form {
    pub(super) fn plain(classes: usize) -> Self {
        if classes <= LANES_UP_TO {
            Self::Lanes {
                width: power_of_two(classes / 4, 32),
            }
        } else {
            Self::Block
        }
    }

    /// For classes `class_stride` apart.
    pub(super) fn general(rows: usize, classes: usize, class_stride: usize) -> Self {
        let by_classes = power_of_two(classes / 4, GENERAL_THREADS);
        if class_stride == 1 || classes == 1 {
            return Self::General {
                size: by_classes,
                rows_adjacent: false,
            };
        }
        // Rows side by side fill a warp; a team is the larger the fewer rows there are.
        let side_by_side = rows.next_power_of_two().min(32) as u32;
        let wanted = BUSY.div_ceil(rows).next_power_of_two();
        Self::General {
            size: power_of_two(wanted, (GENERAL_THREADS / side_by_side).min(by_classes)),
            rows_adjacent: true,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Lanes { .. } => "lanes",
            Self::Block => "block",
            Self::General { .. } => "general",
        }
    }

    /// `bytes`: the size of an element.
    pub(super) fn threads(&self, rows: usize, classes: usize, bytes: usize) -> Threads {
        let rows = rows as u64;
        match *self {
            Self::Lanes { width } => {
                Threads::covering(rows, u64::from(LANES_THREADS / width), LANES_THREADS)
            }
            Self::Block => {
                // What a thread has in flight.
                let elements = if bytes == 8 { 8 } else { 16 };
                let threads = power_of_two(classes / elements, 512).max(128);
                Threads::covering(rows, 1, threads)
            }
            Self::General { size, .. } => {
                Threads::covering(rows, u64::from(GENERAL_THREADS / size), GENERAL_THREADS)
            }
        }
    }
}

/// The largest power of two that is at most `wanted` and `limit`, itself one; at least 1.
fn power_of_two(wanted: usize, limit: u32) -> u32 {
    1 << wanted.clamp(1, limit as usize).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_a_row_grow_with_its_classes() {
        let width = |classes| match Form::plain(classes) {
            Form::Lanes { width } => width,
            other => panic!("{other:?}"),
        };
        assert_eq!([1, 7, 10, 100, 128, 1024].map(width), [1, 1, 2, 16, 32, 32]);
        assert_eq!(Form::plain(1025), Form::Block);
        let block = |classes, bytes| Form::Block.threads(3, classes, bytes).per_block;
        assert_eq!([1025, 4096, 200_000].map(|c| block(c, 4)), [128, 256, 512]);
    }

    #[test]
    fn rows_side_by_side_are_taken_by_more_threads_the_fewer_they_are() {
        let general = |rows, classes| match Form::general(rows, classes, 7) {
            Form::General {
                size,
                rows_adjacent: true,
            } => size,
            other => panic!("{other:?}"),
        };
        assert_eq!(general(1 << 20, 100), 1);
        assert_eq!(general(1 << 15, 100), 4);
        assert_eq!(general(100, 1000), 8);
        assert_eq!(general(3, 1000), 64);
        assert_eq!(general(3, 10), 2);
    }

    #[test]
    fn numbers_at_one_distance_have_strides_of_rows() {
        assert_eq!(Strides::spaced(&[2, 3, 4], 5).rows, [60, 20, 5]);
        assert_eq!(Strides::spaced(&[2, 3], 0).rows, [0, 0]);
    }
}
