//! Launches of kernels and calls that are wrong on purpose. Whoever runs one of them expects the driver to end the program.

use crate::ptx;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{Device, Error, Result, Tensor, bail};

pub(crate) fn run(device: &Device, name: &str) -> Result<()> {
    let Device::Cuda(cuda) = device else {
        bail!("no CUDA device")
    };
    if name == "leak" {
        std::mem::forget(Tensor::zeros(100, candle_core::DType::F32, device)?);
        return Ok(());
    }
    let input = cuda.clone_htod(&[1.5f32; 64])?;
    // SAFETY: what is read before it is written is the point of some controls; the driver fills it with NaN.
    let output = unsafe { cuda.alloc::<f32>(64)? };
    let (mut blocks, mut threads, mut shared) = (1, 64, 0);
    let kernel = match name {
        "past_dynamic_shared_memory" => {
            shared = 64 * 4;
            name
        }
        "full_mask_in_part_of_a_warp" => {
            threads = 40;
            name
        }
        "barrier_against_warp_operation" => {
            threads = 32;
            name
        }
        "two_blocks_write_one_place" => {
            (blocks, threads) = (2, 32);
            name
        }
        "too_many_threads" => {
            threads = 2048;
            "right"
        }
        "too_much_shared_memory" => {
            shared = 60_000;
            "right"
        }
        "empty_grid" => {
            blocks = 0;
            "right"
        }
        "host_pointer" | "freed_pointer" | "number_for_a_pointer" => "right",
        _ => name,
    };
    let function = cuda.get_or_load_custom_func(kernel, "controls", ptx::CONTROLS)?;
    let count = 64i32;
    let host = [0f32; 64];
    let address = match name {
        "host_pointer" => host.as_ptr() as u64,
        "freed_pointer" => {
            use candle_core::cuda_backend::cudarc::driver::DevicePtr;
            let freed = cuda.clone_htod(&[0f32; 64])?;
            freed.device_ptr(freed.stream()).0
        }
        "number_for_a_pointer" => 64,
        _ => 0,
    };
    let mut launch = function.builder();
    if address == 0 {
        launch.arg(&input);
    } else {
        launch.arg(&address);
    }
    launch.arg(&output).arg(&count);
    let config = LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: shared,
    };
    // SAFETY: it is not safe, and the driver has to say so.
    unsafe { launch.launch(config) }.map_err(Error::wrap)?;
    let output = cuda.clone_dtoh(&output)?;
    match output.iter().position(|&value| value != 1.5) {
        Some(wrong) => bail!("element {wrong} is {}", output[wrong]),
        None => Ok(()),
    }
}
