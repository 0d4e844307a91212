//! Compiling kernels for the host: g++ preprocesses, [`crate::source`] rewrites, g++ compiles and links.

use crate::cache::{self, Cache};
use crate::link;
use crate::source::{self, Barrier};
use crate::toolkit::{Toolkit, emulator_root};
use crate::{Checks, Error, Kernels};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// What undefined behaviour g++ reports to the driver, beside races and stray accesses.
const SANITIZERS: &str =
    "-fsanitize=bounds,alignment,null,shift,integer-divide-by-zero,signed-integer-overflow";

/// The host compiler; nvcc wants the same one.
pub(crate) fn compiler() -> OsString {
    std::env::var_os("CXX").unwrap_or_else(|| "g++".into())
}

/// Runs a compiler; its messages are the error.
pub(crate) fn run(command: &mut Command, what: &Path) -> Result<(), Error> {
    let output = command.output().map_err(|error| {
        Error::new(format!(
            "cannot start {}: {error}; the emulated driver needs g++",
            command.get_program().to_string_lossy()
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} does not compile for the host:\n{}",
        what.display(),
        String::from_utf8_lossy(&output.stderr).trim_end()
    )))
}

/// Does `work` for each item on all processors, and returns the results in order.
///
/// # Errors
///
/// The error of the first item, in their order, whose work failed.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let queue = Mutex::new((0..items.len()).collect::<VecDeque<_>>());
    let results = Mutex::new((0..items.len()).map(|_| None).collect::<Vec<_>>());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map(|mut queue| queue.pop_front());
                    let Ok(Some(index)) = next else { break };
                    let result = work(&items[index]);
                    if let Ok(mut results) = results.lock() {
                        results[index] = Some(result);
                    }
                }
            });
        }
    });
    let results = results
        .into_inner()
        .map_err(|_| Error::new("a compiling thread panicked"))?;
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Err(Error::new("a compiling thread panicked"))))
        .collect()
}

/// Builds a library per item, if it is not there already.
pub(crate) fn kernels(
    toolkit: &Toolkit,
    cache: &Cache,
    kernels: &[Kernels],
    checks: Checks,
) -> Result<Vec<PathBuf>, Error> {
    in_parallel(kernels, |kernels| library(toolkit, cache, kernels, checks))
}

fn library(
    toolkit: &Toolkit,
    cache: &Cache,
    kernels: &Kernels,
    checks: Checks,
) -> Result<PathBuf, Error> {
    let preprocess = preprocess_arguments(toolkit, kernels, checks);
    let compile = compile_arguments(checks);
    let name = kernels
        .file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let built = cache.path(&name, "so", &(kernels, &preprocess, &compile, compiler()));
    if cache::is_current(&built) {
        return Ok(built);
    }
    let preprocessed = preprocess_file(&kernels.file, &preprocess, &built)?;
    let mut text = preprocessed.text;
    if let Some(index) = kernels.without_barrier {
        let barriers = source::barriers(&text);
        let barrier = barriers.get(index).ok_or_else(|| {
            Error::new(format!(
                "{} has {} barriers, no barrier {index}",
                kernels.file.display(),
                barriers.len()
            ))
        })?;
        text = source::without(&text, barrier);
    }
    let text = source::rewrite(&text)
        .map_err(|error| Error::new(format!("{}: {error}", kernels.file.display())))?;
    let rewritten = built.with_extension("ii");
    let object = built.with_extension("o");
    write(&rewritten, &text)?;
    run(
        Command::new(compiler())
            .args(["-x", "c++-cpp-output"])
            .args(&compile)
            .arg("-c")
            .arg(&rewritten)
            .arg("-o")
            .arg(&object),
        &kernels.file,
    )?;
    link::kernels(&object, &built)?;
    for intermediate in [rewritten, object] {
        let _ = fs::remove_file(intermediate);
    }
    cache::record(&built, &preprocessed.made_of)?;
    Ok(built)
}

pub(crate) fn barriers(
    toolkit: &Toolkit,
    cache: &Cache,
    kernels: &Kernels,
    checks: Checks,
) -> Result<Vec<Barrier>, Error> {
    let arguments = preprocess_arguments(toolkit, kernels, checks);
    let name = cache.path("barriers", "so", &(kernels, &arguments));
    Ok(source::barriers(
        &preprocess_file(&kernels.file, &arguments, &name)?.text,
    ))
}

struct Preprocessed {
    text: String,
    made_of: Vec<PathBuf>,
}

fn preprocess_file(
    file: &Path,
    arguments: &[OsString],
    name: &Path,
) -> Result<Preprocessed, Error> {
    let (output, rule) = (name.with_extension("i"), name.with_extension("d"));
    run(
        Command::new(compiler())
            .args(["-x", "c++"])
            .args(arguments)
            .arg("-MD")
            .arg("-MF")
            .arg(&rule)
            .arg(file)
            .arg("-o")
            .arg(&output),
        file,
    )?;
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| Error::new(format!("{}: {error}", path.display())))
    };
    let preprocessed = Preprocessed {
        text: read(&output)?,
        made_of: cache::prerequisites(&read(&rule)?),
    };
    for intermediate in [output, rule] {
        let _ = fs::remove_file(intermediate);
    }
    Ok(preprocessed)
}

fn preprocess_arguments(toolkit: &Toolkit, kernels: &Kernels, checks: Checks) -> Vec<OsString> {
    let device = emulator_root().join("device");
    let mut arguments: Vec<OsString> = vec!["-E".into(), "-std=gnu++17".into()];
    let mut include = |folder: &Path| {
        arguments.push("-I".into());
        arguments.push(folder.into());
    };
    kernels.includes.iter().for_each(|folder| include(folder));
    include(&device);
    include(&toolkit.include);
    include(&toolkit.include.join("cccl"));
    arguments.push("-include".into());
    arguments.push(device.join("emulated_cuda.h").into());
    let (major, minor) = toolkit.version;
    arguments.push(format!("-DCUDA_EMU_VERSION_MAJOR={major}").into());
    arguments.push(format!("-DCUDA_EMU_VERSION_MINOR={minor}").into());
    if checks == Checks::On {
        arguments.push("-DCUDA_EMU_CHECKED".into());
    }
    arguments.extend(
        kernels
            .defines
            .iter()
            .map(|define| format!("-D{define}").into()),
    );
    arguments
}

fn compile_arguments(checks: Checks) -> Vec<OsString> {
    let mut arguments = vec![
        "-std=gnu++17",
        "-fPIC",
        "-g",
        // CUDA's pragmas and attributes mean nothing here.
        "-w",
        // Shared arrays of half types have constructors that do nothing; a lock around them is not wanted.
        "-fno-threadsafe-statics",
        // A section for each shared variable, and none of them shared between libraries.
        "-fdata-sections",
        "-fno-gnu-unique",
        // Kernels read vectors of floats through pointers to wider types.
        "-fno-strict-aliasing",
        "-ffp-contract=off",
    ];
    match checks {
        // A lower level keeps a line of code apart from the next and compiles in half the time.
        Checks::On => arguments.extend(["-O1", "-fsanitize=thread", SANITIZERS]),
        Checks::Off => arguments.push("-O2"),
    }
    arguments.into_iter().map(OsString::from).collect()
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text)
        .map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))
}
