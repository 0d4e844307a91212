//! Link stubs of CUDA's libraries: shared objects with the right name and symbols and nothing behind them.
//!
//! A program linked against them runs unchanged against the real libraries, because the loader goes by the name that
//! the stub recorded (its soname). Without a driver it starts only if a folder with the stubs is on the loader's path,
//! and then reports that there is no device. The symbols are those that cudarc, candle's binding to CUDA, declares; lists of
//! them lie beside the stubs for who makes other stand-ins (`tests/emulated-driver`).

use crate::exit::Failure;
use crate::tools;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One library to stand in for.
pub(crate) struct Library {
    /// `-lNAME`.
    pub(crate) name: &'static str,
    /// What the program asks the loader for.
    pub(crate) soname: &'static str,
    /// The module of cudarc that declares its functions.
    pub(crate) module: &'static str,
    /// Whether its symbols carry a version node, which NVIDIA names like the soname.
    pub(crate) versioned: bool,
}

/// The driver's library, which is on a machine with a GPU and in no package.
pub(crate) const DRIVER: Library = Library {
    name: "cuda",
    soname: "libcuda.so.1",
    module: "driver",
    versioned: false,
};

/// What a call into a stub returns: `CUDA_ERROR_STUB_LIBRARY`.
const STUB_LIBRARY: u32 = 34;

/// Makes `folder/stubs` unless it is there: the names of every library of `all`, and stubs of the first `stubbed` of them.
pub(crate) fn prepare(folder: &Path, all: &[Library], stubbed: usize) -> Result<PathBuf, Failure> {
    let stubs = folder.join("stubs");
    let stamp = stubs.join("stubs.json");
    let names: Vec<_> = all[..stubbed].iter().map(|library| library.name).collect();
    let lock = tools::root().join("Cargo.lock");
    let wanted = json!({ "cudarc": locked_version(&lock, "cudarc"), "libraries": names });
    if let Ok(text) = fs::read_to_string(&stamp)
        && serde_json::from_str::<Value>(&text).is_ok_and(|found| found == wanted)
    {
        return Ok(stubs);
    }
    let bindings = bindings()?;
    let partial = folder.join("stubs.partial");
    let made = (|| {
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        for (index, library) in all.iter().enumerate() {
            let names = names_of(library, &bindings)?;
            fs::write(
                partial.join(format!("{}.symbols", library.name)),
                names.join("\n") + "\n",
            )?;
            if index < stubbed {
                make(library, &names, &partial)?;
            }
        }
        fs::write(partial.join("stubs.json"), format!("{wanted:#}\n"))?;
        if stubs.exists() {
            fs::remove_dir_all(&stubs)?;
        }
        fs::rename(&partial, &stubs)
    })();
    match made {
        Ok(()) => Ok(stubs),
        Err(error) => Err(Failure::run(format!(
            "cannot make the link stubs in {}: {error}",
            partial.display()
        ))),
    }
}

/// The version of `package` in a lock file, which names packages and versions on adjacent lines.
fn locked_version(lock: &Path, package: &str) -> Option<String> {
    let text = fs::read_to_string(lock).ok()?;
    let (_, rest) = text.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(rest.split('"').next()?.to_owned())
}

/// The sources of cudarc, fetched by cargo if they are not here yet.
fn bindings() -> Result<PathBuf, Failure> {
    let output = tools::cargo()
        // With every feature of ours, so that CUDA's are among the dependencies.
        .args(["metadata", "--format-version", "1", "--all-features"])
        .arg("--manifest-path")
        .arg(tools::root().join("Cargo.toml"))
        .output()
        .map_err(|error| Failure::run(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::run(format!(
            "cargo cannot resolve the workspace: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::run(format!("cargo metadata printed no JSON: {error}")))?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "cudarc")
        .and_then(|package| Path::new(package["manifest_path"].as_str()?).parent())
        .map(|folder| folder.join("src"))
        .ok_or_else(|| Failure::run("the dependency tree with the feature cuda holds no cudarc"))
}

/// The names of the foreign functions that a source file declares (`fn cuInit(`).
fn declared(source: &str) -> BTreeSet<&str> {
    source
        .split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split_once('('))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .filter(|name| {
            let of_a_library = ["cublas", "curand", "nvrtc"];
            let of_the_driver = name
                .strip_prefix("cu")
                .is_some_and(|rest| rest.starts_with(char::is_uppercase));
            of_the_driver || of_a_library.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

/// The functions that cudarc declares for a library.
fn names_of(library: &Library, bindings: &Path) -> std::io::Result<Vec<String>> {
    let source = bindings.join(library.module).join("sys/mod.rs");
    let source = fs::read_to_string(&source)
        .map_err(|error| std::io::Error::other(format!("{}: {error}", source.display())))?;
    let names: Vec<_> = declared(&source).into_iter().map(str::to_owned).collect();
    if names.is_empty() {
        return Err(std::io::Error::other(format!(
            "cudarc's module {} declares no function",
            library.module
        )));
    }
    Ok(names)
}

fn make(library: &Library, names: &[String], into: &Path) -> std::io::Result<()> {
    let mut code = String::from(
        "/* Made by `cargo xtask cuda-toolchain`: nothing but names to link against. */\n",
    );
    for name in names {
        code.push_str(&format!("int {name}(void) {{ return {STUB_LIBRARY}; }}\n"));
    }
    let c_file = into.join(format!("{}.c", library.name));
    fs::write(&c_file, code)?;
    let shared = into.join(library.soname);
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command
        .args(["-shared", "-fPIC", "-nostdlib", "-w", "-o"])
        .args([&shared, &c_file])
        .arg(format!("-Wl,-soname,{}", library.soname));
    if library.versioned {
        let script = into.join(format!("{}.map", library.name));
        fs::write(&script, format!("{} {{ global: *; }};\n", library.soname))?;
        command.arg(format!("-Wl,--version-script={}", script.display()));
    }
    let output = command.output().map_err(|error| {
        std::io::Error::other(format!(
            "a C compiler is needed ({error}); nvcc needs one too"
        ))
    })?;
    if !output.status.success() {
        return Err(std::io::Error::other(format!(
            "the C compiler failed on {}: {}",
            c_file.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    link(
        library.soname,
        &into.join(format!("lib{}.so", library.name)),
    )
}

#[cfg(unix)]
fn link(to: &str, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(not(unix))]
fn link(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("link stubs are for Linux"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_functions_of_cuda_are_named() {
        let source = "pub unsafe fn cuInit(Flags: u32) -> CUresult {\n extern \"C\" { fn cuInit(Flags: u32); \
                      fn cublasCreate_v2(h: *mut T); } fn load<F: Copy>(name: &str) -> F {} fn culib() -> L {}";
        let names: Vec<_> = declared(source).into_iter().collect();
        assert_eq!(names, ["cuInit", "cublasCreate_v2"]);
    }
}
