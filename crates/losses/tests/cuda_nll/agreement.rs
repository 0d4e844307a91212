//! Values and gradients of every dtype, index type, reduction, shape and layout.

use candle_core::{DType, Device, Result, Tensor};
use candle_losses::{Nll, Reduction};

use crate::support::*;

/// One row and many, one class and many, no dimension beside the classes and several, none of them square.
const SHAPES: [&[usize]; 9] = [
    &[1],
    &[17],
    &[1, 1],
    &[1, 17],
    &[17, 1],
    &[5, 17],
    &[3, 17, 2],
    &[1, 3, 17],
    &[2, 5, 3, 4],
];

/// A tensor in another layout.
type View = fn(&Tensor) -> Result<Tensor>;

/// The same values with swapped strides and an offset.
fn turned(t: &Tensor) -> Result<Tensor> {
    let Some(last) = t.rank().checked_sub(1) else {
        return Ok(t.clone());
    };
    let turned = t.transpose(0, last)?.contiguous()?;
    let first = turned.narrow(0, 0, 1)?;
    let framed = Tensor::cat(&[&first, &turned, &first], 0)?;
    framed.narrow(0, 1, t.dim(last)?)?.transpose(0, last)
}

/// The class axis last in memory.
fn classes_last(t: &Tensor) -> Result<Tensor> {
    match t.rank() {
        0..3 => Ok(t.clone()),
        rank => t
            .transpose(1, rank - 1)?
            .contiguous()?
            .transpose(1, rank - 1),
    }
}

fn weighted(weight: &Tensor, device: &Device) -> Result<Nll> {
    Ok(Nll::new().weight(weight.to_device(device)?).ignore_index(2))
}

#[test]
fn every_dtype_and_index_type_agrees_with_the_cpu_in_every_reduction_shape_and_layout() -> Result<()>
{
    let device = cuda()?;
    let views: [View; 3] = [|t| Ok(t.clone()), turned, classes_last];
    for shape in SHAPES {
        let count = shape[class_axis(shape)];
        // Every index type in one dtype, every dtype with one index type.
        let all = INDEX_TYPES.map(|index_type| (DType::F32, index_type));
        let others = [DType::F64, DType::F16, DType::BF16].map(|dtype| (dtype, DType::U32));
        for (dtype, index_type) in all.into_iter().chain(others) {
            let x = numbers(1, shape, dtype)?;
            let t = classes(2, shape, index_type)?;
            let weight = numbers(3, &[count], dtype)?.abs()?;
            let there_x = x.to_device(&device)?;
            for reduction in REDUCTIONS {
                let settings = [
                    [Nll::new(), Nll::new()],
                    [
                        weighted(&weight, &Device::Cpu)?,
                        weighted(&weight, &device)?,
                    ],
                ];
                for (n, [here, there]) in settings.into_iter().enumerate() {
                    let wanted = run(&here.reduction(reduction), &x, &t, |t| Ok(t.clone()))?;
                    let there = there.reduction(reduction);
                    for (index, view) in views.into_iter().enumerate() {
                        // Laid out here: Candle copies not every integer type on a device.
                        let there_t = view(&t)?.to_device(&device)?;
                        let found = run(&there, &there_x, &there_t, view)?;
                        let what = format!(
                            "{shape:?} {dtype:?} {index_type:?} {reduction:?} setting {n} view {index}"
                        );
                        assert_close(&what, &found[0], &wanted[0])?;
                        assert_close(&format!("{what}, gradient"), &found[1], &wanted[1])?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn many_rows_are_summed_by_many_blocks_to_the_same_bits_each_time() -> Result<()> {
    let device = cuda()?;
    for shape in [[4096, 3], [4097, 3], [10_007, 2]] {
        for dtype in [DType::F32, DType::F64] {
            let x = numbers(4, &shape, dtype)?;
            let t = classes(5, &shape, DType::U32)?;
            let weight = numbers(6, &[shape[1]], dtype)?.abs()?;
            let wanted = run(&weighted(&weight, &Device::Cpu)?, &x, &t, |t| Ok(t.clone()))?;
            let loss = weighted(&weight, &device)?;
            let (x, t) = (x.to_device(&device)?, t.to_device(&device)?);
            let found = run(&loss, &x, &t, |t| Ok(t.clone()))?;
            let again = run(&loss, &x, &t, |t| Ok(t.clone()))?;
            for (part, wanted) in wanted.iter().enumerate() {
                let what = format!("{shape:?} {dtype:?} part {part}");
                assert_close(&what, &found[part], wanted)?;
                assert_eq!(values(&found[part])?, values(&again[part])?, "{what}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_gradient_goes_back_through_a_window_and_a_broadcast() -> Result<()> {
    let device = cuda()?;
    let x = numbers(7, &[4, 9], DType::F64)?;
    let t = classes(8, &[6, 3, 4], DType::I64)?;
    // (6, 3, 4): three classes out of a window of nine numbers, for each of six copies.
    let view = |x: &Tensor| {
        let window = x.narrow(1, 4, 3)?.t()?;
        window.unsqueeze(0)?.broadcast_as((6, 3, 4))
    };
    let gradient = |x: &Tensor, t: &Tensor| -> Result<Tensor> {
        let x = candle_core::Var::from_tensor(x)?;
        let loss = Nll::new()
            .reduction(Reduction::Sum)
            .forward(&view(&x)?, t)?;
        Ok(loss.backward()?.get(&x).expect("x is a variable").clone())
    };
    let wanted = gradient(&x, &t)?;
    let found = gradient(&x.to_device(&device)?, &t.to_device(&device)?)?;
    assert_close("gradient", &found, &wanted)
}

#[test]
fn weights_may_lie_on_the_host_as_they_may_for_the_composed_form() -> Result<()> {
    let device = cuda()?;
    let (x, t) = (
        numbers(9, &[3, 4], DType::F16)?.to_device(&device)?,
        classes(10, &[3, 4], DType::U8)?.to_device(&device)?,
    );
    let loss = Nll::new().weight(numbers(11, &[4], DType::F16)?);
    assert_close("loss", &loss.forward(&x, &t)?, &loss.composed(&x, &t)?)
}
