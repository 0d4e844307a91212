//! Convolution on CUDA: `conv2d.cu` around candle's matrix product (cuBLAS).
//!
//! Columns are row-major of (images, groups, positions, taps), for the gradient of the weight of (groups, images, positions,
//! taps), so that one product sums over the whole batch. Each is made for as many images as fit [`LARGEST_COLUMNS`].

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CudaStorage, Error, Layout, Result, Shape, Tensor};

use super::Conv2dGeometry;
use crate::cuda_kernel::{
    Argument, Element, Module, OnDevice, bias_relu, channel_sums, contiguous, for_element,
    plain_argument, room, small, thread_each,
};

/// Elements of columns that are kept at a time. One image's are made in any case. Tests take so few that batches are cut.
const LARGEST_COLUMNS: usize = if cfg!(test) { 1 << 9 } else { 1 << 26 };

/// `ConvSizes` of `conv2d.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct ConvSizes {
    /// 0 where groups are inside images.
    images_in_group: u32,
    groups: u32,
    group_inputs: u32,
    height: u32,
    width: u32,
    rows: u32,
    columns: u32,
    kernel_rows: u32,
    kernel_columns: u32,
    stride_rows: u32,
    stride_columns: u32,
    padding_rows: u32,
    padding_columns: u32,
    dilation_rows: u32,
    dilation_columns: u32,
}

// SAFETY: fifteen numbers of 32 bits in C's order, as the kernels take them.
unsafe impl DeviceRepr for ConvSizes {}

plain_argument!(ConvSizes);

/// What the columns' outer axes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ImagesOfGroups,
    GroupsOfImages,
}

impl ConvSizes {
    fn new(geometry: &Conv2dGeometry, order: Order, images: usize) -> Result<Self> {
        let options = &geometry.options;
        Ok(Self {
            images_in_group: match order {
                Order::ImagesOfGroups => 0,
                Order::GroupsOfImages => small(images)?,
            },
            groups: small(options.groups)?,
            group_inputs: small(geometry.group_inputs())?,
            height: small(geometry.input.0)?,
            width: small(geometry.input.1)?,
            rows: small(geometry.output.0)?,
            columns: small(geometry.output.1)?,
            kernel_rows: small(geometry.kernel.0)?,
            kernel_columns: small(geometry.kernel.1)?,
            stride_rows: small(options.stride.0)?,
            stride_columns: small(options.stride.1)?,
            padding_rows: small(options.padding.0)?,
            padding_columns: small(options.padding.1)?,
            dilation_rows: small(options.dilation.0)?,
            dilation_columns: small(options.dilation.1)?,
        })
    }
}

/// The shapes of the products of some images.
struct Products<'a> {
    geometry: &'a Conv2dGeometry,
    images: usize,
}

impl Products<'_> {
    /// Elements of the columns.
    fn columns(&self) -> usize {
        self.images * columns_of_an_image(self.geometry)
    }

    /// Products that are computed at once.
    fn batch(&self) -> usize {
        self.images * self.geometry.options.groups
    }

    /// The weight (outputs, taps) of each image and group. Groups repeat from image to image, which no single stride
    /// describes: then they are copied.
    fn weight(
        &self,
        weight: &CudaStorage,
        layout: &Layout,
    ) -> Result<(Option<CudaStorage>, Layout)> {
        let (groups, outputs, taps) = self.weight_dims();
        let shape = Shape::from((self.batch(), outputs, taps));
        if groups == 1 {
            return Ok((
                None,
                Layout::new(shape, vec![0, taps, 1], layout.start_offset()),
            ));
        }
        if self.images == 1 {
            return Ok((
                None,
                Layout::contiguous_with_offset(shape, layout.start_offset()),
            ));
        }
        let repeated = Layout::new(
            Shape::from((self.images, groups * outputs * taps)),
            vec![0, 1],
            layout.start_offset(),
        );
        // SAFETY: the copy fills it.
        let mut copy = unsafe { weight.device().alloc_uninit(&shape, weight.dtype())? };
        weight.copy_strided_src(&mut copy, 0, &repeated)?;
        Ok((Some(copy), Layout::contiguous(shape)))
    }

    fn weight_dims(&self) -> (usize, usize, usize) {
        let geometry = self.geometry;
        (
            geometry.options.groups,
            geometry.group_outputs(),
            geometry.taps(),
        )
    }
}

fn columns_of_an_image(geometry: &Conv2dGeometry) -> usize {
    geometry.options.groups * geometry.positions() * geometry.taps()
}

/// Images and how many of them, chunk by chunk.
fn chunks(geometry: &Conv2dGeometry) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (batch, most) = (
        geometry.batch,
        LARGEST_COLUMNS / columns_of_an_image(geometry).max(1),
    );
    let most = most.clamp(1, batch.max(1));
    (0..batch)
        .step_by(most)
        .map(move |start| (start, most.min(batch - start)))
}

/// Whether there is nothing to multiply: the result is 0, or empty.
fn nothing(geometry: &Conv2dGeometry) -> bool {
    geometry.batch * geometry.output_len() * geometry.taps() == 0
}

/// The convolution with its bias, (N, C_out, rows, columns), of contiguous tensors.
pub(crate) fn forward(
    geometry: &Conv2dGeometry,
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
    bias: Option<(&CudaStorage, &Layout)>,
) -> Result<CudaStorage> {
    let mut y = product(geometry, x, weight)?;
    if bias.is_some() && geometry.batch * geometry.output_len() > 0 {
        bias_relu(
            &mut y,
            bias,
            geometry.out_channels,
            geometry.positions(),
            false,
        )?;
    }
    Ok(y)
}

fn product(
    geometry: &Conv2dGeometry,
    x: (&CudaStorage, &Layout),
    weight: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let device = x.0.device();
    let results = geometry.batch * geometry.output_len();
    if nothing(geometry) {
        return device.zeros_impl(&Shape::from(results.max(1)), x.0.dtype());
    }
    let mut whole = None;
    for (start, images) in chunks(geometry) {
        let products = Products { geometry, images };
        let columns = columns(geometry, x, (start, images), Order::ImagesOfGroups)?;
        let (_, outputs, taps) = products.weight_dims();
        let positions = geometry.positions();
        let columns_layout =
            Layout::contiguous((products.batch(), positions, taps)).transpose(1, 2)?;
        let (copy, weight_layout) = products.weight(weight.0, weight.1)?;
        let sizes = (products.batch(), outputs, positions, taps);
        let y = copy.as_ref().unwrap_or(weight.0).matmul(
            &columns,
            sizes,
            &weight_layout,
            &columns_layout,
        )?;
        if images == geometry.batch {
            return Ok(y);
        }
        if whole.is_none() {
            // SAFETY: the chunks fill it.
            whole = Some(unsafe { device.alloc_uninit(&Shape::from(results), x.0.dtype())? });
        }
        if let Some(whole) = &mut whole {
            let len = images * geometry.output_len();
            y.copy_strided_src(
                whole,
                start * geometry.output_len(),
                &Layout::contiguous(len),
            )?;
        }
    }
    whole.ok_or_else(|| Error::msg("a convolution of images has a chunk of them"))
}

/// The gradient of x, from that of the result.
pub(crate) fn backward_input(
    geometry: &Conv2dGeometry,
    weight: &Tensor,
    upstream: &Tensor,
) -> Result<Tensor> {
    let shape = Shape::from((
        geometry.batch,
        geometry.in_channels,
        geometry.input.0,
        geometry.input.1,
    ));
    if nothing(geometry) {
        return Tensor::zeros(shape, weight.dtype(), weight.device());
    }
    let op = OnDevice::new(
        "conv2d-input-gradient",
        |weight: (&CudaStorage, &Layout), upstream: (&CudaStorage, &Layout)| {
            let gradient = for_element!(upstream.0.dtype(), super::OP, T => input_gradient::<T>(geometry, weight, upstream))?;
            Ok((gradient, shape.clone()))
        },
    );
    op.of_both(&weight.contiguous()?, &upstream.contiguous()?)
}

fn input_gradient<T: Element>(
    geometry: &Conv2dGeometry,
    weight: (&CudaStorage, &Layout),
    upstream: (&CudaStorage, &Layout),
) -> Result<CudaStorage> {
    let device = upstream.0.device();
    // SAFETY: the chunks' launches below write every element.
    let gradient = unsafe { room::<T>(device, geometry.batch * geometry.input_len())? };
    for (start, images) in chunks(geometry) {
        let products = Products { geometry, images };
        let (_, outputs, taps) = products.weight_dims();
        let positions = geometry.positions();
        let upstream_layout = Layout::contiguous_with_offset(
            (products.batch(), outputs, positions),
            upstream.1.start_offset() + start * geometry.output_len(),
        )
        .transpose(1, 2)?;
        let (copy, weight_layout) = products.weight(weight.0, weight.1)?;
        let sizes = (products.batch(), positions, taps, outputs);
        let weight = copy.as_ref().unwrap_or(weight.0);
        let columns = upstream
            .0
            .matmul(weight, sizes, &upstream_layout, &weight_layout)?;

        let sizes = ConvSizes::new(geometry, Order::ImagesOfGroups, images)?;
        let kernel = format!("columns_to_image_{}", T::NAME);
        let columns = columns.as_cuda_slice::<T>()?;
        let elements = images * geometry.input_len();
        let config = thread_each(elements)?;
        let first = start * geometry.input_len();
        let gradient = gradient.slice(first..first + elements);
        let elements = elements as u64;
        let arguments: [&dyn Argument; 4] = [columns, &gradient, &sizes, &elements];
        // SAFETY: `columns_to_image(const T* columns, T* gradient, ConvSizes, uint64_t elements)`, 256 threads a block, a thread
        // each of the images' `elements`; the product above made the columns of these images in these sizes.
        unsafe { Module::Conv2d.launch(device, &kernel, config, &arguments) }?;
    }
    Ok(CudaStorage::wrap_cuda_slice(gradient, device.clone()))
}

/// The gradient of the weight, from that of the result.
pub(crate) fn backward_weight(
    geometry: &Conv2dGeometry,
    x: &Tensor,
    upstream: &Tensor,
) -> Result<Tensor> {
    let groups = geometry.options.groups;
    let (outputs, taps, positions) = (
        geometry.group_outputs(),
        geometry.taps(),
        geometry.positions(),
    );
    let shape = (
        geometry.out_channels,
        geometry.group_inputs(),
        geometry.kernel.0,
        geometry.kernel.1,
    );
    if nothing(geometry) {
        return Tensor::zeros(shape, x.dtype(), x.device());
    }
    let x = x.detach().contiguous()?;
    let mut sum: Option<Tensor> = None;
    for (start, images) in chunks(geometry) {
        let op = OnDevice::new("conv2d-columns", |x: (&CudaStorage, &Layout)| {
            let columns = columns(geometry, x, (start, images), Order::GroupsOfImages)?;
            Ok((columns, Shape::from((groups, images * positions, taps))))
        });
        // (groups, outputs, images * positions), so that one product sums over images and positions.
        let upstream = upstream
            .detach()
            .narrow(0, start, images)?
            .reshape((images, groups, outputs, positions))?
            .permute((1, 2, 0, 3))?
            .reshape((groups, outputs, images * positions))?
            .contiguous()?;
        let part = upstream.matmul(&op.of(&x)?)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    sum.ok_or_else(|| Error::msg("a convolution of images has a chunk of them"))?
        .reshape(shape)
}

/// The gradient of the bias, from that of the result.
pub(crate) fn backward_bias(geometry: &Conv2dGeometry, upstream: &Tensor) -> Result<Tensor> {
    channel_sums(
        upstream,
        geometry.batch,
        geometry.out_channels,
        geometry.positions(),
    )
}

/// The columns of images `start..start + images` of a contiguous `x`.
fn columns(
    geometry: &Conv2dGeometry,
    x: (&CudaStorage, &Layout),
    (start, images): (usize, usize),
    order: Order,
) -> Result<CudaStorage> {
    for_element!(x.0.dtype(), super::OP, T => launch_columns::<T>(geometry, x, (start, images), order))
}

fn launch_columns<T: Element>(
    geometry: &Conv2dGeometry,
    x: (&CudaStorage, &Layout),
    (start, images): (usize, usize),
    order: Order,
) -> Result<CudaStorage> {
    let device = x.0.device();
    let len = geometry.input_len();
    let x = contiguous::<T>(x.0, x.1)?;
    let x = x.slice(start * len..(start + images) * len);
    let elements = Products { geometry, images }.columns();
    // SAFETY: the kernel writes every element.
    let columns = unsafe { room::<T>(device, elements)? };
    let sizes = ConvSizes::new(geometry, order, images)?;
    let kernel = format!("image_to_columns_{}", T::NAME);
    let config = thread_each(elements)?;
    let elements = elements as u64;
    let arguments: [&dyn Argument; 4] = [&x, &columns, &sizes, &elements];
    // SAFETY: `image_to_columns(const T* x, T* columns, ConvSizes, uint64_t elements)`, 256 threads a block, a thread an
    // element; `x` holds the images, and what lies outside them is not read.
    unsafe { Module::Conv2d.launch(device, &kernel, config, &arguments) }?;
    Ok(CudaStorage::wrap_cuda_slice(columns, device.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d::{Conv2dOptions, conv2d};
    use crate::test_support::{gradients, max_difference, random};
    use candle_core::{DType, Device};

    #[test]
    fn on_cuda_a_batch_in_several_chunks_agrees_with_the_cpu() -> Result<()> {
        let device = Device::new_cuda(0)?;
        let grouped = Conv2dOptions {
            groups: 2,
            padding: (1, 0),
            ..Conv2dOptions::default()
        };
        for (x, weight, options, cuts) in [
            (
                [7, 2, 4, 5],
                [3, 2, 2, 2],
                Conv2dOptions::default(),
                vec![(0, 5), (5, 2)],
            ),
            (
                [3, 4, 5, 6],
                [6, 2, 2, 3],
                grouped,
                vec![(0, 1), (1, 1), (2, 1)],
            ),
        ] {
            let inputs = [
                random(1, &x, DType::F64)?,
                random(2, &weight, DType::F64)?,
                random(3, &weight[..1], DType::F64)?,
            ];
            let geometry = Conv2dGeometry::new("test", &inputs[0], &inputs[1], None, options)?;
            assert_eq!(chunks(&geometry).collect::<Vec<_>>(), cuts);
            let op = |t: &[Tensor]| conv2d(&t[0], &t[1], Some(&t[2]), options);
            let (y, grads) = gradients(op, &inputs, 9)?;
            let there = inputs
                .iter()
                .map(|t| t.to_device(&device))
                .collect::<Result<Vec<_>>>()?;
            let on_cuda = |t: &[Tensor]| op(t)?.to_device(&Device::Cpu);
            let (y2, grads2) = gradients(on_cuda, &there, 9)?;
            assert!(max_difference(&y, &y2)? < 1e-12);
            for (grad, grad2) in grads.iter().zip(&grads2) {
                assert!(max_difference(grad, &grad2.to_device(&Device::Cpu)?)? < 1e-12);
            }
        }
        Ok(())
    }
}
