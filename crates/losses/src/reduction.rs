//! How the losses of single elements or rows are put together, and what the mean over nothing is.

/// How the losses of single elements or rows are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their sum divided by their number or weight, as each loss says.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// Not at all: one loss for each element or row.
    None,
}

/// What a mean over nothing (no elements, every target ignored, total weight 0) is. Its gradient is 0 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EmptyPolicy {
    /// NaN, as in PyTorch.
    #[default]
    Nan,
    /// 0.
    Zero,
}
