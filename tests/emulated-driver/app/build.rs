//! Compiles the kernels with nvcc, by candle's own helper, just as a crate with CUDA kernels does.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels();
}

#[cfg(feature = "cuda")]
fn kernels() {
    println!("cargo::rerun-if-changed=kernels");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // Where `pointwise.cuh` lies, for a loss of our own: candle-losses tells the crates that depend on it.
    let losses =
        std::env::var("DEP_CANDLE_LOSSES_INCLUDE").expect("candle-losses tells its folder");
    cudaforge::KernelBuilder::new()
        .source_glob("kernels/*.cu")
        .include_path(losses)
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx()
        .and_then(|ptx| ptx.write(out.join("ptx.rs")))
        .expect("nvcc compiles the kernels");
}
