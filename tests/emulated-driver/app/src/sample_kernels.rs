//! Kernels of our own, launched as the loss crate launches its own, against plain Rust.

use crate::compare::check;
use crate::ptx;
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, Device, Error, Layout, Result, Shape,
    Tensor, bail,
};

pub(crate) fn run(device: &Device) -> Result<()> {
    cross_entropy(device)?;
    reversal(device)?;
    shared_objects(device)?;
    warp_operations(device)?;
    vectors(device)
}

/// Cross entropy of (rows, classes) and u32 targets, one f32 a row.
struct CrossEntropy;

impl CustomOp2 for CrossEntropy {
    fn name(&self) -> &'static str {
        "sample-cross-entropy"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("the sample has no CPU form")
    }

    fn cuda_fwd(
        &self,
        logits: &CudaStorage,
        layout: &Layout,
        targets: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        match logits.dtype() {
            DType::F32 => launch_cross_entropy::<f32>("cross_entropy_f32", logits, layout, targets),
            DType::F16 => {
                launch_cross_entropy::<half::f16>("cross_entropy_f16", logits, layout, targets)
            }
            DType::BF16 => {
                launch_cross_entropy::<half::bf16>("cross_entropy_bf16", logits, layout, targets)
            }
            other => bail!("the sample has no kernel for {other:?}"),
        }
    }
}

fn launch_cross_entropy<T: CudaDType + candle_core::cuda_backend::cudarc::driver::DeviceRepr>(
    name: &str,
    logits: &CudaStorage,
    layout: &Layout,
    targets: &CudaStorage,
) -> Result<(CudaStorage, Shape)> {
    let (rows, classes) = layout.shape().dims2()?;
    let device = logits.device().clone();
    let function = device.get_or_load_custom_func(name, "sample", ptx::SAMPLE)?;
    let logits = logits.as_cuda_slice::<T>()?.slice(layout.start_offset()..);
    let targets = targets.as_cuda_slice::<u32>()?;
    // SAFETY: the kernel writes every one of the `rows` elements before anyone reads them.
    let losses = unsafe { device.alloc::<f32>(rows)? };
    let classes = classes as u32;
    let mut launch = function.builder();
    launch.arg(&logits).arg(targets).arg(&losses).arg(&classes);
    let config = LaunchConfig {
        grid_dim: (rows as u32, 1, 1),
        block_dim: (128, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: `cross_entropy_*(const T* logits, const uint32_t* targets, float* losses, uint32_t classes)`; a block a row.
    unsafe { launch.launch(config) }.map_err(Error::wrap)?;
    Ok((CudaStorage::wrap_cuda_slice(losses, device), rows.into()))
}

fn cross_entropy(device: &Device) -> Result<()> {
    for (rows, classes) in [(1, 1), (3, 17), (5, 128), (37, 1003)] {
        let logits: Vec<_> = (0..rows * classes)
            .map(|i| (i * 7919 % 1009) as f32 / 100.0 - 5.0)
            .collect();
        let targets: Vec<_> = (0..rows).map(|row| (row * 31 % classes) as u32).collect();
        let logits = Tensor::from_vec(logits, (rows, classes), &Device::Cpu)?;
        let targets = Tensor::from_vec(targets, rows, &Device::Cpu)?;
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let logits = logits.to_dtype(dtype)?;
            let x: Vec<Vec<f64>> = logits.to_dtype(DType::F64)?.to_vec2()?;
            let expected: Vec<_> = x
                .iter()
                .zip(targets.to_vec1::<u32>()?)
                .map(|(row, target)| {
                    let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = row.iter().map(|value| (value - maximum).exp()).sum();
                    (sum.ln() + maximum - row[target as usize]) as f32
                })
                .collect();
            let expected = Tensor::from_vec(expected, rows, &Device::Cpu)?;
            let losses = logits
                .to_device(device)?
                .apply_op2_no_bwd(&targets.to_device(device)?, &CrossEntropy)?;
            check(
                &format!("cross entropy {rows}x{classes} {dtype:?}"),
                &expected,
                &losses,
                2e-6,
            )?;
        }
    }
    Ok(())
}

/// A kernel `name(const float* input, float* output, uint32_t count)` over a contiguous tensor.
struct Elementwise {
    name: &'static str,
    threads: u32,
    shared_bytes: u32,
}

impl CustomOp1 for Elementwise {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the sample has no CPU form")
    }

    fn cuda_fwd(&self, input: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let count = layout.shape().elem_count();
        let device = input.device().clone();
        let function = device.get_or_load_custom_func(self.name, "sample", ptx::SAMPLE)?;
        let input = input.as_cuda_slice::<f32>()?.slice(layout.start_offset()..);
        // SAFETY: the kernels write every element.
        let output = unsafe { device.alloc::<f32>(count)? };
        let count_argument = count as u32;
        let mut launch = function.builder();
        launch.arg(&input).arg(&output).arg(&count_argument);
        let blocks = count_argument.div_ceil(self.threads);
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (self.threads, 1, 1),
            shared_mem_bytes: self.shared_bytes,
        };
        // SAFETY: the signature above, and a thread an element or four.
        unsafe { launch.launch(config) }.map_err(Error::wrap)?;
        Ok((
            CudaStorage::wrap_cuda_slice(output, device),
            layout.shape().clone(),
        ))
    }
}

fn reversal(device: &Device) -> Result<()> {
    reverses("reverse_warps", 32, 64 * 4, device)
}

/// Shared memory of types that have constructors.
pub(crate) fn shared_objects(device: &Device) -> Result<()> {
    for name in [
        "reverse_blocks_f16",
        "reverse_blocks_bf16",
        "reverse_blocks_boxed",
    ] {
        reverses(name, 64, 0, device)?;
    }
    Ok(())
}

/// That a kernel, in five blocks, reverses each `length` elements.
fn reverses(name: &'static str, length: usize, shared_bytes: u32, device: &Device) -> Result<()> {
    // Not above 256, so that bf16 has each of them.
    let value = |i: usize| (i % 257) as f32;
    let values: Vec<_> = (0..320).map(value).collect();
    let expected: Vec<_> = (0..320)
        .map(|i| value(i / length * length + length - 1 - i % length))
        .collect();
    let op = Elementwise {
        name,
        threads: 64,
        shared_bytes,
    };
    let output = Tensor::new(values, device)?.apply_op1_no_bwd(&op)?;
    check(name, &Tensor::new(expected, &Device::Cpu)?, &output, 0.0)
}

fn vectors(device: &Device) -> Result<()> {
    let values: Vec<_> = (0..1000).map(|i| i as f32).collect();
    let expected: Vec<_> = values.iter().map(|value| value * 4.0).collect();
    let op = Elementwise {
        name: "scale_by_four",
        threads: 96,
        shared_bytes: 0,
    };
    let output = Tensor::new(values, device)?.apply_op1_no_bwd(&op)?;
    check(
        "vectors of four",
        &Tensor::new(expected, &Device::Cpu)?,
        &output,
        0.0,
    )
}

fn warp_operations(device: &Device) -> Result<()> {
    let Device::Cuda(cuda) = device else {
        bail!("no CUDA device")
    };
    let values: Vec<i32> = (0..32).map(|lane| lane * 5 % 7 - 3).collect();
    let input = cuda.clone_htod(&values)?;
    // SAFETY: the kernel writes every element.
    let output = unsafe { cuda.alloc::<i32>(256)? };
    let function = cuda.get_or_load_custom_func("warp_operations", "sample", ptx::SAMPLE)?;
    let mut launch = function.builder();
    launch.arg(&input).arg(&output);
    let config = LaunchConfig {
        grid_dim: (1, 1, 1),
        block_dim: (32, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: `warp_operations(const int32_t* input, int32_t* output)` with 32 and 256 elements.
    unsafe { launch.launch(config) }.map_err(Error::wrap)?;
    let output = cuda.clone_dtoh(&output)?;

    let ballot = (0..32)
        .filter(|&lane| values[lane] > 0)
        .fold(0u32, |bits, lane| bits | 1 << lane) as i32;
    let matching = |lane: usize| {
        (0..32)
            .filter(|&other| values[other] == values[lane])
            .fold(0u32, |bits, other| bits | 1 << other) as i32
    };
    type Expected<'a> = Box<dyn Fn(usize) -> i32 + 'a>;
    let expected: [(&str, Expected<'_>); 8] = [
        ("ballot", Box::new(|_| ballot)),
        ("reduce add", Box::new(|_| values.iter().sum())),
        ("reduce min", Box::new(|_| -3)),
        ("match any", Box::new(matching)),
        (
            "shuffle up",
            Box::new(|lane| values[if lane < 3 { lane } else { lane - 3 }]),
        ),
        (
            "shuffle down in eights",
            Box::new(|lane| values[if lane % 8 + 3 > 7 { lane } else { lane + 3 }]),
        ),
        (
            "shuffle in eights",
            Box::new(|lane| values[lane / 8 * 8 + 1]),
        ),
        ("any and all", Box::new(|_| 1)),
    ];
    for (kind, (name, expected)) in expected.iter().enumerate() {
        for lane in 0..32 {
            let found = output[kind * 32 + lane];
            if found != expected(lane) {
                bail!(
                    "{name}: lane {lane} got {found} instead of {}",
                    expected(lane)
                );
            }
        }
    }
    println!("warp operations agree");
    Ok(())
}
