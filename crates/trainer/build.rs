//! With the feature `cuda`, compiles the optimizer's kernel to PTX; else does nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels();
}

#[cfg(feature = "cuda")]
fn kernels() {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    cudaforge::KernelBuilder::new()
        .source_glob("src/**/*.cu")
        .arg("-std=c++17")
        .arg("-O3")
        .build_ptx()
        .and_then(|ptx| ptx.write(out.join("ptx.rs")))
        .expect("nvcc compiles the kernels");
    println!("cargo::rerun-if-changed=src/optimizer/adam.cu");
}
