//! `cargo xtask kernels`: what ptxas makes of the CUDA kernels, without a GPU.
//!
//! Each `.cu` below `crates/` is compiled for one architecture as its crate's build script compiles it, only to machine code
//! in place of PTX, so that ptxas reports registers, shared memory and spills of every function.

use crate::cuda_toolchain;
use crate::exit::{self, Failure};
use crate::parallel::in_parallel;
use crate::table::markdown;
use crate::tools;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const HELP: &str = "\
Usage: cargo xtask kernels [--arch ARCH] [--json] [FILE.cu...]

Compiles the CUDA kernels with nvcc and prints what ptxas reports of each: registers, shared memory, stack and spills.
Exit code 5 if a kernel spills whose name does not say f64: those of f32, f16 and bf16 must not.

  FILE.cu      kernel files; every .cu below crates/ if none is named
  --arch ARCH  architecture to compile for [default: sm_90]
  --json       one JSON object on standard output instead of a table
";

/// What the build scripts of the crates pass to nvcc; a test compares them.
const FLAGS: [&str; 2] = ["-std=c++17", "-O3"];

/// What ptxas says of one function.
#[derive(Debug, PartialEq)]
struct Function {
    name: String,
    /// The kernel that it is, or that calls it.
    kernel: String,
    registers: Option<u64>,
    shared_bytes: u64,
    stack_bytes: u64,
    spill_store_bytes: u64,
    spill_load_bytes: u64,
}

impl Function {
    fn spills(&self) -> bool {
        self.spill_store_bytes + self.spill_load_bytes > 0
    }

    fn is_kernel(&self) -> bool {
        self.name == self.kernel
    }

    /// In double precision registers are scarce by nature; its spills are shown and no error.
    fn may_spill(&self) -> bool {
        self.kernel.contains("f64")
    }
}

#[derive(Default)]
struct Options {
    architecture: Option<String>,
    json: bool,
    files: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let Some(options) = parse(arguments)? else {
        return exit::print(HELP);
    };
    let architecture = options.architecture.as_deref().unwrap_or("sm_90");
    let files = if options.files.is_empty() {
        kernel_files()?
    } else {
        options.files
    };
    if files.is_empty() {
        return Err(Failure::run("there is no .cu below crates/"));
    }
    let toolchain = cuda_toolchain::environment_of_builds()?;
    let compiled = in_parallel(files, |file| {
        let functions = compile(&toolchain, &file, architecture)?;
        Ok((file, functions))
    })?;
    exit::print(&if options.json {
        as_json(&compiled, architecture, &toolchain.version)
    } else {
        as_table(&compiled, architecture, &toolchain.version)
    })?;
    let spilling: Vec<_> = compiled
        .iter()
        .flat_map(|(_, functions)| functions)
        .filter(|function| function.spills() && !function.may_spill())
        .map(|function| function.name.as_str())
        .collect();
    if spilling.is_empty() {
        return Ok(());
    }
    Err(Failure::check(format!(
        "registers are spilled to memory on {architecture} by {}",
        spilling.join(", ")
    )))
}

fn parse(arguments: &[OsString]) -> Result<Option<Options>, Failure> {
    let mut options = Options::default();
    let mut rest = arguments.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--json" => options.json = true,
            "--arch" => {
                let given = rest.next().filter(|name| name.starts_with("sm_"));
                options.architecture =
                    Some(given.ok_or_else(|| {
                        Failure::usage("--arch takes an architecture such as sm_90")
                    })?);
            }
            file if file.ends_with(".cu") => options.files.push(file.into()),
            other => {
                return Err(Failure::usage(format!(
                    "'{other}' is neither an option nor a .cu file; see `cargo xtask kernels --help`"
                )));
            }
        }
    }
    Ok(Some(options))
}

/// Every `.cu` below `crates/`, in order of path.
pub(crate) fn kernel_files() -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![tools::root().join("crates")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .map_err(|error| Failure::run(format!("cannot read {}: {error}", folder.display())))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Compiles a file to machine code in a scratch folder and reads what ptxas reports.
fn compile(
    toolchain: &cuda_toolchain::Environment,
    file: &Path,
    architecture: &str,
) -> Result<Vec<Function>, Failure> {
    let name = format!(
        "xtask-kernels-{}-{}.cubin",
        std::process::id(),
        file.file_stem().unwrap_or_default().to_string_lossy()
    );
    let cubin = std::env::temp_dir().join(name);
    let mut nvcc = Command::new(&toolchain.nvcc);
    nvcc.arg(format!("-arch={architecture}"))
        .args(["-cubin", "-Xptxas", "-v"])
        .args(FLAGS)
        .arg("-o")
        .args([cubin.as_path(), file]);
    let output = toolchain.apply(&mut nvcc).output().map_err(|error| {
        Failure::run(format!(
            "cannot start {}: {error}",
            toolchain.nvcc.display()
        ))
    })?;
    let _ = fs::remove_file(&cubin);
    // ptxas reports on standard error.
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Failure::run(format!(
            "nvcc does not compile {} for {architecture}:\n{}",
            file.display(),
            said.trim_end()
        )));
    }
    let functions = read_report(&said);
    if functions.iter().any(|function| function.is_kernel()) {
        return Ok(functions);
    }
    Err(Failure::run(format!(
        "ptxas reports no kernel in {}; it said:\n{}",
        file.display(),
        said.trim_end()
    )))
}

/// The functions that ptxas names.
///
/// A kernel is announced, then the properties of functions follow, each with a line of stack and spills, then the kernel's
/// registers.
fn read_report(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    let mut kernel = String::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next().unwrap_or_default().to_owned();
        } else if let Some((_, name)) = line.split_once("Function properties for ") {
            let name = name.trim();
            functions.push(Function {
                name: name.to_owned(),
                kernel: kernel.clone(),
                registers: None,
                shared_bytes: 0,
                stack_bytes: 0,
                spill_store_bytes: 0,
                spill_load_bytes: 0,
            });
        } else if let Some(function) = functions.last_mut()
            && line.contains("bytes stack frame")
        {
            function.stack_bytes = number_before(line, " bytes stack frame").unwrap_or(0);
            function.spill_store_bytes = number_before(line, " bytes spill stores").unwrap_or(0);
            function.spill_load_bytes = number_before(line, " bytes spill loads").unwrap_or(0);
        } else if let Some(registers) = number_before(line, " registers")
            && let Some(function) = functions.iter_mut().rev().find(|f| f.name == kernel)
        {
            function.registers = Some(registers);
            function.shared_bytes = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    functions
}

/// The number that stands before `unit`.
fn number_before(line: &str, unit: &str) -> Option<u64> {
    let (before, _) = line.split_once(unit)?;
    before.rsplit([' ', ',']).next()?.parse().ok()
}

/// The path as a reader of the repository knows it.
fn shown(file: &Path) -> String {
    let relative = file.strip_prefix(tools::root()).unwrap_or(file);
    relative.to_string_lossy().into_owned()
}

fn as_table(compiled: &[(PathBuf, Vec<Function>)], architecture: &str, version: &str) -> String {
    let mut text = format!(
        "# {architecture}, CUDA {version}, nvcc {}\n",
        FLAGS.join(" ")
    );
    let head = [
        "function",
        "registers",
        "shared bytes",
        "stack bytes",
        "spill stores",
        "spill loads",
    ];
    for (file, functions) in compiled {
        let mut table = vec![head.map(str::to_owned).to_vec()];
        for function in functions {
            let called = if function.is_kernel() {
                ""
            } else {
                " (called)"
            };
            table.push(vec![
                format!("{}{called}", function.name),
                function
                    .registers
                    .map_or_else(|| "-".to_owned(), |count| count.to_string()),
                function.shared_bytes.to_string(),
                function.stack_bytes.to_string(),
                function.spill_store_bytes.to_string(),
                function.spill_load_bytes.to_string(),
            ]);
        }
        text.push_str(&format!("\n{}\n\n{}", shown(file), markdown(&table)));
    }
    let functions = || compiled.iter().flat_map(|(_, functions)| functions);
    text.push_str(&format!(
        "\n{} kernels in {} files, {} functions that spill\n",
        functions().filter(|function| function.is_kernel()).count(),
        compiled.len(),
        functions().filter(|function| function.spills()).count(),
    ));
    text
}

fn as_json(compiled: &[(PathBuf, Vec<Function>)], architecture: &str, version: &str) -> String {
    let rows: Vec<Value> = compiled
        .iter()
        .flat_map(|(file, functions)| functions.iter().map(move |function| (file, function)))
        .map(|(file, function)| {
            json!({
                "file": shown(file),
                "function": function.name,
                "kernel": function.kernel,
                "registers": function.registers,
                "shared_bytes": function.shared_bytes,
                "stack_bytes": function.stack_bytes,
                "spill_store_bytes": function.spill_store_bytes,
                "spill_load_bytes": function.spill_load_bytes,
            })
        })
        .collect();
    let value = json!({
        "architecture": architecture,
        "cuda": version,
        "flags": FLAGS,
        "functions": rows,
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sum_f64' for 'sm_90'
ptxas info    : Function properties for sum_f64
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes stack, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 12.082 ms
ptxas info    : Compiling entry function 'sum_f32' for 'sm_90'
ptxas info    : Function properties for sum_f32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for slow_path
    0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
";

    #[test]
    fn registers_shared_memory_and_spills_are_read_for_each_function() {
        let functions = read_report(REPORT);
        let summary: Vec<_> = functions
            .iter()
            .map(|f| {
                (
                    f.name.as_str(),
                    f.is_kernel(),
                    f.registers,
                    f.shared_bytes,
                    f.stack_bytes,
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                ("sum_f64", true, Some(255), 1024, 16),
                ("sum_f32", true, Some(8), 0, 0),
                ("slow_path", false, None, 0, 0)
            ]
        );
        assert_eq!(
            (
                functions[0].spill_store_bytes,
                functions[0].spill_load_bytes
            ),
            (8, 12)
        );
    }

    #[test]
    fn only_double_precision_may_spill() {
        let functions = read_report(REPORT);
        let wrong: Vec<_> = functions
            .iter()
            .filter(|f| f.spills() && !f.may_spill())
            .map(|f| f.name.as_str())
            .collect();
        assert_eq!(wrong, ["slow_path"]);
    }

    #[test]
    fn the_build_scripts_pass_the_same_flags_to_nvcc() {
        for entry in fs::read_dir(tools::root().join("crates")).unwrap() {
            let script = entry.unwrap().path().join("build.rs");
            let Ok(text) = fs::read_to_string(&script) else {
                continue;
            };
            if !text.contains("cudaforge") {
                continue;
            }
            let flags: Vec<_> = text
                .split(".arg(\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .collect();
            assert_eq!(flags, FLAGS, "{}", script.display());
        }
    }
}
