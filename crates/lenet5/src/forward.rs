//! The forward pass, composed of Candle's ops or of fused ones.

use candle_core::{DType, Result, Tensor};
use candle_vision_ops::{Conv2dOptions, Layer, max_pool2d, sequential};

/// How the forward pass (and with it the backward pass) is computed. Both give the same numbers up to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Forward {
    /// Five fused ops, one a layer, with hand-written gradients, whose activations stay out of Candle's graph. In f32 and f64;
    /// half precision takes the composed form.
    #[default]
    Fused,
    /// Candle's own convolution, addition, relu and matrix product, with a max pooling of ours, because the gradient of Candle's
    /// is wrong by a factor of four. Readable and slow: the oracle.
    Composed,
}

/// Runs the layers on `images` with the parameters in the order of [`crate::PARAMETERS`].
pub(crate) fn forward(mode: Forward, images: &Tensor, parameters: &[&Tensor]) -> Result<Tensor> {
    check_images(images, parameters[0].dtype())?;
    match mode {
        Forward::Fused if matches!(images.dtype(), DType::F32 | DType::F64) => {
            fused(images, parameters)
        }
        Forward::Fused | Forward::Composed => composed(images, parameters),
    }
}

fn check_images(images: &Tensor, dtype: DType) -> Result<()> {
    if images.rank() != 4 || images.dims()[1..] != [1, 32, 32] {
        return Err(candle_core::Error::Msg(format!(
            "LeNet5: images must have shape (N, 1, 32, 32), got {:?}; resize and add the channel axis first",
            images.dims()
        )));
    }
    if images.dtype() != dtype {
        return Err(candle_core::Error::Msg(format!(
            "LeNet5: images must have the parameters' dtype {dtype:?}, got {:?}; convert them with to_dtype",
            images.dtype()
        )));
    }
    Ok(())
}

fn fused(images: &Tensor, parameters: &[&Tensor]) -> Result<Tensor> {
    let &[w1, b1, w2, b2, w3, b3, w4, b4, w5, b5] = parameters else {
        unreachable!("a model has ten parameters");
    };
    let options = Conv2dOptions::default();
    let block = |weight, bias| Layer::Conv2dReluMaxPool2d {
        weight,
        bias,
        options,
        pool_kernel: (2, 2),
        pool_stride: (2, 2),
    };
    let dense = |weight, bias, relu| Layer::Linear {
        weight,
        bias: Some(bias),
        relu,
    };
    sequential(
        images,
        &[
            block(w1, b1),
            block(w2, b2),
            // A 5 x 5 kernel on a 5 x 5 map has one position, which this takes for a dense layer.
            Layer::Conv2d {
                weight: w3,
                bias: Some(b3),
                options,
            },
            Layer::Flatten,
            dense(w4, b4, true),
            dense(w5, b5, false),
        ],
    )
}

fn composed(images: &Tensor, parameters: &[&Tensor]) -> Result<Tensor> {
    let &[w1, b1, w2, b2, w3, b3, w4, b4, w5, b5] = parameters else {
        unreachable!("a model has ten parameters");
    };
    let x = composed_conv(images, w1, b1)?.relu()?;
    let x = max_pool2d(&x, (2, 2), (2, 2))?;
    let x = composed_conv(&x, w2, b2)?.relu()?;
    let x = max_pool2d(&x, (2, 2), (2, 2))?;
    let x = composed_conv(&x, w3, b3)?.flatten_from(1)?;
    let x = composed_linear(&x, w4, b4)?.relu()?;
    composed_linear(&x, w5, b5)
}

fn composed_conv(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let bias = bias.reshape((1, bias.elem_count(), 1, 1))?;
    x.conv2d(weight, 0, 1, 1, 1)?.broadcast_add(&bias)
}

fn composed_linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    // On CUDA candle multiplies by contiguous matrices and their transposes alone.
    x.matmul(&weight.contiguous()?.t()?)?.broadcast_add(bias)
}
