//! The memory layouts in which the inputs are offered: same values, other strides and offsets.

use candle_core::{DType, Device, Result, Shape, Tensor};

/// How an input lies in memory while the function under test sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InputLayout {
    /// Row-major, offset 0.
    Contiguous,
    /// Stored with the first and last axis swapped and viewed through `transpose`; a vector gets stride 2.
    Transposed,
    /// A window into a larger storage: offset and row strides differ from a tensor of its own. The storage around the
    /// window holds NaN (for integers a value far out of any range), so reading past the window shows.
    Offset,
}

impl std::fmt::Display for InputLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Contiguous => "contiguous",
            Self::Transposed => "transposed",
            Self::Offset => "offset",
        })
    }
}

impl InputLayout {
    /// A view with the values of `tensor` in this layout, built from differentiable ops, so that the gradient of the
    /// view arrives at `tensor` unchanged.
    pub(crate) fn view(self, tensor: &Tensor) -> Result<Tensor> {
        let rank = tensor.rank();
        // An empty tensor has no elements to lay out differently.
        if tensor.elem_count() == 0 {
            return Ok(tensor.clone());
        }
        match (self, rank) {
            (Self::Contiguous, _) => Ok(tensor.clone()),
            (_, 0) => {
                let one = tensor.reshape(1)?;
                windowed(&one, 0)?.squeeze(0)
            }
            (Self::Transposed, 1) => {
                let other = poison(tensor.shape(), tensor.dtype(), tensor.device())?;
                Tensor::stack(&[tensor, &other], 1)?
                    .narrow(1, 0, 1)?
                    .squeeze(1)
            }
            (Self::Transposed, _) => tensor
                .transpose(0, rank - 1)?
                .contiguous()?
                .transpose(0, rank - 1),
            (Self::Offset, 1) => windowed(tensor, 0),
            (Self::Offset, _) => windowed(&windowed(tensor, 0)?, rank - 1),
        }
    }
}

/// `tensor` as the inner window of a storage that is one slice longer at both ends of `axis`.
fn windowed(tensor: &Tensor, axis: usize) -> Result<Tensor> {
    let mut border = tensor.dims().to_vec();
    let length = border[axis];
    border[axis] = 1;
    let border = poison(&Shape::from(border), tensor.dtype(), tensor.device())?;
    Tensor::cat(&[&border, tensor, &border], axis)?.narrow(axis, 1, length)
}

fn poison(shape: &Shape, dtype: DType, device: &Device) -> Result<Tensor> {
    let value = match dtype {
        DType::U8 => 251.0,
        DType::I16 => 30_011.0,
        DType::U32 | DType::I32 | DType::I64 => 1_000_003.0,
        _ => f64::NAN,
    };
    Tensor::full(value, shape.clone(), device)?.to_dtype(dtype)
}

#[cfg(test)]
mod tests {
    use super::InputLayout;
    use candle_core::{DType, Device, Result, Tensor, Var};

    #[test]
    fn views_hold_the_same_values_and_are_not_contiguous() -> Result<()> {
        for dims in [vec![17], vec![3, 5], vec![2, 3, 4], vec![2, 1, 3, 5]] {
            let count: usize = dims.iter().product();
            for dtype in [DType::F64, DType::F16, DType::U8, DType::I64] {
                let tensor = Tensor::arange(0u32, count as u32, &Device::Cpu)?
                    .reshape(dims.clone())?
                    .to_dtype(dtype)?;
                for layout in [InputLayout::Transposed, InputLayout::Offset] {
                    let view = layout.view(&tensor)?;
                    let flat = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
                    assert_eq!(flat(&view)?, flat(&tensor)?, "{layout} {dims:?} {dtype:?}");
                    let moved = view.layout().start_offset() > 0 || !view.is_contiguous();
                    assert!(moved, "{layout} {dims:?} {dtype:?} is a plain tensor");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_gradient_passes_a_view_unchanged() -> Result<()> {
        let var = Var::new(&[[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::Cpu)?;
        for layout in [InputLayout::Transposed, InputLayout::Offset] {
            let grads = layout.view(var.as_tensor())?.sqr()?.sum_all()?.backward()?;
            let grad = grads
                .get(&var)
                .expect("the view is part of the graph")
                .to_vec2::<f64>()?;
            assert_eq!(grad, [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]], "{layout}");
        }
        Ok(())
    }

    #[test]
    fn scalars_and_empty_tensors_have_views() -> Result<()> {
        let scalar = Tensor::new(3.5f64, &Device::Cpu)?;
        let empty = Tensor::zeros((0, 4), DType::F64, &Device::Cpu)?;
        for layout in [InputLayout::Transposed, InputLayout::Offset] {
            assert_eq!(layout.view(&scalar)?.to_scalar::<f64>()?, 3.5);
            assert_eq!(layout.view(&empty)?.dims(), [0, 4]);
        }
        Ok(())
    }
}
