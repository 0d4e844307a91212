//! Building the driver and the libraries beside it.

use crate::Error;
use crate::cache::{self, Cache};
use crate::compile::{compiler, in_parallel, run, write};
use crate::toolkit::{Toolkit, emulator_root};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// A shared library: its name for the loader, its sources, and whose functions it stands for.
struct Library {
    soname: String,
    sources: Vec<PathBuf>,
    symbols: Option<&'static str>,
    /// Whether its symbols carry a version node named like the soname, as NVIDIA's do.
    versioned: bool,
}

/// Builds `libcuda.so.1`, cuBLAS, cuRAND and the runtime, if they are not there already.
pub(crate) fn build(toolkit: &Toolkit, cache: &Cache) -> Result<Vec<PathBuf>, Error> {
    let sources = emulator_root().join("libraries");
    let major = toolkit.version.0;
    let versioned = |soname: String, source: &str, symbols| Library {
        soname,
        sources: vec![sources.join(source)],
        symbols,
        versioned: true,
    };
    let mut driver_sources: Vec<_> = std::fs::read_dir(emulator_root().join("driver"))
        .map_err(|error| Error::new(format!("the driver's sources: {error}")))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .collect();
    driver_sources.sort();
    let driver = Library {
        soname: "libcuda.so.1".into(),
        sources: driver_sources,
        symbols: Some("cuda"),
        versioned: false,
    };
    let beside = [
        versioned(
            format!("libcublas.so.{major}"),
            "cublas.cpp",
            Some("cublas"),
        ),
        versioned("libcurand.so.10".into(), "curand.cpp", Some("curand")),
        versioned(format!("libcudart.so.{major}"), "cudart.cpp", None),
    ];
    // The others link against the driver.
    let driver = library(toolkit, cache, &driver, None)?;
    let mut built = in_parallel(&beside, |beside| {
        library(toolkit, cache, beside, Some(&driver))
    })?;
    built.insert(0, driver);
    Ok(built)
}

fn library(
    toolkit: &Toolkit,
    cache: &Cache,
    library: &Library,
    driver: Option<&PathBuf>,
) -> Result<PathBuf, Error> {
    let mut flags: Vec<OsString> = ["-std=c++17", "-O2", "-g", "-fPIC", "-Wall", "-Wextra"]
        .map(OsString::from)
        .into();
    flags.extend(["-I".into(), toolkit.include.clone().into_os_string()]);
    let symbols = match library.symbols {
        Some(name) => toolkit.symbols_of(name)?,
        None => Vec::new(),
    };
    let built = cache.path(
        &library.soname,
        "so",
        &(&flags, &library.sources, &symbols, driver, compiler()),
    );
    if cache::is_current(&built) {
        return Ok(built);
    }
    let objects = in_parallel(&library.sources, |source| {
        let name = source
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let object = cache.path(&name, "o", &(&flags, source, compiler()));
        if !cache::is_current(&object) {
            let rule = object.with_extension("d");
            run(
                Command::new(compiler())
                    .args(&flags)
                    .arg("-c")
                    .arg(source)
                    .args(["-MD".as_ref(), "-MF".as_ref(), rule.as_os_str()])
                    .arg("-o")
                    .arg(&object),
                source,
            )?;
            let rule = std::fs::read_to_string(&rule)
                .map_err(|error| Error::new(format!("{}: {error}", rule.display())))?;
            cache::record(&object, &cache::prerequisites(&rule))?;
        }
        Ok(object)
    })?;
    let mut link = Command::new(compiler());
    link.args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&built)
        .args(&objects);
    if !symbols.is_empty() {
        let missing = built.with_extension("missing.cpp");
        write(&missing, &missing_functions(&symbols))?;
        link.arg(&missing);
    }
    link.arg(format!("-Wl,-soname,{}", library.soname));
    if library.versioned {
        let script = built.with_extension("map");
        write(&script, &format!("{} {{ global: *; }};\n", library.soname))?;
        link.arg(format!("-Wl,--version-script={}", script.display()));
    }
    if let Some(driver) = driver {
        link.arg(driver);
    }
    run(&mut link, &library.sources[0])?;
    // The sources, not the objects, which are only looked at when the library is made anew.
    let made_of: Vec<_> = objects
        .iter()
        .flat_map(|object| cache::recorded(object))
        .collect();
    cache::record(&built, &made_of)?;
    Ok(built)
}

/// A weak definition for each name: a program starts although it names functions that are not emulated, and a call of one
/// says which it was.
fn missing_functions(symbols: &[String]) -> String {
    let mut text = String::from("extern \"C\" int cuda_emu_missing(const char*);\n");
    for name in symbols {
        text.push_str(&format!(
            "extern \"C\" __attribute__((weak)) int {name}() {{ return cuda_emu_missing(\"{name}\"); }}\n"
        ));
    }
    text
}
