//! Candle's own operations on its own kernels, each against the CPU.

use crate::compare::check;
use candle_core::{DType, Device, Result, Tensor};

type Op = fn(&Tensor) -> Result<Tensor>;

/// The operations, on 37 x 1003 values from -5 to 5 of f32.
const OPS: [(&str, Op); 50] = [
    ("affine", |x| x.affine(2.0, 1.0)),
    ("affine strided", |x| x.t()?.affine(2.0, 1.0)),
    ("affine f64", |x| x.to_dtype(DType::F64)?.affine(2.0, 1.0)),
    ("affine f16", |x| x.to_dtype(DType::F16)?.affine(2.0, 1.0)),
    ("affine bf16", |x| x.to_dtype(DType::BF16)?.affine(2.0, 1.0)),
    ("cast u8", |x| x.abs()?.to_dtype(DType::U8)),
    ("cast u32", |x| x.abs()?.to_dtype(DType::U32)),
    ("cast i64", |x| x.to_dtype(DType::I64)),
    ("add", |x| x + x),
    ("sub strided", |x| x.t()? - x.t()?.affine(0.5, 0.0)?),
    ("mul bf16", |x| x.to_dtype(DType::BF16)?.sqr()),
    ("div", |x| x.div(&x.affine(1.0, 7.0)?)),
    ("maximum", |x| x.maximum(&x.affine(-1.0, 0.0)?)),
    ("broadcast mul", |x| x.broadcast_mul(&x.narrow(0, 3, 1)?)),
    ("broadcast add column", |x| {
        x.broadcast_add(&x.narrow(1, 5, 1)?)
    }),
    ("exp", |x| x.exp()),
    ("log", |x| x.abs()?.affine(1.0, 0.1)?.log()),
    ("sqrt", |x| x.abs()?.sqrt()),
    ("tanh", |x| x.tanh()),
    ("relu", |x| x.relu()),
    ("gelu", |x| x.gelu()),
    ("gelu erf", |x| x.gelu_erf()),
    ("silu", |x| x.silu()),
    ("powf", |x| x.abs()?.powf(1.5)),
    ("sum rows", |x| x.sum(1)),
    ("sum columns", |x| x.sum(0)),
    ("sum keepdim f64", |x| {
        x.to_dtype(DType::F64)?.sum_keepdim(1)
    }),
    ("mean all", |x| x.mean_all()),
    ("max", |x| x.max(1)),
    ("max f16", |x| x.to_dtype(DType::F16)?.max(1)),
    ("max bf16", |x| x.to_dtype(DType::BF16)?.max(1)),
    ("min f16", |x| x.to_dtype(DType::F16)?.min(0)),
    ("min", |x| x.min(0)),
    ("argmax", |x| x.argmax(1)),
    ("argmax f16", |x| {
        // So few that none are equal in f16 either.
        x.narrow(1, 0, 8)?.to_dtype(DType::F16)?.argmax(1)
    }),
    ("argmin", |x| x.argmin(0)),
    ("matmul", |x| x.matmul(&x.t()?)),
    ("matmul f64", |x| {
        let x = x.to_dtype(DType::F64)?;
        x.t()?.matmul(&x)
    }),
    ("matmul batched", |x| {
        let x = x.narrow(1, 0, 1000)?.reshape((37, 10, 100))?;
        x.matmul(&x.transpose(1, 2)?.contiguous()?)
    }),
    ("contiguous of transposed", |x| x.t()?.contiguous()),
    ("cat", |x| Tensor::cat(&[x, &x.neg()?], 0)),
    ("index select", |x| {
        x.index_select(&indices(x, &[3, 1, 30])?, 0)
    }),
    ("gather", |x| {
        x.gather(&indices(x, &[7; 37])?.reshape((37, 1))?, 1)
    }),
    ("scatter add", |x| {
        x.zeros_like()?.scatter_add(
            &indices(x, &[7; 37])?.reshape((37, 1))?,
            &x.narrow(1, 2, 1)?.contiguous()?,
            1,
        )
    }),
    ("index add", |x| {
        x.zeros_like()?
            .index_add(&indices(x, &[3, 1, 3])?, &x.narrow(0, 0, 3)?, 0)
    }),
    ("where", |x| x.gt(0.0)?.where_cond(x, &x.zeros_like()?)),
    ("compare", |x| x.le(&x.affine(0.0, 1.0)?)),
    ("conv2d", |x| {
        images(x)?.conv2d(
            &x.narrow(1, 0, 9)?.contiguous()?.reshape((1, 37, 3, 3))?,
            1,
            1,
            1,
            1,
        )
    }),
    ("max pool", |x| images(x)?.max_pool2d(2)),
    ("sort", |x| {
        x.narrow(1, 0, 500)?.contiguous()?.arg_sort_last_dim(true)
    }),
];

fn indices(x: &Tensor, values: &[u32]) -> Result<Tensor> {
    Tensor::new(values, x.device())
}

/// 37 channels of 10 x 100.
fn images(x: &Tensor) -> Result<Tensor> {
    x.narrow(1, 0, 1000)?
        .contiguous()?
        .reshape((1, 37, 10, 100))
}

/// Exact kernels agree to the last bits of a sum; half types to one rounding.
fn tolerance(name: &str) -> f64 {
    if name.ends_with("bf16") {
        8e-3
    } else if name == "conv2d" {
        // 333 products of up to 25 that cancel, summed in another order.
        1e-3
    } else if name.ends_with("f16") {
        1e-3
    } else {
        1e-4
    }
}

pub(crate) fn run(device: &Device) -> Result<()> {
    let (rows, columns) = (37, 1003);
    // No two values of a row are equal, so argmax and sort have one answer.
    let values: Vec<_> = (0..rows * columns)
        .map(|i| ((i * 7919 % 100_003) as f32) / 10_000.3 - 5.0)
        .collect();
    let cpu = Tensor::from_vec(values, (rows, columns), &Device::Cpu)?;
    let cuda = cpu.to_device(device)?;
    check("round trip", &cpu, &cuda, 0.0)?;
    for (name, op) in OPS {
        check(name, &op(&cpu)?, &op(&cuda)?, tolerance(name))?;
    }
    random(device)
}

/// Random tensors have no CPU twin: range, mean and spread are checked.
fn random(device: &Device) -> Result<()> {
    let uniform = Tensor::rand(0f32, 1f32, (10_000,), device)?.to_vec1::<f32>()?;
    let mean = uniform.iter().sum::<f32>() / 1e4;
    if !uniform.iter().all(|x| (0.0..=1.0).contains(x)) || (mean - 0.5).abs() > 0.02 {
        candle_core::bail!("uniform numbers have mean {mean}");
    }
    let normal = Tensor::randn(1f32, 2f32, (10_000,), device)?.to_vec1::<f32>()?;
    let mean = normal.iter().sum::<f32>() / 1e4;
    let variance = normal.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 1e4;
    if (mean - 1.0).abs() > 0.1 || (variance - 4.0).abs() > 0.3 {
        candle_core::bail!("normal numbers have mean {mean} and variance {variance}");
    }
    Ok(())
}
