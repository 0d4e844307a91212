//! `cargo xtask cuda-toolchain`: a CUDA compiler for `--features cuda` builds, on a machine with or without a GPU.
//!
//! A system CUDA is used where there is one. Otherwise nvcc 13.0 comes from PyPI by an ordinary `pip download` and lies
//! in `target/cuda-toolchain` afterwards; a second call finds it there and returns at once. 13.0 and no newer, because
//! a driver refuses the PTX of an nvcc that is newer than itself.
//!
//! A `--features cuda` build links `-lcuda`, `-lcublas`, `-lcublasLt`, `-lcurand` and `-lnvrtc`. Only a name and the
//! symbols count at link time, so link stubs take the place of libraries of half a gigabyte (`cuda_stubs`).

use crate::cuda_stubs::{self, Library};
use crate::exit::{self, Failure};
use crate::parallel::processors;
use crate::tools;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HELP: &str = "\
Usage: cargo xtask cuda-toolchain [--bundled] [--runtime] [--json]

Finds a CUDA toolkit (nvcc in CUDA_HOME, CUDA_PATH or on PATH) or brings nvcc 13.0 from PyPI into
target/cuda-toolchain, and prints the environment that a `--features cuda` build needs:

  eval \"$(cargo xtask cuda-toolchain)\"
  cargo build --release --features cuda

  --bundled   ignore a system CUDA and use nvcc 13.0 from PyPI
  --runtime   also bring the real cuBLAS and cuRAND (0.7 GB), for running on a machine that has a GPU and a
              driver but no CUDA toolkit
  --json      one JSON object instead of shell commands
";

/// What compiles: nvcc, its device compiler, and the headers. Names and versions as pip knows them.
const COMPILER: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.*",
    "nvidia-nvvm==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
];

/// What a program needs beside the driver to run on a GPU.
/// NVRTC is linked as well, and dropped by the linker, since candle calls nothing of it.
const RUNTIME: [&str; 3] = [
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cublas==13.0.*",
    "nvidia-curand==10.4.0.*",
];

/// The libraries of CUDA 13 that candle links beside the driver's, which stubs stand in for.
const LIBRARIES: [Library; 5] = [
    cuda_stubs::DRIVER,
    Library {
        name: "cublas",
        soname: "libcublas.so.13",
        module: "cublas",
        versioned: true,
    },
    Library {
        name: "cublasLt",
        soname: "libcublasLt.so.13",
        module: "cublaslt",
        versioned: true,
    },
    Library {
        name: "curand",
        soname: "libcurand.so.10",
        module: "curand",
        versioned: true,
    },
    Library {
        name: "nvrtc",
        soname: "libnvrtc.so.13",
        module: "nvrtc",
        versioned: true,
    },
];

/// The variable that candle's build and ours take the compute capability from.
const COMPUTE_CAPABILITY: &str = "CUDA_COMPUTE_CAP";

/// The variable that says how many kernel files cudaforge, candle's helper around nvcc, compiles at a time.
///
/// By itself it takes half of the processors, and cargo has nothing else to do while it waits for candle's kernels.
const NVCC_PROCESSES: &str = "CUDAFORGE_THREADS";

/// PTX of compute capability 9.0 (H100) unless the caller or the machine's own GPU says otherwise.
const DEFAULT_COMPUTE_CAPABILITY: &str = "90";

/// A release of CUDA, as `nvcc --version` names it.
type Version = (u32, u32);

struct Toolchain {
    home: PathBuf,
    version: Version,
    source: &'static str,
    /// Link stubs, searched after the toolkit's own libraries.
    stubs: PathBuf,
    /// Real runtime libraries, where asked for.
    runtime: Option<PathBuf>,
    notes: Vec<String>,
}

#[derive(Default)]
struct Options {
    bundled: bool,
    runtime: bool,
    json: bool,
}

/// What another command sets for a build or a compiler of its own.
pub(crate) struct Environment {
    variables: Vec<(&'static str, String)>,
    /// nvcc itself.
    pub(crate) nvcc: PathBuf,
    /// The release, as `13.0`.
    pub(crate) version: String,
    /// The compute capability that `--features cuda` builds compile for.
    pub(crate) compute_capability: String,
    /// Link stubs of CUDA's libraries, the driver's among them.
    pub(crate) stubs: PathBuf,
    /// The toolkit's own libraries; of the real ones the CUDA runtime is always there.
    pub(crate) libraries: PathBuf,
}

impl Environment {
    /// The same for another compute capability.
    pub(crate) fn with_compute_capability(mut self, capability: &str) -> Self {
        for (name, value) in &mut self.variables {
            if *name == COMPUTE_CAPABILITY {
                capability.clone_into(value);
            }
        }
        capability.clone_into(&mut self.compute_capability);
        self
    }

    /// Sets the variables for a command.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)))
    }
}

/// The environment of a `--features cuda` build: what this command would print.
pub(crate) fn environment_of_builds() -> Result<Environment, Failure> {
    let toolchain = prepare(&Options::default())?;
    for note in &toolchain.notes {
        exit::note(&format!("note: {note}"));
    }
    Ok(Environment {
        variables: environment(&toolchain)
            .into_iter()
            .map(|(name, value, is_list)| (name, if_list(name, value, is_list)))
            .collect(),
        nvcc: toolchain.home.join("bin/nvcc"),
        version: format!("{}.{}", toolchain.version.0, toolchain.version.1),
        compute_capability: compute_capability(),
        stubs: toolchain.stubs,
        libraries: toolchain.home.join("lib64"),
    })
}

/// The folder of the real cuBLAS, cuRAND and CUDA runtime, brought from PyPI unless they are here.
pub(crate) fn runtime_libraries() -> Result<PathBuf, Failure> {
    let options = Options {
        runtime: true,
        ..Options::default()
    };
    prepare(&options)?
        .runtime
        .ok_or_else(|| Failure::run("the runtime libraries were asked for and not brought"))
}

pub(crate) fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let mut options = Options::default();
    for argument in arguments {
        match argument.to_str() {
            Some("-h" | "--help") => return exit::print(HELP),
            Some("--bundled") => options.bundled = true,
            Some("--runtime") => options.runtime = true,
            Some("--json") => options.json = true,
            _ => {
                return Err(Failure::usage(format!(
                    "unknown argument '{}'\n\n{HELP}",
                    argument.to_string_lossy()
                )));
            }
        }
    }
    let toolchain = prepare(&options)?;
    for note in &toolchain.notes {
        exit::note(&format!("note: {note}"));
    }
    exit::print(&if options.json {
        as_json(&toolchain)
    } else {
        as_shell(&toolchain)
    })
}

/// Finds or brings everything, one process at a time.
fn prepare(options: &Options) -> Result<Toolchain, Failure> {
    let folder = folder();
    create(&folder)?;
    // Two builds that start together must not unpack into each other; the lock goes with the process.
    let lock = fs::File::create(folder.join("lock"))
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| Failure::run(format!("cannot lock {}: {error}", folder.display())))?;
    let mut notes = Vec::new();
    let system = if options.bundled {
        None
    } else {
        system_toolkit(&folder, &mut notes)?
    };
    let (home, version, source) = match system {
        Some((home, version)) => (home, version, "system"),
        None => {
            let home = match brought_before() {
                Some(home) => home,
                None => bring(&folder, "cu13", &COMPILER, finish_compiler)?,
            };
            let version = nvcc_version(&home.join("bin/nvcc")).ok_or_else(|| {
                Failure::run(format!(
                    "{} does not start; delete {} and run this again",
                    home.join("bin/nvcc").display(),
                    home.display()
                ))
            })?;
            (home, version, "pypi")
        }
    };
    let stubbed = match source {
        // A toolkit has its own libraries; only the driver's may be missing where there is no GPU.
        "system" => 1,
        _ => LIBRARIES.len(),
    };
    // Beside the compiler that the environment names, should that lie in another target folder.
    let beside = match (source, home.parent()) {
        ("pypi", Some(parent)) => parent,
        _ => &folder,
    };
    let stubs = cuda_stubs::prepare(beside, &LIBRARIES, stubbed)?;
    let runtime = if options.runtime {
        Some(bring(&folder, "runtime-cu13", &RUNTIME, finish_runtime)?.join("lib"))
    } else {
        None
    };
    drop(lock);
    Ok(Toolchain {
        home,
        version,
        source,
        stubs,
        runtime,
        notes,
    })
}

/// `target/cuda-toolchain`, where cargo's target folder is.
fn folder() -> PathBuf {
    tools::target_folder().join("cuda-toolchain")
}

/// What an earlier call brought into whichever target folder, where `CUDA_HOME` names it: a change of that variable would
/// build candle anew.
fn brought_before() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("CUDA_HOME")?);
    is_brought(&home, &COMPILER).then_some(home)
}

/// Whether `home` holds these very packages, whole.
fn is_brought(home: &Path, packages: &[&str]) -> bool {
    fs::read_to_string(home.join("bundled.json"))
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        .is_some_and(|value| value["packages"] == json!(packages))
}

/// The toolkit that the environment names or PATH holds, if it can be used.
fn system_toolkit(
    ours: &Path,
    notes: &mut Vec<String>,
) -> Result<Option<(PathBuf, Version)>, Failure> {
    let mut candidates = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        let Some(home) = std::env::var_os(variable).filter(|home| !home.is_empty()) else {
            continue;
        };
        let home = PathBuf::from(home);
        let is_ours = home.starts_with(ours);
        if !is_ours && !home.join("bin/nvcc").is_file() {
            return Err(Failure::run(format!(
                "{variable} is {}, which holds no bin/nvcc; correct it, unset it, or pass --bundled",
                home.display()
            )));
        }
        candidates.push(home);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    candidates.extend(
        std::env::split_paths(&path)
            .map(|folder| folder.join("nvcc"))
            .filter_map(|nvcc| nvcc.canonicalize().ok())
            .filter_map(|nvcc| Some(nvcc.parent()?.parent()?.to_owned())),
    );
    for home in candidates {
        // After `eval`, the environment names what an earlier call brought.
        if home.starts_with(ours) || home.join("bundled.json").is_file() {
            continue;
        }
        let Some(version) = nvcc_version(&home.join("bin/nvcc")) else {
            notes.push(format!(
                "{} does not tell its version; passed over",
                home.join("bin/nvcc").display()
            ));
            continue;
        };
        match judge(version) {
            Judgement::Wanted => return Ok(Some((home, version))),
            Judgement::Usable(why) => {
                notes.push(format!(
                    "CUDA {}.{} at {}: {why}",
                    version.0,
                    version.1,
                    home.display()
                ));
                return Ok(Some((home, version)));
            }
            Judgement::Refused(why) => notes.push(format!(
                "CUDA {}.{} at {} passed over: {why}",
                version.0,
                version.1,
                home.display()
            )),
        }
    }
    Ok(None)
}

#[derive(Debug, PartialEq)]
enum Judgement {
    Wanted,
    Usable(&'static str),
    Refused(&'static str),
}

/// What a release of CUDA is good for here. cudarc 0.19 knows the releases up to 13.4.
fn judge(version: Version) -> Judgement {
    match version {
        (13, 0) => Judgement::Wanted,
        (12, _) => Judgement::Usable(
            "older than 13.0, with which this project is checked; its PTX runs on drivers of CUDA 12 and newer",
        ),
        (13, 1..=4) => Judgement::Usable(
            "newer than 13.0: a GPU's driver has to be at least as new, or it refuses the PTX",
        ),
        (13.., _) => Judgement::Refused("newer than the CUDA bindings know"),
        _ => Judgement::Refused("candle's kernels need CUDA 12 or newer"),
    }
}

/// Asks an nvcc for its version; `None` if it does not start or says something else.
fn nvcc_version(nvcc: &Path) -> Option<Version> {
    let output = Command::new(nvcc).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `release 13.0` out of what nvcc prints.
fn parse_version(text: &str) -> Option<Version> {
    let (_, rest) = text.split_once("release ")?;
    let end = rest
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (major, minor) = rest[..end].split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Downloads and unpacks `packages` into `folder/name` unless they are there.
///
/// The stamp `bundled.json` is written before the finished folder is renamed into place, so a folder with a stamp is
/// whole, whatever interrupted an earlier call.
fn bring(
    folder: &Path,
    name: &str,
    packages: &[&str],
    finish: fn(&Path) -> std::io::Result<()>,
) -> Result<PathBuf, Failure> {
    let home = folder.join(name);
    if is_brought(&home, packages) {
        return Ok(home);
    }
    let python = python()?;
    let partial = folder.join(format!("{name}.partial"));
    let wheels = partial.join("wheels");
    remove(&partial)?;
    create(&wheels)?;
    exit::note(&format!("downloading {} with pip", packages.join(", ")));
    download(&python, packages, &wheels)?;
    let names = unpack(&python, &wheels, &partial.join("unpacked"))?;
    let unpacked = partial.join("unpacked/nvidia/cu13");
    finish(&unpacked)
        .and_then(|()| {
            let stamp = json!({ "packages": packages, "wheels": names });
            fs::write(unpacked.join("bundled.json"), format!("{stamp:#}\n"))
        })
        .map_err(|error| {
            Failure::run(format!(
                "cannot put the toolchain in order at {}: {error}",
                unpacked.display()
            ))
        })?;
    remove(&home)?;
    fs::rename(&unpacked, &home)
        .map_err(|error| Failure::run(format!("cannot create {}: {error}", home.display())))?;
    remove(&partial)?;
    Ok(home)
}

/// A Python 3 with pip.
fn python() -> Result<OsString, Failure> {
    let works = |python: &OsStr, arguments: &[&str]| {
        Command::new(python)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let python = [OsString::from("python3"), OsString::from("python")]
        .into_iter()
        .find(|python| works(python, &["-c", "import sys; assert sys.version_info >= (3, 8)"]))
        .ok_or_else(|| {
            Failure::run(
                "no CUDA toolkit was found, and bringing one from PyPI needs Python 3.8 or newer, which is not on PATH; \
                 install Python with pip, or CUDA 13.0",
            )
        })?;
    if !works(&python, &["-m", "pip", "--version"]) {
        return Err(Failure::run(format!(
            "no CUDA toolkit was found, and bringing one from PyPI needs pip, which {} lacks; install pip \
             (Debian: python3-pip), or CUDA 13.0",
            python.to_string_lossy()
        )));
    }
    Ok(python)
}

fn download(python: &OsStr, packages: &[&str], into: &Path) -> Result<(), Failure> {
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--quiet"])
        .args(["--retries", "2", "--timeout", "20"])
        .arg("--dest")
        .arg(into)
        .args(packages)
        .stdout(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::run(format!(
                "cannot start {}: {error}",
                python.to_string_lossy()
            ))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = said.lines().rev().take(6).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    Err(Failure::run(format!(
        "pip could not download {} ({}). pip said:\n  {}\nIs there a network, and are pip's mirror, proxy and certificate \
         settings right? Otherwise install CUDA 13.0 and set CUDA_HOME.",
        packages.join(", "),
        output.status,
        tail.join("\n  ")
    )))
}

/// Unpacks every wheel (a zip file) and returns their names.
fn unpack(python: &OsStr, wheels: &Path, into: &Path) -> Result<Vec<String>, Failure> {
    let mut files: Vec<PathBuf> = fs::read_dir(wheels)
        .map_err(|error| Failure::run(format!("cannot read {}: {error}", wheels.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    let mut names = Vec::new();
    for wheel in &files {
        let output = Command::new(python)
            .args(["-m", "zipfile", "-e"])
            .args([wheel.as_path(), into])
            .output()
            .map_err(|error| Failure::run(format!("cannot start python: {error}")))?;
        if !output.status.success() {
            return Err(Failure::run(format!(
                "cannot unpack {}: {} (a full disk, or a broken download: run this again)",
                wheel.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        names.extend(wheel.file_name().map(|n| n.to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// Makes unpacked compiler wheels look like an installed toolkit and drops what no build of ours reads.
fn finish_compiler(home: &Path) -> std::io::Result<()> {
    for unwanted in [
        ".metadata",
        "lib/cmake",
        "lib/libnvvm.so.4",
        "include/nvvm.h",
    ] {
        let path = home.join(unwanted);
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            // A wheel that has dropped a file that we do not want is no error.
            Err(_) => {}
        }
    }
    // Zip files lose the executable bit.
    for folder in ["bin", "nvvm/bin"] {
        for entry in fs::read_dir(home.join(folder))? {
            let path = entry?.path();
            if path.is_file() {
                make_executable(&path)?;
            }
        }
    }
    link("lib", &home.join("lib64"))?;
    link_unversioned(&home.join("lib"))?;
    // cudarc's build script looks into `lib/stubs` of the toolkit.
    link("../../stubs", &home.join("lib/stubs"))
}

fn finish_runtime(home: &Path) -> std::io::Result<()> {
    fs::remove_dir_all(home.join("include"))?;
    let kept = [
        "libcudart.so.",
        "libcublas.so.",
        "libcublasLt.so.",
        "libcurand.so.",
    ];
    for entry in fs::read_dir(home.join("lib"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !kept.iter().any(|start| name.starts_with(start)) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `libcudart.so -> libcudart.so.13` and so on: the linker asks for the name without a version.
fn link_unversioned(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(end) = name.find(".so.") {
            link(&name, &folder.join(&name[..end + ".so".len()]))?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link(to: &str, at: &Path) -> std::io::Result<()> {
    match std::os::unix::fs::symlink(to, at) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn link(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other(
        "the bundled toolchain is for Linux; install CUDA 13.0 and set CUDA_PATH",
    ))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn create(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .map_err(|error| Failure::run(format!("cannot create {}: {error}", folder.display())))
}

fn remove(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::run(format!(
            "cannot remove {}: {error}",
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// The compute capability to compile for: the caller's, else that of the first GPU here, else an H100's.
fn compute_capability() -> String {
    if let Ok(set) = std::env::var(COMPUTE_CAPABILITY)
        && !set.is_empty()
    {
        return set;
    }
    Command::new("nvidia-smi")
        .args(["--query-gpu=compute_cap", "--format=csv,noheader"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let capability = text.lines().next()?.trim().replace('.', "");
            capability
                .parse::<u32>()
                .ok()
                .map(|number| number.to_string())
        })
        .unwrap_or_else(|| DEFAULT_COMPUTE_CAPABILITY.to_owned())
}

/// The caller's choice, else a process for each processor.
fn nvcc_processes() -> String {
    std::env::var(NVCC_PROCESSES)
        .ok()
        .filter(|set| !set.is_empty())
        .unwrap_or_else(|| processors().to_string())
}

/// The variables of a build; a list of folders goes in front of what the variable holds already.
fn environment(toolchain: &Toolchain) -> Vec<(&'static str, String, bool)> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut variables = vec![
        ("CUDA_HOME", path(&toolchain.home), false),
        ("CUDA_PATH", path(&toolchain.home), false),
        (COMPUTE_CAPABILITY, compute_capability(), false),
        (NVCC_PROCESSES, nvcc_processes(), false),
        ("PATH", path(&toolchain.home.join("bin")), true),
        // Searched by the C compiler that links, after every folder that a build script names.
        ("LIBRARY_PATH", path(&toolchain.stubs), true),
    ];
    if let Some(runtime) = &toolchain.runtime {
        variables.push(("LD_LIBRARY_PATH", path(runtime), true));
    }
    variables
}

/// `value`, in front of what the variable holds already if it is a list.
fn if_list(name: &str, value: String, is_list: bool) -> String {
    if is_list {
        prepended(name, &value)
    } else {
        value
    }
}

/// `value` in front of the present value of the list variable `name`, once.
fn prepended(name: &str, value: &str) -> String {
    match std::env::var(name) {
        Ok(present) => {
            // An empty part would stand for the current folder.
            let rest = present
                .split(':')
                .filter(|part| *part != value && !part.is_empty());
            std::iter::once(value)
                .chain(rest)
                .collect::<Vec<_>>()
                .join(":")
        }
        Err(_) => value.to_owned(),
    }
}

fn as_shell(toolchain: &Toolchain) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    environment(toolchain)
        .into_iter()
        .map(|(name, value, is_list)| {
            let value = if_list(name, value, is_list);
            format!("export {name}={}\n", quote(&value))
        })
        .collect()
}

fn as_json(toolchain: &Toolchain) -> String {
    let environment: serde_json::Map<_, _> = environment(toolchain)
        .into_iter()
        .map(|(name, value, is_list)| (name.to_owned(), if_list(name, value, is_list).into()))
        .collect();
    let value = json!({
        "cuda_home": toolchain.home,
        "version": format!("{}.{}", toolchain.version.0, toolchain.version.1),
        "source": toolchain.source,
        "stubs": toolchain.stubs,
        "runtime": toolchain.runtime,
        "notes": toolchain.notes,
        "environment": environment,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_out_of_what_nvcc_prints() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\n\
                    Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.36424714_0\n";
        assert_eq!(parse_version(text), Some((13, 0)));
        assert_eq!(parse_version("release 12.10, V12.10.1"), Some((12, 10)));
        assert_eq!(parse_version("command not found"), None);
        assert_eq!(parse_version("release of the century"), None);
    }

    #[test]
    fn only_releases_that_the_bindings_know_are_used() {
        assert_eq!(judge((13, 0)), Judgement::Wanted);
        assert!(matches!(judge((12, 4)), Judgement::Usable(_)));
        assert!(matches!(judge((13, 4)), Judgement::Usable(why) if why.contains("driver")));
        for refused in [(11, 8), (13, 5), (14, 0)] {
            assert!(
                matches!(judge(refused), Judgement::Refused(_)),
                "{refused:?}"
            );
        }
    }
}
