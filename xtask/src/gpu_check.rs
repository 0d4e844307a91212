//! `cargo xtask gpu-check`: a folder that checks and measures everything on a machine with an NVIDIA GPU, which needs neither
//! this repository nor Rust nor CUDA there.
//!
//! What happens on that machine is [`crate::gpu_run`]; this program travels along to do it.

use crate::cuda_build::CudaBuild;
use crate::cuda_toolchain;
use crate::exit::{self, Failure};
use crate::tools::{self, Executable};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const HELP: &str = "\
Usage: cargo xtask gpu-check [--out DIR] [--compute-cap N] [--no-libraries] [--smoke] [--python PATH]

Builds one folder for a machine with an NVIDIA GPU. There, `./run [--python PATH]` runs the gradient checks and the CUDA
tests on the GPU, measures losses and training beside a device copy, PyTorch (eager and compiled) and Liger-Kernel where
the Python has them, and writes everything into one JSON file.

  --out DIR        where to build it [default: target/gpu-check]
  --compute-cap N  compute capability of the kernels, which newer GPUs can run too [default: 80, an A100]
  --no-libraries   leave cuBLAS, cuRAND and the CUDA runtime (0.7 GB, from PyPI) to the machine with the GPU
  --smoke          then run it here with tiny sizes on the emulated driver, to see that it works; no evidence of a GPU
  --python PATH    for --smoke: a Python with PyTorch, whose CPU then stands in
";

/// The oldest GPUs that candle's bf16 kernels run on; their PTX is compiled for newer ones when it is loaded.
const COMPUTE_CAPABILITY: &str = "80";

/// The file that marks a folder as ours, and says what is in it.
const MANIFEST: &str = "build.json";

const RUN: &str = "\
#!/bin/sh
# Checks and measures on this machine's GPU; --help has the options.
here=$(CDPATH= cd -- \"$(dirname -- \"$0\")\" && pwd) || exit 1
exec \"$here/bin/xtask\" gpu-run --folder \"$here\" \"$@\"
";

const README: &str = "\
On a machine with an NVIDIA GPU:

  ./run --python PATH      PATH is a Python with PyTorch for CUDA, and Liger-Kernel if it is to be measured too
  ./run                    without them

It writes gpu-check.json: the GPU, the driver, every check and every measurement, and what could not be run and why.
It needs Linux on x86-64 and NVIDIA's driver of CUDA 13.0 or newer (R580); build.json says which glibc.
";

#[derive(Default)]
struct Options {
    out: Option<PathBuf>,
    compute_capability: Option<String>,
    no_libraries: bool,
    smoke: bool,
    python: Option<OsString>,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let Some(options) = parse(arguments)? else {
        return exit::print(HELP);
    };
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| tools::target_folder().join("gpu-check"));
    let out = std::path::absolute(&out)
        .map_err(|error| Failure::run(format!("{}: {error}", out.display())))?;
    empty(&out)?;
    let capability = options
        .compute_capability
        .as_deref()
        .unwrap_or(COMPUTE_CAPABILITY);
    let build = CudaBuild::new()?.for_compute_capability(capability);
    exit::note(&format!("building for compute capability {capability} ..."));
    let programs = build.executables(
        "build",
        &[
            "--quiet",
            "--bin",
            "xtask",
            "--bin",
            "verify-grads",
            "--bin",
            "gpu-bench",
            "--bin",
            "trainer",
        ],
    )?;
    let tests = build.cuda_tests()?;
    fill(&out, &programs, &tests, &build)?;
    if !options.no_libraries {
        let libraries = cuda_toolchain::runtime_libraries()?;
        copy_all(&libraries, &out.join("lib"))?;
    }
    exit::note(&format!(
        "built {}: copy it to a machine with a GPU and start ./run there",
        out.display()
    ));
    if options.smoke {
        smoke(&out, &build, options.python)?;
    }
    Ok(())
}

fn parse(arguments: &[OsString]) -> Result<Option<Options>, Failure> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = |name: &str| {
            rest.next().cloned().ok_or_else(|| {
                Failure::usage(format!(
                    "{name} needs a value; see `cargo xtask gpu-check --help`"
                ))
            })
        };
        match argument.to_string_lossy().as_ref() {
            "-h" | "--help" => return Ok(None),
            "--out" => options.out = Some(value("--out")?.into()),
            "--no-libraries" => options.no_libraries = true,
            "--smoke" => options.smoke = true,
            "--python" => options.python = Some(value("--python")?),
            "--compute-cap" => {
                let given = value("--compute-cap")?.to_string_lossy().into_owned();
                let number = given.parse::<u32>().ok().filter(|n| (50..1000).contains(n));
                if number.is_none() {
                    return Err(Failure::usage(format!(
                        "--compute-cap takes a number such as 80 or 90, not '{given}'"
                    )));
                }
                options.compute_capability = Some(given);
            }
            other => {
                return Err(Failure::usage(format!(
                    "unknown argument '{other}'; see `cargo xtask gpu-check --help`"
                )));
            }
        }
    }
    if options.python.is_some() && !options.smoke {
        return Err(Failure::usage(
            "--python is for --smoke; on the machine with the GPU give it to ./run",
        ));
    }
    Ok(Some(options))
}

/// Makes way for a new folder. Only what an earlier call built is removed.
fn empty(out: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::run(format!("{}: {error}", out.display()));
    if out.join(MANIFEST).is_file() {
        fs::remove_dir_all(out).map_err(failed)?;
    } else if out.exists() && fs::read_dir(out).map_err(failed)?.next().is_some() {
        return Err(Failure::usage(format!(
            "--out {}: there are other files in it; name a new or empty folder",
            out.display()
        )));
    }
    fs::create_dir_all(out).map_err(failed)?;
    // First of all, so that an interrupted build is known as ours.
    fs::write(out.join(MANIFEST), "{}\n").map_err(failed)
}

fn fill(
    out: &Path,
    programs: &[Executable],
    tests: &[Executable],
    build: &CudaBuild,
) -> Result<(), Failure> {
    let (bin, test_folder) = (out.join("bin"), out.join("tests"));
    for folder in [&bin, &test_folder, &out.join("python"), &out.join("stubs")] {
        fs::create_dir_all(folder)
            .map_err(|error| Failure::run(format!("{}: {error}", folder.display())))?;
    }
    let mut glibc = (0, 0);
    let mut place = |from: &Path, to: &Path| {
        copy(from, to)?;
        let bytes =
            fs::read(to).map_err(|error| Failure::run(format!("{}: {error}", to.display())))?;
        glibc = glibc.max(newest_glibc(&bytes));
        Ok::<_, Failure>(())
    };
    for program in programs {
        place(&program.path, &bin.join(&program.name))?;
    }
    for test in tests {
        let package = test.package.file_name().unwrap_or_default();
        let name = format!("{}-{}", package.to_string_lossy(), test.name);
        place(&test.path, &test_folder.join(name))?;
    }
    copy(
        &tools::root().join("crates/bench/python/gpu.py"),
        &out.join("python/gpu.py"),
    )?;
    // Where there is no driver at all, programs start with this and say so.
    copy(
        &build.toolchain.stubs.join("libcuda.so.1"),
        &out.join("stubs/libcuda.so.1"),
    )?;
    let manifest = json!({
        "commit": first_line("git", &["rev-parse", "HEAD"]),
        "changed_files": first_line("git", &["status", "--porcelain"]).is_some_and(|l| !l.is_empty()),
        "rustc": first_line("rustc", &["--version"]),
        "nvcc": build.toolchain.version,
        "compute_capability": build.toolchain.compute_capability,
        "glibc": format!("{}.{}", glibc.0, glibc.1),
    });
    write(&out.join(MANIFEST), &format!("{manifest:#}\n"))?;
    write(&out.join("README.txt"), README)?;
    write(&out.join("run"), RUN)?;
    make_executable(&out.join("run"))
}

/// The newest version of glibc whose symbols a program names.
fn newest_glibc(program: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"GLIBC_";
    let mut newest = (0, 0);
    for (at, _) in program
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
    {
        let rest = &program[at + MARK.len()..];
        let end = rest
            .iter()
            .position(|byte| !byte.is_ascii_digit() && *byte != b'.')
            .unwrap_or(rest.len());
        let version = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut numbers = version.split('.').map(str::parse::<u32>);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            newest = newest.max((major, minor));
        }
    }
    newest
}

/// The first line that a command prints; none if it cannot be run.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(tools::root())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// Runs the folder here, on the emulated driver.
fn smoke(out: &Path, build: &CudaBuild, python: Option<OsString>) -> Result<(), Failure> {
    let driver = build.emulated_driver()?;
    let report = out.join("gpu-check.json");
    let mut command = Command::new(out.join("run"));
    command
        .arg("--smoke")
        .arg("--driver")
        .arg(&driver)
        .arg("--out")
        .arg(&report);
    if let Some(python) = python {
        command.arg("--python").arg(python);
    }
    let status = command
        .status()
        .map_err(|error| Failure::run(format!("cannot start {}/run: {error}", out.display())))?;
    if !status.success() {
        return Err(Failure::check(format!(
            "the folder's own run failed ({status})"
        )));
    }
    let text = fs::read_to_string(&report)
        .map_err(|error| Failure::run(format!("{}: {error}", report.display())))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::check(format!("{}: {error}", report.display())))?;
    if value["emulated"] != true {
        return Err(Failure::check(format!(
            "{} does not say that its device was emulated",
            report.display()
        )));
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::copy(from, to).map(|_| ()).map_err(|error| {
        Failure::run(format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        ))
    })
}

/// Copies every file of a folder.
fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::run(format!("{}: {error}", from.display()));
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::run(format!("cannot write {}: {error}", path.display())))
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|error| Failure::run(format!("{}: {error}", path.display())))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<(), Failure> {
    Err(Failure::run("the folder is for Linux and is built there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_found_among_the_names_of_a_program() {
        let program = b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.9";
        assert_eq!(newest_glibc(program), (2, 34));
        assert_eq!(newest_glibc(b"GLIBC_"), (0, 0));
    }

    #[test]
    fn a_folder_with_other_files_is_not_emptied() {
        let folder = std::env::temp_dir().join(format!("xtask-gpu-check-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("thesis.tex"), "years").unwrap();
        assert!(empty(&folder).is_err());
        assert!(folder.join("thesis.tex").is_file());
        fs::remove_file(folder.join("thesis.tex")).unwrap();
        assert!(empty(&folder).is_ok(), "an empty folder is taken");
        fs::write(folder.join("old"), "").unwrap();
        assert!(empty(&folder).is_ok(), "one of ours is built anew");
        assert!(!folder.join("old").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
