//! Compiles the CUDA kernels to PTX with nvcc under the feature `cuda`; without it there is nothing to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels();
}

#[cfg(feature = "cuda")]
fn kernels() {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The headers are no sources of their own, so cudaforge has to be told of them.
    let headers = [
        "src/cross_entropy/team_reduce.cuh",
        "src/cuda_kernel/class_indices.cuh",
        "src/cuda_kernel/element.cuh",
        "src/cuda_kernel/levels.cuh",
        "src/cuda_kernel/reduce.cuh",
        "src/cuda_kernel/row_totals.cuh",
        "src/pointwise/pointwise.cuh",
    ];
    cudaforge::KernelBuilder::new()
        .source_glob("src/**/*.cu")
        .watch(headers)
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx()
        .and_then(|ptx| ptx.write(out.join("ptx.rs")))
        .expect("nvcc compiles the kernels");
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo::metadata=include={manifest}/src");
    println!("cargo::rerun-if-changed=src");
}
