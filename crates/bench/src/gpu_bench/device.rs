//! Which device it is, by its own words.

use crate::output;
use candle_core::cuda_backend::WrapErr;
use candle_core::{Device, Result};
use serde_json::json;

/// How the emulated driver of the tests calls its device.
const EMULATED: &str = "emulated on the CPU";

/// Prints name, compute capability and memory.
pub(crate) fn describe(device: &Device) -> Result<()> {
    let cuda = device.as_cuda_device()?;
    let stream = cuda.cuda_stream();
    let context = stream.context();
    let name = context.name().w()?;
    let (major, minor) = context.compute_capability().w()?;
    let (free, total) = context.mem_get_info().w()?;
    output::line(&json!({
        "device": {
            "emulated": name.contains(EMULATED),
            "name": name,
            "compute_capability": format!("{major}.{minor}"),
            "memory_bytes": total,
            "free_bytes": free,
        },
    }));
    Ok(())
}
